"""One live sandbox as the layers above see it: commands, cells, files.

It knows the streams of its guest and nothing of engines, users or tools. It is either attached
(``link`` has streams) or of no more use: whoever finds it ``gone`` asks for a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from sandbox_guest import protocol

from ..errors import ToolError, Unavailable
from ..models import Emit, Outcome
from .bash_kernel import BashKernel
from .files import GuestFiles
from .limit_hits import LimitHits
from .link import GuestLink
from .python_kernel import PythonKernel
from .silence import Silence
from .way_out import WayOut

_KERNEL_HEAD_START_SECONDS = 1.0
_END_SECONDS = 3.0


class Sandbox:
    """A running environment with its guest.

    Parameters
    ----------
    sandbox_id : str
    link : GuestLink
        Started; the guest has dialled or will.
    private_dir : Path
        Directory of this sandbox that is never mounted in it (0700), for the kernel relay.
    way_out : WayOut
        Knows what was refused to it.
    """

    def __init__(
        self,
        sandbox_id: str,
        link: GuestLink,
        private_dir: Path,
        way_out: WayOut,
        log: logging.Logger,
        workspace: str = "/workspace",
    ) -> None:
        self.sandbox_id = sandbox_id
        self.link = link
        self.files = GuestFiles(link)
        self.bash = BashKernel(link)
        self.python = PythonKernel(
            link, sandbox_id=sandbox_id, private_dir=private_dir, log=log, cwd=workspace
        )
        self._way_out = way_out
        self._log = log
        self._warm_up: asyncio.Task[None] | None = None
        self.is_new = False  # it was made by this process, empty
        # Set where there is an engine to ask.
        self.limits: LimitHits | None = None
        self.why_it_ends: Callable[[], Awaitable[str]] | None = None
        self.silence: Silence | None = None

    def __repr__(self) -> str:
        return f"<Sandbox {self.sandbox_id} {'gone' if self.gone else 'attached'}>"

    @property
    def gone(self) -> bool:
        """Whether no stream to the guest is left."""
        return not self.link.connected

    def watched(self) -> contextlib.AbstractContextManager[None]:
        """Watch that the guest answers while the body uses it; see ``Silence.watched``."""
        return contextlib.nullcontext() if self.silence is None else self.silence.watched()

    async def run_bash(
        self, call_id: str, command: str, timeout_seconds: float, emit: Emit, limit_bytes: int
    ) -> Outcome:
        """Run a command in the guest's bash kernel."""
        since, stops = time.monotonic(), self._disk_stops()
        try:
            outcome = await self.bash.execute(
                call_id,
                command,
                timeout_seconds=timeout_seconds,
                limit_bytes=limit_bytes,
                emit=emit,
            )
        except Unavailable as exc:
            raise await self._explained(exc) from exc
        outcome = await self._with_hits(outcome, stops)
        return await self._with_refusals(outcome, since, outcome.exit_code != 0)

    async def follow_bash(
        self,
        call_id: str,
        timeout_seconds: float,
        emit: Emit,
        limit_bytes: int,
        earlier_seconds: float,
    ) -> Outcome | None:
        """Wait for a command that an earlier server process began; None if there is none.

        What was refused and which limits were met before is not known here.
        """
        since, stops = time.monotonic(), self._disk_stops()
        outcome = await self.bash.attach(
            call_id,
            timeout_seconds=timeout_seconds,
            limit_bytes=limit_bytes,
            emit=emit,
            earlier_seconds=earlier_seconds,
        )
        if outcome is None:
            return None
        outcome = await self._with_hits(outcome, stops)
        return await self._with_refusals(outcome, since, outcome.exit_code != 0)

    async def follow_python(
        self, call_id: str, timeout_seconds: float, emit: Emit, limit_bytes: int
    ) -> Outcome | None:
        """Wait for a cell that an earlier server process began; see ``follow_bash``."""
        return await self._with_cell(
            lambda: self.python.follow(call_id, timeout_seconds, emit, limit_bytes)
        )

    async def run_python(
        self, call_id: str, code: str, timeout_seconds: float, emit: Emit, limit_bytes: int
    ) -> Outcome:
        """Run code in the Python kernel; starts it if need be."""
        outcome = await self._with_cell(
            lambda: self.python.execute(code, timeout_seconds, emit, limit_bytes, call_id)
        )
        assert outcome is not None
        return outcome

    async def _with_cell(self, work: Callable[[], Awaitable[Outcome | None]]) -> Outcome | None:
        since, stops = time.monotonic(), self._disk_stops()
        try:
            outcome = await work()
        except ToolError as exc:
            if exc.code == "kernel_died" and self.limits is not None:
                exc.hits = await self.limits.since(stops, None)
            raise
        except Unavailable as exc:
            raise await self._explained(exc) from exc
        if outcome is None:
            return None
        outcome = await self._with_hits(outcome, stops)
        return await self._with_refusals(outcome, since, outcome.error is not None)

    def warm_up(self) -> None:
        """Start the Python kernel in the background, a moment later: no first command waits."""
        if self._warm_up is None:
            self._warm_up = asyncio.ensure_future(self._start_python())

    async def adopt_python(self) -> None:
        """Connect to the Python kernel if it runs already; starts none.

        Raises
        ------
        Unavailable
            The sandbox, or its kernel, does not answer.
        """
        if await self.python.look() not in ("absent", "dead"):
            await self.python.ensure_started()

    async def interrupt(self) -> int:
        """End all running commands and interrupt the running cell; give how many there were."""
        count = await self.bash.interrupt()
        if self.python.is_busy:
            await self.python.interrupt()
            count += 1
        return count

    async def end_processes(self) -> None:
        """End at once all that runs inside but the guest; files stay.

        Raises
        ------
        GuestError, Unavailable
            The guest refused, or did not answer in time.
        """
        await self.link.request(protocol.CONTROL, {"op": "end_all"}, timeout_seconds=_END_SECONDS)

    async def detach(self) -> None:
        """Close this side; the sandbox goes on. Twice is once."""
        if self._warm_up is not None:
            self._warm_up.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._warm_up
        if self.silence is not None:
            await self.silence.close()
        await self.python.detach()
        await self.link.close()

    async def _with_refusals(self, outcome: Outcome, since: float, failed: bool) -> Outcome:
        """Say what the egress proxy refused meanwhile: many clients show a number at most."""
        refusals = await self._way_out.refusals(self.sandbox_id, since, failed)
        return replace(outcome, refusals=refusals) if refusals else outcome

    async def _explained(self, error: Unavailable) -> Unavailable:
        """Say why the sandbox has ended, where that is why it did not answer."""
        if not self.gone or self.why_it_ends is None:
            return error
        with contextlib.suppress(Unavailable):
            if why := await self.why_it_ends():
                message = f"the sandbox ended while this ran: {why}"
                return Unavailable(message, detail=error.detail)
        return error

    def _disk_stops(self) -> int:
        return self.limits.disk.stops if self.limits is not None else 0

    async def _with_hits(self, outcome: Outcome, stops: int) -> Outcome:
        hits = await self.limits.since(stops, outcome) if self.limits is not None else ()
        return replace(outcome, hits=hits) if hits else outcome

    async def _start_python(self) -> None:
        await asyncio.sleep(_KERNEL_HEAD_START_SECONDS)
        try:
            await self.python.ensure_started()
        except Exception as exc:  # `python` tries again and reports
            self._log.warning("sandbox %s: Python kernel: %s", self.sandbox_id, exc)
