"""How much the results and messages of conversations take in the database, and what goes for more.

It knows rows and sizes, no contents and no keys. The rules: totals change in the transaction that
changes what they count, so no crash leaves them wrong and nobody adds anything up; what is over a
bound goes a bounded piece at a time, in transactions of its own behind the one that brought it. Who
changes rows locks in this order: conversations, their totals, the owners' totals, and only then the
rows (``lock_owners``, then ``count`` or ``lock_totals``); so no two wait for each other.

What goes first: of a conversation the oldest pictures, then the oldest results, then the oldest
calls; the newest result stays. Of an owner the results, then the messages, of the conversation that
was used longest ago.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from .connections import transaction
from .file_space import without_overwriting
from .schema import calls, conversations, kept_bytes, kept_bytes_of_owners, messages

CALL_BYTES = 512
"""What a call takes beside its result: its row, its places in the indexes."""
MESSAGE_BYTES = 256
"""The same of a message."""

MOST_CALLS = 10_000
_MORE_CALLS = 500  # than that: then the oldest go, all at once
_MOST_SLACK_BYTES = 16 * 1024**2
_MOST_FREED_BYTES = 64 * 1024**2  # at once; more than a call can bring
_AT_ONCE = 1000
_MOST_VICTIMS = 20
_LEAST_VICTIM_BYTES = 4096

GONE_MESSAGE = (
    '{"text":"Earlier messages of this conversation are no longer kept: the results and messages '
    'of all conversations of its user exceeded their limit."}'
)

k, m, c = calls.c, messages.c, conversations.c
_ID: sa.BindParameter[Any] = bindparam("id")
_IDS: sa.BindParameter[Any] = bindparam("ids", expanding=True)
_LENGTH = sa.func.length


def _size(*columns: sa.Column[Any]) -> sa.ColumnElement[int]:
    size: sa.ColumnElement[int] = sa.literal(0)
    for column in columns:
        size = size + sa.func.coalesce(_LENGTH(column), 0)
    return size


RESULT_SIZE = _size(k.result, k.sealed_result, k.sealed_pictures)
BODY_SIZE = _size(m.body, m.sealed_body)

_OWNERS = (
    sa.select(c.conversation_id, c.owner)
    .where(c.conversation_id.in_(_IDS))
    .order_by(c.conversation_id)
    .with_for_update(read=True, key_share=True)
)
# As text: SQLAlchemy has the upsert of each database by itself, and they are the same.
_ADD = sa.text(
    "INSERT INTO kept_bytes (conversation_id, owner, size_bytes, calls) "
    "VALUES (:id, :owner, :size_bytes, :calls) ON CONFLICT (conversation_id) DO UPDATE SET "
    "size_bytes = kept_bytes.size_bytes + excluded.size_bytes, "
    "calls = kept_bytes.calls + excluded.calls"
)
_ADD_TO_OWNER = sa.text(
    "INSERT INTO kept_bytes_of_owners (owner, size_bytes) VALUES (:owner, :size_bytes) "
    "ON CONFLICT (owner) DO UPDATE SET "
    "size_bytes = kept_bytes_of_owners.size_bytes + excluded.size_bytes"
)
_TOTALS = (
    sa.select(
        kept_bytes.c.conversation_id,
        kept_bytes.c.size_bytes,
        kept_bytes.c.calls,
        kept_bytes.c.owner,
        kept_bytes_of_owners.c.size_bytes.label("owner_bytes"),
    )
    .join(kept_bytes_of_owners, kept_bytes_of_owners.c.owner == kept_bytes.c.owner)
    .where(kept_bytes.c.conversation_id.in_(_IDS))
)
_TOTAL_OF_OWNER = sa.select(kept_bytes_of_owners.c.size_bytes).where(
    kept_bytes_of_owners.c.owner == bindparam("owner")
)
_VICTIMS = (
    sa.select(kept_bytes.c.conversation_id)
    .join(conversations, c.conversation_id == kept_bytes.c.conversation_id)
    .where(
        kept_bytes.c.owner == bindparam("owner"),
        kept_bytes.c.size_bytes > _LEAST_VICTIM_BYTES,
    )
    .order_by(c.used_at, c.conversation_id)
    .limit(_MOST_VICTIMS)
)
_LOCK_TO_DELETE = sa.select(c.owner).where(c.conversation_id == _ID).with_for_update()
_FORGET = sa.delete(kept_bytes).where(kept_bytes.c.conversation_id == _ID)

_MINE = k.conversation_id == _ID
_HAS_RESULT = sa.or_(k.sealed_result.is_not(None), k.result.is_not(None))
_NEWEST = (
    sa.select(k.call_id)
    .where(_MINE, _HAS_RESULT)
    .order_by(k.started_at.desc(), k.call_id.desc())
    .limit(1)
)


def _oldest(size: sa.ColumnElement[int], condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return (
        sa.select(k.call_id, size.label("size"))
        .where(_MINE, k.call_id != bindparam("newest"), condition)
        .order_by(k.started_at, k.call_id)
        .limit(_AT_ONCE)
    )


_THESE = k.call_id.in_(_IDS)
_NO_PICTURES = sa.update(calls).where(_THESE).values(sealed_pictures=None)
_NO_RESULT = _NO_PICTURES.values(sealed_result=None, result=None)
_OLDEST_PICTURES = _oldest(_size(k.sealed_pictures), k.sealed_pictures.is_not(None))
_OLDEST_RESULTS = _oldest(RESULT_SIZE, _HAS_RESULT)
_OLDEST_CALLS = _oldest(CALL_BYTES + RESULT_SIZE, k.state != "running")
_DELETE_CALLS = sa.delete(calls).where(_THESE)

_OF_IT = m.conversation_id == _ID
_HAS_PLAIN = sa.select(
    sa.or_(
        sa.exists().where(k.result.is_not(None)),
        sa.exists().where(m.body != sa.literal_column("''")),
    )
)
_DELETE_ALL_CALLS = sa.delete(calls).where(_MINE)
_DELETE_ALL_MESSAGES = sa.delete(messages).where(_OF_IT)
_OLDEST_MESSAGES = (
    sa.select(m.seq, (MESSAGE_BYTES + BODY_SIZE).label("size"))
    .where(_OF_IT)
    .order_by(m.seq)
    .limit(_AT_ONCE)
)
_LAST_MESSAGE = sa.select(sa.func.max(m.seq)).where(_OF_IT)
_DELETE_MESSAGES = sa.delete(messages).where(
    _OF_IT, m.seq <= bindparam("upto", type_=sa.BigInteger)
)
_EMPTY_LAST = (
    sa.update(messages)
    .where(_OF_IT, m.seq == bindparam("last", type_=sa.BigInteger))
    .values(kind="notice", body=GONE_MESSAGE, sealed_body=None)
)


@dataclass(frozen=True)
class Change:
    """By how much what a conversation keeps has grown; less than 0: become less."""

    size_bytes: int = 0
    calls: int = 0

    def __add__(self, other: Change) -> Change:
        return Change(self.size_bytes + other.size_bytes, self.calls + other.calls)


class KeptBytes:
    """The totals, and the bounds that they are held to.

    Parameters
    ----------
    conversation_bytes, owner_bytes : int
        Of results and messages of a conversation, and of all conversations of an owner.
    """

    def __init__(
        self, conversation_bytes: int, owner_bytes: int, most_calls: int = MOST_CALLS
    ) -> None:
        self._conversation_bytes = conversation_bytes
        self._owner_bytes = owner_bytes
        self._most_calls = most_calls

    def __repr__(self) -> str:
        return f"<KeptBytes at most {self._conversation_bytes} and {self._owner_bytes}>"

    def prune(self, connection: sa.Connection, conversation_ids: Collection[str]) -> None:
        """Remove what these and their owners have too much; outside of a transaction."""
        over = set()
        for row in connection.execute(_TOTALS, {"ids": list(conversation_ids)}).all():
            need = _excess(row.size_bytes, self._conversation_bytes)
            more = row.calls - self._most_calls
            spare = more if more > _MORE_CALLS else 0
            if need or spare:
                _shrink(connection, row.conversation_id, need, spare)
            if row.owner_bytes > self._owner_bytes:
                over.add(row.owner)
        for owner in over:
            values = {"owner": owner}
            total = connection.execute(_TOTAL_OF_OWNER, values).scalar_one()
            need = _excess(total, self._owner_bytes)
            for victim in connection.execute(_VICTIMS, values).scalars().all() if need else ():
                need -= _shrink(connection, victim, need, messages_too=True)
                if need <= 0:
                    break


def lock_owners(connection: sa.Connection, conversation_ids: Collection[str]) -> dict[str, str]:
    """Give the owners of those conversations that there are; none is deleted meanwhile."""
    ids = sorted(set(conversation_ids))
    return {row[0]: row[1] for row in connection.execute(_OWNERS, {"ids": ids})}


def lock_totals(connection: sa.Connection, owners: Mapping[str, str]) -> None:
    """Lock the totals before it is known what to count; SQLite is locked as a whole anyway."""
    if connection.dialect.name != "sqlite":
        count(connection, owners, {each: Change() for each in owners})


def count(
    connection: sa.Connection, owners: Mapping[str, str], changes: Mapping[str, Change]
) -> None:
    """Count what was added or removed, in the transaction that did; ``owners`` are locked."""
    of_owners: dict[str, int] = {}
    for conversation_id in sorted(changes):
        change, owner = changes[conversation_id], owners[conversation_id]
        of_owners[owner] = of_owners.get(owner, 0) + change.size_bytes
        values = {"id": conversation_id, "owner": owner, **vars(change)}
        connection.execute(_ADD, values)
    for owner in sorted(of_owners):
        connection.execute(_ADD_TO_OWNER, {"owner": owner, "size_bytes": of_owners[owner]})


def forget(connection: sa.Connection, conversation_id: str) -> None:
    """Delete a conversation's calls and messages, and count it no more.

    In the transaction that deletes the conversation.
    """
    owner = connection.execute(_LOCK_TO_DELETE, {"id": conversation_id}).scalar()
    row = connection.execute(_TOTALS, {"ids": [conversation_id]}).first()
    if owner is not None and row is not None:
        connection.execute(_FORGET, {"id": conversation_id})
        connection.execute(_ADD_TO_OWNER, {"owner": owner, "size_bytes": -row.size_bytes})
    if not _has_plain(connection):  # else they go with the conversation, and are overwritten
        with without_overwriting(connection):
            connection.execute(_DELETE_ALL_CALLS, {"id": conversation_id})
            connection.execute(_DELETE_ALL_MESSAGES, {"id": conversation_id})


def _has_plain(connection: sa.Connection) -> bool:
    """Say whether any row is not sealed yet."""
    return bool(connection.execute(_HAS_PLAIN).scalar())


def _excess(size_bytes: int, most_bytes: int) -> int:
    """Give how much is to go at once; a little more than must, so that it is not each time."""
    if size_bytes <= most_bytes:
        return 0
    slack = min(most_bytes // 16, _MOST_SLACK_BYTES)
    return min(size_bytes - most_bytes + slack, _MOST_FREED_BYTES)


def _shrink(
    connection: sa.Connection,
    conversation_id: str,
    need: int,
    spare_calls: int = 0,
    *,
    messages_too: bool = False,
) -> int:
    """Remove so many bytes, or calls, of a conversation; give how many bytes went."""
    with transaction(connection), contextlib.ExitStack() as held:
        owners = lock_owners(connection, [conversation_id])
        if not owners:
            return 0
        newest = None if messages_too else _newest(connection, conversation_id)
        values = {"id": conversation_id, "newest": newest or ""}
        freed = gone = 0
        lock_totals(connection, owners)
        if not _has_plain(connection):
            held.enter_context(without_overwriting(connection))
        if spare_calls:
            freed, gone = _remove(
                connection, _OLDEST_CALLS, _DELETE_CALLS, values, None, spare_calls
            )
        for oldest, removal in (
            (_OLDEST_PICTURES, _NO_PICTURES),
            (_OLDEST_RESULTS, _NO_RESULT),
        ):
            freed += _remove(connection, oldest, removal, values, need - freed)[0]
        size, fewer = _remove(connection, _OLDEST_CALLS, _DELETE_CALLS, values, need - freed)
        freed, gone = freed + size, gone + fewer
        if messages_too and freed < need:
            freed += _remove_messages(connection, conversation_id, need - freed)
        count(connection, owners, {conversation_id: Change(-freed, -gone)})
    return freed


def _newest(connection: sa.Connection, conversation_id: str) -> str | None:
    return connection.execute(_NEWEST, {"id": conversation_id}).scalar()


def _remove(
    connection: sa.Connection,
    oldest: sa.Select[Any],
    removal: sa.Update | sa.Delete,
    values: Mapping[str, Any],
    need: int | None,
    most: int | None = None,
) -> tuple[int, int]:
    """Remove from the oldest on until so many bytes, or so many, are gone; give both numbers."""
    freed = gone = 0
    while (need is None or freed < need) and (most is None or gone < most):
        ids = []
        for row in connection.execute(oldest, values).all():
            if (need is not None and freed >= need) or (most is not None and gone >= most):
                break
            ids.append(row.call_id)
            freed, gone = freed + row.size, gone + 1
        if not ids:
            break
        connection.execute(removal, {"ids": ids})
    return freed, gone


def _remove_messages(connection: sa.Connection, conversation_id: str, need: int) -> int:
    """Remove the oldest; of the last one the number stays, for the next to follow it."""
    values = {"id": conversation_id}
    last = connection.execute(_LAST_MESSAGE, values).scalar()
    freed = 0
    while freed < need:
        upto = 0
        for row in connection.execute(_OLDEST_MESSAGES, values).all():
            if freed >= need or row.seq == last:
                break
            upto, freed = row.seq, freed + row.size
        if not upto:
            break
        connection.execute(_DELETE_MESSAGES, {**values, "upto": upto})
    if freed < need and last is not None:
        row = connection.execute(_OLDEST_MESSAGES, values).one()
        connection.execute(_EMPTY_LAST, {**values, "last": last})
        freed += row.size - MESSAGE_BYTES - len(GONE_MESSAGE)
    return freed
