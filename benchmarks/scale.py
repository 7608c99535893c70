"""Many conversations at once: ``python -m benchmarks.scale [--engine docker] [--count 200]``.

They are created, used (bash and Python), suspended, woken, terminated and deleted; after each step
it is said how long that took, what a sandbox takes of the host's memory, and what the server holds.
By hand: at 200 it takes minutes and some 10 GiB of memory.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .cases import suspend
from .client import CaseFailed, SandboxClient
from .engine_verbs import EngineVerbs, verbs_of
from .sandbox_memory import memory_of
from .server import UNLIMITED, BenchServer, running_server

PROBE = "--ServerApp.jpserver_extensions=benchmarks.probe=True"
_AT_ONCE = 4
_SAMPLED = 12
_SETTLE_SECONDS = 5.0
_MIB = 1024**2
_LINE = "{:<12} {:>8} {:>12} {:>12} {:>12} {:>6} {:>8} {:>6}"


def main() -> int:
    """Measure and print a table; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--engine", choices=["docker", "bubblewrap"], default="docker")
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    settings = (PROBE, *UNLIMITED, "--SandboxEgress.presets=[]")
    try:
        with running_server(options.engine, settings=settings) as server, verbs_of(server) as verbs:
            Scale(server, verbs, options.count).run()
    except CaseFailed as exc:
        print(f"failed: {exc}", file=sys.stderr)
        return 1
    return 0


class Scale:
    """One run."""

    def __init__(self, server: BenchServer, engine: EngineVerbs, count: int) -> None:
        self._server = server
        self._engine = engine
        self._count = count
        self._available = 0

    def run(self) -> None:
        """Take all the steps."""
        head = ("step", "seconds", "PSS each", "host each", "server", "fds", "threads", "tasks")
        print(f"{self._server.engine}, {self._count} conversations\n{_LINE.format(*head)}")
        warm = self._create(_AT_ONCE)
        self._each(warm, lambda client, each: client.delete(each))
        self._available = _available()
        self._report("before", 0.0, [])
        began = time.monotonic()
        crowd = self._create(self._count)
        self._step("used", began, crowd, settle=True)
        began = time.monotonic()
        self._each(crowd, suspend)
        self._step("suspended", began, crowd)
        began = time.monotonic()
        self._each(crowd, _look)
        self._step("woken", began, crowd)
        began = time.monotonic()
        self._each(crowd, lambda c, each: c.json("POST", f"conversations/{each}/terminate", {}))
        self._step("terminated", began, [])
        began = time.monotonic()
        self._each(crowd, lambda client, each: client.delete(each))
        self._step("deleted", began, [], settle=True)

    def _create(self, count: int) -> list[str]:
        def one(client: SandboxClient, _: str) -> str:
            conversation = client.create()
            client.call(conversation, "bash", command="echo hello > kept")
            client.call(conversation, "python", code="x = 41")
            return conversation

        return self._each([""] * count, one)

    def _each(self, crowd: Sequence[str], work: Callable[[SandboxClient, str], Any]) -> list[Any]:
        """Do something with each, some at once."""

        def share(number: int) -> list[Any]:
            client = self._server.client()
            try:
                return [work(client, each) for each in crowd[number::_AT_ONCE]]
            finally:
                client.close()

        with ThreadPoolExecutor(_AT_ONCE) as threads:
            return [each for found in threads.map(share, range(_AT_ONCE)) for each in found]

    def _step(self, name: str, began: float, crowd: list[str], settle: bool = False) -> None:
        seconds = time.monotonic() - began
        if settle:
            time.sleep(_SETTLE_SECONDS)
        self._report(name, seconds, crowd)

    def _report(self, name: str, seconds: float, crowd: list[str]) -> None:
        client = self._server.client()
        status, body = client.get("/probe")
        if status != 200:
            raise CaseFailed(f"the probe: {status}")
        held = json.loads(body)
        some = crowd[:: max(1, len(crowd) // _SAMPLED)]
        taken = [memory_of(self._engine, client, each) for each in some]
        client.close()
        each = statistics.median(taken) if taken else 0
        host = (self._available - _available()) / len(crowd) if crowd else 0
        print(
            _LINE.format(
                *(name, f"{seconds:.1f}", _mib(each), _mib(host), _mib(held["resident_bytes"])),
                *(held["descriptors"], held["threads"], held["tasks"]),
            ),
            flush=True,
        )


def _look(client: SandboxClient, conversation: str) -> None:
    """Wake one by a call, and see that its variables are kept."""
    client.call(conversation, "bash", command="test -s kept")
    if b"42" not in client.call(conversation, "python", code="x + 1"):
        raise CaseFailed("a variable was lost")


def _available() -> int:
    found = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    assert found is not None
    return int(found[1]) * 1024


def _mib(size: float) -> str:
    return f"{size / _MIB:.1f} MiB" if size else "–"


if __name__ == "__main__":
    sys.exit(main())
