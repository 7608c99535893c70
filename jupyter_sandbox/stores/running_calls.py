"""Rows of calls without an end: who runs them, and how another server takes them over.

The rule: a row is taken by one conditional statement, so that of several servers that find a dead
one's call exactly one goes on with it.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import bindparam

from ..models import CallRecord
from .call_records import call_of
from .connections import Connections
from .schema import calls

_MOST = 1000  # of one look; the next look finds the rest
_RUNNING = calls.c.state == "running"
_ALL = sa.select(calls).where(_RUNNING).order_by(calls.c.started_at, calls.c.call_id).limit(_MOST)
_TAKE = (
    sa.update(calls)
    .where(
        calls.c.call_id == bindparam("id"),
        _RUNNING,
        calls.c.server == bindparam("seen"),
    )
    .values(server=bindparam("new_server"))
)


class RunningCalls:
    """Asks the table ``calls``."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def __repr__(self) -> str:
        return f"<RunningCalls {self._connections!r}>"

    async def all(self) -> list[CallRecord]:
        """Give those of all servers, oldest first, up to a bound."""
        rows = await self._connections.run(lambda connection: list(connection.execute(_ALL)))
        return [call_of(row) for row in rows]

    async def take(self, call: CallRecord, server: str) -> bool:
        """Make a call that was seen this server's; False if it has ended, or another was faster."""
        values = {"id": call.call_id, "seen": call.server, "new_server": server}
        return await self._connections.run(
            lambda connection: connection.execute(_TAKE, values).rowcount > 0
        )
