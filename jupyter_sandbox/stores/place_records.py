"""Places of sandboxes: counted and taken in one transaction, so that two servers never take one.

The counts are of the table of conversations: there is nothing that could get out of step with it.
The rule: who takes a place holds the database's lock for that while it counts and decides.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from ..models import ConversationRecord, PlacesTaken
from . import statements as sql
from .connections import Connections
from .database import utc_now
from .idle_records import WAKE, wake_values
from .schema import calls, conversations, from_microseconds, to_microseconds

_LONGEST_CLAIM_SECONDS = 600.0
_ADVISORY_LOCK = 0x6A737863  # any constant: the number of this lock in PostgreSQL

c = conversations.c
# One whose maker died while it made it is none: whoever comes next removes what is left.
_IS_STARTING = sa.and_(c.state == "starting", c.claimed_until >= bindparam("now"))
_RUNS = sa.or_(c.state == "running", _IS_STARTING)
_LIVES = sa.or_(c.state == "suspended", _RUNS)


def _number(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.sum(sa.case((sa.and_(*conditions), 1), else_=0)), 0)


_IS_MINE = c.owner == bindparam("owner")
_OWNER = sa.select(c.owner).where(c.conversation_id == bindparam("id"))
_TAKEN = sa.select(
    _number(_IS_MINE),
    _number(_IS_MINE, _RUNS),
    _number(_LIVES),
    _number(_RUNS),
).where(_LIVES, c.conversation_id != bindparam("id"))
_RUNNING_BY_OWNER = sa.select(c.owner, sa.func.count()).where(_RUNS).group_by(c.owner)
_HAS_CALL = sa.exists().where(
    calls.c.conversation_id == c.conversation_id,
    calls.c.state == "running",
    calls.c.started_at > bindparam("calls_since"),
)
_SETTLED = sa.select(
    *(c.conversation_id, c.owner, c.state, c.sandbox_id, c.used_at, c.busy_at),
    (c.keep_awake_until > bindparam("now")).label("is_kept_awake"),
    _HAS_CALL.label("has_call"),
).where(c.state.in_(("running", "suspended")))


class Taking(enum.Enum):
    """How an attempt to take a place ended."""

    TAKEN = "taken"
    MOVED = "moved"  # somebody else does it, or did: look at the record again
    FULL = "full"


@dataclass(frozen=True)
class SettledSandbox:
    """A sandbox that runs or is suspended.

    Attributes
    ----------
    used_at : datetime
        When it was used last, by somebody or by a job of its own that used the processor.
    has_call : bool
        A call runs in it, in any process.
    is_kept_awake : bool
        Somebody wants it to be awake still.
    """

    conversation_id: str
    owner: str
    is_running: bool
    used_at: datetime
    sandbox_id: str
    has_call: bool
    is_kept_awake: bool = False


class PlaceRecords:
    """The places of all servers on one database.

    Parameters
    ----------
    connections : Connections
    clock : callable
        Gives the time, aware.
    """

    def __init__(self, connections: Connections, clock: Callable[[], datetime] = utc_now) -> None:
        self._connections = connections
        self._clock = clock

    def __repr__(self) -> str:
        return f"<PlaceRecords {self._connections!r}>"

    async def claim(
        self,
        conversation_id: str,
        server: str,
        lease_seconds: float,
        allow: Callable[[PlacesTaken], bool],
        ended: str = "",
    ) -> Taking:
        """Take the right to provision, if there is a place: of many that ask one gets it.

        It is there to take while the state is absent, terminated or error, when the lease of
        whoever took it is over, and while it is held by ``ended``. The state is ``starting`` from
        here on.

        Parameters
        ----------
        allow : callable
            Decides, given what others have taken; called in another thread, at once.
        ended : str
            A server that is known to live no more: what it held is free.
        """
        now = self._clock()
        values = {
            "id": conversation_id,
            "now": to_microseconds(now),
            "new_server": server,
            "new_until": to_microseconds(now + timedelta(seconds=lease_seconds)),
            "too_late": to_microseconds(now + timedelta(seconds=_LONGEST_CLAIM_SECONDS)),
            "ended": ended,
        }
        return await self._take(conversation_id, now, sql.CLAIM, values, allow)

    async def wake(
        self, seen: ConversationRecord, allow: Callable[[PlacesTaken], bool], dead: str = ""
    ) -> Taking:
        """Move from suspended to running, if there is a place; that is a use.

        ``dead`` is a server whose freezing counts no more.
        """
        now = self._clock()
        values = wake_values(seen, dead, now)
        return await self._take(seen.conversation_id, now, WAKE, values, allow)

    async def taken(self, owner: str = "") -> PlacesTaken:
        """Give what is taken now."""
        values = {"id": "", "owner": owner, "now": to_microseconds(self._clock())}
        return await self._connections.run(lambda connection: _taken(connection, values))

    async def running_by_owner(self) -> dict[str, int]:
        """Give how many sandboxes of each owner run."""
        values = {"now": to_microseconds(self._clock())}

        def work(connection: sa.Connection) -> dict[str, int]:
            rows = connection.execute(_RUNNING_BY_OWNER, values)
            return {str(owner): int(count) for owner, count in rows}

        return await self._connections.run(work)

    async def settled(self, longest_call_seconds: float) -> list[SettledSandbox]:
        """Give all that run or are suspended.

        A call that began earlier than ``longest_call_seconds`` ago is over, whatever is recorded.
        """
        now = self._clock()
        values = {
            "now": to_microseconds(now),
            "calls_since": to_microseconds(now - timedelta(seconds=longest_call_seconds)),
        }

        def work(connection: sa.Connection) -> list[SettledSandbox]:
            return [
                SettledSandbox(
                    conversation_id=row.conversation_id,
                    owner=row.owner,
                    is_running=row.state == "running",
                    used_at=from_microseconds(max(row.used_at, row.busy_at or 0)),
                    sandbox_id=row.sandbox_id,
                    has_call=bool(row.has_call),
                    is_kept_awake=bool(row.is_kept_awake),
                )
                for row in connection.execute(_SETTLED, values)
            ]

        return await self._connections.run(work)

    async def _take(
        self,
        conversation_id: str,
        now: datetime,
        move: sa.Executable,
        values: dict[str, Any],
        allow: Callable[[PlacesTaken], bool],
    ) -> Taking:
        def work(connection: sa.Connection) -> Taking:
            with _locked(connection) as transaction:
                result = connection.execute(move, values)
                assert isinstance(result, sa.CursorResult)
                if not result.rowcount:
                    return Taking.MOVED
                owner = connection.execute(_OWNER, {"id": conversation_id}).scalar()
                others = {"id": conversation_id, "owner": owner, "now": to_microseconds(now)}
                if allow(_taken(connection, others)):
                    return Taking.TAKEN
                transaction.undo = True
                return Taking.FULL

        return await self._connections.run(work)


def _taken(connection: sa.Connection, values: dict[str, Any]) -> PlacesTaken:
    live_of_user, running_of_user, live, running = connection.execute(_TAKEN, values).one()
    return PlacesTaken(int(live_of_user), int(running_of_user), int(live), int(running))


@dataclass
class _Transaction:
    undo: bool = False


@contextlib.contextmanager
def _locked(connection: sa.Connection) -> Iterator[_Transaction]:
    """Hold the lock of places; what is done meanwhile is done together, or not at all."""
    is_sqlite = connection.dialect.name == "sqlite"
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_sqlite else "BEGIN")
    transaction = _Transaction()
    try:
        if connection.dialect.name == "postgresql":  # released with the transaction
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
        yield transaction
        connection.exec_driver_sql("ROLLBACK" if transaction.undo else "COMMIT")
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
