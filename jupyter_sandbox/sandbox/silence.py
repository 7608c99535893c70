"""A sandbox in use that says nothing any more: noticed, and ended or put right in bounded time.

While anybody uses a sandbox its guest is asked for a sign of life every few seconds. When none
comes, the engine is asked: what somebody else has paused is resumed, what has ended is let go of,
and of one that runs and stays silent the streams are cut, so that nobody waits on them for ever.
The rule: a call that is over within a few seconds costs a timer and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator

from sandbox_guest import protocol

from ..engines.base import Engine, EngineState
from ..errors import SandboxError, Unavailable
from .link import GuestError, GuestLink

LOOK_SECONDS = 3.0
ANSWER_SECONDS = 3.0
ENGINE_SECONDS = 10.0
PATIENCE_SECONDS = 60.0
"""A guest is starved when a sandbox is at its limits; that passes, or its processes are killed."""


class Silence:
    """The watch over the guest of one sandbox.

    Parameters
    ----------
    may_resume : callable
        Says whether a paused sandbox is to go on: not while it is held for the host's sake.

    Attributes
    ----------
    since : float or None
        When the guest began to be silent, on the loop's clock; None while it answers.
    resumed : bool
        It had been paused by somebody else and was resumed; whoever tells that resets it.
    """

    def __init__(
        self,
        engine: Engine,
        sandbox_id: str,
        link: GuestLink,
        may_resume: Callable[[], bool],
        log: logging.Logger,
    ) -> None:
        self.since: float | None = None
        self.resumed = False
        self._engine = engine
        self._sandbox_id = sandbox_id
        self._link = link
        self._may_resume = may_resume
        self._log = log
        self._users = 0
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Silence of {self._sandbox_id} users={self._users} since={self.since}>"

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watch while the body uses the sandbox."""
        self._users += 1
        if self._timer is None and self._looking is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._begin)
        try:
            yield
        finally:
            self._users -= 1
            if not self._users and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    async def close(self) -> None:
        """Stop. Twice is once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    def _begin(self) -> None:
        self._timer = None
        self._looking = asyncio.ensure_future(self._look())

    async def _look(self) -> None:
        """Look again and again while there are users."""
        loop = asyncio.get_running_loop()
        try:
            while self._users and self._link.connected:
                asked_at = loop.time()
                if await self._answers():
                    self.since = None
                    await asyncio.sleep(LOOK_SECONDS)
                    continue
                if not self._users:
                    return  # it was suspended after its last use, and may stand
                self.since = self.since or asked_at
                await self._ask_engine()
                if loop.time() - self.since > PATIENCE_SECONDS:
                    self._log.warning("sandbox %s: silent: its streams are cut", self._sandbox_id)
                    why = f"the sandbox has not answered for {PATIENCE_SECONDS:g} s"
                    await self._link.close(why)
        finally:
            self._looking = None

    async def _answers(self) -> bool:
        try:
            await self._link.request(
                protocol.CONTROL, {"op": "ping"}, timeout_seconds=ANSWER_SECONDS
            )
        except GuestError:  # an older guest, which does not know the word
            return True
        except Unavailable:
            return False
        return True

    async def _ask_engine(self) -> None:
        try:
            async with asyncio.timeout(ENGINE_SECONDS):
                found = await self._engine.inspect(self._sandbox_id)
                if found is None or found.state is EngineState.EXITED:
                    await self._link.close()
                elif found.state is EngineState.PAUSED and self._may_resume():
                    self._log.warning(
                        "sandbox %s: was paused by somebody else: resumed", self._sandbox_id
                    )
                    self.resumed = True  # before: what waits ends the moment it goes on
                    await self._engine.resume(self._sandbox_id)
        except (SandboxError, TimeoutError) as exc:
            self._log.warning("sandbox %s: silent, and its engine too: %s", self._sandbox_id, exc)
