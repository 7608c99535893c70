"""The wrapped keys of conversations and of the audit log, as the database keeps them.

It knows rows, no keys: what it holds opens nothing without the master key. Deleting a conversation
deletes its row, and with it every way to read its files.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.exc import IntegrityError

from ..errors import NotFound
from .connections import Connections
from .schema import audit_head, conversation_keys

k = conversation_keys.c
_ID = k.conversation_id == bindparam("id")

_INSERT = sa.insert(conversation_keys)
_SELECT = sa.select(conversation_keys).where(_ID)
_SELECT_ALL = sa.select(conversation_keys)
_COUNT = sa.select(k.master_key_id, sa.func.count()).group_by(k.master_key_id)
_REPLACE = (
    sa.update(conversation_keys)
    .where(_ID, k.wrapped_key == bindparam("old_wrapped_key"))
    .values(wrapped_key=bindparam("new_wrapped_key"), master_key_id=bindparam("new_master_key_id"))
)
_AUDIT_KEY = sa.select(audit_head.c.master_key_id, audit_head.c.wrapped_key)
_REPLACE_AUDIT_KEY = (
    sa.update(audit_head)
    .where(audit_head.c.wrapped_key == bindparam("old_wrapped_key"))
    .values(wrapped_key=bindparam("new_wrapped_key"), master_key_id=bindparam("new_master_key_id"))
)
_DELETE = sa.delete(conversation_keys).where(_ID)


@dataclass(frozen=True)
class WrappedKey:
    """A conversation's key, wrapped by the master key with that id; "" has the audit log's."""

    conversation_id: str
    master_key_id: str
    wrapped_key: bytes = field(repr=False)


class KeyRecords:
    """The table of wrapped keys."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._is_erased = False  # an earlier process may have died between deleting and erasing

    def __repr__(self) -> str:
        return f"<KeyRecords {self._connections!r}>"

    async def get(self, conversation_id: str) -> WrappedKey | None:
        """Give a conversation's wrapped key; None if it has none."""

        def work(connection: sa.Connection) -> WrappedKey | None:
            row = connection.execute(_SELECT, {"id": conversation_id}).first()
            return None if row is None else WrappedKey(**row._mapping)

        return await self._connections.run(work)

    async def add(self, key: WrappedKey) -> WrappedKey:
        """Keep a first key; give the one that is kept, which is another if somebody was faster.

        ``NotFound`` if the conversation was deleted.
        """

        def work(connection: sa.Connection) -> WrappedKey:
            try:
                connection.execute(_INSERT, vars(key))
            except IntegrityError:
                row = connection.execute(_SELECT, {"id": key.conversation_id}).first()
                if row is None:
                    raise NotFound("There is no such conversation.") from None
                return WrappedKey(**row._mapping)
            return key

        return await self._connections.run(work)

    async def all(self) -> list[WrappedKey]:
        """Give all of them, for a rotation: about a hundred bytes each."""

        def work(connection: sa.Connection) -> list[WrappedKey]:
            keys = [WrappedKey(**row._mapping) for row in connection.execute(_SELECT_ALL)]
            keys += [WrappedKey("", *row) for row in connection.execute(_AUDIT_KEY)]
            return keys

        return await self._connections.run(work)

    async def count_by_master_key(self) -> dict[str, int]:
        """Give how many keys each master key wraps."""

        def work(connection: sa.Connection) -> dict[str, int]:
            counts = {str(row[0]): int(row[1]) for row in connection.execute(_COUNT)}
            for row in connection.execute(_AUDIT_KEY):
                counts[row.master_key_id] = counts.get(row.master_key_id, 0) + 1
            return counts

        return await self._connections.run(work)

    async def replace(self, old: WrappedKey, new: WrappedKey) -> bool:
        """Put the rewrapped key in place of ``old``; False if that is not there any more."""
        statement = _REPLACE if old.conversation_id else _REPLACE_AUDIT_KEY
        values = {
            **({"id": old.conversation_id} if old.conversation_id else {}),
            "old_wrapped_key": old.wrapped_key,
            "new_wrapped_key": new.wrapped_key,
            "new_master_key_id": new.master_key_id,
        }
        return await self._connections.run(
            lambda connection: connection.execute(statement, values).rowcount > 0
        )

    async def destroy(self, conversation_id: str) -> bool:
        """Delete a key, and erase it as ``erase`` does. Twice is once."""
        self._is_erased = False
        values = {"id": conversation_id}
        await self._connections.run(lambda connection: connection.execute(_DELETE, values))
        return await self.erase()

    async def erase(self) -> bool:
        """Remove deleted keys from the database's log; return whether the files have none any more.

        ``secure_delete`` has overwritten them in the database itself. Another program that reads
        the database keeps the log from being emptied: then it is to be tried again.
        """
        if not self._is_erased:
            self._is_erased = await self._connections.empty_log()
        return self._is_erased
