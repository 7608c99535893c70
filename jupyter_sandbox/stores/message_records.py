"""The table of messages: what happened in a conversation, numbered from 1 without gaps.

It knows rows and nothing of calls or clients. The rule: rows are only added behind the last one, in
one transaction with their numbers, so whoever has seen number n has seen, or can still see, all
before it. What exceeds the bounds of a conversation goes from its beginning.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.exc import IntegrityError

from ..errors import NotFound, Unavailable
from ..models import MessageKind, MessageRecord
from .connections import Connections
from .schema import conversations, from_microseconds, messages, to_microseconds

MOST_MESSAGES = 10_000
MOST_BYTES = 32 * 1024 * 1024
_TRIES = 50
_PAGE_BYTES = 4 * 1024 * 1024

m = messages.c
_MINE = m.conversation_id == bindparam("id")
_IDS: sa.BindParameter[Any] = bindparam("ids", expanding=True)
_AFTER = bindparam("after", type_=sa.BigInteger)

_INSERT = sa.insert(messages)
_SELECT_KNOWN = sa.select(conversations.c.conversation_id).where(
    conversations.c.conversation_id.in_(_IDS)
)
_SELECT_LAST = sa.select(m.seq, m.upto_bytes).where(_MINE).order_by(m.seq.desc()).limit(1)
_SELECT_ENDS = sa.select(sa.func.min(m.seq), sa.func.max(m.seq)).where(_MINE)
_SELECT_PAGE = (
    sa.select(m.conversation_id, m.seq, m.kind, m.at, m.body)
    .where(_MINE, m.seq > _AFTER)
    .order_by(m.seq)
    .limit(bindparam("most", type_=sa.Integer))
)
_PRUNE = sa.delete(messages).where(
    _MINE,
    sa.or_(
        m.seq <= bindparam("before_seq", type_=sa.BigInteger),
        m.upto_bytes <= bindparam("before_bytes", type_=sa.BigInteger),
    ),
    m.seq < bindparam("last", type_=sa.BigInteger),
)
_SELECT_HEADS = (
    sa.select(conversations.c.conversation_id, sa.func.coalesce(sa.func.max(m.seq), 0))
    .select_from(
        conversations.outerjoin(messages, m.conversation_id == conversations.c.conversation_id)
    )
    .where(conversations.c.conversation_id.in_(_IDS))
    .group_by(conversations.c.conversation_id)
)


@dataclass(frozen=True)
class Entry:
    """A message that has no number yet; ``body`` is a JSON object."""

    conversation_id: str
    kind: MessageKind
    at: datetime
    body: str = field(repr=False)


@dataclass(frozen=True)
class MessagePage:
    """Messages in their order, and the first and last number that there is now (0: none)."""

    messages: tuple[MessageRecord, ...]
    first: int
    last: int


class MessageRecords:
    """The rows.

    Parameters
    ----------
    most_messages, most_bytes : int
        How much of a conversation is kept; the last message always is.
    """

    def __init__(
        self,
        connections: Connections,
        most_messages: int = MOST_MESSAGES,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._connections = connections
        self._most_messages = most_messages
        self._most_bytes = most_bytes

    def __repr__(self) -> str:
        return f"<MessageRecords {self._connections!r}>"

    async def append(self, entries: Sequence[Entry]) -> list[int]:
        """Add messages behind the last ones, all or none; give their numbers, in order.

        0 stands for one whose conversation was deleted.
        """

        def work(connection: sa.Connection) -> list[int]:
            # SQLite: what is read first must not be overtaken before it is written.
            begin = "BEGIN IMMEDIATE" if connection.dialect.name == "sqlite" else "BEGIN"
            for _ in range(_TRIES):
                connection.exec_driver_sql(begin)
                try:
                    numbers = self._append(connection, entries)
                    connection.exec_driver_sql("COMMIT")
                except IntegrityError:  # another process took the number, or deleted all
                    connection.exec_driver_sql("ROLLBACK")
                except BaseException:
                    connection.exec_driver_sql("ROLLBACK")
                    raise
                else:
                    return numbers
            raise Unavailable("the sandbox database found no free number for a message")

        return await self._connections.run(work)

    async def page(self, conversation_id: str, after: int, most: int) -> MessagePage:
        """Give the messages behind number ``after``; at most so many, and 4 MiB of them."""
        values = {"id": conversation_id, "after": after, "most": most}

        def work(connection: sa.Connection) -> MessagePage:
            found: list[MessageRecord] = []
            size = 0
            for row in connection.execute(_SELECT_PAGE, values):
                size += len(row.body)
                if found and size > _PAGE_BYTES:
                    break
                found.append(_message(row))
            first, last = connection.execute(_SELECT_ENDS, {"id": conversation_id}).one()
            return MessagePage(tuple(found), first or 0, last or 0)

        return await self._connections.run(work)

    async def last(self, conversation_ids: Collection[str]) -> dict[str, int]:
        """Give the last number of each conversation that there is; 0: it has no message."""
        values = {"ids": list(conversation_ids)}
        return await self._connections.run(
            lambda connection: {
                str(row[0]): int(row[1]) for row in connection.execute(_SELECT_HEADS, values)
            }
        )

    def _append(self, connection: sa.Connection, entries: Sequence[Entry]) -> list[int]:
        ids = sorted({entry.conversation_id for entry in entries})  # in one order: no deadlock
        known = {str(row[0]) for row in connection.execute(_SELECT_KNOWN, {"ids": ids})}
        ends = {
            each: (row.seq, row.upto_bytes) if row is not None else (0, 0)
            for each in ids
            if each in known
            for row in [connection.execute(_SELECT_LAST, {"id": each}).first()]
        }
        numbers, rows = [], []
        for entry in entries:
            if entry.conversation_id not in ends:
                numbers.append(0)
                continue
            seq, upto_bytes = ends[entry.conversation_id]
            ends[entry.conversation_id] = seq, upto_bytes = seq + 1, upto_bytes + len(entry.body)
            numbers.append(seq)
            rows.append(
                {
                    "conversation_id": entry.conversation_id,
                    "seq": seq,
                    "kind": entry.kind,
                    "at": to_microseconds(entry.at),
                    "body": entry.body,
                    "upto_bytes": upto_bytes,
                }
            )
        if rows:
            rows.sort(key=lambda row: (row["conversation_id"], row["seq"]))
            connection.execute(_INSERT, rows)
        self._prune(connection, ends.items())
        return numbers

    def _prune(
        self, connection: sa.Connection, ends: Iterable[tuple[str, tuple[int, int]]]
    ) -> None:
        for conversation_id, (last, upto_bytes) in ends:
            before_seq, before_bytes = last - self._most_messages, upto_bytes - self._most_bytes
            if before_seq > 0 or before_bytes > 0:
                values = {
                    "id": conversation_id,
                    "before_seq": before_seq,
                    "before_bytes": before_bytes,
                    "last": last,
                }
                connection.execute(_PRUNE, values)


def require_number(number: int) -> int:
    """Give the number of a message; ``NotFound`` for 0: its conversation was deleted."""
    if not number:
        raise NotFound("There is no such conversation.")
    return number


def _message(row: Any) -> MessageRecord:
    return MessageRecord(
        conversation_id=row.conversation_id,
        seq=row.seq,
        kind=row.kind,
        at=from_microseconds(row.at),
        body=json.loads(row.body),
    )
