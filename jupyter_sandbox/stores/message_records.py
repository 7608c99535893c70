"""The table of messages: what happened in a conversation, numbered from 1 without gaps, and sealed.

It knows rows and nothing of calls or clients. The rule: rows are only added behind the last one, in
one transaction with their numbers, so whoever has seen number n has seen, or can still see, all
before it. What exceeds the bounds of a conversation goes from its beginning. A body is sealed by
its conversation's key: it opens as no other message, of no other kind or time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.exc import IntegrityError

from ..errors import NotFound, Unavailable
from ..models import MessageKind, MessageRecord
from .connections import Connections, transaction
from .kept_bytes import BODY_SIZE, MESSAGE_BYTES, Change, KeptBytes, count, lock_owners, lock_totals
from .master_keys import KeyUnusable
from .row_seals import RowSeal, RowSeals
from .schema import conversations, from_microseconds, messages, to_microseconds

_LOG = logging.getLogger(__name__)

MOST_MESSAGES = 10_000
MOST_BYTES = 32 * 1024 * 1024
_TRIES = 50
_OLDEST_AT_ONCE = 100
_PAGE_BYTES = 4 * 1024 * 1024

m = messages.c
_MINE = m.conversation_id == bindparam("id")
_IDS: sa.BindParameter[Any] = bindparam("ids", expanding=True)
_AFTER = bindparam("after", type_=sa.BigInteger)

_INSERT = sa.insert(messages)
_SELECT_LAST = sa.select(m.seq, m.upto_bytes).where(_MINE).order_by(m.seq.desc()).limit(1)
_SELECT_ENDS = sa.select(sa.func.min(m.seq), sa.func.max(m.seq)).where(_MINE)
_SELECT_PAGE = (
    sa.select(m.conversation_id, m.seq, m.kind, m.at, m.body, m.sealed_body)
    .where(_MINE, m.seq > _AFTER)
    .order_by(m.seq)
    .limit(bindparam("most", type_=sa.Integer))
)
_SELECT_OLDEST = (
    sa.select(m.seq, m.upto_bytes, (MESSAGE_BYTES + BODY_SIZE).label("size"))
    .where(_MINE, m.seq < bindparam("last", type_=sa.BigInteger))
    .order_by(m.seq)
    .limit(_OLDEST_AT_ONCE)
)
_PRUNE = sa.delete(messages).where(_MINE, m.seq <= bindparam("upto", type_=sa.BigInteger))
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
    kept : KeptBytes
        Counts them with all else that a conversation keeps.
    most_messages, most_bytes : int
        How much of a conversation is kept; the last message always is.
    """

    def __init__(
        self,
        connections: Connections,
        seals: RowSeals,
        kept: KeptBytes,
        most_messages: int = MOST_MESSAGES,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._connections = connections
        self._seals = seals
        self._kept = kept
        self._most_messages = most_messages
        self._most_bytes = most_bytes

    def __repr__(self) -> str:
        return f"<MessageRecords {self._connections!r}>"

    async def append(self, entries: Sequence[Entry]) -> list[int]:
        """Add messages behind the last ones, all or none; give their numbers, in order.

        0 stands for one whose conversation was deleted.
        """
        seals = await self._seals_of(entries)

        def work(connection: sa.Connection) -> list[int]:
            for _ in range(_TRIES):
                try:
                    with transaction(connection):
                        owners = lock_owners(connection, seals)
                        numbers = self._append(connection, entries, seals, owners)
                except IntegrityError:  # another process took the number, or deleted all
                    continue
                self._kept.prune(connection, owners)
                return numbers
            raise Unavailable("the sandbox database found no free number for a message")

        return await self._connections.run(work)

    async def page(self, conversation_id: str, after: int, most: int) -> MessagePage:
        """Give the messages behind number ``after``; at most so many, and 4 MiB of them."""
        values = {"id": conversation_id, "after": after, "most": most}
        seal = await self._seals.find(conversation_id)

        def work(connection: sa.Connection) -> MessagePage:
            found: list[MessageRecord] = []
            size = 0
            for row in connection.execute(_SELECT_PAGE, values):
                size += len(row.body) + len(row.sealed_body or b"")
                if found and size > _PAGE_BYTES:
                    break
                found.append(_message(row, seal))
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

    async def _seals_of(self, entries: Sequence[Entry]) -> dict[str, RowSeal]:
        """Give what seals the messages of those conversations that there are."""
        seals: dict[str, RowSeal] = {}
        for conversation_id in {entry.conversation_id for entry in entries}:
            try:
                seals[conversation_id] = await self._seals.get_or_make(conversation_id)
            except NotFound:
                pass
            except KeyUnusable as exc:  # nobody else's messages wait for this one's key
                if len(entries) == 1:
                    raise
                _LOG.warning("conversation %s: messages: %s %s", conversation_id, exc, exc.detail)
        return seals

    def _append(
        self,
        connection: sa.Connection,
        entries: Sequence[Entry],
        seals: Mapping[str, RowSeal],
        owners: Mapping[str, str],
    ) -> list[int]:
        lock_totals(connection, owners)
        ends = {
            each: (row.seq, row.upto_bytes) if row is not None else (0, 0)
            for each in owners
            for row in [connection.execute(_SELECT_LAST, {"id": each}).first()]
        }
        sizes = dict.fromkeys(owners, 0)
        numbers, rows = [], []
        for entry in entries:
            each = entry.conversation_id
            if each not in ends:
                numbers.append(0)
                continue
            seq, upto_bytes = ends[each]
            ends[each] = seq, upto_bytes = seq + 1, upto_bytes + len(entry.body)
            numbers.append(seq)
            at = to_microseconds(entry.at)
            sealed = sealed_body(seals[each], seq, entry.kind, at, entry.body)
            sizes[each] += MESSAGE_BYTES + len(sealed)
            rows.append(
                {
                    "conversation_id": each,
                    "seq": seq,
                    "kind": entry.kind,
                    "at": at,
                    "body": "",
                    "upto_bytes": upto_bytes,
                    "sealed_body": sealed,
                }
            )
        if rows:
            rows.sort(key=lambda row: (row["conversation_id"], row["seq"]))
            connection.execute(_INSERT, rows)
        for each, end in ends.items():
            sizes[each] -= self._prune(connection, each, *end)
        count(connection, owners, {each: Change(size) for each, size in sizes.items()})
        return numbers

    def _prune(
        self, connection: sa.Connection, conversation_id: str, last: int, upto_bytes: int
    ) -> int:
        """Remove what a conversation has too much; give how many bytes that was."""
        before_seq, before_bytes = last - self._most_messages, upto_bytes - self._most_bytes
        if before_seq <= 0 and before_bytes <= 0:
            return 0
        size = 0
        while True:
            upto = 0
            for row in connection.execute(_SELECT_OLDEST, {"id": conversation_id, "last": last}):
                if row.seq > before_seq and row.upto_bytes > before_bytes:
                    break
                upto, size = row.seq, size + row.size
            if not upto:
                return size
            connection.execute(_PRUNE, {"id": conversation_id, "upto": upto})


def require_number(number: int) -> int:
    """Give the number of a message; ``NotFound`` for 0: its conversation was deleted."""
    if not number:
        raise NotFound("There is no such conversation.")
    return number


def sealed_body(seal: RowSeal, seq: int, kind: str, at: int, body: str) -> bytes:
    """Give the body of a message as it is stored."""
    return seal.seal(body.encode("ascii"), "messages", str(seq), kind, str(at), "sealed_body")


def _message(row: Any, seal: RowSeal | None) -> MessageRecord:
    body = row.body
    if row.sealed_body is not None:
        if seal is None:
            raise KeyUnusable("the key of this conversation's messages is gone")
        place = ("messages", str(row.seq), row.kind, str(row.at), "sealed_body")
        body = seal.open(row.sealed_body, *place)
    return MessageRecord(
        conversation_id=row.conversation_id,
        seq=row.seq,
        kind=row.kind,
        at=from_microseconds(row.at),
        body=json.loads(body),
    )
