"""The journal of conversations: one writer for all that their message streams tell.

It knows messages and no clients. The rule: ``add`` costs its caller next to nothing; what was added
in a moment is written together, in order. A database that fails costs messages only when it fails
for so long that what waits reaches its bound.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from ..errors import SandboxError
from ..event_loop import require_loop
from ..fair_turns import NOBODY, acting_for
from ..models import JsonValue, MessageKind, MessageRecord
from ..stores.message_records import Entry, MessagePage, MessageRecords, require_number

_BATCH_SECONDS = 0.05
_RETRY_SECONDS = 1.0
_MOST_WAITING_BYTES = 32 * 1024 * 1024

Written = Callable[[Mapping[str, int]], None]


class Journal:
    """The writer of this server process, and what readers ask."""

    def __init__(self, records: MessageRecords, log: logging.Logger) -> None:
        self._records = records
        self._log = log
        self._waiting: list[Entry] = []
        self._waiting_bytes = 0
        self._lost = 0
        self._lock = asyncio.Lock()  # held while a batch is written: batches keep their order
        self._writer: asyncio.Task[None] | None = None
        self._closed = False
        self.on_written: Written = _nobody

    def __repr__(self) -> str:
        return f"<Journal {len(self._waiting)} wait>"

    def add(self, conversation_id: str, kind: MessageKind, body: Mapping[str, JsonValue]) -> None:
        """Add a message soon; nobody waits for it. One of a deleted conversation is nowhere.

        On the loop only.
        """
        require_loop()
        entry = _entry(conversation_id, kind, body)
        if self._waiting_bytes + len(entry.body) > _MOST_WAITING_BYTES:
            self._lost += 1
            return
        self._waiting.append(entry)
        self._waiting_bytes += len(entry.body)
        if self._writer is None and not self._closed:
            self._writer = asyncio.ensure_future(self._write_soon())

    async def put(
        self, conversation_id: str, kind: MessageKind, body: Mapping[str, JsonValue]
    ) -> MessageRecord:
        """Add a message now, behind all that waits, and give it.

        Raises
        ------
        NotFound
            The conversation was deleted.
        Unavailable
            The database does not answer; the message was not added.
        """
        entry = _entry(conversation_id, kind, body)
        return await asyncio.shield(asyncio.ensure_future(self._put(entry)))

    async def flush(self) -> None:
        """Wait until all that was added is written."""
        await asyncio.shield(asyncio.ensure_future(self._flush()))

    async def page(self, conversation_id: str, after: int, most: int) -> MessagePage:
        """Give the messages behind number ``after``, also those that wait just now."""
        if self._waiting or self._lock.locked():
            await self.flush()
        return await self._records.page(conversation_id, after, most)

    async def close(self) -> None:
        """Write what waits. Twice is once."""
        self._closed = True
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
        try:
            await self.flush()
        except SandboxError as exc:
            self._log.warning("%d messages: not recorded: %s", len(self._waiting), exc.message)

    async def _write_soon(self) -> None:
        delay = _BATCH_SECONDS
        try:
            while self._waiting:
                await asyncio.sleep(delay)
                try:
                    await self.flush()
                    delay = _BATCH_SECONDS
                except SandboxError as exc:
                    if delay == _BATCH_SECONDS:
                        self._log.warning("messages wait: %s %s", exc.message, exc.detail)
                    delay = _RETRY_SECONDS
        finally:
            self._writer = None

    async def _flush(self) -> None:
        async with self._lock:
            await self._write()

    async def _put(self, entry: Entry) -> MessageRecord:
        async with self._lock:
            await self._write()
            with acting_for(NOBODY):
                (number,) = await self._records.append([entry])
        require_number(number)
        self.on_written({entry.conversation_id: number})
        body = json.loads(entry.body)
        return MessageRecord(entry.conversation_id, number, entry.kind, entry.at, body)

    async def _write(self) -> None:
        """Write what waits; the lock is held. What cannot be written goes on waiting."""
        entries, self._waiting = self._waiting, []
        if not entries:
            return
        try:
            with acting_for(NOBODY):  # they are of all users, whoever waits for it
                numbers = await self._records.append(entries)
        except BaseException:
            self._waiting[:0] = entries
            raise
        self._waiting_bytes -= sum(len(entry.body) for entry in entries)
        if self._lost:
            self._log.warning("%d messages were lost while the database failed", self._lost)
            self._lost = 0
        pairs = zip(entries, numbers, strict=True)
        self.on_written({entry.conversation_id: number for entry, number in pairs if number})


def _entry(conversation_id: str, kind: MessageKind, body: Mapping[str, JsonValue]) -> Entry:
    """Give the message as it is stored: JSON in ASCII, which holds any text."""
    text = json.dumps(body, separators=(",", ":"))
    return Entry(conversation_id, kind, datetime.now(UTC), text)


def _nobody(written: Mapping[str, int]) -> None:
    """Tell nobody."""
