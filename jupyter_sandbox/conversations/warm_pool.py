"""Sandboxes that are ready before somebody wants one, so that a first call costs milliseconds.

It makes, looks after and gives away spare sandboxes of this server process, and knows nobody's
files. The rules: a spare one has never been used by anyone and has no way out; it is given once,
and what is taken and not given is ended, never put back; only what a row of this process names is
ended here (``set_ending``), so nothing that has become a conversation's. Who waits for a sandbox
goes first: none is made here meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from .. import metrics
from ..errors import SandboxError, Unavailable
from ..policy.memory import Level
from ..sandbox.sandbox import Sandbox
from ..sandbox.sandboxes import Sandboxes
from ..stores.pool_records import Given, PoolRecord, PoolRecords
from ..stores.server_marks import ServerMarks

ROUND_SECONDS = 10.0
_PING_SECONDS = 0.5  # a guest answers in one millisecond
_TAKE_SECONDS = 1.0  # then a cold start is the quicker way
_ROUND_PING_SECONDS = 5.0  # nobody waits
_CALM_SECONDS = 0.5  # after one was taken: its first command is not to be disturbed
_LONGEST_WAIT_SECONDS = 5.0  # for such calm, where one is taken after the other
_POLL_SECONDS = 0.05
_PAUSES = (1.0, 5.0, 15.0, 60.0)  # after failures
_AT_ONCE = max(1, min(4, (os.cpu_count() or 1) // 2))


@dataclass(frozen=True)
class _Spare:
    sandbox: Sandbox
    recipe: str


@dataclass(frozen=True)
class Taken:
    """A sandbox that has become a conversation's; ``has_files``: some are to be put into it."""

    sandbox: Sandbox
    has_files: bool


