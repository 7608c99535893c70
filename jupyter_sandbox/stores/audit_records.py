"""The audit rows as the database keeps them, in one chain however many servers write.

The head row names the last number and seal, and has the chain's key, wrapped by the master key. Who
appends holds it locked from the reading of the head to the commit: the chain cannot fork, and a
number is a primary key besides. The rule: rows are added, never changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.exc import IntegrityError

from ..errors import Unavailable
from ..models import AuditEntry, AuditRow
from .audit_chain import START, ChainCheck, reference_of, sealed
from .connections import Connections
from .master_keys import KEY_BYTES, MasterKeys
from .schema import audit, audit_head, conversations, to_microseconds

_TRIES = 5
_PAGE = 1000

h = audit_head.c
_LOCK = sa.update(audit_head).where(h.one == 1).values(one=1)
_HEAD = sa.select(audit_head).where(h.one == 1)
_MAKE_HEAD = sa.insert(audit_head)
_MOVE_HEAD = (
    sa.update(audit_head)
    .where(h.one == 1, h.number == bindparam("old_number"))
    .values(number=bindparam("new_number"), seal=bindparam("new_seal"))
)
_INSERT = sa.insert(audit)
_COUNT = sa.select(sa.func.count()).select_from(audit)
_BEYOND = _COUNT.where(audit.c.number > bindparam("number"))
_ROWS = (
    sa.select(audit)
    .where(audit.c.number > bindparam("after"), audit.c.number <= bindparam("last"))
    .order_by(audit.c.number)
    .limit(_PAGE)
)
_OWNER = sa.select(conversations.c.owner).where(conversations.c.conversation_id == bindparam("id"))


@dataclass(frozen=True)
class Appended:
    """Rows that were written, with what stands for their names where others may read."""

    rows: tuple[AuditRow, ...]
    references: Mapping[str, str]


@dataclass(frozen=True)
class AuditReport:
    """What a check of the whole chain found; no problems: all is as it was written."""

    rows: int = 0
    number: int = 0
    seal: str = START
    problems: tuple[str, ...] = field(default=())


class AuditRecords:
    """The audit log of an installation."""

    def __init__(self, connections: Connections, master: MasterKeys) -> None:
        self._connections = connections
        self._master = master

    def __repr__(self) -> str:
        return f"<AuditRecords {self._connections!r}>"

    async def append(self, entries: Sequence[AuditEntry]) -> Appended:
        """Write entries at the end of the chain, all or none.

        An entry without an actor gets the owner of its conversation.
        """
        return await self._connections.run(lambda connection: self._append(connection, entries))

    async def rows(self, after: int = 0, last: int = 2**62) -> list[AuditRow]:
        """Give a page of rows, by number."""
        values = {"after": after, "last": last}
        return await self._connections.run(
            lambda connection: [
                AuditRow(**row._mapping) for row in connection.execute(_ROWS, values)
            ]
        )

    async def verify(self, mark: tuple[int, str] | None = None) -> AuditReport:
        """Check the whole chain; servers may go on writing.

        Parameters
        ----------
        mark : (int, str), optional
            A number and the seal that its row had, noted outside the database.
        """
        head = await self._head()
        if head is None:
            rows = await self._connections.run(lambda c: int(c.execute(_COUNT).scalar_one()))
            gone = rows or (mark is not None and mark[0])
            problems = ("the head of the log is gone, with the key of its seals",) if gone else ()
            return AuditReport(rows=rows, problems=problems)
        key = self._master.unwrap(head.master_key_id, head.wrapped_key)
        marks = {head.number: head.seal} if head.number else {}
        check = ChainCheck(key, marks)
        if mark is not None and mark[0]:
            noted = marks.setdefault(*mark)
            if noted != mark[1]:
                check.problems.append(f"row {mark[0]} had another seal when it was noted")
            elif mark[0] > head.number:
                check.problems.append(
                    f"the log ends at row {head.number}, and had {mark[0]} when it was noted"
                )
                del marks[mark[0]]
        while page := await self.rows(check.number, head.number):
            for row in page:
                check.take(row)
        check.end()
        now = await self._head()
        last = {"number": head.number if now is None else now.number}
        beyond = await self._connections.run(lambda c: int(c.execute(_BEYOND, last).scalar_one()))
        if beyond and (again := await self._head()) and again.number == last["number"]:
            check.problems.append(f"{beyond} rows stand after the end of the log")
        return AuditReport(check.rows, check.number, check.seal, tuple(check.problems))

    async def _head(self) -> Any:
        return await self._connections.run(lambda connection: connection.execute(_HEAD).first())

    def _append(self, connection: sa.Connection, entries: Sequence[AuditEntry]) -> Appended:
        for _ in range(_TRIES):
            is_sqlite = connection.dialect.name == "sqlite"
            connection.exec_driver_sql("BEGIN IMMEDIATE" if is_sqlite else "BEGIN")
            try:
                appended = self._append_locked(connection, entries)
                connection.exec_driver_sql("COMMIT")
            except IntegrityError:  # another server made the head at the same time
                connection.exec_driver_sql("ROLLBACK")
                continue
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise
            return appended
        raise Unavailable("the audit log cannot be written", detail="its rows do not fit its head")

    def _append_locked(self, connection: sa.Connection, entries: Sequence[AuditEntry]) -> Appended:
        if not connection.execute(_LOCK).rowcount:
            self._make_head(connection)
        head = connection.execute(_HEAD).one()
        key = self._master.unwrap(head.master_key_id, head.wrapped_key)
        bare = [
            AuditRow(
                number=head.number + place,
                at=to_microseconds(entry.at),
                action=entry.action,
                actor=entry.actor or _owner(connection, entry.conversation_id),
                conversation_id=entry.conversation_id,
                detail=entry.to_text(),
            )
            for place, entry in enumerate(entries, start=1)
        ]
        rows = sealed(key, bare, head.seal)
        connection.execute(_INSERT, [vars(row) for row in rows])
        moved = {
            "old_number": head.number,
            "new_number": rows[-1].number,
            "new_seal": rows[-1].seal,
        }
        if not connection.execute(_MOVE_HEAD, moved).rowcount:
            raise Unavailable("the audit log cannot be written", detail="its head has moved")
        names = {row.actor for row in rows} | {row.conversation_id for row in rows}
        return Appended(tuple(rows), {name: reference_of(key, name) for name in names})

    def _make_head(self, connection: sa.Connection) -> None:
        if connection.execute(_COUNT).scalar_one():
            raise Unavailable(
                "the audit log cannot be written", detail="its head is gone, and there are rows"
            )
        key_id, wrapped = self._master.wrap(os.urandom(KEY_BYTES))
        values = {
            "one": 1,
            "number": 0,
            "seal": START,
            "master_key_id": key_id,
            "wrapped_key": wrapped,
        }
        connection.execute(_MAKE_HEAD, values)


def _owner(connection: sa.Connection, conversation_id: str) -> str:
    if not conversation_id:
        return ""
    return str(connection.execute(_OWNER, {"id": conversation_id}).scalar() or "")
