"""Which limit a command or a cell has met: what the kernel counted, what the disk guard did.

Asked when something went wrong, or the output has words that a limit leaves; an ordinary end costs
nothing. Counts come from the host; what is full, and what is largest, from the guest: a claim, and
only the sandbox's own model is told.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from ..engines.base import Engine, EngineUsage, Resources
from ..errors import SandboxError
from ..models import DiskStop, LimitHit, Outcome
from .files import GuestFiles

_TAIL_CHARACTERS = 20_000
_SECONDS = 10.0
_SIGXFSZ = 128 + 25

NO_SPACE = ("No space left on device", "ENOSPC", "Disk quota exceeded")
NO_MEMORY = ("Cannot allocate memory", "MemoryError", "Killed", "out of memory", "ENOMEM")
NO_PROCESSES = (
    "Resource temporarily unavailable",
    "can't start new thread",
    "fork: Interrupted system call",  # bash waits and tries again, until a child ends
    "EAGAIN",
)
TOO_LARGE = ("File too large", "File size limit exceeded", "EFBIG")
_WORDS = (*NO_SPACE, *NO_MEMORY, *NO_PROCESSES, *TOO_LARGE)

# Where commands usually write; the ones that are not there are left out.
_PLACES = ("~", "/var/tmp", "/opt", "/usr/local", "/var/cache", "/var/lib", "/tmp", "/dev/shm")


@dataclass
class DiskState:
    """What the disk guard says of one sandbox.

    Attributes
    ----------
    stops : int
        How often it has ended what ran there.
    over : DiskStop or None
        What is too much now.
    """

    stops: int = 0
    over: DiskStop | None = None


class LimitHits:
    """Of one sandbox.

    Parameters
    ----------
    areas : sequence of str
        The directories inside that are looked at first.
    """

    def __init__(
        self,
        engine: Engine,
        sandbox_id: str,
        files: GuestFiles,
        resources: Resources,
        areas: tuple[str, ...],
    ) -> None:
        self.disk = DiskState()
        self.is_new = False  # nothing has been counted before
        self._engine = engine
        self._sandbox_id = sandbox_id
        self._files = files
        self._resources = resources
        self._areas = areas
        self._seen: EngineUsage | None = None

    def __repr__(self) -> str:
        return f"<LimitHits of {self._sandbox_id} {self._seen}>"

    async def since(self, stops: int, outcome: Outcome | None) -> tuple[LimitHit, ...]:
        """Give the limits that were met.

        Parameters
        ----------
        stops : int
            ``disk.stops`` at the beginning.
        outcome : Outcome or None
            None: the kernel ended, or the sandbox did not answer.
        """
        text = outcome.text[-_TAIL_CHARACTERS:] if outcome is not None else ""
        words = [word for word in _WORDS if word in text]
        went_well = outcome is not None and outcome.exit_code in (0, None) and not outcome.error
        stopped = self.disk.stops != stops or self.disk.over is not None
        if went_well and not words and not stopped:
            return ()
        code = outcome.exit_code if outcome is not None else None
        found: list[LimitHit] = []
        with contextlib.suppress(SandboxError, TimeoutError):
            async with asyncio.timeout(_SECONDS):
                found += await self._counted(words)
        if code == _SIGXFSZ or _any(TOO_LARGE, words):
            found.append(LimitHit("file_size", self._resources.file_bytes))
        with contextlib.suppress(SandboxError, TimeoutError):
            async with asyncio.timeout(_SECONDS):
                if stopped:
                    found.append(await self._watched(self.disk.stops != stops))
                elif _any(NO_SPACE, words):
                    found += await self._full()
        return tuple(found)

    async def _counted(self, words: list[str]) -> list[LimitHit]:
        now = await self._engine.usage(self._sandbox_id)
        before = self._seen or (EngineUsage() if self.is_new else now)
        self._seen = now
        found = []
        if now.memory_kills > before.memory_kills or _any(("MemoryError", "Cannot"), words):
            found.append(LimitHit("memory", self._resources.memory_bytes))
        if now.processes_refused > before.processes_refused or _any(NO_PROCESSES[:3], words):
            found.append(LimitHit("processes", self._resources.processes))
        return found

    async def _watched(self, ended: bool) -> LimitHit:
        """Give what there is to say of a disk that is over its limit."""
        over = self.disk.over
        entries = bool(over and (over.entries or 0) > self._resources.disk_entries)
        limit = self._resources.disk_entries if entries else self._resources.disk_bytes
        largest: tuple[tuple[str, int], ...] = ()
        with contextlib.suppress(SandboxError):
            claim = await self._files.room(self._places, everywhere=True, entries=entries)
            largest = claim.largest
        return LimitHit("disk", limit, "", over, entries, largest, ended)

    async def _full(self) -> list[LimitHit]:
        claim = await self._files.room(self._places)
        return [
            LimitHit("disk", size, path, None, entries, claim.largest)
            for path, size, entries in claim.full
        ] or [LimitHit("disk", self._resources.disk_bytes)]  # there was none, now there is

    @property
    def _places(self) -> tuple[str, ...]:
        return (*self._areas, *_PLACES)


def _any(wanted: tuple[str, ...], words: list[str]) -> bool:
    return any(word.startswith(wanted) for word in words)
