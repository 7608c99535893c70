"""The rows of Jupyter sessions: which documents use a conversation's kernel.

They outlive a server, so that an open notebook finds its session again, by its id, on the next one
and on every other server of the same database. The rule: a session is of one kernel id; it counts
while that is the kernel's, and goes when a session of another kernel is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import bindparam

from .connections import Connections
from .database import utc_now
from .schema import jupyter_sessions, to_microseconds

_s = jupyter_sessions.c
_OF = sa.and_(_s.conversation_id == bindparam("conversation"), _s.kernel_id == bindparam("kernel"))
_SELECT = sa.select(jupyter_sessions).where(_OF).order_by(_s.created_at, _s.session_id)
_INSERT = sa.insert(jupyter_sessions)
_ONE = sa.and_(_s.conversation_id == bindparam("conversation"), _s.session_id == bindparam("id"))
_UPDATE = (
    sa.update(jupyter_sessions)
    .where(_ONE)
    .values(path=bindparam("new_path"), name=bindparam("new_name"), kind=bindparam("new_kind"))
)
_DELETE = sa.delete(jupyter_sessions).where(_ONE)
_DELETE_ALL = sa.delete(jupyter_sessions).where(_s.conversation_id == bindparam("conversation"))
_DELETE_OTHERS = _DELETE_ALL.where(_s.kernel_id != bindparam("kernel"))


@dataclass(frozen=True)
class SessionRecord:
    """A document or console that uses the kernel."""

    session_id: str
    path: str
    name: str
    kind: str


class SessionRecords:
    """The rows of all conversations.

    Parameters
    ----------
    most : int
        Of one conversation; the oldest goes for a further one.
    """

    def __init__(
        self, connections: Connections, most: int = 200, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._connections = connections
        self._most = most
        self._clock = clock

    def __repr__(self) -> str:
        return f"<SessionRecords {self._connections!r}>"

    async def all(self, conversation_id: str, kernel_id: str) -> list[SessionRecord]:
        """Give the sessions of a kernel, oldest first."""
        values = {"conversation": conversation_id, "kernel": kernel_id}
        return await self._connections.run(lambda connection: _select(connection, values))

    async def add(self, conversation_id: str, kernel_id: str, session: SessionRecord) -> None:
        """Add one; those of other kernels go, and the oldest if there are too many."""
        of = {"conversation": conversation_id, "kernel": kernel_id}
        row = {
            "conversation_id": conversation_id,
            "kernel_id": kernel_id,
            "created_at": to_microseconds(self._clock()),
            **vars(session),
        }

        def work(connection: sa.Connection) -> None:
            connection.execute(_DELETE_OTHERS, of)
            connection.execute(_INSERT, row)
            for old in _select(connection, of)[: -self._most]:
                connection.execute(_DELETE, {"conversation": conversation_id, "id": old.session_id})

        await self._connections.run(work)

    async def change(self, conversation_id: str, session: SessionRecord) -> bool:
        """Write down what it is now; False if there is no such session."""
        values = {
            "conversation": conversation_id,
            "id": session.session_id,
            "new_path": session.path,
            "new_name": session.name,
            "new_kind": session.kind,
        }
        return await self._change(_UPDATE, values)

    async def remove(self, conversation_id: str, session_id: str) -> bool:
        """Remove one; False if there is no such session."""
        return await self._change(_DELETE, {"conversation": conversation_id, "id": session_id})

    async def clear(self, conversation_id: str) -> None:
        """Remove all of a conversation."""
        await self._change(_DELETE_ALL, {"conversation": conversation_id})

    async def _change(self, statement: sa.Executable, values: dict[str, str]) -> bool:
        def work(connection: sa.Connection) -> bool:
            result = connection.execute(statement, values)
            assert isinstance(result, sa.CursorResult)
            return result.rowcount > 0

        return await self._connections.run(work)


def _select(connection: sa.Connection, values: dict[str, str]) -> list[SessionRecord]:
    rows = connection.execute(_SELECT, values).all()
    return [SessionRecord(row.session_id, row.path, row.name, row.kind) for row in rows]