class WarmPool:
    """The spare sandboxes of one server process.

    Parameters
    ----------
    size : int
        So many are kept ready; 0 for none.
    marks : ServerMarks
        Which server processes live; this one holds the sandboxes.

    Attributes
    ----------
    memory_level : callable
        Gives how short the host's memory is: while it is, none is kept and none is made.
    """

    def __init__(
        self,
        size: int,
        sandboxes: Sandboxes,
        records: PoolRecords,
        marks: ServerMarks,
        log: logging.Logger,
    ) -> None:
        self._size = size
        self._sandboxes = sandboxes
        self._records = records
        self._marks = marks
        self._holder = marks.process_id
        self._log = log
        self._spares: deque[_Spare] = deque()
        self._busy: set[str] = set()  # being made, given or ended by a task of ours
        self._ends: set[asyncio.Task[None]] = set()
        self._looking = asyncio.Lock()  # one round at a time
        self._recipe = ""
        self._wanted = asyncio.Event()
        self._taken_at = -_CALM_SECONDS
        self._closed = False
        self.memory_level: Callable[[], Level] = lambda: Level.ENOUGH
        self._filling = asyncio.ensure_future(self._keep_full())

    def __repr__(self) -> str:
        return f"<WarmPool {len(self._spares)} of {self._size}>"

    @property
    def ready(self) -> list[str]:
        """The ids of those that could be given now."""
        return [spare.sandbox.sandbox_id for spare in self._spares]

    def resize(self, size: int) -> None:
        """Keep so many from now on; the next round ends what is too many."""
        self._size = size
        self._wanted.set()

    async def take(self, conversation_id: str) -> Taken | None:
        """Give a sandbox to a conversation that this process provisions; None if there is none.

        It is recorded as the conversation's when this returns. The caller lets the way out open
        and files be put in place; if that fails it ends the sandbox.

        Raises
        ------
        Unavailable
            The database does not answer.
        """
        if not self._size and not self._spares:
            return None
        loop = asyncio.get_running_loop()
        until = loop.time() + _TAKE_SECONDS
        while self._spares and loop.time() < until:
            spare = self._spares.popleft()
            self._busy.add(spare.sandbox.sandbox_id)
            self._taken_at = loop.time()
            self._show()
            given = Given.NOT
            try:
                if spare.recipe == self._recipe and await self._is_well(
                    spare.sandbox, _PING_SECONDS
                ):
                    given = await self._records.give(
                        spare.sandbox.sandbox_id, self._holder, conversation_id
                    )
            finally:
                self._wanted.set()
                if given is Given.NOT:
                    self._end_soon(spare.sandbox)
                else:
                    self._busy.discard(spare.sandbox.sandbox_id)
            if given is not Given.NOT:
                metrics.POOL_TAKES.labels("hit").inc()
                return Taken(spare.sandbox, given is Given.WITH_FILES)
            metrics.POOL_TAKES.labels("unfit").inc()
            self._log.warning("warm pool: %r was not fit to be given", spare.sandbox)
        metrics.POOL_TAKES.labels("miss").inc()
        return None

    async def look(self) -> None:
        """Look after all: end what is out of date or sick, adopt what a dead server left."""
        async with self._looking:
            rows = {row.sandbox_id: row for row in await self._records.all()}
            if not self._size and not rows and not self._spares:
                return
            self._recipe = await self._sandboxes.recipe()
            mine = list(self._spares)
            running = await self._sandboxes.running()
            await asyncio.gather(
                *(self._check(spare, rows.get(spare.sandbox.sandbox_id), running) for spare in mine)
            )
            for row in rows.values():
                await self._inherit(row, running)
            most = self._size if self.memory_level() is Level.ENOUGH else 0
            while len(self._spares) > most:
                self._drop(self._spares[-1])
        self._wanted.set()

    async def close(self) -> None:
        """Let go of all; they run on, and the next server adopts them. Twice is once."""
        self._closed = True
        self._filling.cancel()
        await asyncio.wait([self._filling, *self._ends])
        spares, self._spares = list(self._spares), deque()
        await asyncio.gather(*(spare.sandbox.detach() for spare in spares), return_exceptions=True)

    # Looking after them

    async def _check(self, spare: _Spare, row: PoolRecord | None, running: set[str]) -> None:
        """End one that must not be given."""
        why = ""
        if row is None or row.holder != self._holder:
            why = "its row is gone"
        elif spare.recipe != self._recipe:
            why = "new ones are made in another way"
        elif spare.sandbox.sandbox_id not in running:
            why = "it does not run"
        elif not await self._is_well(spare.sandbox, _ROUND_PING_SECONDS):
            why = "it does not answer"
        if why and spare in self._spares:
            self._log.info("warm pool: sandbox %s is ended: %s", spare.sandbox.sandbox_id, why)
            self._drop(spare)

    async def _inherit(self, row: PoolRecord, running: set[str]) -> None:
        """Adopt or end what a dead server left, and end what this one could not end before."""
        if row.engine != self._sandboxes.engine.name:  # nobody here could end it
            return
        if row.holder == self._holder:
            if row.sandbox_id not in self._busy and row.sandbox_id not in self.ready:
                self._end_soon(row.sandbox_id)
            return
        if self._marks.is_alive(row.holder):
            return
        self._busy.add(row.sandbox_id)
        try:
            if not await self._records.take_over(row.sandbox_id, row.holder, self._holder):
                return
            fits = row.state == "ready" and row.recipe == self._recipe
            sandbox = None
            if fits and row.sandbox_id in running and len(self._spares) < self._size:
                sandbox = await self._adopt(row.sandbox_id)
            if sandbox is None:
                self._end_soon(row.sandbox_id)
            else:
                self._log.info("warm pool: sandbox %s is adopted", row.sandbox_id)
                self._add(_Spare(sandbox, row.recipe))
        finally:
            self._busy.discard(row.sandbox_id)

    async def _adopt(self, sandbox_id: str) -> Sandbox | None:
        with contextlib.suppress(SandboxError, OSError):
            sandbox = await self._sandboxes.attach(sandbox_id, "")
            if sandbox is None:
                return None
            try:
                await self._start_python(sandbox)
            except BaseException:
                await asyncio.shield(sandbox.detach())
                raise
            return sandbox
        return None

    # Filling

    async def _keep_full(self) -> None:
        failures = 0
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._fill()
                failures = 0
            except SandboxError as exc:
                self._log.warning("warm pool: no sandbox: %s %s", exc, exc.detail)
                await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
                failures += 1
            except Exception:
                self._log.exception("warm pool")
                await asyncio.sleep(_PAUSES[-1])

    async def _fill(self) -> None:
        while self._recipe and (lacking := self._size - len(self._spares)) > 0:
            await self._await_calm()
            made = await asyncio.gather(
                *(self._make() for _ in range(min(lacking, _AT_ONCE))), return_exceptions=True
            )
            for each in made:
                if isinstance(each, BaseException):
                    raise each

    async def _make(self) -> None:
        sandbox_id, recipe = secrets.token_hex(12), self._recipe
        sandbox: Sandbox | None = None
        self._busy.add(sandbox_id)
        try:
            await self._records.add(sandbox_id, self._sandboxes.engine.name, recipe, self._holder)
            sandbox = await self._sandboxes.create_spare(sandbox_id)
            await self._await_calm()
            await self._start_python(sandbox)
            if not await self._records.set_ready(sandbox_id, self._holder):
                raise Unavailable("another server took the sandbox for a dead server's")
        except BaseException:
            await asyncio.shield(self._end(sandbox or sandbox_id))
            raise
        self._busy.discard(sandbox_id)
        self._add(_Spare(sandbox, recipe))

    async def _start_python(self, sandbox: Sandbox) -> None:
        if self._sandboxes.settings.starts_python:
            await sandbox.python.ensure_started()

    async def _await_calm(self) -> None:
        """Wait while somebody waits for a sandbox, or has just got one; for a bounded time."""
        clock = asyncio.get_running_loop().time
        until = clock() + _LONGEST_WAIT_SECONDS

        while True:  # looked at, not told: it costs nothing while the pool is full
            must_wait = self._sandboxes.wanted or self._sandboxes.paused_because
            must_wait = must_wait or self.memory_level() is not Level.ENOUGH
            if not must_wait and clock() >= min(until, self._taken_at + _CALM_SECONDS):
                return
            await asyncio.sleep(_POLL_SECONDS)

    # Beginning and end of one

    def _add(self, spare: _Spare) -> None:
        self._spares.append(spare)
        self._show()

    def _drop(self, spare: _Spare) -> None:
        self._spares.remove(spare)
        self._show()
        self._end_soon(spare.sandbox)

    def _end_soon(self, which: Sandbox | str) -> None:
        task = asyncio.ensure_future(self._end(which))
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    async def _end(self, which: Sandbox | str) -> None:
        """End one whose row is ours; what cannot be ended now is in a later round."""
        sandbox_id = which if isinstance(which, str) else which.sandbox_id
        self._busy.add(sandbox_id)
        try:
            if not isinstance(which, str):
                await which.detach()
            if await self._records.set_ending(sandbox_id, self._holder):
                await self._sandboxes.remove(sandbox_id)
                await self._records.remove(sandbox_id, self._holder)
        except SandboxError as exc:
            self._log.warning("warm pool: sandbox %s is not ended yet: %s", sandbox_id, exc)
        finally:
            self._busy.discard(sandbox_id)

    def _show(self) -> None:
        metrics.POOL_READY.set(len(self._spares))

    async def _is_well(self, sandbox: Sandbox, seconds: float) -> bool:
        """Say whether its guest answers in that time, and its Python kernel runs if it is to."""
        if sandbox.gone:
            return False
        well = ("idle",) if self._sandboxes.settings.starts_python else ("idle", "absent")
        try:
            async with asyncio.timeout(seconds):
                return await sandbox.python.look() in well
        except (SandboxError, TimeoutError):
            return False
