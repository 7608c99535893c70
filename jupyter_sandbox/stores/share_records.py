"""The removal of shared files' rows. What is recorded and looked up is in ``database``.

The rule: a path goes with all its versions and all paths below it, in one transaction; whoever
removed rows is told which, to remove the bytes that nobody names now.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import bindparam

from ..models import ShareRecord
from . import statements as sql
from .connections import Connections
from .schema import from_microseconds, shares

_DELETE = sa.delete(shares).where(shares.c.share_id == bindparam("gone"))


class ShareRecords:
    """The rows."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def __repr__(self) -> str:
        return f"<ShareRecords {self._connections!r}>"

    async def remove(self, conversation_id: str, path: str) -> list[ShareRecord]:
        """Remove what is at a path and below it; give it."""

        def work(connection: sa.Connection) -> list[ShareRecord]:
            removed = []
            rows = connection.execute(sql.SELECT_SHARES, {"conversation_id": conversation_id})
            for row in rows.fetchall():
                if row.path != path and not row.path.startswith(f"{path}/"):
                    continue
                if connection.execute(_DELETE, {"gone": row.share_id}).rowcount:
                    values = dict(row._mapping)
                    values["created_at"] = from_microseconds(values["created_at"])
                    removed.append(ShareRecord(**values))
            return removed

        return await self._connections.run(work)
