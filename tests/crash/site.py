"""An installation with one server that dies and is started again: its directories, its API.

The rule: nothing here knows what should be there afterwards (``scene``, ``traces``).
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import secrets
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.server import remove_left

from .launcher import ARMED, SANDBOX_IDS

ROOT = Path(__file__).parents[2]
_START_SECONDS = 60.0
_END_SECONDS = 30.0
_REQUEST_SECONDS = 90.0


class ServerDied(Exception):
    """The connection ended without an answer."""


class Launcher:
    """The program that forks servers."""

    def __init__(self) -> None:
        # Without other extensions of this environment: they are not what is tested.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.launcher"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "JUPYTER_NO_CONFIG": "1"},
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self, **order: Any) -> int:
        """Give a descriptor of the new process (``pidfd``), and its number."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(_END_SECONDS)
        self._process.stdout.close()


class Site:
    """One installation on one engine."""

    def __init__(self, launcher: Launcher, engine: str) -> None:
        self.engine = engine
        self.base = Path(tempfile.mkdtemp(prefix="jsbk", dir="/tmp"))
        self.base.chmod(0o711)  # the users of sandboxes pass through
        self.data, self.run, self.temporary = (self.base / n for n in ("data", "run", "tmp"))
        self.temporary.mkdir()
        self.launcher = launcher
        self.pid = 0
        self._pidfd = -1
        self._port = _free_port()
        self._token = secrets.token_hex(16)
        self._armed = self.base / "armed"
        self._ids = self.base / "ids"
        self._log = self.base / "server.log"
        for file in (self._ids, self._log):
            file.touch()
        os.makedirs(f"{self.base}/root", exist_ok=True)

    def __repr__(self) -> str:
        return f"<Site {self.base} {self.engine} pid={self.pid}>"

    # The server process

    def start(self) -> None:
        """Start a server; it answers some time later."""
        assert not self.pid, "a server runs already"
        settings = {
            "ServerApp": {
                "jpserver_extensions": "jupyter_sandbox=True",
                "root_dir": f"{self.base}/root",
            },
            "SandboxApp": {
                "engine": self.engine,
                "data_dir": self.data,
                "runtime_dir": self.run,
                "start_timeout_seconds": 30,
            },
            # What others on this machine need of its memory suspends and ends nothing here.
            "SandboxLifecycle": {"memory_low_bytes": 1, "memory_stalled_percent": 0},
            # A name that resolves nowhere: there is an egress process, and it reaches nothing.
            "SandboxEgress": {"presets": [], "allow_hosts": "nowhere.invalid"},
        }
        argv = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={self._port}"]
        argv += ["--ServerApp.port_retries=0"]
        for section, values in settings.items():
            argv += [f"--{section}.{name}={value}" for name, value in values.items()]
        env = {
            **{
                f"JUPYTER_{n}_DIR": str(self.base / n.lower())
                for n in ("CONFIG", "DATA", "RUNTIME")
            },
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT)),
            "HOME": os.environ.get("HOME", "/"),
            "TMPDIR": str(self.temporary),
            "JUPYTER_NO_CONFIG": "1",
            "JUPYTER_TOKEN": self._token,
            ARMED: str(self._armed),
            SANDBOX_IDS: str(self._ids),
        }
        self.pid = self.launcher.start(argv=argv, env=env, log=str(self._log))
        with contextlib.suppress(ProcessLookupError):  # it is dead already
            self._pidfd = os.pidfd_open(self.pid)

    def wait_answers(self) -> None:
        """Wait until the server answers; ``ServerDied`` when it ends before that."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                assert self.json("GET", "health")["engine"]
                return
            except ServerDied:
                if self.has_ended(0.02):
                    raise
                assert time.monotonic() < deadline, f"no answer:\n{self.last_words()}"

    def has_ended(self, seconds: float = _END_SECONDS) -> bool:
        """Say whether the process has ended, or ends in time."""
        if self._pidfd >= 0:
            if not select.select([self._pidfd], [], [], seconds)[0]:
                return False
            os.close(self._pidfd)
        self._pidfd, self.pid = -1, 0
        return True

    def signal(self, number: int) -> None:
        """Send a signal to the server, if it is there."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.has_ended()

    def arm(self, name: str) -> None:
        """Let the server, or the next one, die at a point; ``""`` for none."""
        self._armed.write_text(name)

    def died_at(self) -> str:
        """Give the point that a server has died at since the last time; "" for none."""
        hit = self._armed.with_suffix(".hit")
        try:
            return hit.read_text()
        except FileNotFoundError:
            return ""
        finally:
            hit.unlink(missing_ok=True)

    # Its API

    def request(
        self, method: str, path: str, body: object = None, below: str = "/sandbox/api/"
    ) -> tuple[int, bytes]:
        """Give status and body; ``ServerDied`` when there is no answer."""
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_REQUEST_SECONDS)
        try:
            headers = {"Authorization": f"token {self._token}"}
            connection.request(method, f"{below}{path}", data, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (http.client.HTTPException, ConnectionError) as exc:
            raise ServerDied(repr(exc)) from exc
        finally:
            connection.close()

    def json(self, method: str, path: str, body: object = None) -> Any:
        """Give the body of a success."""
        status, answer = self.request(method, path, body)
        assert status < 300, f"{method} {path}: {status} {answer[:500]!r}\n{self.last_words()}"
        return json.loads(answer) if answer else None

    # What it has written

    def rows(self, query: str) -> list[sqlite3.Row]:
        """Give rows of the database; none while there is no such table."""
        with contextlib.closing(sqlite3.connect(self.data / "sandbox.db", timeout=10)) as database:
            database.row_factory = sqlite3.Row
            try:
                return database.execute(query).fetchall()
            except sqlite3.OperationalError as exc:
                if "no such table" in str(exc):
                    return []
                raise

    def sandbox_ids(self) -> set[str]:
        """Give the ids of all sandboxes that an engine was ever asked for."""
        return set(self._ids.read_text().split())

    def last_words(self) -> str:
        return self._log.read_text(errors="replace")[-6000:]

    def close(self) -> None:
        """End the server and all it has made."""
        self.arm("")
        if self.pid:
            self.kill()
        asyncio.run(remove_left(self.engine, self.data))
        with contextlib.suppress(OSError):
            installation = (self.data / "server-id").read_text().strip()
            shutil.rmtree(f"/dev/shm/jsbx-{installation}", ignore_errors=True)
        subprocess.run(["rm", "-rf", "--one-file-system", "--", str(self.base)], check=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
