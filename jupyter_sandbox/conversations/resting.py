"""A sandbox that stands still, and goes on: in the database, in the engine, and in what is told.

It knows no attached sandbox; ``Conversation`` does, and holds its lock. The rules: the database
moves first, so whoever sees "suspended" lets the engine go on before it uses a sandbox, whatever
became of the freezing; who wakes one waits until it stands, or until its freezer is dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from ..errors import Unavailable
from ..models import ConversationRecord
from ..sandbox.sandboxes import Sandboxes
from ..stores.idle_records import IdleRecords
from ..stores.server_marks import ServerMarks
from .notices import suspended_sandbox, woken_sandbox
from .places import Places
from .righting import ended_claim

BY_HAND = "it was suspended by hand"


class Resting:
    """Suspends and wakes."""

    def __init__(
        self,
        idle: IdleRecords,
        places: Places,
        sandboxes: Sandboxes,
        marks: ServerMarks,
        log: logging.Logger,
    ) -> None:
        self._idle = idle
        self._places = places
        self._sandboxes = sandboxes
        self._marks = marks
        self._server_id = marks.process_id
        self._log = log

    def __repr__(self) -> str:
        return f"<Resting by {self._server_id}>"

    @property
    def records(self) -> IdleRecords:
        """Notes of uses."""
        return self._idle

    async def suspend(self, record: ConversationRecord, because: str) -> str:
        """Let a sandbox that runs stand still; give what to tell of it, "" if it was used since.

        Raises
        ------
        Unavailable
            The engine did not freeze it. It is suspended all the same: its next use wakes it.
        """
        if not await self._idle.suspend(record, because, self._server_id):
            return ""
        await self._freeze(record)
        return suspended_sandbox(because)

    async def begin_wake(self, record: ConversationRecord) -> bool:
        """Move to running; False: look again, another does, or it is being frozen.

        Raises
        ------
        LimitExceeded, Unavailable
            There is no place for it now.
        """
        return await self._places.wake(record, ended_claim(record, self._marks))

    async def undo_wake(self, record: ConversationRecord) -> None:
        """Let it be suspended again: the engine did not let it go on."""
        with contextlib.suppress(Unavailable):
            await asyncio.shield(self._idle.back_to_rest(record))

    def told(self, record: ConversationRecord) -> str:
        """Give the notice for the next result, of a record that was suspended."""
        slept = None
        if record.suspended_at is not None:
            slept = (self._idle.now() - record.suspended_at).total_seconds()
        return woken_sandbox(slept, record.suspended_because or "")

    async def _freeze(self, record: ConversationRecord) -> None:
        try:
            await self._sandboxes.pause(record.sandbox_id)
        except BaseException:
            with contextlib.suppress(Unavailable):
                await asyncio.shield(self._idle.not_frozen(record, self._server_id))
            raise
        await self._idle.frozen(record, self._server_id)
