"""The table of calls: what ran, how it ended, and its result, sealed by the conversation's key.

It knows rows and no tools. The rules: a call has one end, and its result one place: it opens as the
result of no other call, and with no other end. Pictures are sealed by themselves, so that they can
go alone. A call that is over and has no result has lost it to the bounds of ``kept_bytes.py``.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.exc import IntegrityError

from ..encoded_json import EncodedJson, encode, is_large
from ..errors import NotFound
from ..models import CallRecord, CallState, JsonValue
from .connections import Connections, transaction
from .database import utc_now
from .kept_bytes import CALL_BYTES, Change, KeptBytes, count, lock_owners
from .master_keys import KeyUnusable
from .row_seals import RowSeal, RowSeals
from .schema import calls, from_microseconds, to_microseconds

_LOG = logging.getLogger(__name__)
_NO_CONVERSATION = "There is no such conversation."
_HAS_PICTURES = re.compile(r'"data": ?null')  # in a text it would stand behind a backslash

k = calls.c
_INSERT = sa.insert(calls)
_FINISH = (
    sa.update(calls)
    .where(k.call_id == bindparam("id"), k.state == "running")
    .values(
        state=bindparam("new_state"),
        finished_at=bindparam("new_finished_at"),
        sealed_result=bindparam("new_result"),
        sealed_pictures=bindparam("new_pictures"),
    )
)
_SELECT = sa.select(calls).where(
    k.call_id == bindparam("id"), k.conversation_id == bindparam("conversation_id")
)
_SELECT_ENDING = sa.select(k.conversation_id, k.tool).where(
    k.call_id == bindparam("id"), k.state == "running"
)

Sealed = tuple[bytes, bytes | None]
"""A result and its pictures."""


class CallRecords:
    """The calls of all conversations.

    Parameters
    ----------
    kept : KeptBytes
        Counts them, and holds them to their bounds.
    """

    def __init__(
        self,
        connections: Connections,
        seals: RowSeals,
        kept: KeptBytes,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._connections = connections
        self._seals = seals
        self._kept = kept
        self._clock = clock

    def __repr__(self) -> str:
        return f"<CallRecords {self._connections!r}>"

    async def begin(
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

        def work(connection: sa.Connection) -> CallRecord | None:
            try:
                with transaction(connection):
                    owners = lock_owners(connection, [conversation_id])
                    if not owners:
                        raise NotFound(_NO_CONVERSATION)
                    count(connection, owners, {conversation_id: Change(CALL_BYTES, 1)})
                    connection.execute(_INSERT, _row(call))
            except IntegrityError:
                return None
            return call

        return await self._connections.run(work)

    async def finish(
        self, call_id: str, result: Mapping[str, JsonValue], state: CallState = "finished"
    ) -> bool:
        """Record how a call ended; False if it was not running: its first end stays."""
        finished_at = to_microseconds(self._clock())
        found = await self._connections.run(
            lambda connection: connection.execute(_SELECT_ENDING, {"id": call_id}).first()
        )
        if found is None:
            return False
        conversation_id = found.conversation_id
        try:
            seal = await self._seals.get_or_make(conversation_id)
        except NotFound:  # the conversation was deleted meanwhile, with its calls
            return False

        def work(connection: sa.Connection) -> bool:
            sealed, pictures = sealed_result(seal, call_id, found.tool, state, result)
            size = len(sealed) + len(pictures or b"")
            values = {
                "id": call_id,
                "new_state": state,
                "new_finished_at": finished_at,
                "new_result": sealed,
                "new_pictures": pictures,
            }
            with transaction(connection):
                owners = lock_owners(connection, [conversation_id])
                if not owners:
                    return False
                count(connection, owners, {conversation_id: Change(size)})
                if not connection.execute(_FINISH, values).rowcount:  # another was faster
                    count(connection, owners, {conversation_id: Change(-size)})
                    return False
            self._kept.prune(connection, owners)
            return True

        return await self._connections.run(work)

    async def add(self, over: Sequence[CallRecord]) -> None:
        """Record calls that are over already, all or none; not those of deleted conversations."""
        seals: dict[str, RowSeal] = {}
        for conversation_id in {call.conversation_id for call in over}:
            try:
                seals[conversation_id] = await self._seals.get_or_make(conversation_id)
            except NotFound:
                pass
            except KeyUnusable as exc:  # its own calls alone are not recorded
                _LOG.warning("conversation %s: calls: %s %s", conversation_id, exc, exc.detail)

        def work(connection: sa.Connection) -> None:
            rows: list[dict[str, Any]] = []
            changes: dict[str, Change] = {}
            for call in over:
                if call.conversation_id not in seals:
                    continue
                sealed, pictures = sealed_result(
                    seals[call.conversation_id],
                    *(call.call_id, call.tool, call.state, call.result or {}),
                )
                change = Change(CALL_BYTES + len(sealed) + len(pictures or b""), 1)
                changes[call.conversation_id] = changes.get(call.conversation_id, Change()) + change
                rows.append({**_row(call), "sealed_result": sealed, "sealed_pictures": pictures})
            if not rows:
                return
            with transaction(connection):  # one commit for all: the commit is the cost
                owners = lock_owners(connection, changes)
                known = [row for row in rows if row["conversation_id"] in owners]
                if not known:
                    return
                count(connection, owners, {each: changes[each] for each in owners})
                connection.execute(_INSERT, known)
            self._kept.prune(connection, owners)

        await self._connections.run(work)

    async def get(self, conversation_id: str, call_id: str) -> CallRecord | None:
        """Give a call of this conversation; None if there is none.

        Its result is None when it is not kept any more; pictures that are not have no ``data``. An
        ``EncodedJson`` is whole.
        """
        seal = await self._seals.find(conversation_id)
        values = {"id": call_id, "conversation_id": conversation_id}

        def work(connection: sa.Connection) -> CallRecord | None:
            row = connection.execute(_SELECT, values).first()
            return None if row is None else call_of(row, _opened(seal, row))

        return await self._connections.run(work)


def call_of(row: Any, result: Mapping[str, JsonValue] | None = None) -> CallRecord:
    """Give the call of a row; its result is for the caller to open."""
    finished_at = row.finished_at
    return CallRecord(
        call_id=row.call_id,
        conversation_id=row.conversation_id,
        tool=row.tool,
        state=row.state,
        started_at=from_microseconds(row.started_at),
        finished_at=None if finished_at is None else from_microseconds(finished_at),
        result=result,
        server=row.server,
        timeout_seconds=row.timeout_seconds,
    )


def _row(call: CallRecord) -> dict[str, Any]:
    finished_at = call.finished_at
    if finished_at is None and call.state != "running":
        finished_at = call.started_at
    return {
        "call_id": call.call_id,
        "conversation_id": call.conversation_id,
        "tool": call.tool,
        "state": call.state,
        "started_at": to_microseconds(call.started_at),
        "finished_at": None if finished_at is None else to_microseconds(finished_at),
        "result": None,
        "server": call.server,
        "timeout_seconds": call.timeout_seconds,
        "sealed_result": None,
        "sealed_pictures": None,
    }


def sealed_result(
    seal: RowSeal, call_id: str, tool: str, state: str, result: Mapping[str, JsonValue]
) -> Sealed:
    """Give a result as it is stored: without its pictures, and those. Blocks: it may be big."""
    content, pictures = result.get("content"), []
    if isinstance(content, list):
        kept: list[JsonValue] = []
        for part in content:
            if isinstance(part, dict) and isinstance(data := part.get("data"), str):
                pictures.append(data)
                size = len(data) * 3 // 4
                part = {**part, "data": None, "size_bytes": size}
            kept.append(part)
        result = {**result, "content": kept}
    text = encode(result).encode("ascii")
    place = ("calls", call_id, tool, state)
    sealed = seal.seal(text, "sealed_result", *place)
    if not pictures:
        return sealed, None
    return sealed, seal.seal(encode(pictures).encode("ascii"), "sealed_pictures", *place)


def _opened(seal: RowSeal | None, row: Any) -> Mapping[str, JsonValue] | None:
    """Give the result of a row, with those of its pictures that are kept; None if it is not."""
    if row.sealed_result is None:
        return None if row.result is None else EncodedJson(row.result)
    if seal is None:
        raise KeyUnusable("the key of this conversation's results is gone", detail=row.call_id)
    place = ("calls", row.call_id, row.tool, row.state)
    text = seal.open(row.sealed_result, "sealed_result", *place).decode("ascii")
    if row.sealed_pictures is None and not _HAS_PICTURES.search(text):
        return EncodedJson(text)
    result: dict[str, JsonValue] = json.loads(text)
    pictures = []
    if row.sealed_pictures is not None:
        pictures = json.loads(seal.open(row.sealed_pictures, "sealed_pictures", *place))
    lacks = len(pictures)
    content = result.get("content")
    if isinstance(content, list):
        lacks -= sum(isinstance(part, dict) and "data" in part for part in content)
        result["content"] = [_with_data(part, pictures) for part in content]
    return EncodedJson(encode(result), result) if not lacks and is_large(result) else result


def _with_data(part: JsonValue, pictures: list[str]) -> JsonValue:
    """Give a part of a result with its picture, which is the first that is left."""
    if not isinstance(part, dict) or "data" not in part:
        return part
    if pictures:
        members = {name: value for name, value in part.items() if name != "size_bytes"}
        return {**members, "data": pictures.pop(0)}
    return {name: value for name, value in part.items() if name != "data"}
