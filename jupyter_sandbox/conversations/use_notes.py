"""Notes in the database that a conversation is in use: who suspends and ends by time reads them.

The rules: a use is noted at most every few seconds; what applies to the user's groups goes with the
next note; a database that does not answer keeps nobody from a sandbox that is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from ..errors import NotFound, SandboxError, Unavailable
from ..models import ConversationRecord, IdleTimes
from ..stores.idle_records import IdleRecords

_EVERY_SECONDS = 5.0


class UseNotes:
    """The notes of one conversation by this server."""

    def __init__(self, conversation_id: str, records: IdleRecords, log: logging.Logger) -> None:
        self._conversation_id = conversation_id
        self._records = records
        self._log = log
        self._noted_at = -_EVERY_SECONDS
        self._times: IdleTimes | None = None  # of the user's groups
        self._times_given = False
        self._times_stored = True

    def __repr__(self) -> str:
        return f"<UseNotes {self._conversation_id} {self._noted_at:.0f}>"

    def set_times(self, times: IdleTimes | None) -> None:
        """Remember what applies to the user's groups; stored with the next note."""
        if not self._times_given or times != self._times:
            self._times, self._times_given, self._times_stored = times, True, False

    def noted(self) -> None:
        """Know that a use of this moment is in the record already."""
        self._noted_at = self._now()

    def forget(self) -> None:
        """Let the next use be noted, however shortly it follows."""
        self._noted_at = -_EVERY_SECONDS

    async def note_begin(self) -> ConversationRecord | None:
        """Note a use, and give the record as it is then; None: it was noted a moment ago.

        Raises
        ------
        NotFound
            The conversation was deleted.
        """
        if self._times_stored and not self._is_old():
            return None
        set_times = not self._times_stored
        self._noted_at, self._times_stored = self._now(), True
        try:
            record = await self._records.note_use(
                self._conversation_id, self._times, set_times=set_times
            )
        except Unavailable as exc:  # what runs in a sandbox that is there needs no database
            self._log.warning(
                "conversation %s: use not noted: %s", self._conversation_id, exc.message
            )
            self._noted_at, self._times_stored = self._now(), not set_times
            return None
        if record is None:
            raise NotFound("There is no such conversation.")
        return record

    async def note_in_flight(self) -> ConversationRecord | None:
        """Note a use that goes on; give the record, None if the conversation was deleted."""
        self._noted_at = self._now()
        return await self._records.note_use(self._conversation_id)

    async def note_end(self) -> None:
        """Note the end of a use, if its beginning is some time ago."""
        if self._is_old():
            self._noted_at = self._now()
            with contextlib.suppress(SandboxError):
                await asyncio.shield(self._records.note_use(self._conversation_id))

    def _is_old(self) -> bool:
        return self._now() - self._noted_at > _EVERY_SECONDS

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
