"""Which sandboxes may live: those that a record names which has not given them up.

The one answer for whoever ends what nobody needs. The rule: sources are read in the order in which
a sandbox can move from one to the next, so that one that moves meanwhile is seen; and whoever asks
lists what there is *first*: a sandbox is written down before it is made.
"""

from __future__ import annotations

from ..stores.database import Database
from ..stores.pool_records import PoolRecords
from .states import State

_HAVING = frozenset((State.STARTING, State.RUNNING, State.SUSPENDED))


class Living:
    """Asks the records."""

    def __init__(self, database: Database, pool: PoolRecords) -> None:
        self._database = database
        self._pool = pool

    def __repr__(self) -> str:
        return f"<Living of {self._database!r}>"

    async def ids(self) -> frozenset[str]:
        """Give the ids of all sandboxes of this installation that may live.

        Raises
        ------
        Unavailable
            The records cannot be read: then nobody knows, and nothing is ended.
        """
        pool = await self._pool.all()  # first: a sandbox moves from here to a conversation
        records = await self._database.conversations_with_sandbox()
        ids = {row.sandbox_id for row in pool}
        ids |= {record.sandbox_id for record in records if record.state in _HAVING}
        return frozenset(ids - {""})
