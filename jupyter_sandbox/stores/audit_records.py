"""The audit rows as the database keeps them, in one chain however many servers write.

The head row names the last number and seal, up to where old rows were removed, and has the chain's
key, wrapped by the master key. Who appends or removes holds it locked from the reading of the head
to the commit: the chain cannot fork, and a number is a primary key besides. The rule: rows are
added and removed for their age, never changed; what is not as it was left is noted first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.exc import IntegrityError

from ..errors import Unavailable
from ..models import AuditEntry, AuditRow
from .audit_chain import (
    KEY_BYTES,
    START,
    ChainCheck,
    Head,
    Mark,
    head_seal,
    is_right_mark,
    mark_of,
    needs_seals,
    reference_of,
    sealed,
)
from .connections import Connections
from .master_keys import MasterKeys
from .schema import audit, audit_head, conversations, to_microseconds

T = TypeVar("T")

_TRIES = 5
_PAGE = 1000
_LATE = timedelta(hours=1)  # a first entry may be while the database or the keyring fails
_JUST_BEGUN = 500  # rows that there may be before the first mark is written

h = audit_head.c
_LOCK = sa.update(audit_head).where(h.one == 1).values(one=1)
_HEAD = sa.select(audit_head).where(h.one == 1)
_MAKE_HEAD = sa.insert(audit_head)
_MOVE_HEAD = (
    sa.update(audit_head)
    .where(h.one == 1, h.number == bindparam("old_number"))
    .values(
        number=bindparam("new_number"),
        seal=bindparam("new_seal"),
        head_seal=bindparam("new_head_seal"),
        pruned_number=bindparam("new_pruned_number"),
        pruned_seal=bindparam("new_pruned_seal"),
        master_key_id=bindparam("new_master_key_id"),
        wrapped_key=bindparam("new_wrapped_key"),
    )
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
_REMOVE = sa.delete(audit).where(audit.c.number <= bindparam("last"))
_SEAL = sa.select(audit.c.seal).where(audit.c.number == bindparam("number"))
_OLDER_CONVERSATION = (
    sa.select(conversations.c.conversation_id)
    .where(conversations.c.created_at < bindparam("moment"))
    .limit(1)
)
_ANY_CONVERSATION = sa.select(conversations.c.conversation_id).limit(1)
_OWNER = sa.select(conversations.c.owner).where(conversations.c.conversation_id == bindparam("id"))


@dataclass(frozen=True)
class Appended:
    """Rows that were written, with what stands for their names where others may read."""

    rows: tuple[AuditRow, ...]
    references: Mapping[str, str]
    mark: Mark


class LogDamaged(Unavailable):
    """The log is not as servers have left it; ``code`` says what is different.

    ``head_changed``, ``head_gone`` (conversations are older than the log), ``cut`` (it ends
    earlier, or otherwise, than was noted), ``mark_changed``, ``mark_gone``.
    """

    def __init__(self, code: str) -> None:
        super().__init__("the audit log is not as it was left", detail=code)
        self.code = code


@dataclass(frozen=True)
class AuditReport:
    """What a check of the whole chain found; no problems: all is as it was written."""

    rows: int = 0
    number: int = 0
    seal: str = START
    problems: tuple[str, ...] = field(default=())
    pruned_number: int = 0


class AuditRecords:
    """The audit log of an installation."""

    def __init__(self, connections: Connections, master: MasterKeys) -> None:
        self._connections = connections
        self._master = master

    def __repr__(self) -> str:
        return f"<AuditRecords {self._connections!r}>"

    async def append(
        self,
        entries: Sequence[AuditEntry],
        noted: Mark | None = None,
        *,
        needs_mark: bool = False,
        goes_on: bool = False,
    ) -> Appended:
        """Write entries at the end of the chain, all or none.

        An entry without an actor gets the owner of its conversation.

        Parameters
        ----------
        noted : Mark, optional
            The end of the chain as it was noted last.
        needs_mark : bool
            That nothing was noted is damage, but of a log that may just have begun.
        goes_on : bool
            Write also after damage, which the entries tell.

        Raises
        ------
        LogDamaged
            The chain does not end as it should; nothing was written.
        """

        def work(connection: sa.Connection) -> Appended:
            return self._append_locked(connection, entries, damage_of, goes_on)

        def damage_of(connection: sa.Connection, key: bytes, row: Any) -> str:
            if not row.number:
                return "head_gone" if noted or _has_older(connection, entries[0]) else ""
            if needs_mark and noted is None and needs_seals(key) and row.number > _JUST_BEGUN:
                return "mark_gone"
            return _damage(connection, key, row, noted)

        return await self._connections.run(lambda connection: _in_turn(connection, work))

    async def prune(self, before: datetime) -> int:
        """Remove the oldest rows that are older, at most a thousand; return how many.

        Raises
        ------
        Unavailable
            They are not as they were written: what somebody has changed is not removed.
        """
        moment = to_microseconds(before)
        return await self._connections.run(
            lambda connection: _in_turn(connection, lambda c: self._prune_locked(c, moment))
        )

    async def rows(self, after: int = 0, last: int = 2**62) -> list[AuditRow]:
        """Give a page of rows, by number."""
        values = {"after": after, "last": last}
        return await self._connections.run(
            lambda connection: [
                AuditRow(**row._mapping) for row in connection.execute(_ROWS, values)
            ]
        )

    async def verify(
        self, mark: Mark | None = None, *, needs_mark: bool = False, known_number: int = 0
    ) -> AuditReport:
        """Check the whole chain; servers may go on writing.

        Parameters
        ----------
        mark : Mark, optional
            The end of the chain as it was noted outside the database.
        needs_mark : bool
            A mark that is missing is a problem.
        known_number : int
            Damage that servers have noted up to this row is no problem.
        """
        for _ in range(_TRIES):
            report = await self._verify(mark, needs_mark, known_number)
            head = await self._head()
            if head is None or head.pruned_number == report.pruned_number:
                break  # else rows were removed under our hands
        return report

    async def _verify(self, mark: Mark | None, needs_mark: bool, known_number: int) -> AuditReport:
        head = await self._head()
        if head is None:
            return await self._verify_without_head(mark)
        key = self._master.unwrap(head.master_key_id, head.wrapped_key)
        end = _head_of(head)
        marks = {end.number: end.seal} if end.number else {}
        check = ChainCheck(key, marks, end, known_number)
        if mark is not None and not is_right_mark(key, mark):
            check.problems.append("the mark of the end of the log is not what was written")
        elif mark is not None and mark.number > end.pruned_number:
            noted = marks.setdefault(mark.number, mark.seal)
            if noted != mark.seal:
                check.problems.append(f"row {mark.number} had another seal when it was noted")
            elif mark.number > end.number:
                check.problems.append(
                    f"the log ends at row {end.number}, and had {mark.number} when it was noted"
                )
                del marks[mark.number]
        while page := await self.rows(check.number, end.number):
            for row in page:
                check.take(row)
        check.end()
        if needs_seals(key):
            if head_seal(key, end) != head.head_seal:
                check.problems.append("the head of the log is not what was written")
            if mark is None and needs_mark and end.number:
                check.problems.append("the mark of the end of the log is missing")
        elif not end.number:
            check.problems.append("the head of the log is not what was written: it has no rows")
        now = await self._head()
        last = {"number": end.number if now is None else now.number}
        beyond = await self._connections.run(lambda c: int(c.execute(_BEYOND, last).scalar_one()))
        if beyond and (again := await self._head()) and again.number == last["number"]:
            check.problems.append(f"{beyond} rows stand after the end of the log")
        return AuditReport(
            *(check.rows, check.number, check.seal, tuple(check.problems), end.pruned_number)
        )

    async def _verify_without_head(self, mark: Mark | None) -> AuditReport:
        """Tell a log that nothing was ever written to from one whose head was removed."""

        def look(connection: sa.Connection) -> tuple[int, bool]:
            rows = int(connection.execute(_COUNT).scalar_one())
            return rows, connection.execute(_ANY_CONVERSATION).first() is not None

        rows, has_conversations = await self._connections.run(look)
        gone = rows or has_conversations or (mark is not None and mark.number)
        problems = ("the head of the log is gone, with the key of its seals",) if gone else ()
        return AuditReport(rows=rows, problems=problems)

    async def _head(self) -> Any:
        return await self._connections.run(lambda connection: connection.execute(_HEAD).first())

    def _append_locked(
        self,
        connection: sa.Connection,
        entries: Sequence[AuditEntry],
        damage_of: Callable[[sa.Connection, bytes, Any], str],
        goes_on: bool,
    ) -> Appended:
        if not connection.execute(_LOCK).rowcount:
            self._make_head(connection)
        row = connection.execute(_HEAD).one()
        head = _head_of(row)
        key = self._master.unwrap(row.master_key_id, row.wrapped_key)
        if not goes_on and (damage := damage_of(connection, key, row)):
            raise LogDamaged(damage)
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
        last = rows[-1]
        end = Head(last.number, last.seal, head.pruned_number, head.pruned_seal)
        key = self._move_head(connection, row, key, end)
        names = {row.actor for row in rows} | {row.conversation_id for row in rows}
        references = {name: reference_of(key, name) for name in names}
        return Appended(tuple(rows), references, mark_of(key, end))

    def _prune_locked(self, connection: sa.Connection, moment: int) -> int:
        if not connection.execute(_LOCK).rowcount:
            return 0
        row = connection.execute(_HEAD).one()
        head = _head_of(row)
        key = self._master.unwrap(row.master_key_id, row.wrapped_key)
        if damage := _damage(connection, key, row, None):
            raise LogDamaged(damage)
        check = ChainCheck(key, {}, head, known_number=head.number)
        values = {"after": head.pruned_number, "last": head.number - 1}
        for each in connection.execute(_ROWS, values).fetchall():
            if each.at >= moment:  # a time that was changed to be old breaks its row's seal
                break
            check.take(AuditRow(**each._mapping))
        if check.problems:
            raise Unavailable("the audit log is not pruned", detail=check.problems[0])
        if check.rows:
            connection.execute(_REMOVE, {"last": check.number})
            end = Head(head.number, head.seal, check.number, check.seal)
            self._move_head(connection, row, key, end)
        return check.rows

    def _move_head(self, connection: sa.Connection, row: Any, key: bytes, end: Head) -> bytes:
        """Write the head, sealed; return its key, a longer one if it was not sealed before."""
        key_id, wrapped = row.master_key_id, row.wrapped_key
        if not needs_seals(key):
            key += os.urandom(KEY_BYTES - len(key))
            key_id, wrapped = self._master.wrap(key)
        moved = {
            "old_number": row.number,
            **{f"new_{name}": value for name, value in vars(end).items()},
            "new_head_seal": head_seal(key, end),
            "new_master_key_id": key_id,
            "new_wrapped_key": wrapped,
        }
        if not connection.execute(_MOVE_HEAD, moved).rowcount:
            raise Unavailable("the audit log cannot be written", detail="its head has moved")
        return key

    def _make_head(self, connection: sa.Connection) -> None:
        if connection.execute(_COUNT).scalar_one():
            raise Unavailable(
                "the audit log cannot be written", detail="its head is gone, and there are rows"
            )
        key = os.urandom(KEY_BYTES)
        key_id, wrapped = self._master.wrap(key)
        values = {"one": 1, "master_key_id": key_id, "wrapped_key": wrapped, **vars(Head())}
        connection.execute(_MAKE_HEAD, {**values, "head_seal": head_seal(key, Head())})


def _in_turn(connection: sa.Connection, work: Callable[[sa.Connection], T]) -> T:
    """Do work on the chain in a transaction; it locks the head first."""
    for _ in range(_TRIES):
        is_sqlite = connection.dialect.name == "sqlite"
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_sqlite else "BEGIN")
        try:
            done = work(connection)
            connection.exec_driver_sql("COMMIT")
        except IntegrityError:  # another server made the head at the same time
            connection.exec_driver_sql("ROLLBACK")
            continue
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        return done
    raise Unavailable("the audit log cannot be written", detail="its rows do not fit its head")


def _has_older(connection: sa.Connection, entry: AuditEntry) -> bool:
    """Say whether a conversation is older than what is said to be the log's first entry."""
    moment = to_microseconds(entry.at - _LATE)
    return connection.execute(_OLDER_CONVERSATION, {"moment": moment}).first() is not None


def _head_of(row: Any) -> Head:
    return Head(row.number, row.seal, row.pruned_number, row.pruned_seal)


def _damage(connection: sa.Connection, key: bytes, row: Any, noted: Mark | None) -> str:
    """Return what of the end of the chain is not as it was left; "" if it is."""
    head = _head_of(row)
    if needs_seals(key) and row.head_seal != head_seal(key, head):
        return "head_changed"
    if noted is None:
        return ""
    if not is_right_mark(key, noted):
        return "mark_changed"
    if noted.number > head.number:
        return "cut"
    if noted.number > head.pruned_number:
        seal = connection.execute(_SEAL, {"number": noted.number}).scalar()
        if seal != noted.seal:
            return "cut"
    return ""


def _owner(connection: sa.Connection, conversation_id: str) -> str:
    if not conversation_id:
        return ""
    return str(connection.execute(_OWNER, {"id": conversation_id}).scalar() or "")
