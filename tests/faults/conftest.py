"""Fixtures of the faults: the parts of the running server, and a look at what a fault leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.end_to_end.conftest import no_blocking_call_on_the_loop  # noqa: F401

_SECONDS = 20.0
_OF_TESTS = ("EngineSocket", "Server.")  # what stands in for others, which come and go


async def eventually(
    holds: Callable[[], object], seconds: float = _SECONDS, what: object = "it"
) -> None:
    """Wait until it holds, or fail."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not after {seconds:g} s: {what!r}"
        await asyncio.sleep(0.05)


class Held:
    """What the process holds: descriptors, tasks, threads; compared after a fault with before."""

    def __init__(self) -> None:
        self.before = self._count()
        self._slack = 0

    async def is_back(self, slack: int = 0) -> None:
        """Wait until no more is held than before; ``slack`` descriptors are let pass."""
        self._slack = slack
        await eventually(self._is_back, 30, self)

    def __repr__(self) -> str:
        tasks = Counter(task.get_coro().__qualname__ for task in asyncio.all_tasks())
        paths = Counter()
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                paths[os.readlink(f"/proc/self/fd/{name}").partition(":")[0]] += 1
        return f"before: {self.before}, now: {self._count()}, {tasks}, {paths}"

    def _is_back(self) -> bool:
        gc.collect()
        fds, tasks, threads = (
            now - then for now, then in zip(self._count(), self.before, strict=True)
        )
        # Executors keep their threads; there is a bound on each.
        return fds <= self._slack and tasks <= 0 and threads <= 12

    def _count(self) -> tuple[int, int, int]:
        tasks = sum(
            not task.get_coro().__qualname__.startswith(_OF_TESTS) for task in asyncio.all_tasks()
        )
        return len(os.listdir("/proc/self/fd")), tasks, threading.active_count()


@pytest.fixture
def app(jp_serverapp):
    """The extension of the running server."""
    return jp_serverapp.web_app.settings["jupyter_sandbox"]
