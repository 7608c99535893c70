"""Tool calls as things of their own: they run on when the client goes away, and end once.

A call is recorded when it has run for a moment or its id is given out, whichever is first, and with
its result; a short one once, with its result, a moment after its client has it. What a live call
has put out so far is kept (bounded by the output limit) for clients that follow. After a restart of
the server a command that still runs inside is followed again; what cannot be is ``lost``, and says
so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from .. import metrics
from ..conversations.conversation import Conversation
from ..conversations.conversations import Conversations, is_uuid
from ..conversations.journal import Journal
from ..encoded_json import EncodedJson, encode, is_large
from ..errors import (
    DiskFull,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    SandboxError,
    ToolError,
    Unavailable,
)
from ..fair_turns import NOBODY, acting_for, in_thread
from ..models import CallRecord, ConversationRecord, JsonValue, Limits, ToolResult
from ..stores.audit_log import AuditLog
from ..stores.call_records import CallRecords
from ..stores.database import Database
from ..stores.file_store import FileStore
from ..stores.room import Room
from .call import Call, shape_of
from .call_messages import call_message, file_messages, result_message
from .capacity import Capacity
from .context import ToolContext
from .kept_results import kept_result
from .registry import Prepared, prepare
from .resuming import LOST, RESUMABLE, Resuming
from .run import error_result, run_prepared, unforeseen_result, with_notice

_CANCEL_SECONDS = 5.0
_SHORT_SECONDS = 0.05  # a call that is over by then is recorded once
_LOOK_SECONDS = 0.5  # at a call that another server runs
_CANCELLED = "The call was cancelled; what it had done until then stays."


class Calls:
    """All calls of this server process.

    Parameters
    ----------
    limits : Limits
        Of every call.
    server : str
        This process; its calls are recorded with it.
    is_alive : callable
        Says whether a server process lives.
    room : Room
        Asked before a call begins: it and its result are kept.
    """

    def __init__(
        self,
        conversations: Conversations,
        database: Database,
        records: CallRecords,
        shares: FileStore,
        journal: Journal,
        limits: Limits,
        log: logging.Logger,
        audit: AuditLog,
        server: str,
        is_alive: Callable[[str], bool],
        room: Room,
    ) -> None:
        self._room = room
        self._conversations = conversations
        self._database = database
        self._records = records
        self._shares = shares
        self._journal = journal
        self._limits = limits
        self.capacity = Capacity(database, limits.capacity_bytes)
        self._log = log
        self._audit = audit
        self._server = server
        self._resuming = Resuming(
            *(self, conversations, database, records, journal, limits, log, server, is_alive)
        )
        self.take_over = self._resuming.take_over
        self._live: dict[tuple[str, str], Call] = {}
        self._running: dict[str, int] = {}
        self._short: list[Call] = []  # over, answered, and not recorded yet
        self._recorder: asyncio.Task[None] | None = None

    async def start(
        self, record: ConversationRecord, tool: str, body: Mapping[str, Any], call_id: str = ""
    ) -> Call:
        """Begin a call; a refused one is over at once and touches no sandbox.

        Parameters
        ----------
        call_id : str
            A UUID that the caller has chosen: the call is on disk before it begins, and asking for
            it again gives the same call. "": the id is ours.

        Raises
        ------
        LimitExceeded
            Too many calls of this conversation run already, or the user has made too many.
        InvalidRequest
            The id is no UUID, or another call has it (409).
        """
        if call_id:
            known = await self._known(record, tool, call_id)
            if known is not None:
                return known
        self._conversations.rates.take_call(record.owner)
        call = Call(record.conversation_id, call_id or str(uuid.uuid4()), tool, body)
        try:
            self._room.require()
        except DiskFull as exc:  # nothing of it is kept: asked for again by its id, it begins
            call.finish({**error_result(exc).to_json(), "duration_seconds": 0.0})
            return call
        try:
            prepared = prepare(tool, body, self._limits)
        except ToolError as exc:
            call.finish({**error_result(exc).to_json(), "duration_seconds": 0.0})
            self._tell(call, call.result or {})
            self._note(call, record.owner)
            return call
        conversation_id = record.conversation_id
        if self.count_running(conversation_id) >= self._limits.calls_at_once:
            raise LimitExceeded(
                f"{self._limits.calls_at_once} calls of this conversation run already; "
                "wait for one to end.",
                retry_after_seconds=1,
            )
        if call_id:
            stored = await self._insert(call)
            if stored is None:  # two came at the same time, or it is another conversation's
                known = await self._known(record, tool, call_id)
                if known is None:
                    raise _taken()
                return known
            call.recording = asyncio.get_running_loop().create_future()
            call.recording.set_result(stored)
            self._tell_begin(call)
        self.begin(call, self._run(call, record, prepared))
        return call

    async def announce(self, call: Call) -> None:
        """Record a call that runs, before its id is given to anybody who may ask for it later."""
        if not call.done.done():
            with contextlib.suppress(SandboxError):  # said at its end
                await asyncio.shield(self._record(call))

    def find(self, conversation_id: str, call_id: str) -> Call | None:
        """Give a call of this process that runs, or did a moment ago."""
        return self._live.get((conversation_id, call_id))

    def count_running(self, conversation_id: str) -> int:
        """Give how many calls of a conversation run in this process: each is a use of it."""
        return self._running.get(conversation_id, 0)

    def running(self, conversation_id: str) -> list[Call]:
        """Give the calls of this process that run and are in the message stream already."""
        return [
            call
            for call in self._live.values()
            if call.conversation_id == conversation_id
            and call.recording is not None
            and not call.done.done()
        ]

    async def fetch(
        self, record: ConversationRecord, call_id: str, wait_seconds: float
    ) -> Mapping[str, JsonValue]:
        """Give the state of a call and, when it is over, its result."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_seconds
        while True:
            call = self._live.get((record.conversation_id, call_id))
            if call is None:
                stored = await self._stored(record, call_id)
                if stored.state != "running":
                    return _stored_json(stored)
                call = await self._resuming.resume(stored)
            left = until - loop.time()
            if call is not None:
                if left > 0:
                    await asyncio.wait([call.done], timeout=left)
                return call.to_json()
            if left <= 0:
                return _stored_json(stored)
            await asyncio.sleep(min(_LOOK_SECONDS, left))

    async def cancel(self, record: ConversationRecord, call_id: str) -> None:
        """End a running call; one that is over stays as it is."""
        call = self._live.get((record.conversation_id, call_id))
        tool = "" if call is None else call.tool
        if call is None:
            stored = await self._stored(record, call_id)
            if stored.state != "running":
                return
            tool, call = stored.tool, await self._resuming.resume(stored)
        live = self._conversations.live(record.conversation_id)
        if tool in RESUMABLE:
            async with live.use() as sandbox:
                if tool == "python":
                    await sandbox.python.interrupt()
                    return
                # A call that has only just begun may not have reached the guest.
                deadline = asyncio.get_running_loop().time() + _CANCEL_SECONDS
                while not await sandbox.bash.interrupt(call_id):
                    if call is None or call.done.done():
                        return
                    if asyncio.get_running_loop().time() > deadline:
                        raise Unavailable("the call could not be cancelled; try again")
                    await asyncio.sleep(0.05)
        elif call is not None and call.task is not None and not call.done.done():
            call.cancelled = True
            call.task.cancel()

    async def close(self) -> None:
        """Stop following all calls, for the server's stop; commands and cells inside go on."""
        tasks = []
        for call in self._live.values():
            sandbox = self._conversations.live(call.conversation_id).sandbox
            if call.tool == "python" and sandbox is not None:
                sandbox.python.leave_cells()
            if call.task is not None:
                tasks.append(call.task)
                if not call.done.done():  # else it is just being recorded
                    call.task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)
        if self._recorder is not None:
            self._recorder.cancel()  # it records now what it would have recorded in a moment
            await asyncio.wait([self._recorder], timeout=5)

    def begin(self, call: Call, work: Coroutine[Any, Any, None]) -> None:
        """Run a call."""
        conversation_id = call.conversation_id
        self._live[call.key] = call
        metrics.CALLS_RUNNING.inc()
        self._running[conversation_id] = self._running.get(conversation_id, 0) + 1
        call.task = asyncio.ensure_future(work)
        timer = asyncio.get_running_loop().call_later(_SHORT_SECONDS, self._record_long, call)

        def answered(_: object) -> None:
            timer.cancel()
            metrics.CALLS_RUNNING.dec()
            self._running[conversation_id] -= 1
            if not self._running[conversation_id]:
                del self._running[conversation_id]

        def over(_: object) -> None:
            if call not in self._short:
                self._live.pop(call.key, None)
            if call.done.done():
                return
            if call.tool in RESUMABLE and call.recording is not None:
                call.leave()  # the server stops; the record says "running", and the next goes on
            else:
                call.finish(error_result(ToolError(LOST, code="lost")).to_json(), "lost")

        call.done.add_done_callback(answered)
        call.task.add_done_callback(over)

    def _record_long(self, call: Call) -> None:
        # One that ended in this turn of the loop is among the short ones already.
        if not call.done.done():
            self._record(call)

    def _record(self, call: Call) -> asyncio.Future[CallRecord | None]:
        if call.recording is None:
            call.recording = asyncio.ensure_future(self._insert(call))
            self._tell_begin(call)
        return call.recording

    async def _insert(self, call: Call) -> CallRecord | None:
        seconds = None
        if call.tool in RESUMABLE:
            asked = (call.arguments or {}).get("timeout_seconds")
            seconds = float(asked) if asked else self._limits.command_seconds
        return await self._records.begin(
            *(call.conversation_id, call.call_id, call.tool),
            server=self._server,
            timeout_seconds=seconds,
        )

    def _tell_begin(self, call: Call) -> None:
        if call.arguments is not None:
            message = call_message(call.call_id, call.tool, call.arguments)
            self._journal.add(call.conversation_id, "call", message)

    def _tell(self, call: Call, result: Mapping[str, JsonValue]) -> None:
        """Put the end of a call into the message stream; of a short one its beginning too."""
        if call.recording is None:
            self._tell_begin(call)
        message = result_message(call.call_id, call.tool, call.state, result)
        self._journal.add(call.conversation_id, "result", message)
        for card in file_messages(call.call_id, result):
            self._journal.add(call.conversation_id, "file", card)

    async def _run(self, call: Call, record: ConversationRecord, prepared: Prepared) -> None:
        live = self._conversations.live(record.conversation_id)
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with live.use() as sandbox:
                call.has_sandbox = True
                context = ToolContext(
                    conversation_id=record.conversation_id,
                    call_id=call.call_id,
                    sandbox=sandbox,
                    limits=self._limits,
                    shares=self._shares,
                    database=self._database,
                    emit=call.emit,
                    check_capacity=self.capacity.check_of(record.conversation_id),
                )
                result = await run_prepared(context, prepared)
            if call.tool == "share_files":
                self.capacity.forget(record.conversation_id)
        except asyncio.CancelledError:
            if not call.cancelled:
                raise
            result = error_result(ToolError(_CANCELLED, code="cancelled"))
        except SandboxError as exc:
            result = error_result(exc)
        except Exception as exc:
            result = unforeseen_result(exc, call.call_id, self._log)
        await self.end(call, record, live, result, loop.time() - started)

    async def end(
        self,
        call: Call,
        record: ConversationRecord,
        live: Conversation,
        result: ToolResult,
        seconds: float,
    ) -> None:
        """Answer and record; a database that fails costs the record, not the answer."""
        told: dict[str, JsonValue] = {
            **result.to_json(),
            "duration_seconds": round(seconds, 4),
        }  # without the notice: that has a message of its own
        try:
            # A call whose sandbox has ended learns nothing of the next one's.
            if call.has_sandbox and live.is_attached and (record.notice or live.has_notice):
                live.has_notice = False
                notice = await self._database.take_notice(record.conversation_id)
                result = with_notice(result, notice)
        except SandboxError as exc:
            self._log.warning("call %s: no notice: %s %s", call.call_id, exc, exc.detail)
        shape = await self._encoded({**told, **result.to_json()}, record.owner)
        call.finish(shape, call.end_state)
        if call.arguments is not None:  # after those who wait for the answer
            asyncio.get_running_loop().call_soon(self._tell, call, told)
        self._note(call, record.owner)
        if call.recording is None:
            self._short.append(call)
            if self._recorder is None:
                with acting_for(NOBODY):  # it is for the calls of all users
                    self._recorder = asyncio.ensure_future(self._record_short())
            return
        try:
            await call.recording
            is_first = await self._records.finish(call.call_id, shape, call.end_state)
            if is_first and call.arguments is None:  # else another process has told its end
                self._tell(call, told)
        except SandboxError as exc:
            self._log.warning("call %s: not recorded: %s %s", call.call_id, exc, exc.detail)

    async def _encoded(self, result: dict[str, JsonValue], owner: str) -> Mapping[str, JsonValue]:
        """Encode a large result, once for all who want it."""
        if not is_large(result):
            return result
        try:
            return EncodedJson(await in_thread(encode, result, owner=owner), result)
        except LimitExceeded:  # then each does it for itself
            return result

    def _note(self, call: Call, owner: str) -> None:
        """Tell the audit log how a call ended: sizes, no contents."""
        result = call.result or {}
        content = result.get("content")
        parts = content if isinstance(content, list) else []
        output, shared = 0, []
        for part in parts:
            if isinstance(part, dict):
                text, size = part.get("text"), part.get("size_bytes")
                output += len(text) if isinstance(text, str) else 0
                if part.get("id") and isinstance(size, int):
                    shared.append(size)
        detail: dict[str, JsonValue] = {
            "tool": metrics.known(call.tool, metrics.TOOLS),
            "code": metrics.known(str(result.get("code")), metrics.CODES),
            "seconds": result.get("duration_seconds"),
            "output_characters": output,
        }
        if shared:
            detail |= {"files": len(shared), "bytes": sum(shared)}
        if isinstance(exit_code := result.get("exit_code"), int):
            detail["exit_code"] = exit_code
        self._audit.note("call", owner, call.conversation_id, **detail)

    async def _record_short(self) -> None:
        """Record the short calls of a moment together: it costs them, and the next ones, less."""
        try:
            await asyncio.sleep(_SHORT_SECONDS)
        finally:
            calls, self._short, self._recorder = self._short, [], None
            try:
                await self._records.add([call.to_record() for call in calls])
            except SandboxError as exc:
                self._log.warning("%d calls: not recorded: %s %s", len(calls), exc, exc.detail)
            for call in calls:
                self._live.pop(call.key, None)

    async def _known(self, record: ConversationRecord, tool: str, call_id: str) -> Call | None:
        """Give the call that a caller asks for again; None if there is none yet."""
        if not is_uuid(call_id):
            raise InvalidRequest("call_id: must be a UUID, in lower case with hyphens.", status=400)
        known = self._live.get((record.conversation_id, call_id))
        if known is None:
            stored = await self._records.get(record.conversation_id, call_id)
            if stored is None:
                return None
            known = Call.of(stored)
            if stored.state == "running":
                known = await self._resuming.resume(stored)
                if known is None:
                    raise InvalidRequest(
                        "This call runs already; ask for it by its id.", status=409
                    )
        if known.tool != tool:
            raise _taken()
        return known

    async def _stored(self, record: ConversationRecord, call_id: str) -> CallRecord:
        stored = await self._records.get(record.conversation_id, call_id)
        if stored is None:
            raise NotFound("There is no such call.")
        return stored


def _taken() -> InvalidRequest:
    return InvalidRequest("call_id: another call has this id; choose a new one.", status=409)


def _stored_json(stored: CallRecord) -> Mapping[str, JsonValue]:
    shape: dict[str, JsonValue] = {
        "call_id": stored.call_id,
        "tool": stored.tool,
        "state": stored.state,
        "started_at": stored.started_at.isoformat(),
    }
    if stored.finished_at is not None:
        shape["finished_at"] = stored.finished_at.isoformat()
    return shape_of(shape, stored.tool, None if stored.state == "running" else kept_result(stored))
