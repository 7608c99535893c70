"""Ends and removes what no record names any more: at a server's start, and now and then.

Environments of the engine, directories, sockets of dead processes, what the engine itself has left
half done, marks of dead servers. The rules: what there is is listed *before* the records are read,
and a sandbox is written down before anything of it is made, so nothing that is being made is ever
reaped, by whichever server; without an answer of the engine and of the records nothing is; each
thing is one line in the log; what fails is tried again in the next round.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from .. import metrics
from ..errors import SandboxError
from ..sandbox.sandboxes import Sandboxes
from ..stores.server_marks import ServerMarks
from .living import Living

_AT_ONCE = 4


class Reaping:
    """The chore of one server of several."""

    def __init__(
        self, sandboxes: Sandboxes, living: Living, marks: ServerMarks, log: logging.Logger
    ) -> None:
        self._sandboxes = sandboxes
        self._living = living
        self._marks = marks
        self._log = log
        self._turns = asyncio.Semaphore(_AT_ONCE)

    def __repr__(self) -> str:
        return f"<Reaping {self._living!r}>"

    async def reap(self) -> None:
        """Do one round.

        Raises
        ------
        Unavailable
            The engine or the database does not answer: nothing was reaped.
        """
        sandboxes, homes = self._sandboxes, self._sandboxes.homes
        directories = await asyncio.to_thread(sandboxes.directories)
        there = {each.sandbox_id for each in await sandboxes.list()}
        living = await self._living.ids()
        await asyncio.gather(*(self._end(each) for each in sorted(there - living)))
        known = {each[:12] for each in there | living}
        for name in sorted(directories - known):
            await asyncio.to_thread(sandboxes.remove_directories, name)
            self._count("directory", [name])
        alive = [each[:12] for each in living]
        self._count("socket", await asyncio.to_thread(homes.remove_dead_sockets, *alive))
        self._count("directory", await asyncio.to_thread(homes.remove_old))
        self._count("remains", await sandboxes.sweep_engine())
        for process_id in await asyncio.to_thread(self._marks.dead):
            await asyncio.to_thread(self._marks.forget, process_id)
            self._count("mark", [process_id])

    async def _end(self, sandbox_id: str) -> None:
        try:
            async with self._turns:
                await self._sandboxes.remove(sandbox_id)
        except SandboxError as exc:
            self._log.warning("sandbox %s: not reaped: %s %s", sandbox_id, exc, exc.detail)
        else:
            self._count("sandbox", [sandbox_id])

    def _count(self, kind: str, things: Iterable[object]) -> None:
        for thing in things:
            self._log.info("reaped: %s %s", kind, thing)
            metrics.count_reaped(kind)
