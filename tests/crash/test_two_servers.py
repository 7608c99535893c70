"""Two real server processes on one data directory; stops, signals and kills of each.

What the servers say goes to one log in their directory, which is shown when a test fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from benchmarks.client import CaseFailed
from benchmarks.server import BenchServer

_SECONDS = 60.0
_ENGINES = [
    pytest.param("docker", marks=pytest.mark.docker),
    pytest.param("bubblewrap", marks=pytest.mark.bubblewrap),
]
pytestmark = [pytest.mark.slow, pytest.mark.parametrize("engine", _ENGINES)]


class Pair:
    """Servers with one directory for all they keep."""

    def __init__(self, engine: str, base: Path, settings: tuple[str, ...]) -> None:
        self.engine, self.base, self.settings = engine, base, settings
        self.started: list[BenchServer] = []

    def start(self) -> BenchServer:
        settings = (
            *("--SandboxLifecycle.reap_seconds=5", "--SandboxEgress.presets=github"),
            # What else runs on the machine is not to suspend anything.
            *(
                "--SandboxLifecycle.memory_low_bytes=1",
                "--SandboxLifecycle.memory_stalled_percent=0",
            ),
            *self.settings,
        )
        server = BenchServer(self.engine, self.base, settings=settings)
        self.started.append(server)
        for _ in range(3):  # each waits for a minute
            with contextlib.suppress(CaseFailed):
                server.wait_started()
                return server
        raise CaseFailed("the server did not start")

    def signal(self, server: BenchServer, number: int) -> None:
        """Send a signal to a server and wait for its end."""
        os.kill(server.pid, number)
        server._process.wait(_SECONDS)

    @property
    def sandboxes(self) -> set[str]:
        """The directories of the sandboxes that there are."""
        return {path.name for path in (self.base / "run").glob("????????????")}


@contextlib.contextmanager
def running_pair(engine: str, *settings: str) -> Iterator[Pair]:
    base = Path(tempfile.mkdtemp(prefix="jsb-two", dir="/tmp"))  # short, for sockets
    pair = Pair(engine, base, settings)
    try:
        yield pair
    except BaseException:
        print((base / "server.log").read_text(errors="replace")[-6000:])
        raise
    finally:
        for server in pair.started[:-1]:
            if server._process.poll() is None:
                server._process.kill()
                server._process.wait()
        left = pair.started[-1].stop() if pair.started else []
        subprocess.run(["rm", "-rf", "--one-file-system", "--", str(base)], check=False)
    assert left == [] or pair.started[-1]._process.returncode != 0, left


def text(server: BenchServer, conversation: str, tool: str, **arguments: object) -> str:
    """Call a tool; give the text that the model reads."""
    with contextlib.closing(server.client()) as client:
        path = f"conversations/{conversation}/tools/{tool}"
        result = client.json("POST", path, arguments)
    return "\n".join(part["text"] for part in result["content"] if part["type"] == "text")


def make(server: BenchServer) -> str:
    with contextlib.closing(server.client()) as client:
        return client.create()


def wait_for(condition, what: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what}: nothing came of it"
        time.sleep(0.05)


def begin(server: BenchServer, conversation: str) -> None:
    """Leave a variable, a file and a background job in a conversation's sandbox."""
    text(server, conversation, "python", code=f"x = {conversation[:8]!r}")
    text(server, conversation, "bash", command="echo kept > file; sleep 5000 & echo $! > job")


def check(server: BenchServer, conversation: str) -> None:
    """Find all of it."""
    assert conversation[:8] in text(server, conversation, "python", code="x")
    found = text(server, conversation, "bash", command="cat file; kill -0 $(cat job) && echo alive")
    assert "kept\n" in found
    assert "alive\n" in found


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda n: n.name
)
def test_sandbox_kernel_and_jobs_outlive_their_server_however_it_ends(engine, number):
    # Under nohup these tests, and what they start, are deaf to SIGHUP.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        _outlive(engine, number)
    finally:
        signal.signal(signal.SIGHUP, before)


def _outlive(engine, number) -> None:
    with running_pair(engine) as pair:
        server = pair.start()
        conversation = make(server)
        begin(server, conversation)
        helpers = psutil.Process(server.pid).children(recursive=True)
        helpers = [each for each in helpers if _is_egress(each)]
        assert helpers, "the egress process"
        if number == signal.SIGINT:  # as Ctrl-C in a terminal: to the whole group, and twice
            os.killpg(server.pid, number)
            time.sleep(0.5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server._process.wait(5)
            if server._process.poll() is None:
                pair.signal(server, signal.SIGTERM)
        else:
            pair.signal(server, number)
        _, alive = psutil.wait_procs(helpers, timeout=_SECONDS)
        assert alive == [], "what served sandboxes of a dead server ends with it"
        second = pair.start()
        wait_for(lambda: adopted(second) >= 1, "adoption before any call")
        check(second, conversation)


def test_when_one_of_two_servers_is_killed_the_other_goes_on_with_all(engine):
    with running_pair(engine) as pair:
        first, second = pair.start(), pair.start()
        shared, of_first, of_second = make(first), make(first), make(second)
        with ThreadPoolExecutor(4) as threads:  # made by one of them, used by both, at once
            both = [
                threads.submit(text, server, shared, "bash", command="echo same; cat /proc/1/stat")
                for server in (first, second, first, second)
            ]
            stats = {line for each in both for line in each.result().split("\n") if ") S" in line}
        assert len({line.split()[21] for line in stats}) <= 1
        assert len(pair.sandboxes) == 1
        for server, conversation in ((first, shared), (first, of_first), (second, of_second)):
            begin(server, conversation)
        for conversation in (of_first, of_second):
            check(first, conversation)
            check(second, conversation)
        with ThreadPoolExecutor(2) as threads:
            made = [threads.submit(_make_several, server) for server in (first, second)]
            wait_for(lambda: len(pair.sandboxes) >= 5, "sandboxes on their way")
            pair.signal(first, signal.SIGKILL)
            cut_off, whole = (each.result() for each in made)
        for conversation in (shared, of_first, of_second):
            check(second, conversation)
        for conversation in whole:
            assert "mine\n" in text(second, conversation, "bash", command="cat mine")
        for conversation in cut_off:  # the one it was making is made anew at once
            text(second, conversation, "bash", command="true")
        with contextlib.closing(second.client()) as client:
            named = {each["id"] for each in client.json("GET", "conversations")["conversations"]}
        assert named == {shared, of_first, of_second, *cut_off, *whole}
        wait_for(lambda: len(pair.sandboxes) == len(named), "one sandbox for each conversation")


def _make_several(server: BenchServer) -> list[str]:
    """Make conversations with sandboxes until there are five, or the server is gone."""
    made: list[str] = []
    with contextlib.suppress(OSError, CaseFailed):
        for _ in range(5):
            conversation = make(server)
            made.append(conversation)
            text(server, conversation, "bash", command="echo mine > mine")
    return made


def _is_egress(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):  # it has just ended
        return "jupyter_sandbox.proxies.forward" in process.cmdline()
    return False


def adopted(server: BenchServer) -> float:
    """Give how many sandboxes a server has adopted since its start."""
    with contextlib.closing(server.client()) as client:
        _, body = client.get("/metrics")
    wanted = 'jupyter_sandbox_adopted_total{outcome="adopted"} '
    lines = [line for line in body.decode().splitlines() if line.startswith(wanted)]
    return float(json.loads(lines[0].removeprefix(wanted))) if lines else 0.0
