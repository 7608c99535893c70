"""What the table of conversations holds on use and rest: notes of uses, moves by time, wake-ups.

The rule: a move carries what was seen when it was decided (the state, the sandbox, the last use) as
its condition, so that a use that began meanwhile wins. While a sandbox is being frozen, its server
holds a claim on the row: who wants to wake it waits until it stands.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from ..models import ConversationRecord, IdleTimes
from .database import Database, conversation_of
from .schema import calls, conversations, to_microseconds

FREEZE_SECONDS = 75.0
"""How long the claim of a server lasts that freezes a sandbox; engines take a minute at most."""

c = conversations.c
_ID = c.conversation_id == bindparam("id")
_SEEN = sa.and_(_ID, c.sandbox_id == bindparam("seen_sandbox_id"))
_UNUSED = sa.and_(_SEEN, c.used_at == bindparam("seen_used_at"))
_FREE = sa.or_(
    c.claimed_by == "",
    c.claimed_by == bindparam("dead"),
    c.claimed_until.is_(None),
    c.claimed_until < bindparam("now"),
    c.claimed_until > bindparam("too_late"),  # the clock was set back since
)
_now = bindparam("now", type_=sa.BigInteger)
_later = sa.case((c.used_at < _now, _now), else_=c.used_at)

_SELECT = sa.select(conversations).where(_ID)
_USE = sa.update(conversations).where(_ID).values(used_at=_later)
_USE_WITH_TIMES = _USE.values(
    suspend_seconds=bindparam("new_suspend"), terminate_seconds=bindparam("new_terminate")
)
_BUSY = sa.update(conversations).where(_SEEN).values(busy_at=_now)
_KEEP = sa.update(conversations).where(_ID).values(keep_awake_until=bindparam("new_until"))
_CORRECT = (
    sa.update(conversations)
    .where(_UNUSED)
    .values(
        used_at=bindparam("new_used_at"),
        busy_at=bindparam("new_busy_at"),
        keep_awake_until=bindparam("new_until"),
    )
)
_SUSPEND = (
    sa.update(conversations)
    .where(_UNUSED, c.state == "running")
    .values(
        state="suspended",
        suspended_at=_now,
        suspended_because=bindparam("because"),
        claimed_by=bindparam("server"),
        claimed_until=bindparam("new_until"),
    )
)
_FROZEN = (
    sa.update(conversations)
    .where(_SEEN, c.state == "suspended", c.claimed_by == bindparam("server"))
    .values(claimed_by="", claimed_until=None)
)
_NOT_FROZEN = (
    sa.update(conversations)
    .where(_SEEN, c.state == "suspended", c.claimed_by == bindparam("server"))
    .values(claimed_until=0)
)
WAKE = (
    sa.update(conversations)
    .where(_SEEN, c.state == "suspended", _FREE)
    .values(
        state="running",
        used_at=_later,
        busy_at=None,
        suspended_at=None,
        suspended_because=None,
        claimed_by="",
        claimed_until=None,
    )
)
_BACK = (
    sa.update(conversations)
    .where(_SEEN, c.state == "running")
    .values(
        state="suspended",
        suspended_at=bindparam("new_suspended_at"),
        suspended_because=bindparam("because"),
    )
)
_IN_FLIGHT = (
    sa.select(calls.c.conversation_id)
    .where(calls.c.state == "running", calls.c.started_at > bindparam("since"))
    .distinct()
)


class IdleRecords:
    """The statements."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connections = database.connections

    def __repr__(self) -> str:
        return f"<IdleRecords {self._database!r}>"

    def now(self) -> datetime:
        """Give the time of the database's clock, which all decisions go by."""
        return self._database.now()

    async def note_use(
        self, conversation_id: str, times: IdleTimes | None = None, *, set_times: bool = False
    ) -> ConversationRecord | None:
        """Note that it is used now, and give what it is then; None if it was deleted.

        Parameters
        ----------
        times : IdleTimes or None
            What applies to its user's groups, None: what applies to all.
        set_times : bool
            Whether to remember ``times``.
        """
        values: dict[str, Any] = {"id": conversation_id, "now": self._now()}
        statement = _USE
        if set_times:
            statement = _USE_WITH_TIMES
            values["new_suspend"] = None if times is None else times.suspend_seconds
            values["new_terminate"] = None if times is None else times.terminate_seconds

        def work(connection: sa.Connection) -> ConversationRecord | None:
            connection.execute(statement, values)
            row = connection.execute(_SELECT, {"id": conversation_id}).first()
            return None if row is None else conversation_of(row)

        return await self._connections.run(work)

    async def note_busy(self, seen: ConversationRecord) -> None:
        """Note that a background job is at work in it now."""
        await self._change(_BUSY, {**_seen(seen), "now": self._now()})

    async def keep_awake(self, conversation_id: str, until: datetime | None) -> bool:
        """Set until when it is kept as it is; False if there is none."""
        values = {"id": conversation_id, "new_until": _column(until)}
        return await self._change(_KEEP, values)

    async def correct(self, seen: ConversationRecord, right: ConversationRecord) -> bool:
        """Put times right that lie in the future; False if it was used meanwhile."""
        values = {
            **_unused(seen),
            "new_used_at": to_microseconds(right.used_at),
            "new_busy_at": _column(right.busy_at),
            "new_until": _column(right.keep_awake_until),
        }
        return await self._change(_CORRECT, values)

    async def suspend(self, seen: ConversationRecord, because: str, server: str) -> bool:
        """Move to suspended, with a claim for the freezing; False if it was used meanwhile."""
        values = {
            **_unused(seen),
            **self._claim(server),
            "now": self._now(),
            "because": because[:200],
        }
        return await self._change(_SUSPEND, values)

    async def frozen(self, seen: ConversationRecord, server: str) -> None:
        """End the claim: it stands."""
        await self._change(_FROZEN, {**_seen(seen), "server": server})

    async def not_frozen(self, seen: ConversationRecord, server: str) -> None:
        """Let others go on: the freezing failed."""
        await self._change(_NOT_FROZEN, {**_seen(seen), "server": server})

    async def back_to_rest(self, seen: ConversationRecord) -> None:
        """Move back to suspended, as it was seen: the engine did not let it go on."""
        values = {
            **_seen(seen),
            "new_suspended_at": _column(seen.suspended_at),
            "because": seen.suspended_because,
        }
        await self._change(_BACK, values)

    async def in_flight(self, longest_seconds: float) -> set[str]:
        """Give the conversations with a recorded call that has no end and may still run."""
        since = self._now(-longest_seconds)

        def work(connection: sa.Connection) -> set[str]:
            return {str(row[0]) for row in connection.execute(_IN_FLIGHT, {"since": since})}

        return await self._connections.run(work)

    def _now(self, seconds: float = 0.0) -> int:
        return to_microseconds(self.now() + timedelta(seconds=seconds))

    def _claim(self, server: str) -> dict[str, Any]:
        return {"server": server, "new_until": self._now(FREEZE_SECONDS)}

    async def _change(self, statement: sa.Update, values: dict[str, Any]) -> bool:
        return await self._connections.run(
            lambda connection: connection.execute(statement, values).rowcount > 0
        )


def wake_values(seen: ConversationRecord, dead: str, now: datetime) -> dict[str, Any]:
    """Give the values of ``WAKE``: to running, unless another moves it or it is being frozen.

    ``dead`` is a server whose claim counts no more.
    """
    return {**_seen(seen), **_free(dead, now)}


def _free(dead: str, now: datetime) -> dict[str, Any]:
    too_late = now + timedelta(seconds=2 * FREEZE_SECONDS)
    return {"dead": dead, "now": to_microseconds(now), "too_late": to_microseconds(too_late)}


def _seen(record: ConversationRecord) -> dict[str, Any]:
    return {"id": record.conversation_id, "seen_sandbox_id": record.sandbox_id}


def _unused(record: ConversationRecord) -> dict[str, Any]:
    return {**_seen(record), "seen_used_at": to_microseconds(record.used_at)}


def _column(moment: datetime | None) -> int | None:
    return None if moment is None else to_microseconds(moment)
