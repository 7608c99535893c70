"""Puts a record and its engine's environment in agreement after a server died between two steps.

Each function is called with the conversation's lock held. The rule: the record is what was meant,
so the engine follows it; a record changes only for what cannot be had any more; and whoever changed
the engine looks at the record again, because another server may have moved it meanwhile.
"""

from __future__ import annotations

import enum

from ..models import ConversationRecord
from ..sandbox.sandboxes import Sandboxes
from ..stores.database import Database
from ..stores.server_marks import ServerMarks
from .states import State

_TRIES = 3


class Righted(enum.StrEnum):
    """What was done."""

    NOTHING = "nothing"
    ADOPTED = "adopted"
    LOST = "lost"
    STILLED = "stilled"
    GIVEN_UP = "given_up"
    FAILED = "failed"


def ended_claim(record: ConversationRecord, marks: ServerMarks) -> str:
    """Give who holds the claim if nobody provisions by it any more, else "".

    A server that has ended, however it ended; or this one, of which only the holder of the lock
    provisions.
    """
    holder = record.claimed_by
    return "" if holder != marks.process_id and marks.is_alive(holder) else holder


async def give_up_start(
    record: ConversationRecord, database: Database, sandboxes: Sandboxes, marks: ServerMarks
) -> Righted:
    """Let a conversation go whose sandbox a server was making when it died; remove the remains."""
    holder = ended_claim(record, marks)
    if not holder or not await database.give_up_claim(record.conversation_id, holder):
        return Righted.NOTHING
    if record.sandbox_id:  # kept in the record: what fails here is reaped
        await sandboxes.remove(record.sandbox_id)
    return Righted.GIVEN_UP


async def keep_still(
    record: ConversationRecord, database: Database, sandboxes: Sandboxes
) -> Righted:
    """Let a sandbox stand that is recorded as suspended; ``LOST`` when there is none."""
    done = Righted.NOTHING
    for _ in range(_TRIES):
        state = await sandboxes.state(record.sandbox_id)
        if not state:
            return Righted.LOST
        now = await database.conversation(record.conversation_id)
        if now is None or now.sandbox_id != record.sandbox_id:
            return Righted.NOTHING
        if now.state == State.RUNNING and done is Righted.STILLED:  # woken by another server
            await sandboxes.resume(record.sandbox_id)
            return Righted.NOTHING
        if now.state != State.SUSPENDED or state == "paused":
            return done
        await sandboxes.pause(record.sandbox_id)
        done = Righted.STILLED
    return done
