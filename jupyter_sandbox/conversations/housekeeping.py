"""What a server does now and then, in the background: chores, each in rounds of its own.

It knows when, and no chore. The rules: a chore that is to be done by one server of several holds a
lease from round to round, which another takes over when that server has died; a chore that fails is
logged and tried again in its next round; no chore waits for another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..errors import SandboxError
from ..stores.leases import LONGEST_SECONDS, Leases
from ..stores.server_marks import ServerMarks

_LEASE_ROUNDS = 3  # so many rounds may be late before another server takes a chore over
_LEAST_LEASE_SECONDS = 30.0


@dataclass(frozen=True)
class Chore:
    """Work that is done every so often; ``alone`` is by one server of several."""

    name: str
    every_seconds: float
    work: Callable[[], Awaitable[object]]
    alone: bool

    @property
    def lease_seconds(self) -> float:
        """How long others wait for a server that died in the middle of it."""
        seconds = max(self.every_seconds * _LEASE_ROUNDS, _LEAST_LEASE_SECONDS)
        return min(seconds, LONGEST_SECONDS)


class Housekeeping:
    """The chores of this server.

    Parameters
    ----------
    leases : Leases
    marks : ServerMarks
        Of this server process, which holds the leases.
    """

    def __init__(self, leases: Leases, marks: ServerMarks, log: logging.Logger) -> None:
        self._leases = leases
        self._marks = marks
        self._holder = marks.process_id
        self._log = log
        self._chores: dict[str, Chore] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._started = False

    def __repr__(self) -> str:
        return f"<Housekeeping {', '.join(self._chores)}>"

    def add(
        self,
        name: str,
        every_seconds: float,
        work: Callable[[], Awaitable[object]],
        *,
        alone: bool = True,
    ) -> None:
        """Add a chore; its first round begins at the start."""
        chore = self._chores[name] = Chore(name, every_seconds, work, alone)
        if self._started:
            self._tasks[name] = asyncio.ensure_future(self._keep(chore))

    def start(self) -> None:
        """Begin the rounds. Twice is once."""
        if not self._started:
            self._started = True
            self._tasks = {
                name: asyncio.ensure_future(self._keep(chore))
                for name, chore in self._chores.items()
            }

    async def run_now(self, name: str) -> bool:
        """Do one round of a chore; False if another server holds it. Its errors are raised."""
        chore = self._chores[name]
        if not chore.alone:
            await chore.work()
            return True
        if not await self._take(chore):
            return False
        holding = asyncio.ensure_future(self._hold(chore))
        try:
            await chore.work()
        finally:
            holding.cancel()
            await asyncio.wait([holding])
        return True

    async def close(self) -> None:
        """Stop, and let others do it. Twice is once."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for chore in self._chores.values():
            if chore.alone:
                with contextlib.suppress(SandboxError):
                    await self._leases.release(self._lease(chore), self._holder)
        self._chores.clear()

    async def _keep(self, chore: Chore) -> None:
        while True:
            try:
                await self.run_now(chore.name)
            except SandboxError as exc:
                self._log.warning("chore %s: %s %s", chore.name, exc, exc.detail)
            except Exception:  # a mistake in one round must not end all later ones
                self._log.exception("chore %s failed", chore.name)
            await asyncio.sleep(chore.every_seconds)

    async def _take(self, chore: Chore) -> bool:
        name, seconds = self._lease(chore), chore.lease_seconds
        if await self._leases.take(name, self._holder, seconds):
            return True
        other = await self._leases.holder(name)
        if other and self._marks.is_alive(other):
            return False
        return await self._leases.take(name, self._holder, seconds, ended=other)

    async def _hold(self, chore: Chore) -> None:
        """Go on with the lease of a round that takes long."""
        while True:
            await asyncio.sleep(chore.lease_seconds / 3)
            with contextlib.suppress(SandboxError):
                await self._leases.take(self._lease(chore), self._holder, chore.lease_seconds)

    def _lease(self, chore: Chore) -> str:
        return f"chore:{chore.name}"
