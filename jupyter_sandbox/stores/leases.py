"""The table of leases: what one server process of several does, until it lapses.

A lease is taken, taken again before it lapses, or left to lapse when its holder dies. The rule:
taking is one statement, so that of two takers one has it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.exc import IntegrityError

from .connections import Connections
from .database import utc_now
from .schema import leases, to_microseconds

_NAMED = leases.c.name == bindparam("named")
_TAKE = (
    sa.update(leases)
    .where(
        _NAMED,
        sa.or_(
            leases.c.holder.in_([bindparam("new_holder"), bindparam("ended")]),
            leases.c.until < bindparam("now"),
            # Nobody takes one for so long: the clock was set back since.
            leases.c.until > bindparam("too_late"),
        ),
    )
    .values(holder=bindparam("new_holder"), until=bindparam("new_until"))
)
_INSERT = sa.insert(leases)
_HOLDER = sa.select(leases.c.holder).where(_NAMED)
_RELEASE = sa.delete(leases).where(_NAMED, leases.c.holder == bindparam("of"))

LONGEST_SECONDS = 3600.0


class Leases:
    """The rows.

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
        return f"<Leases {self._connections!r}>"

    async def take(self, name: str, holder: str, seconds: float, ended: str = "") -> bool:
        """Take a lease for so long, or go on with it; False while another holds it.

        ``seconds`` is at most an hour. From ``ended``, a holder that is known to live no more, it
        is taken before it lapses.
        """
        if not 0 < seconds <= LONGEST_SECONDS:
            raise ValueError(f"a lease of {seconds} s")
        now = self._clock()
        until = to_microseconds(now + timedelta(seconds=seconds))
        taking = {
            "named": name,
            "new_holder": holder,
            "ended": ended or holder,
            "new_until": until,
            "now": to_microseconds(now),
            "too_late": to_microseconds(now + timedelta(seconds=LONGEST_SECONDS)),
        }

        def work(connection: sa.Connection) -> bool:
            if connection.execute(_TAKE, taking).rowcount:
                return True
            try:
                connection.execute(_INSERT, {"name": name, "holder": holder, "until": until})
            except IntegrityError:
                return False  # there is one, and it is another's
            return True

        return await self._connections.run(work)

    async def holder(self, name: str) -> str:
        """Give who took a lease last and has not given it back; "" for nobody."""
        row = await self._connections.run(
            lambda connection: connection.execute(_HOLDER, {"named": name}).first()
        )
        return "" if row is None else str(row[0])

    async def release(self, name: str, holder: str) -> None:
        """Give a lease back; nothing happens if it is not the holder's."""
        values = {"named": name, "of": holder}
        await self._connections.run(lambda connection: connection.execute(_RELEASE, values))
