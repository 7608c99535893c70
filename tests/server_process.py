"""A Jupyter server as a process of its own, that a test can kill and start again on the same data.

Its port and token stay, so a client of it only sees that it was away. The rule: ``close`` ends what
was started, and the sandboxes that are left.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from jupyter_sandbox.client import SandboxClient

_START_SECONDS = 150.0


class ServerProcess:
    """A server on ``engine`` whose files are below ``base``; not started yet."""

    program: tuple[str, ...] = ("jupyter", "server")

    def __init__(self, base: Path, engine: str, *settings: str) -> None:
        self.base = base
        self.engine = engine
        self.settings = settings
        self.token = secrets.token_hex(16)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        (base / "root").mkdir(parents=True, exist_ok=True)

    def __repr__(self) -> str:
        return f"<ServerProcess {self.engine} {self.process and self.process.pid}>"

    @property
    def url(self) -> str:
        """Of the server, without a final slash."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [
            *(sys.executable, "-m", *self.program, "--no-browser", "--ip=127.0.0.1"),
            *(f"--port={self.port}", "--ServerApp.port_retries=0"),
            f"--ServerApp.root_dir={self.base / 'root'}",
            f"--SandboxApp.engine={self.engine}",
            f"--SandboxApp.data_dir={self.base / 'data'}",
            f"--SandboxApp.runtime_dir={self.base / 'run'}",
            "--SandboxEgress.presets=[]",
            *(["--allow-root"] if os.getuid() == 0 else []),
            *self.settings,
        ]
        with (self.base / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, "JUPYTER_TOKEN": self.token},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.url}/api", timeout=5).close()
                return
            time.sleep(0.05)
        self.kill()
        raise AssertionError(f"the server did not start: {self.log()[-2000:]}")

    def kill(self) -> None:
        """End it at once, as ``kill -9`` does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as an administrator does."""
        self._end(signal.SIGTERM)

    def client(self) -> SandboxClient:
        """Give a client of it; the caller closes it."""
        return SandboxClient(self.url, self.token)

    def log(self) -> str:
        """Give what it has logged since its first start."""
        return (self.base / "server.log").read_text(errors="replace")

    def close(self) -> None:
        """Delete all conversations, with their sandboxes, and end the server."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        try:
            with self.client() as client:
                after = ""
                while after is not None:
                    page = client._http.get("api/conversations", params={"after": after}).json()
                    for model in page["conversations"]:
                        client.existing(model["id"]).delete()
                    after = page.get("next")
        finally:
            self.stop()

    def _end(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
