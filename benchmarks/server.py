"""A real Jupyter Server with the extension in a process of its own; it leaves nothing behind.

Everything it has lies in one temporary directory. The rule: whatever ends the benchmark, its
conversations are deleted, its process is ended, and what its engine still has is removed and
reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jupyter_sandbox.engines.base import Engine
from jupyter_sandbox.engines.bubblewrap import BubblewrapEngine
from jupyter_sandbox.engines.docker import DockerEngine

from .client import CaseFailed, SandboxClient

UNLIMITED = (
    "--SandboxLimits.conversations_per_hour=0",
    "--SandboxLimits.calls_per_minute=0",
    "--SandboxLifecycle.running_per_user=0",
    "--SandboxLifecycle.running_total=0",
    "--SandboxLifecycle.live_per_user=0",
    "--SandboxLifecycle.live_total=0",
)
"""Settings of a server that takes any number of conversations, calls and sandboxes."""

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_LOG_BYTES = 4000


class BenchServer:
    """One server on one engine.

    Attributes
    ----------
    pid : int
        Of the server process, for its memory.
    directory : Path
        For files of the benchmark; goes with the server.
    port : int
        On loopback.
    url : str
        Ends with ``/``.
    token : str
        What the server takes for a login.
    """

    def __init__(
        self,
        engine: str,
        base: Path,
        profile: Path | None = None,
        settings: Sequence[str] = (),
        command: Sequence[str] = ("-m", "jupyter", "server"),
    ) -> None:
        self.engine = engine
        self.directory = base
        self.token = secrets.token_hex(16)
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._log = base / "server.log"
        (base / "root").mkdir(exist_ok=True)
        program = [*command]
        if profile is not None:
            program = ["-m", "benchmarks.profiled_server", str(profile)]
        words = [
            *(sys.executable, *program, "--no-browser", "--ip=127.0.0.1"),
            *(
                f"--port={self.port}",
                "--ServerApp.port_retries=0",
                f"--ServerApp.root_dir={base / 'root'}",
            ),
            "--ServerApp.jpserver_extensions=jupyter_sandbox=True",
            *(f"--SandboxApp.engine={engine}", f"--SandboxApp.data_dir={base / 'data'}"),
            f"--SandboxApp.runtime_dir={base / 'run'}",
            *(["--allow-root"] if os.getuid() == 0 else []),
            *settings,
        ]
        private = {
            name: str(base / name.lower())
            for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
        }
        self._words = words
        self._environment = {**os.environ, **private, "JUPYTER_TOKEN": self.token}
        self._process = self._start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.kill()
        self._process.wait()

    def start_again(self) -> None:
        """Start it once more after its end: on the same data, at the same address."""
        self._process = self._start()
        self.wait_started()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._words,
                env=self._environment,
                cwd=Path(__file__).parents[1],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the benchmark, which then clears up
            )

    def wait_started(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.url}api", timeout=5).close()
                return
            except OSError:
                time.sleep(0.05)
        raise CaseFailed(f"the server did not start:\n{self.last_words()}")

    def client(self) -> SandboxClient:
        """Give a client on a connection of its own."""
        return SandboxClient(self.port, self.token)

    def last_words(self) -> str:
        """Give the end of the server's log."""
        with contextlib.suppress(OSError):
            return self._log.read_text(errors="replace")[-_LOG_BYTES:]
        return ""

    def stop(self) -> list[str]:
        """Delete, end and look; give what had been left behind (and is gone now)."""
        if self._process.poll() is None:
            with contextlib.suppress(OSError, CaseFailed):
                client = self.client()
                for conversation in client.conversations():
                    client.delete(conversation)
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        with ThreadPoolExecutor(1) as thread:  # the caller's may have a loop (Playwright's)
            left = remove_left(self.engine, self.directory / "data")
            return thread.submit(asyncio.run, left).result()


async def remove_left(engine_name: str, data: Path) -> list[str]:
    """Remove the sandboxes that a server with this data directory has left; say which."""
    try:
        server_id = (data / "server-id").read_text().strip()
    except OSError:
        return []
    engine: Engine = DockerEngine()
    if engine_name == "bubblewrap":
        engine = BubblewrapEngine(state_dir=str(data / "bubblewrap"))
    try:
        left = [found.sandbox_id for found in await engine.list(server_id)]
        for sandbox_id in left:
            await engine.remove(sandbox_id)
    finally:
        await engine.close()
    return [f"{engine_name} sandbox {sandbox_id}" for sandbox_id in left]


@contextlib.contextmanager
def running_server(
    engine: str,
    profile: Path | None = None,
    settings: Sequence[str] = (),
    command: Sequence[str] = ("-m", "jupyter", "server"),
    spares: int = 0,
) -> Iterator[BenchServer]:
    """Run a server while the block runs; afterwards nothing of it is left.

    Parameters
    ----------
    settings : sequence of str
        Further words, as ``--SandboxLimits.upload_bytes=1000``.
    command : sequence of str
        What Python runs: ``("-m", "jupyter", "lab")`` has JupyterLab too.
    spares : int
        Sandboxes of a warm pool, which a server that stops leaves to the next one.

    Raises
    ------
    CaseFailed
        It did not start, or it left a sandbox behind though all conversations were deleted.
    """
    base = Path(tempfile.mkdtemp(prefix="jsb-bench", dir="/tmp"))  # short, for sockets
    server = None
    left: list[str] = []
    try:
        server = BenchServer(engine, base, profile, settings, command)
        server.wait_started()
        yield server
    finally:
        with _without_interrupts():
            if server is not None:
                left = server.stop()
            subprocess.run(["rm", "-rf", "--one-file-system", "--", str(base)], check=False)
    if len(left) > spares:
        raise CaseFailed(f"left behind: {', '.join(left)}")


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let a second Ctrl-C wait until the clearing up is done."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
