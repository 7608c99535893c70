"""A stock Jupyter Server takes a conversation for its gateway; nbclient runs a notebook on it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

SECONDS = 60


@pytest.fixture
def front(sandbox_server, tmp_path):
    """A stock Jupyter Server whose kernels are a conversation's; gives its URL and that one's id.

    It asks for no token: nbclient's client of gateways sends none on its websocket. The one that
    opens the conversation is known to this server alone, as in a site where it serves a person.
    """
    conversation = sandbox_server.conversation()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [
        *(sys.executable, "-m", "jupyter", "server", "--no-browser", "--ip=127.0.0.1"),
        *(f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={tmp_path}"),
        "--ServerApp.jpserver_extensions={'jupyter_sandbox': False, 'jupyterlab': False}",
        *("--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"),
        f"--gateway-url={sandbox_server.of(conversation)}",
        *(["--allow-root"] if os.getuid() == 0 else []),
    ]
    env = {
        **os.environ,
        "JUPYTER_GATEWAY_AUTH_TOKEN": sandbox_server.token,
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "run"),
    }
    log = tmp_path / "front.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            words, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    try:
        url = f"http://127.0.0.1:{port}/"
        wait_until_it_answers(process, f"{url}api", log)
        yield url, conversation
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        print(log.read_text()[-4000:])


def wait_until_it_answers(process: subprocess.Popen, url: str, log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.05)
    raise AssertionError(log.read_text()[-4000:])


def ask(url: str) -> object:
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:
        return json.load(answer)


def test_nbclient_runs_a_notebook_and_interrupts_a_cell(sandbox_server, front):
    url, conversation = front
    assert list(ask(f"{url}api/kernelspecs")["kernelspecs"]) == ["sandbox-python"]
    program = [sys.executable, str(Path(__file__).parent / "run_notebook.py"), url]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    first, written, failed, stopped, after, page = json.loads(done.stdout)
    assert sorted((o["name"], o["text"]) for o in first if o["output_type"] == "stream") == [
        ("stderr", "on stderr\n"),
        ("stdout", "on stdout\n"),
    ]
    assert first[-1]["data"] == {"text/plain": "42"}
    assert written[0]["data"] == {"text/plain": "10"}
    assert [output["ename"] for output in failed] == ["ZeroDivisionError"]
    assert stopped[0]["text"] == "go\n"
    assert stopped[1]["ename"] == "KeyboardInterrupt"
    assert after[0]["text"] == "43\n"
    assert page[0]["data"]["text/html"] == "<b>bold</b>"
    # it was the sandbox, and nothing of it is left in the stock server
    left = sandbox_server.text(conversation, "bash", command="cat left-by-the-notebook")
    assert "\n/workspace\n[exit code 0" in left
    assert ask(f"{url}api/kernels") == []
