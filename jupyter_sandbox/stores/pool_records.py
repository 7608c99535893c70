"""The rows of sandboxes that wait for a conversation: the warm pool's.

A row is there from before its sandbox is made until that is gone, or a conversation's. The rule:
the row is what makes a sandbox the pool's, and it moves to a conversation in one transaction, so
that at every moment exactly one of the two tables names it. Who compares both with what an engine
has must read this table first: a sandbox only ever moves from here to there.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy import bindparam

from . import statements as sql
from .connections import Connections
from .schema import pool_sandboxes, shares, to_microseconds, uploads

_p = pool_sandboxes.c
_OWN = sa.and_(_p.sandbox_id == bindparam("id"), _p.holder == bindparam("by"))

_INSERT = sa.insert(pool_sandboxes)
_SELECT = (
    sa.select(pool_sandboxes)
    .where(_p.installation == bindparam("installation"))
    .order_by(_p.created_at, _p.sandbox_id)
)
_READY = sa.update(pool_sandboxes).where(_OWN, _p.state == "making").values(state="ready")
_ENDING = sa.update(pool_sandboxes).where(_OWN).values(state="ending")
_TAKE_OVER = (
    sa.update(pool_sandboxes).where(_OWN).values(holder=bindparam("new_holder", type_=sa.String))
)
_REMOVE = sa.delete(pool_sandboxes).where(_OWN)
_HAS_FILES = sa.select(
    sa.or_(
        sa.exists().where(uploads.c.conversation_id == bindparam("id")),
        sa.exists().where(shares.c.conversation_id == bindparam("id")),
    )
)
_GIVE = sa.delete(pool_sandboxes).where(_OWN, _p.state == "ready")


class Given(enum.Enum):
    """What became of giving a sandbox to a conversation, and whether it has files to be placed."""

    NOT = "not"
    EMPTY = "empty"
    WITH_FILES = "with files"


@dataclass(frozen=True)
class PoolRecord:
    """One sandbox of the pool.

    Attributes
    ----------
    recipe : str
        What it was made of and how, as a digest.
    holder : str
        The server process whose it is.
    state : str
        ``making``, ``ready`` or ``ending``.
    """

    sandbox_id: str
    installation: str
    engine: str
    recipe: str
    holder: str
    state: str


class PoolRecords:
    """The rows of one installation.

    Parameters
    ----------
    installation : str
        Several may share a database; none touches another's sandboxes.
    """

    def __init__(
        self,
        connections: Connections,
        installation: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._connections = connections
        self._installation = installation
        self._clock = clock

    def __repr__(self) -> str:
        return f"<PoolRecords of {self._installation}>"

    async def all(self) -> list[PoolRecord]:
        """Give all, of all server processes, oldest first."""

        def work(connection: sa.Connection) -> list[PoolRecord]:
            rows = connection.execute(_SELECT, {"installation": self._installation}).fetchall()
            return [
                PoolRecord(
                    row.sandbox_id, row.installation, row.engine, row.recipe, row.holder, row.state
                )
                for row in rows
            ]

        return await self._connections.run(work)

    async def add(self, sandbox_id: str, engine: str, recipe: str, holder: str) -> None:
        """Write down which sandbox is about to be made, before an engine is asked."""
        values = {
            "sandbox_id": sandbox_id,
            "installation": self._installation,
            "engine": engine,
            "recipe": recipe,
            "holder": holder,
            "state": "making",
            "created_at": to_microseconds(self._clock()),
        }
        await self._connections.run(lambda connection: connection.execute(_INSERT, values) and None)

    async def set_ready(self, sandbox_id: str, holder: str) -> bool:
        """Note that it can be given; False if it is not the holder's any more: then end it."""
        return await self._change(_READY, sandbox_id, holder)

    async def set_ending(self, sandbox_id: str, holder: str) -> bool:
        """Note that it is never to be given; False if it is not the holder's."""
        return await self._change(_ENDING, sandbox_id, holder)

    async def take_over(self, sandbox_id: str, holder: str, new_holder: str) -> bool:
        """Take what a server process left that is gone: of many that try, one gets True."""
        return await self._change(_TAKE_OVER, sandbox_id, holder, new_holder=new_holder)

    async def remove(self, sandbox_id: str, holder: str) -> bool:
        """Forget one that is gone; False if it was not the holder's."""
        return await self._change(_REMOVE, sandbox_id, holder)

    async def give(self, sandbox_id: str, holder: str, conversation_id: str) -> Given:
        """Make it the sandbox that its holder provisions a conversation with.

        ``NOT`` if one of the two is not (any more) whose it should be: then nothing has changed.
        """

        def work(connection: sa.Connection) -> Given:
            is_sqlite = connection.dialect.name == "sqlite"
            connection.exec_driver_sql("BEGIN IMMEDIATE" if is_sqlite else "BEGIN")
            given = False
            try:
                intent = {"id": conversation_id, "server": holder, "new_sandbox_id": sandbox_id}
                given = bool(
                    connection.execute(_GIVE, {"id": sandbox_id, "by": holder}).rowcount
                    and connection.execute(sql.SET_INTENT, intent).rowcount
                )
            finally:
                connection.exec_driver_sql("COMMIT" if given else "ROLLBACK")
            if not given:
                return Given.NOT
            # Who adds a file from here on finds the sandbox in the record, and places it there.
            has_files = connection.execute(_HAS_FILES, {"id": conversation_id}).scalar()
            return Given.WITH_FILES if has_files else Given.EMPTY

        return await self._connections.run(work)

    async def _change(
        self, statement: sa.Update | sa.Delete, sandbox_id: str, holder: str, **more: str
    ) -> bool:
        values = {"id": sandbox_id, "by": holder, **more}
        return await self._connections.run(
            lambda connection: connection.execute(statement, values).rowcount > 0
        )
