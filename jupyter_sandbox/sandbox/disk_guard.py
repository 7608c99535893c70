"""Watches what sandboxes write where no kernel limits it, and that the host's disk never fills up.

Asks the engine; decides nothing about conversations. Two rules:

- In a sandbox that is over its limit all processes are ended, by its guest; where that does not
  work it is paused. Its files stay, and commands that delete work. While it is over, whatever makes
  it grow is ended again. One that is over by far all the same (``is_over``) is removed.
- When the disk that they write on, or that of the data directory, has less free space than the
  floor, all sandboxes stand and nothing more is stored until there is more, whoever took it.

Looking at the free space costs nothing, so it is done four times a second; a sandbox is measured
only when the free space has shrunk by half of what it may still write, and now and then. What is
written between two looks is too much by then: at 500 MB/s some hundred megabytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..engines.base import Engine, EngineState, EngineUsage, Resources
from ..errors import SandboxError, Unavailable
from ..models import DiskStop
from ..stores.room import Room
from .sandbox import Sandbox
from .sandboxes import Sandboxes

TICK_SECONDS = 0.25
_LIST_SECONDS = 5.0
_SELDOM_SECONDS = 60.0
_OFTEN_SECONDS = 5.0
_DUTY = 5.0  # a measurement's time, as a part of the time between two
_AT_ONCE = 2
_NOISE_BYTES = 2**20
_NOISE_ENTRIES = 64
_FAR_BYTES = 2**30
_FAR_ENTRIES = 250_000  # what is written in two seconds or so, like the bytes
_VERB_SECONDS = 20.0

LOW = (
    "the disk of the host is almost full, so sandboxes are paused and no more files are kept. All "
    "goes on by itself when there is room again; an administrator, or deleting files and "
    "conversations, can make some."
)


@dataclass(frozen=True)
class Space:
    """What is free on a file system."""

    total_bytes: int
    free_bytes: int
    free_entries: int

    @classmethod
    def of(cls, path: Path) -> Space:
        """Ask the kernel."""
        found = os.statvfs(path)
        return cls(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize, found.f_favail)

    def is_below(self, floor_bytes: int) -> bool:
        """Say whether too little is free.

        A floor of 0 is 5 %, at least 2 GiB, at most a quarter, so that a small disk is of use.
        """
        usual = min(max(2 * 2**30, self.total_bytes // 20), self.total_bytes // 4)
        return self.free_bytes < (floor_bytes or usual)


@dataclass
class Watched:
    """What is known of one sandbox since it was measured."""

    usage: EngineUsage = field(default_factory=lambda: EngineUsage(0, 0))
    space: Space | None = None
    measured_at: float = 0.0
    cost_seconds: float = 0.0
    over: bool = False

    def is_due(self, space: Space | None, limits: Resources, now: float) -> bool:
        """Say whether it may have come near its limit since."""
        age = now - self.measured_at
        if age < max(TICK_SECONDS, _DUTY * self.cost_seconds):
            return False
        if space is None or self.space is None:
            return age >= TICK_SECONDS * 4
        took = self.space.free_bytes - space.free_bytes
        took_entries = self.space.free_entries - space.free_entries
        left = limits.disk_bytes - (self.usage.disk_bytes or 0)
        left_entries = limits.disk_entries - (self.usage.disk_entries or 0)
        if self.over:
            return took > 0 or took_entries > 0 or age >= 1.0
        if took * 2 >= left or took_entries * 2 >= left_entries:
            return True
        if took > _NOISE_BYTES or took_entries > _NOISE_ENTRIES:
            return age >= _OFTEN_SECONDS
        return age >= _SELDOM_SECONDS  # one may write as much as others delete


class DiskGuard:
    """The watch over all sandboxes of one server.

    Parameters
    ----------
    floor_bytes : int
        Of free space on the host; 0 is ``Space.is_below``'s own.
    data_dir : Path, optional
        Where the server keeps things: its file system has the same floor.
    room : Room, optional
        Is told whether more can be kept.
    """

    def __init__(
        self,
        sandboxes: Sandboxes,
        floor_bytes: int,
        log: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
        data_dir: Path | None = None,
        room: Room | None = None,
    ) -> None:
        self.room = room or Room()
        self._kept_in = [] if data_dir is None else [data_dir]
        self._sandboxes = sandboxes
        self._engine: Engine = sandboxes.engine
        self._limits = sandboxes.settings.resources
        self._floor_bytes = floor_bytes
        self._log = log
        self._clock = clock
        self._known: dict[str, Watched] = {}
        self._held: set[str] = set()  # paused by us because the host's disk is almost full
        self._listed_at = -_LIST_SECONDS
        self._measuring = asyncio.Semaphore(_AT_ONCE)
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<DiskGuard of {len(self._known)}, {len(self._held)} held>"

    def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.ensure_future(self._watch())

    async def close(self) -> None:
        """Stop watching. Twice is once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def look(self) -> None:
        """Look once."""
        spaces = await asyncio.to_thread(_spaces, self._engine.disk_paths())
        space = min(spaces, key=lambda each: each.free_bytes) if spaces else None
        await self._list(space)
        kept = await asyncio.to_thread(_spaces, self._kept_in) if self._kept_in else []
        await self._keep_floor(any(each.is_below(self._floor_bytes) for each in (*spaces, *kept)))
        now = self._clock()
        due = [i for i, w in self._known.items() if w.is_due(space, self._limits, now)]
        await asyncio.gather(*(self._measure(i, space) for i in due if i not in self._held))

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
            except (SandboxError, OSError) as exc:
                self._log.warning("disk guard: %s %s", exc, getattr(exc, "detail", ""))
                await asyncio.sleep(_LIST_SECONDS)
            except Exception:
                self._log.exception("disk guard")
                await asyncio.sleep(_LIST_SECONDS)
            await asyncio.sleep(TICK_SECONDS)

    async def _list(self, space: Space | None) -> None:
        """Learn which sandboxes run: those attached here at once, others every few seconds."""
        now = self._clock()
        for sandbox_id, sandbox in list(self._sandboxes.attached.items()):
            if sandbox_id not in self._known:
                known = self._known[sandbox_id] = Watched()
                if sandbox.is_new:  # it has written next to nothing: its start is not disturbed
                    known.space, known.measured_at = space, now
        if now - self._listed_at < _LIST_SECONDS:
            return
        self._listed_at = now
        found = {each.sandbox_id: each.state for each in await self._sandboxes.list()}
        running = {i for i, state in found.items() if state is EngineState.RUNNING}
        self._held &= set(found)
        for gone in set(self._known) - running - self._held - set(self._sandboxes.attached):
            del self._known[gone]
        for sandbox_id in running - set(self._known):
            self._known[sandbox_id] = Watched()

    async def _measure(self, sandbox_id: str, space: Space | None, *, held: bool = False) -> None:
        async with self._measuring:
            known = self._known.get(sandbox_id)
            if known is None:
                return
            began = self._clock()
            try:
                usage = await self._engine.usage(sandbox_id, disk=True)
            except Unavailable as exc:
                self._log.debug("sandbox %s: not measured: %s", sandbox_id, exc)
                usage = EngineUsage()
            before, known.usage = known.usage, usage
            known.measured_at, known.space = self._clock(), space
            known.cost_seconds = known.measured_at - began
            if usage.disk_bytes is None:  # the kernel limits it, or it is gone
                return
            limits = self._limits
            over = is_over(usage, limits)
            grew = (usage.disk_bytes or 0) > (before.disk_bytes or 0) + _NOISE_BYTES or (
                usage.disk_entries or 0
            ) > (before.disk_entries or 0) + _NOISE_ENTRIES
            first = over and not known.over
            known.over = over
            sandbox = self._sandboxes.attached.get(sandbox_id)
            if sandbox is not None and sandbox.gone:
                sandbox = None
            if not over:
                if sandbox is not None and sandbox.limits is not None:
                    sandbox.limits.disk.over = None
                return
            if sandbox is not None and sandbox.limits is not None:
                sandbox.limits.disk.over = DiskStop(usage.disk_bytes, usage.disk_entries)
            if is_over(usage, limits, far=True):
                await self._end(sandbox_id)
            elif (first or grew) and not held:
                await self._stop(sandbox_id, usage, sandbox)
                with contextlib.suppress(Unavailable):  # what was written until then is no growth
                    known.usage = await self._engine.usage(sandbox_id, disk=True)

    async def _stop(self, sandbox_id: str, usage: EngineUsage, sandbox: Sandbox | None) -> None:
        """End all that runs in a sandbox; where the guest does not, or is not there, it stands."""
        self._log.warning(
            "sandbox %s: over its disk limit: %s bytes, %s entries; its processes are ended",
            sandbox_id,
            usage.disk_bytes,
            usage.disk_entries,
        )
        if sandbox is not None:
            if sandbox.limits is not None:
                sandbox.limits.disk.stops += 1
            try:  # not paused first: freezing what waits for the disk takes seconds, or fails
                await sandbox.end_processes()
                return
            except SandboxError as exc:
                self._log.warning("sandbox %s: goes on writing: %s", sandbox_id, exc)
        await self._try(self._engine.pause, sandbox_id)

    async def _end(self, sandbox_id: str) -> None:
        self._log.warning("sandbox %s: far over its disk limit: removed", sandbox_id)
        self._known.pop(sandbox_id, None)
        await self._sandboxes.end(sandbox_id, "it had filled its disk far over the limit")

    async def _keep_floor(self, low: bool) -> None:
        """Let all sandboxes stand while the host's disk is almost full."""
        if low and not self.room.lack:
            self._log.error("the disk of the host is almost full: nothing more is stored")
        elif self.room.lack and not low:
            self._log.warning("the disk of the host has room again")
        self.room.lack = self._sandboxes.paused_because = LOW if low else ""
        if low:
            for sandbox_id in set(self._known) - self._held:
                self._held.add(sandbox_id)
                self._log.error("sandbox %s: paused: the host's disk is almost full", sandbox_id)
                await self._try(self._engine.pause, sandbox_id)
                await self._measure(sandbox_id, None, held=True)
            return
        for sandbox_id in list(self._held):
            self._held.discard(sandbox_id)
            self._log.warning("sandbox %s: goes on: the host's disk has room again", sandbox_id)
            await self._try(self._engine.resume, sandbox_id)

    async def _try(self, verb: Callable[[str], object], sandbox_id: str) -> None:
        try:
            async with asyncio.timeout(_VERB_SECONDS):
                await verb(sandbox_id)  # type: ignore[misc]
        except (Unavailable, TimeoutError) as exc:  # it ended meanwhile, or its engine hangs
            self._log.warning("sandbox %s: %s", sandbox_id, exc)


def is_over(usage: EngineUsage, limits: Resources, far: bool = False) -> bool:
    """Say whether it takes more than it may; ``far``: a quarter and a fixed margin more."""
    size, entries = usage.disk_bytes or 0, usage.disk_entries or 0
    if far:
        too_large = size > limits.disk_bytes * 1.25 + _FAR_BYTES
        return too_large or entries > limits.disk_entries * 1.25 + _FAR_ENTRIES
    return size > limits.disk_bytes or entries > limits.disk_entries


def _spaces(paths: Iterable[Path]) -> list[Space]:
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            found.append(Space.of(path))
    return found
