"""The truth about conversations, their calls and their shared files.

It knows tables and nothing of sandboxes, users or HTTP; whose a conversation is, is for the caller
to compare. The rule: every method is atomic, also against other processes on the same database, and
gives frozen records of ``models``. Errors of the database are ``Unavailable``.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from ..encoded_json import EncodedJson, encode
from ..errors import InvalidRequest, NotFound, Unavailable
from ..models import CallRecord, CallState, ConversationRecord, JsonValue, ShareRecord, StoreUsage
from . import statements as sql
from .connections import Connections
from .schema import from_microseconds, to_microseconds

_TRIES = 50
_END_OF_TIME = 2**62
_NO_CONVERSATION = "There is no such conversation."
_TIMES = (  # columns of conversations
    *("created_at", "used_at", "claimed_until"),
    *("busy_at", "keep_awake_until", "suspended_at"),
)


def utc_now() -> datetime:
    """Give the time; the clock that tests replace."""
    return datetime.now(UTC)


class Database:
    """All of it; one object per server process.

    Parameters
    ----------
    db_url : str
        A SQLAlchemy URL. A SQLite file is created with mode 0600; its directory must exist.
    clock : callable
        Gives the aware time.
    """

    def __init__(self, db_url: str, clock: Callable[[], datetime] = utc_now) -> None:
        self._connections = Connections(db_url)
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Database {self._connections!r}>"

    def now(self) -> datetime:
        """Give the time, of the clock that all records are made with."""
        return self._clock()

    @property
    def connections(self) -> Connections:
        """What runs work on the database, for the records that have files of their own."""
        return self._connections

    async def open(self) -> None:
        """Connect, and create or migrate the tables; fast when they are current."""
        await self._connections.open()

    async def check(self) -> None:
        """Find out whether it could be written to now; ``Unavailable`` says why not."""
        await self._connections.check()

    async def close(self) -> None:
        """Disconnect, after the work under way. Twice is once."""
        await self._connections.close()

    # --- conversations

    async def create_conversation(
        self, owner: str, title: str = "", key: str | None = None
    ) -> tuple[ConversationRecord, bool]:
        """Give a conversation and whether it is new.

        The same owner and ``key`` give the same conversation, however many ask at once.
        """
        now = self._clock()
        record = ConversationRecord(
            conversation_id=str(uuid.uuid4()),
            owner=owner,
            title=title,
            key=key,
            state="absent",
            created_at=now,
            used_at=now,
        )

        def work(connection: sa.Connection) -> tuple[ConversationRecord, bool]:
            by_key = {"owner": owner, "key": key}
            for _ in range(_TRIES):
                if key is not None:
                    row = connection.execute(sql.SELECT_BY_KEY, by_key).first()
                    if row is not None:
                        return conversation_of(row), False
                try:
                    connection.execute(sql.INSERT_CONVERSATION, _conversation_row(record))
                except IntegrityError:
                    if key is None:
                        raise
                    continue  # somebody else was first: theirs is there, unless deleted again
                return _rounded(record), True
            raise Unavailable("the conversation is created and deleted all the time")

        return await self._connections.run(work)

    async def conversation(self, conversation_id: str) -> ConversationRecord | None:
        """Give a conversation, whoever owns it; None if there is none."""
        row = await self._first(sql.SELECT_CONVERSATION, {"id": conversation_id})
        return None if row is None else conversation_of(row)

    async def conversation_by_key(self, owner: str, key: str) -> ConversationRecord | None:
        """Give the owner's conversation with this key; None if there is none."""
        row = await self._first(sql.SELECT_BY_KEY, {"owner": owner, "key": key})
        return None if row is None else conversation_of(row)

    async def conversations(
        self, owner: str, limit: int = 50, after: str | None = None
    ) -> list[ConversationRecord]:
        """Give a page of an owner's conversations, newest first.

        Parameters
        ----------
        limit : int
            At most so many.
        after : str, optional
            ``page_cursor`` of the last one of the page before.
        """
        before_at, before_id = _parse_cursor(after) if after else (_END_OF_TIME, "")
        values = {"owner": owner, "before_at": before_at, "id": before_id, "most": limit}
        return [conversation_of(row) for row in await self._all(sql.SELECT_PAGE, values)]

    async def conversations_with_sandbox(self) -> list[ConversationRecord]:
        """Give all that have a sandbox or get one: to adopt them, and to know what is no orphan."""
        return [conversation_of(row) for row in await self._all(sql.SELECT_WITH_SANDBOX, {})]

    async def count_by_state(self) -> dict[str, int]:
        """Give how many conversations are in each state that any is in."""
        return {str(row[0]): int(row[1]) for row in await self._all(sql.COUNT_BY_STATE, {})}

    async def rename(self, conversation_id: str, title: str) -> bool:
        """Give a conversation another title; False if there is none."""
        return await self._change(sql.RENAME, {"id": conversation_id, "new_title": title})

    async def delete_conversation(self, conversation_id: str) -> bool:
        """Delete a conversation with its calls and shares; False if there is none."""
        return await self._change(sql.DELETE_CONVERSATION, {"id": conversation_id})

    # --- who provisions (taken in ``place_records.py``), and states

    async def give_up_claim(self, conversation_id: str, server: str) -> bool:
        """End a server's claim without a sandbox: the state is ``error``; False if it has none."""
        return await self._change(sql.GIVE_UP_CLAIM, {"id": conversation_id, "server": server})

    async def extend_claim(self, conversation_id: str, server: str, lease_seconds: float) -> bool:
        """Keep the right for longer; False if it was lost: then stop and clean up."""
        until = self._clock() + timedelta(seconds=lease_seconds)
        values = {"id": conversation_id, "server": server, "new_until": to_microseconds(until)}
        return await self._change(sql.EXTEND_CLAIM, values)

    async def set_intent(self, conversation_id: str, server: str, sandbox_id: str) -> bool:
        """Write down which sandbox is about to be made, before an engine is asked.

        So that after a crash whoever provisions next knows what to remove. False if the claim was
        lost: then make nothing.
        """
        values = {"id": conversation_id, "server": server, "new_sandbox_id": sandbox_id}
        return await self._change(sql.SET_INTENT, values)

    async def set_running(
        self,
        conversation_id: str,
        *,
        server: str,
        sandbox_id: str,
        engine: str,
        generation: int,
        notice: str = "",
    ) -> bool:
        """End the claim with a sandbox; False if the claim was lost: then remove that sandbox.

        ``notice`` is added to those that wait.
        """
        values = {
            "id": conversation_id,
            "server": server,
            "new_sandbox_id": sandbox_id,
            "new_engine": engine,
            "new_generation": generation,
            "new_used_at": to_microseconds(self._clock()),
            "new_notice": notice,
        }
        return await self._change(sql.SET_RUNNING, values)

    async def set_state(
        self,
        conversation_id: str,
        expected: str | Collection[str],
        new: str,
        *,
        unused_since: datetime | None = None,
    ) -> bool:
        """Move from ``expected`` (one or several) to ``new``; False if it was in another state.

        A claim ends with it. With ``unused_since`` it moves only if no use was noted after that.
        """
        states = [expected] if isinstance(expected, str) else list(expected)
        statement = sql.SET_STATE
        values: dict[str, Any] = {"id": conversation_id, "expected": states, "new_state": new}
        if unused_since is not None:
            statement = sql.SET_STATE_IF_UNUSED
            values["unused_since"] = to_microseconds(unused_since)
        return await self._change(statement, values)

    async def lose_sandbox(self, conversation_id: str, sandbox_id: str) -> bool:
        """Note that a sandbox is gone: ``terminated``; False if it is not the conversation's now.

        Of several that find it gone one gets True, and none takes the one that follows for it.
        """
        values = {"id": conversation_id, "lost_sandbox_id": sandbox_id}
        return await self._change(sql.LOSE_SANDBOX, values)

    # --- notices

    async def take_notice(self, conversation_id: str) -> str:
        """Give what waits for the next result and forget it: one caller gets it, others ""."""

        def work(connection: sa.Connection) -> str:
            for _ in range(_TRIES):
                row = connection.execute(sql.SELECT_NOTICE, {"id": conversation_id}).first()
                if row is None or not row[0]:
                    return ""
                seen = {"id": conversation_id, "seen": row[0]}
                if connection.execute(sql.CLEAR_NOTICE, seen).rowcount:
                    return str(row[0])
            return ""  # others took each one before us

        return await self._connections.run(work)

    async def add_notice(self, conversation_id: str, notice: str) -> bool:
        """Add a sentence for the next result; False if there is no such conversation."""
        return await self._change(sql.ADD_NOTICE, {"id": conversation_id, "new_notice": notice})

    # --- calls

    async def begin_call(
        self,
        conversation_id: str,
        call_id: str,
        tool: str,
        *,
        server: str = "",
        timeout_seconds: float | None = None,
    ) -> CallRecord | None:
        """Record a call that begins; None if there is one of this id, in any conversation.

        ``server`` is the process that runs it. ``NotFound`` if the conversation was deleted.
        """
        call = CallRecord(
            call_id,
            conversation_id,
            tool,
            "running",
            self._clock(),
            server=server,
            timeout_seconds=timeout_seconds,
        )
        values = {
            "call_id": call_id,
            "conversation_id": conversation_id,
            "tool": tool,
            "state": "running",
            "started_at": to_microseconds(call.started_at),
            "finished_at": None,
            "result": None,
            "server": server,
            "timeout_seconds": timeout_seconds,
        }

        def work(connection: sa.Connection) -> CallRecord | None:
            try:
                connection.execute(sql.INSERT_CALL, values)
            except IntegrityError:
                _require_conversation(connection, conversation_id)
                return None
            return call

        return await self._connections.run(work)

    async def finish_call(
        self, call_id: str, result: Mapping[str, JsonValue], state: CallState = "finished"
    ) -> bool:
        """Record how a call ended; False if it was not running: its first end stays."""
        finished_at = to_microseconds(self._clock())

        def work(connection: sa.Connection) -> bool:
            values = {
                "id": call_id,
                "new_state": state,
                "new_finished_at": finished_at,
                "new_result": encode(result),  # in the thread: it is big
            }
            return connection.execute(sql.FINISH_CALL, values).rowcount > 0

        return await self._connections.run(work)

    async def add_calls(self, calls: Sequence[CallRecord]) -> None:
        """Record calls that are over already, all or none; not those of deleted conversations."""

        def work(connection: sa.Connection) -> None:
            rows = [
                {
                    "new_call_id": call.call_id,
                    "new_conversation_id": call.conversation_id,
                    "new_tool": call.tool,
                    "new_state": call.state,
                    "new_started_at": to_microseconds(call.started_at),
                    "new_finished_at": to_microseconds(call.finished_at or call.started_at),
                    "new_result": encode(call.result),
                    "new_server": call.server,
                    "new_timeout_seconds": call.timeout_seconds,
                }
                for call in calls
            ]
            connection.exec_driver_sql("BEGIN")  # one commit for all: the commit is the cost
            try:
                connection.execute(sql.ADD_CALL, rows)
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise

        await self._connections.run(work)

    async def call(self, conversation_id: str, call_id: str) -> CallRecord | None:
        """Give a call of this conversation; None if there is none."""
        values = {"id": call_id, "conversation_id": conversation_id}

        def work(connection: sa.Connection) -> CallRecord | None:
            row = connection.execute(sql.SELECT_CALL, values).first()
            return None if row is None else call_of(row)

        return await self._connections.run(work)

    async def running_calls(self, conversation_id: str) -> list[CallRecord]:
        """Give the calls without an end, oldest first: after a crash, those to look for."""
        rows = await self._all(sql.SELECT_RUNNING_CALLS, {"conversation_id": conversation_id})
        return [call_of(row) for row in rows]

    # --- shares

    async def add_share(self, share: ShareRecord) -> ShareRecord:
        """Record a shared file as the next version of its path.

        ``share.version`` is not looked at; the record that comes back has it. ``NotFound`` if the
        conversation was deleted.
        """
        values = {**vars(share), "created_at": to_microseconds(share.created_at)}

        def work(connection: sa.Connection) -> ShareRecord:
            for _ in range(_TRIES):
                version = connection.execute(
                    sql.SELECT_NEXT_VERSION,
                    {"conversation_id": share.conversation_id, "path": share.path},
                ).scalar_one()
                try:
                    connection.execute(sql.INSERT_SHARE, {**values, "version": version})
                except IntegrityError:
                    _require_conversation(connection, share.conversation_id)
                    continue  # another process took this version
                return replace(share, version=version)
            raise Unavailable("the sandbox database found no free version for a shared file")

        return await self._connections.run(work)

    async def shares(self, conversation_id: str) -> list[ShareRecord]:
        """Give all versions of all shared files, newest first."""
        rows = await self._all(sql.SELECT_SHARES, {"conversation_id": conversation_id})
        return [_share(row) for row in rows]

    async def share(self, conversation_id: str, path: str, version: int = 0) -> ShareRecord | None:
        """Give one version of a shared file, 0 being the newest; None if there is none."""
        values = {"conversation_id": conversation_id, "path": path, "version": version}
        row = await self._first(sql.SELECT_SHARE, values)
        return None if row is None else _share(row)

    async def usage(self, conversation_id: str) -> StoreUsage:
        """Give what the conversation keeps in the store."""
        row = await self._first(sql.SELECT_USAGE, {"conversation_id": conversation_id})
        return StoreUsage(*(int(value) for value in row))

    # --- helpers

    async def _first(self, statement: sa.Executable, values: dict[str, Any]) -> Any:
        return await self._connections.run(
            lambda connection: connection.execute(statement, values).first()
        )

    async def _all(self, statement: sa.Executable, values: dict[str, Any]) -> list[Any]:
        return await self._connections.run(
            lambda connection: list(connection.execute(statement, values).all())
        )

    async def _change(self, statement: sa.Executable, values: dict[str, Any]) -> bool:
        def work(connection: sa.Connection) -> bool:
            result = connection.execute(statement, values)
            assert isinstance(result, sa.CursorResult)
            return result.rowcount > 0

        return await self._connections.run(work)


