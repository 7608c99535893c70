"""``jupyter sandbox demo``: a server of its own, the scripted assistant at work, its files."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from jupyter_core.application import JupyterApp
from traitlets import Enum, Unicode

from ..demo.assistant import Assistant, DemoFailed, Server

_START_SECONDS = 60.0


class DemoApp(JupyterApp):
    """Show a whole job of an assistant, from a CSV to a shared chart and workbook."""

    name = "jupyter-sandbox-demo"
    description = __doc__ or ""

    engine = Enum(
        ("auto", "docker", "bubblewrap"), default_value="auto", help="What makes the sandbox."
    ).tag(config=True)
    output = Unicode("demo-output", help="Directory that the shared files are put into.").tag(
        config=True
    )

    aliases = {"engine": "DemoApp.engine", "output": "DemoApp.output"}  # noqa: RUF012

    def start(self) -> None:
        """Run the demo; exit with 1 and the reason if a step fails."""
        base = Path(tempfile.mkdtemp(prefix="jsb-demo", dir="/tmp"))
        try:
            with _server(base, self.engine) as server:
                conversation, cards = Assistant(server, print).work()
                target = Path(self.output).resolve()
                target.mkdir(parents=True, exist_ok=True)
                for card in cards:
                    relative = card["path"].removeprefix("/mnt/user-data/outputs/")
                    server.download(f"{conversation}/{relative}", target / card["name"])
                    print(f"shared: {target / card['name']} ({card['size_bytes']:,} bytes)")
                server.request("DELETE", f"conversations/{conversation}")
        except DemoFailed as exc:
            print(f"the demo failed: {exc}", file=sys.stderr)
            log = base / "server.log"
            if log.exists():
                print(log.read_text()[-4000:], file=sys.stderr)
            self.exit(1)
        finally:
            subprocess.run(["rm", "-rf", "--one-file-system", "--", str(base)], check=False)


@contextlib.contextmanager
def _server(base: Path, engine: str) -> Iterator[Server]:
    """Run a Jupyter Server with the extension while the block runs."""
    token = secrets.token_hex(16)
    port = _free_port()
    command = [
        *(sys.executable, "-m", "jupyter", "server", "--no-browser", "--ip=127.0.0.1"),
        *(f"--port={port}", f"--ServerApp.root_dir={base}", "--ServerApp.port_retries=0"),
        *(f"--SandboxApp.engine={engine}", f"--SandboxApp.data_dir={base / 'data'}"),
        f"--SandboxApp.runtime_dir={base / 'run'}",
        *(["--allow-root"] if os.getuid() == 0 else []),
    ]
    environment = {**os.environ, "JUPYTER_TOKEN": token}
    with (base / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        server = Server(f"http://127.0.0.1:{port}", token)
        _await_start(process, server.url)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_start(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/api", timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise DemoFailed("the server did not start")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
