"""At a server's start, and now and then: all live sandboxes are attached to, many at a time.

So that the first call after a restart finds its sandbox and its kernel as the last one left them.
What a crash has left between a record and its engine is put right on the way (``righting.py``). The
rules: nobody waits for it, a call that comes earlier adopts its own at once; and it is no use, it
wakes nothing and keeps nothing awake.
"""

from __future__ import annotations

import asyncio
import logging

from .. import metrics
from ..errors import NotFound, SandboxError
from ..models import ConversationRecord
from ..sandbox.sandboxes import Sandboxes
from ..stores.database import Database
from .conversations import Conversations
from .righting import Righted
from .states import State

_AT_ONCE = 8


class Adopting:
    """The chore of each server process: it needs streams of its own to every sandbox."""

    def __init__(
        self,
        conversations: Conversations,
        sandboxes: Sandboxes,
        database: Database,
        log: logging.Logger,
    ) -> None:
        self._conversations = conversations
        self._sandboxes = sandboxes
        self._database = database
        self._log = log
        self._turns = asyncio.Semaphore(_AT_ONCE)

    def __repr__(self) -> str:
        return f"<Adopting by {self._sandboxes.engine!r}>"

    async def adopt_all(self) -> None:
        """Do it once; one that fails spoils no other.

        Raises
        ------
        Unavailable
            The engine or the database does not answer.
        """
        there = {each.sandbox_id: str(each.state) for each in await self._sandboxes.list()}
        records = await self._database.conversations_with_sandbox()
        due = [each for each in records if self._is_due(each, there.get(each.sandbox_id, ""))]
        done = await asyncio.gather(*(self._put_right(each) for each in due))
        adopted = done.count(Righted.ADOPTED)
        if adopted:
            self._log.info("adopted: %d sandboxes that ran already", adopted)

    def _is_due(self, record: ConversationRecord, state: str) -> bool:
        if record.state == State.STARTING:
            return True
        if record.engine != self._sandboxes.engine.name:
            return False  # what another engine has cannot be seen from here
        if record.state == State.RUNNING:
            return not self._conversations.live(record.conversation_id).is_attached
        return record.state == State.SUSPENDED and state != "paused"

    async def _put_right(self, record: ConversationRecord) -> Righted:
        conversation = self._conversations.live(record.conversation_id)
        try:
            async with self._turns:
                done = await conversation.put_right()
                if done is Righted.ADOPTED and conversation.sandbox is not None:
                    await conversation.sandbox.adopt_python()
        except NotFound:
            done = Righted.NOTHING
        except SandboxError as exc:
            self._log.warning(
                "conversation %s: not adopted: %s %s", record.conversation_id, exc, exc.detail
            )
            done = Righted.FAILED
        if done in (Righted.GIVEN_UP, Righted.STILLED):
            self._log.info("conversation %s: put right: %s", record.conversation_id, done)
        if done is not Righted.NOTHING:
            metrics.count_adopted(done)
        return done