def page_cursor(record: ConversationRecord) -> str:
    """Give the ``after`` of the page that follows this conversation."""
    return f"{to_microseconds(record.created_at)}_{record.conversation_id}"


def _parse_cursor(cursor: str) -> tuple[int, str]:
    moment, _, conversation_id = cursor.partition("_")
    if not (moment.isascii() and moment.isdigit() and len(moment) <= 18 and conversation_id):
        raise InvalidRequest("`after` is not a cursor of an earlier page")
    return int(moment), conversation_id[:64]


def _require_conversation(connection: sa.Connection, conversation_id: str) -> None:
    row = connection.execute(sql.SELECT_NOTICE, {"id": conversation_id}).first()
    if row is None:
        raise NotFound(_NO_CONVERSATION)


def _rounded(record: ConversationRecord) -> ConversationRecord:
    """Give the times in the form every later read gives them."""
    return replace(
        record,
        created_at=record.created_at.astimezone(UTC),
        used_at=record.used_at.astimezone(UTC),
    )


def _conversation_row(record: ConversationRecord) -> dict[str, Any]:
    times = {name: value for name in _TIMES if (value := getattr(record, name)) is not None}
    return {**vars(record), **{name: to_microseconds(value) for name, value in times.items()}}


def conversation_of(row: Any) -> ConversationRecord:
    """Give the record of a whole row of the table of conversations."""
    values = dict(row._mapping)
    for name in _TIMES:
        if values[name] is not None:
            values[name] = from_microseconds(values[name])
    return ConversationRecord(**values)


def call_of(row: Any) -> CallRecord:
    """Give the call of a row."""
    finished_at, result = row.finished_at, row.result
    return CallRecord(
        call_id=row.call_id,
        conversation_id=row.conversation_id,
        tool=row.tool,
        state=row.state,
        started_at=from_microseconds(row.started_at),
        finished_at=None if finished_at is None else from_microseconds(finished_at),
        result=None if result is None else EncodedJson(result),
        server=row.server,
        timeout_seconds=row.timeout_seconds,
    )


def _share(row: Any) -> ShareRecord:
    values = dict(row._mapping)
    return ShareRecord(**{**values, "created_at": from_microseconds(values["created_at"])})
