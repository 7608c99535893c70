"""First calls of new conversations on a server with a warm pool, one by one and many at once.

A first result is timed as public sandbox benchmarks do it: from asking for a sandbox (here: a new
conversation) to the result of its first command. The rule: the pool is full before each round, and
what clears up is not in the time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from .arms import Arm, Sample
from .client import CaseFailed, SandboxClient
from .server import BenchServer, running_server

_FULL_SECONDS = 120.0
_SETTLE_SECONDS = 0.3
_GAUGE = "jupyter_sandbox_pool_ready "
_ECHO = "echo hello"
_PASS = "pass"


class Pool:
    """A server with a pool of this size."""

    def __init__(self, server: BenchServer, size: int) -> None:
        self.server = server
        self._size = size
        self._client = server.client()
        self._warm = ""

    def close(self) -> None:
        self._client.close()

    def wait_full(self) -> None:
        """Wait until as many are ready as there should be."""
        deadline = time.monotonic() + _FULL_SECONDS
        while self._client.metric(_GAUGE) != self._size:
            if time.monotonic() > deadline:
                raise CaseFailed("the warm pool is not full")
            time.sleep(0.05)
        time.sleep(_SETTLE_SECONDS)

    def first_call(self, tool: str) -> Arm:
        """Give the arm of a conversation's first call, without its creation."""

        def arm() -> float:
            self.wait_full()
            conversation = self._client.create()
            started = time.perf_counter()
            _call(self._client, conversation, tool)
            seconds = time.perf_counter() - started
            self._client.delete(conversation)
            return seconds

        return arm

    def warm_call(self, tool: str) -> Arm:
        """Give the arm of the same call where it is not the first."""
        if not self._warm:
            self.wait_full()
            self._warm = self._client.create()

        def arm() -> float:
            started = time.perf_counter()
            _call(self._client, self._warm, tool)
            return time.perf_counter() - started

        arm()
        return arm

    def first_result(self) -> Arm:
        """Give the arm from a conversation's creation to its first result."""
        plain = first_result(self._client)

        def arm() -> float:
            self.wait_full()
            return plain()

        return arm


@contextlib.contextmanager
def pooled(engine: str, size: int) -> Iterator[Pool]:
    """Run a server with a pool; its spare sandboxes go with it."""
    settings = [f"--SandboxLifecycle.warm_pool_size={size}"]
    with running_server(engine, settings=settings, spares=size) as server:
        pool = Pool(server, size)
        try:
            yield pool
        finally:
            pool.close()


def first_result(client: SandboxClient) -> Arm:
    """Give the arm from a conversation's creation to its first result, on any server."""

    def arm() -> float:
        started = time.perf_counter()
        conversation = client.create()
        _call(client, conversation, "bash")
        seconds = time.perf_counter() - started
        client.delete(conversation)
        return seconds

    return arm


def first_results_at_once(server: BenchServer, count: int) -> Sample:
    """Give the times of so many clients that each want a first result at the same moment."""
    clients = [server.client() for _ in range(count)]
    try:
        with ThreadPoolExecutor(count) as threads:
            return Sample(tuple(threads.map(lambda client: first_result(client)(), clients)))
    finally:
        for client in clients:
            client.close()


def _call(client: SandboxClient, conversation: str, tool: str) -> None:
    if tool == "bash":
        client.call(conversation, "bash", command=_ECHO)
    else:
        client.call(conversation, "python", code=_PASS)
