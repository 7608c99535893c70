"""The table of uploads: one row for each name of a conversation.

It knows rows, no bytes. The rule: a name's row changes in one statement, so a reader sees the old
or the new file; whoever replaced a row is told which, to remove the bytes that nobody names now.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.exc import IntegrityError

from ..errors import InvalidRequest, NotFound, Unavailable
from ..models import UploadRecord
from .connections import Connections
from .schema import conversations, from_microseconds, to_microseconds, uploads
from .statements import SELECT_NOTICE

_TRIES = 50

u = uploads.c
_MINE = u.conversation_id == bindparam("id")
_NAMED = sa.and_(_MINE, u.name == bindparam("named"))
_SEEN = u.upload_id == bindparam("seen")

_INSERT = sa.insert(uploads)
_SELECT = sa.select(uploads).where(_NAMED)
_SELECT_ALL = sa.select(uploads).where(_MINE).order_by(u.name)
_REPLACE = (
    sa.update(uploads)
    .where(_SEEN)
    .values({column.name: bindparam(f"new_{column.name}") for column in uploads.columns})
)
_OWNER = (
    sa.select(conversations.c.owner)
    .where(conversations.c.conversation_id == bindparam("id"))
    .scalar_subquery()
)
_SANDBOXES_OF_OWNER = sa.select(conversations.c.sandbox_id).where(
    conversations.c.owner == _OWNER, conversations.c.sandbox_id != ""
)
_DELETE = sa.delete(uploads).where(_SEEN)


class UploadRecords:
    """The rows."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def __repr__(self) -> str:
        return f"<UploadRecords {self._connections!r}>"

    async def put(self, upload: UploadRecord) -> UploadRecord | None:
        """Record a file under its name; give the record that it replaced, if any.

        ``NotFound`` if the conversation was deleted.
        """
        values = {**vars(upload), "created_at": to_microseconds(upload.created_at)}
        replacing = {f"new_{name}": value for name, value in values.items()}
        name = {"id": upload.conversation_id, "named": upload.name}

        def work(connection: sa.Connection) -> UploadRecord | None:
            for _ in range(_TRIES):
                row = connection.execute(_SELECT, name).first()
                if row is not None:
                    seen = {"seen": row.upload_id, **replacing}
                    if connection.execute(_REPLACE, seen).rowcount:
                        return _upload(row)
                    continue  # another process replaced or deleted it
                try:
                    connection.execute(_INSERT, values)
                except IntegrityError:
                    conversation = {"id": upload.conversation_id}
                    if connection.execute(SELECT_NOTICE, conversation).first() is None:
                        raise NotFound("There is no such conversation.") from None
                    continue  # another process was faster
                return None
            raise Unavailable("the upload is replaced by others all the time; try again")

        return await self._connections.run(work)

    async def move(self, old: UploadRecord, new: UploadRecord) -> bool:
        """Put a record under another name in the place of ``old``; False if that is gone.

        ``InvalidRequest`` (409) if there is another file of this name.
        """
        values = {**vars(new), "created_at": to_microseconds(new.created_at)}
        replacing = {f"new_{name}": value for name, value in values.items()}

        def work(connection: sa.Connection) -> bool:
            try:
                done = connection.execute(_REPLACE, {"seen": old.upload_id, **replacing})
            except IntegrityError:
                raise InvalidRequest("There is another file of this name.", status=409) from None
            return done.rowcount > 0

        return await self._connections.run(work)

    async def get(self, conversation_id: str, name: str) -> UploadRecord | None:
        """Give the file of a name; None if there is none."""
        values = {"id": conversation_id, "named": name}

        def work(connection: sa.Connection) -> UploadRecord | None:
            row = connection.execute(_SELECT, values).first()
            return None if row is None else _upload(row)

        return await self._connections.run(work)

    async def all(self, conversation_id: str) -> list[UploadRecord]:
        """Give all files of a conversation, sorted by name."""
        return await self._connections.run(
            lambda connection: [
                _upload(row) for row in connection.execute(_SELECT_ALL, {"id": conversation_id})
            ]
        )

    async def sandboxes_of_owner(self, conversation_id: str) -> list[str]:
        """Give the ids of the sandboxes of all conversations of this one's owner."""
        values = {"id": conversation_id}
        return await self._connections.run(
            lambda connection: [
                str(sandbox_id)
                for sandbox_id in connection.execute(_SANDBOXES_OF_OWNER, values).scalars()
            ]
        )

    async def delete(self, upload: UploadRecord) -> bool:
        """Delete a record; False if it is gone, or its name has another file now."""
        return await self._connections.run(
            lambda connection: connection.execute(_DELETE, {"seen": upload.upload_id}).rowcount > 0
        )


def _upload(row: Any) -> UploadRecord:
    values = dict(row._mapping)
    return UploadRecord(**{**values, "created_at": from_microseconds(values["created_at"])})
