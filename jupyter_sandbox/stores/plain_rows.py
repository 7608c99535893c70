"""Results and messages that an earlier version has written in plain: they are sealed, bit by bit.

It knows rows and no more of them than how they are sealed. The rule: a row is sealed or as it was;
each step is short, so that whoever else waits for the database waits for little.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from ..errors import NotFound
from .call_records import sealed_result
from .connections import Connections, transaction
from .kept_bytes import BODY_SIZE, RESULT_SIZE, Change, count, lock_owners, lock_totals
from .message_records import sealed_body
from .row_seals import RowSeal, RowSeals
from .schema import calls, messages

_CALLS = 16  # at once: a result may have 20 MiB
_MESSAGES = 200
_STEP_BYTES = 4 * 1024**2

k, m = calls.c, messages.c
_PLAIN_CALL, _PLAIN_MESSAGE = k.result.is_not(None), m.body != sa.literal_column("''")
_AFTER: sa.BindParameter[Any] = bindparam("after")
_FIRST = (
    sa.select(sa.func.min(k.conversation_id)).where(_PLAIN_CALL, k.conversation_id > _AFTER),
    sa.select(sa.func.min(m.conversation_id)).where(_PLAIN_MESSAGE, m.conversation_id > _AFTER),
)
_SELECT_CALLS = (
    sa.select(k.call_id, k.tool, k.state, k.result, RESULT_SIZE.label("size"))
    .where(k.conversation_id == bindparam("id"), _PLAIN_CALL)
    .limit(_CALLS)
)
_SELECT_MESSAGES = (
    sa.select(m.seq, m.kind, m.at, m.body, BODY_SIZE.label("size"))
    .where(m.conversation_id == bindparam("id"), _PLAIN_MESSAGE)
    .limit(_MESSAGES)
)
_SEAL_CALL = (
    sa.update(calls)
    .where(k.call_id == bindparam("of"))
    .values(
        result=None,
        sealed_result=bindparam("new_result"),
        sealed_pictures=bindparam("new_pictures"),
    )
)
_SEAL_MESSAGE = (
    sa.update(messages)
    .where(m.conversation_id == bindparam("id"), m.seq == bindparam("of"))
    .values(body="", sealed_body=bindparam("new_body"))
)


class PlainRows:
    """Finds and seals them."""

    def __init__(self, connections: Connections, seals: RowSeals) -> None:
        self._connections = connections
        self._seals = seals

    def __repr__(self) -> str:
        return f"<PlainRows {self._connections!r}>"

    async def next_conversation(self, after: str) -> str | None:
        """Give the first conversation behind this id that has any; None if none has."""

        def work(connection: sa.Connection) -> str | None:
            found = [connection.execute(each, {"after": after}).scalar() for each in _FIRST]
            return min((each for each in found if each is not None), default=None)

        return await self._connections.run(work)

    async def seal_some(self, conversation_id: str) -> bool:
        """Seal a few megabytes of a conversation's; False: there are none."""
        try:
            seal = await self._seals.get_or_make(conversation_id)
        except NotFound:
            return False

        def work(connection: sa.Connection) -> bool:
            with transaction(connection):
                owners = lock_owners(connection, [conversation_id])
                if not owners:
                    return False
                lock_totals(connection, owners)
                found, grown = 0, 0
                for select, seal_row in (
                    (_SELECT_CALLS, _seal_call),
                    (_SELECT_MESSAGES, _seal_message),
                ):
                    size = 0
                    for row in connection.execute(select, {"id": conversation_id}).all():
                        if size > _STEP_BYTES:
                            break
                        size, found = size + row.size, found + 1
                        grown += seal_row(connection, seal, conversation_id, row) - row.size
                count(connection, owners, {conversation_id: Change(grown)})
                return found > 0

        return await self._connections.run(work)


def _seal_call(connection: sa.Connection, seal: RowSeal, conversation_id: str, row: Any) -> int:
    """Seal a result; give its new size."""
    result = json.loads(row.result)
    sealed, pictures = sealed_result(seal, row.call_id, row.tool, row.state, result)
    values = {"of": row.call_id, "new_result": sealed, "new_pictures": pictures}
    connection.execute(_SEAL_CALL, values)
    return len(sealed) + len(pictures or b"")


def _seal_message(connection: sa.Connection, seal: RowSeal, conversation_id: str, row: Any) -> int:
    sealed = sealed_body(seal, row.seq, row.kind, row.at, row.body)
    connection.execute(_SEAL_MESSAGE, {"id": conversation_id, "of": row.seq, "new_body": sealed})
    return len(sealed)
