"""A Jupyter Server of its own for a subcommand: another port, token, data and sockets.

It reads the user's Jupyter configuration as any server does, so that what it shows holds for
theirs. The rule: nothing of it stays.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..demo.assistant import Server

_START_SECONDS = 60.0


class ServerFailed(Exception):
    """The server did not start."""


@contextlib.contextmanager
def temporary_server(base: Path, engine: str, settings: Sequence[str] = ()) -> Iterator[Server]:
    """Run a server while the block runs; ``engine`` "" leaves it to the user's configuration.

    Parameters
    ----------
    base : Path
        A directory of this caller, for the server's files and its ``server.log``.
    settings : sequence of str
        Further settings, each as ``--Class.name=value``.

    Raises
    ------
    ServerFailed
        It did not start.
    """
    token = secrets.token_hex(16)
    port = _free_port()
    root_dir = base / "root"  # not above what no user may read
    root_dir.mkdir()
    command = [
        *(sys.executable, "-m", "jupyter", "server", "--no-browser", "--ip=127.0.0.1"),
        *(f"--port={port}", f"--ServerApp.root_dir={root_dir}", "--ServerApp.port_retries=0"),
        *(f"--SandboxApp.data_dir={base / 'data'}", f"--SandboxApp.runtime_dir={base / 'run'}"),
        *("--SandboxApp.db_url=", "--SandboxApp.master_key_file="),  # those in its data_dir
        *([f"--SandboxApp.engine={engine}"] if engine else []),
        *(["--allow-root"] if os.getuid() == 0 else []),
        *settings,
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
    raise ServerFailed("the server did not start")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
