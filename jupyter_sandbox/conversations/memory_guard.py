"""Watches the memory of the host and gives some back before its kernel has to kill for it.

How short it is and what to do about it, the policy decides (``policy.memory``,
``policy.evictions``). The rule: one move at a time, and a new reading before the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from .. import metrics
from ..models import Lifecycle
from ..policy.evictions import MoveKind, to_free_memory
from ..policy.memory import Level, Memory, level_of
from ..sandbox.host_memory import read_memory
from ..sandbox.sandboxes import Sandboxes
from .evictions import Evictions

LOOK_SECONDS = 1.0
_MOST_MOVES = 20  # in one round
_SETTLE_SECONDS = 0.5
_WHY = "the host's memory ran short and it was not in use"
_WHY_IN_USE = "the host's memory was almost used up, most of it by its owner's sandboxes"


class MemoryGuard:
    """The watch of one server over its host.

    Attributes
    ----------
    read : callable
        Gives a reading; None where there is none to be had. Tests put theirs here.
    memory : Memory or None
        The last reading.
    level : Level
        What it means.
    """

    def __init__(
        self, evictions: Evictions, sandboxes: Sandboxes, limits: Lifecycle, log: logging.Logger
    ) -> None:
        self._evictions = evictions
        self._sandboxes = sandboxes
        self._limits = limits
        self._log = log
        self.read: Callable[[], Memory | None] = read_memory
        self.memory: Memory | None = None
        self.level = Level.ENOUGH

    def __repr__(self) -> str:
        return f"<MemoryGuard {self.level} {self.memory}>"

    async def look(self) -> None:
        """Look once; suspend and end idle sandboxes until there is enough, or nothing is left."""
        await self._measure()
        moved = 0
        while self.level is not Level.ENOUGH and moved < _MOST_MOVES:
            # Only what is on this host: others on the same database have hosts of their own.
            here = [found.sandbox_id for found in await self._sandboxes.list()]
            taken = await asyncio.gather(*map(self._sandboxes.memory_bytes, here))
            moves = to_free_memory(
                await self._evictions.candidates(dict(zip(here, taken, strict=True))),
                self.level,
                datetime.now(UTC),
                timedelta(seconds=self._limits.evict_idle_seconds),
            )
            for move in moves:
                why = _WHY if move.unused_since is not None else _WHY_IN_USE
                if await self._evictions.do(move, "memory", why):
                    break
            else:
                return
            moved += 1
            if move.kind is MoveKind.TERMINATE:  # what it had is free a moment later
                await asyncio.sleep(_SETTLE_SECONDS)
            await self._measure()

    async def _measure(self) -> None:
        self.memory = await asyncio.to_thread(self.read)
        before, self.level = self.level, Level.ENOUGH
        if self.memory is not None:
            limits = self._limits
            self.level = level_of(
                self.memory, limits.memory_low_bytes, limits.memory_stalled_percent
            )
            metrics.HOST_MEMORY_AVAILABLE.set(self.memory.available_bytes)
        if self.level is not before:
            self._log.warning("memory of the host: %s (%s)", self.level, self.memory)
