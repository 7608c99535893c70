"""Suspends and ends sandboxes that nobody uses, and notes what is in use.

It knows conversations and what their engine counts; when is for ``policy.idle`` to decide, by the
database's clock. Two chores: every server notes what it has in flight (``note_uses``), one of them
looks at all sandboxes (``look``). The rule: after the clock has jumped, servers get time to note
what they use before anything is decided by it; a use that began meanwhile wins.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime

from ..errors import InvalidRequest, NotFound, SandboxError, Unavailable
from ..models import ConversationRecord, Lifecycle
from ..policy.idle import Move, correct_times, decide_idle, is_busy
from ..sandbox.sandboxes import Sandboxes
from ..stores.database import Database
from ..stores.idle_records import IdleRecords
from .conversation import Conversation
from .conversations import Conversations
from .resting import Resting
from .states import State

NOTE_SECONDS = 15.0
LOOK_SECONDS = 20.0
_SETTLED_SECONDS = 2 * NOTE_SECONDS  # each server has noted its uses once by then
_JUMP_SECONDS = 10.0
_AT_ONCE = 8
_MOST_RESTING = 64  # suspended sandboxes that stay connected, to go on sooner
_CALL_GRACE_SECONDS = 60.0


@dataclass(frozen=True)
class _Sample:
    """Processor time of a sandbox that was seen at a time of the steady clock."""

    cpu_seconds: float
    at: float


class Idling:
    """The chores.

    Parameters
    ----------
    release : callable
        Lets the clients of a conversation's kernel go when its sandbox has ended.
    command_seconds : float
        The longest that a command runs, whichever server began it.
    steady : callable
        A clock that nobody sets.
    """

    def __init__(
        self,
        conversations: Conversations,
        database: Database,
        sandboxes: Sandboxes,
        resting: Resting,
        lifecycle: Lifecycle,
        release: Callable[[str], Awaitable[None]],
        command_seconds: float,
        log: logging.Logger,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._conversations = conversations
        self._database = database
        self._sandboxes = sandboxes
        self._resting = resting
        self._records: IdleRecords = resting.records
        self._lifecycle = lifecycle
        self._release = release
        self._command_seconds = command_seconds
        self._log = log
        self.steady = steady
        self._offset: float | None = None  # of the database's clock to the steady one
        self._settled_at = 0.0
        self._samples: dict[str, _Sample] = {}
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    def __repr__(self) -> str:
        return f"<Idling {len(self._samples)} sandboxes>"

    # What this server uses

    async def note_uses(self) -> None:
        """Note what is in flight here, and learn what other servers did with what is not."""
        attached = [each for each in self._conversations.all() if each.sandbox is not None]
        if not attached:
            return
        await asyncio.gather(*(self._note(each) for each in attached))
        records = {
            record.conversation_id: record
            for record in await self._database.conversations_with_sandbox()
        }
        for each in attached:
            if not await each.compare(records.get(each.conversation_id)):
                await self._release(each.conversation_id)
        await self._let_go_of_old(attached)

    async def _note(self, conversation: Conversation) -> None:
        try:
            await conversation.note_in_flight()
        except SandboxError as exc:
            self._log.warning("%r: its use was not noted: %s", conversation, exc)

    async def _let_go_of_old(self, attached: list[Conversation]) -> None:
        """Disconnect from the sandboxes that have been suspended longest."""
        resting = [each for each in attached if each.rests_since is not None]
        resting.sort(key=lambda each: each.rests_since or 0.0)
        for each in resting[: max(0, len(resting) - _MOST_RESTING)]:
            await each.let_go_if_resting()

    # What nobody uses

    async def look(self) -> None:
        """Look at all sandboxes once."""
        now = self._records.now()
        is_settled = self._has_settled(now)
        found = await self._database.conversations_with_sandbox()
        records = [each for each in found if each.state in (State.RUNNING, State.SUSPENDED)]
        in_flight = await self._records.in_flight(self._command_seconds + _CALL_GRACE_SECONDS)
        known = {each.sandbox_id for each in records if each.state == State.RUNNING}
        self._samples = {i: s for i, s in self._samples.items() if i in known}
        await asyncio.gather(
            *(
                self._look_at(each, each.conversation_id in in_flight, is_settled)
                for each in records
            )
        )

    async def _look_at(self, record: ConversationRecord, in_flight: bool, is_settled: bool) -> None:
        async with self._at_once:
            try:
                await self._decide(record, in_flight, is_settled)
            except (InvalidRequest, NotFound):
                pass  # it was used, moved or deleted meanwhile
            except SandboxError as exc:
                self._log.warning(
                    "conversation %s: idle: %s %s", record.conversation_id, exc, exc.detail
                )

    async def _decide(self, record: ConversationRecord, in_flight: bool, is_settled: bool) -> None:
        now = self._records.now()
        right = correct_times(now, record, self._lifecycle)
        if right is not None:
            await self._records.correct(record, right)
            return
        live = self._conversations.live(record.conversation_id)
        in_use = in_flight or live.is_busy
        if record.state == State.RUNNING and not in_use:
            is_known, busy = await self._sample(record)
            if busy:
                await self._records.note_busy(record)
                record = replace(record, busy_at=now)
            if not is_known:
                return  # whether a job is at work there, the next look knows
        if not is_settled:
            return
        decision = decide_idle(now, record, self._lifecycle, in_use=in_use)
        if decision.move is Move.STAY:
            return
        conversation_id = record.conversation_id
        if decision.move is Move.SUSPEND:
            await live.suspend(because=decision.reason, unused_since=record.used_at)
        else:
            await live.terminate(why=decision.reason, unused_since=record.used_at)
            await self._release(conversation_id)
        self._log.info("conversation %s: %s: %s", conversation_id, decision.move, decision.reason)

    async def _sample(self, record: ConversationRecord) -> tuple[bool, bool]:
        """Say whether it is known what runs in a sandbox since the last look, and if it is work."""
        at = self.steady()
        try:
            cpu_seconds = (await self._sandboxes.engine.usage(record.sandbox_id)).cpu_seconds
        except Unavailable:
            return False, False
        if cpu_seconds is None:
            return True, False  # it is gone, or this engine does not count
        before = self._samples.get(record.sandbox_id)
        if before is not None and at - before.at < LOOK_SECONDS / 2:
            return True, False  # too short a time: a single command would look like a job
        self._samples[record.sandbox_id] = _Sample(cpu_seconds, at)
        if before is None:
            return False, False
        return True, is_busy(cpu_seconds - before.cpu_seconds, at - before.at)

    def _has_settled(self, now: datetime) -> bool:
        """Say whether the clock has run evenly for so long that every server has noted its uses."""
        steady = self.steady()
        offset = now.timestamp() - steady
        if self._offset is None or abs(offset - self._offset) > _JUMP_SECONDS:
            if self._offset is not None:
                self._log.warning("the clock has jumped by %.0f s", offset - self._offset)
            self._settled_at = steady + _SETTLED_SECONDS
        self._offset = offset
        return steady >= self._settled_at
