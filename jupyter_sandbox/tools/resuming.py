"""Calls whose server process is gone: each goes on here, or ends as lost. None runs for ever.

A command and a cell belong to their sandbox: guest and kernel keep what they give, under the call's
id, until somebody asks. The rule: a call is taken over by one server of several, under the time
that it was begun with; what the sandbox says of it is a claim like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Protocol

from ..conversations.conversation import Conversation
from ..conversations.conversations import Conversations
from ..conversations.journal import Journal
from ..conversations.states import State
from ..errors import AccessError, SandboxError, ToolError, Unavailable
from ..fair_turns import in_thread
from ..models import CallRecord, ConversationRecord, JsonValue, Limits, ToolResult
from ..sandbox.sandbox import Sandbox
from ..stores.call_records import CallRecords
from ..stores.database import Database
from ..stores.running_calls import RunningCalls
from .bash import bash_result
from .call import Call
from .call_messages import result_message
from .python import python_result
from .run import error_result, unforeseen_result, with_notice

RESUMABLE = ("bash", "python")
"""The tools whose work goes on in the sandbox without a server."""

_AT_ONCE = 8  # sandboxes that are attached to; followed are any number
_LEAST_AGE_SECONDS = 10.0  # of a call of this server that nobody runs: it may just be ending
_RETRY_SECONDS = (0.5, 30.0)
_GIVE_UP_SECONDS = 86400.0  # an engine may be down for long, but nothing is "running" for ever

_RESUMED = (
    "[The server was restarted while this ran. It went on meanwhile, and this is its whole result; "
    "while there was no server, there was no network.]"
)
LOST = (
    "exec failed: the result of this call was lost in a restart of the server. Files are kept; "
    "check what the call has done before you repeat it."
)
_LOST_CELL = (
    "exec failed: the result of this call was lost in a restart of the server: the Python kernel "
    "does not know the cell (any more). Files are kept, and variables if the kernel was not "
    "restarted; check what the cell has done before you repeat it."
)
_LOST_WITH_SANDBOX = (
    "exec failed: the server was restarted while this call ran, and the sandbox it ran in is gone: "
    "its result is lost, and so is the workspace. Uploads and shared files are kept. The next call "
    "gets a new sandbox; repeat this one there if it is still needed."
)


class RunsCalls(Protocol):
    """What ``Calls`` does for a call that was taken over, as for any other."""

    def find(self, conversation_id: str, call_id: str) -> Call | None:
        """Give a call of this process."""
        ...

    def begin(self, call: Call, work: Coroutine[Any, Any, None]) -> None:
        """Run it."""
        ...

    async def end(
        self,
        call: Call,
        record: ConversationRecord,
        live: Conversation,
        result: ToolResult,
        seconds: float,
    ) -> None:
        """Record how it ended."""
        ...


class Resuming:
    """Takes calls over.

    Parameters
    ----------
    server : str
        This process, as ``is_alive`` knows it.
    is_alive : callable
        Says whether a server process lives.
    """

    def __init__(
        self,
        calls: RunsCalls,
        conversations: Conversations,
        database: Database,
        records: CallRecords,
        journal: Journal,
        limits: Limits,
        log: logging.Logger,
        server: str,
        is_alive: Callable[[str], bool],
    ) -> None:
        self._calls = calls
        self._conversations = conversations
        self._database = database
        self._records = records
        self._rows = RunningCalls(database.connections)
        self._journal = journal
        self._limits = limits
        self._log = log
        self._server = server
        self._is_alive = is_alive
        self._attaching = asyncio.Semaphore(_AT_ONCE)

    def __repr__(self) -> str:
        return f"<Resuming on {self._server}>"

    async def take_over(self) -> None:
        """Go on with all calls whose server is gone. A chore: at the start, and now and then."""
        taken = 0
        for stored in await self._rows.all():
            known = self._calls.find(stored.conversation_id, stored.call_id)
            if known is None and await self.resume(stored) is not None:
                taken += 1
        if taken:
            self._log.info("%d calls of a server that is gone are followed from here", taken)

    async def resume(self, stored: CallRecord) -> Call | None:
        """Go on with a running call; None while it is another's that lives."""
        if stored.server == self._server:
            if _age(stored) < _LEAST_AGE_SECONDS:
                return self._calls.find(stored.conversation_id, stored.call_id)
        elif await asyncio.to_thread(self._is_alive, stored.server):
            return None
        elif not await self._rows.take(stored, self._server):
            return self._calls.find(stored.conversation_id, stored.call_id)
        known = self._calls.find(stored.conversation_id, stored.call_id)
        if known is not None:
            return known
        call = Call.of(stored)
        self._calls.begin(call, self._follow(call, stored))
        return call

    async def _follow(self, call: Call, stored: CallRecord) -> None:
        record = await self._database.conversation(stored.conversation_id)
        if record is None:
            return  # it was deleted, with its calls
        live = self._conversations.live(stored.conversation_id)
        lost, result = LOST, None
        try:
            if stored.tool in RESUMABLE:
                async with contextlib.AsyncExitStack() as stack:
                    sandbox = await self._lend(stack, live, stored)
                    if sandbox is None:
                        lost = _LOST_WITH_SANDBOX
                    else:
                        call.has_sandbox = True
                        result = await self._result(sandbox, call, stored)
                        lost = LOST if stored.tool == "bash" else _LOST_CELL
        except AccessError:
            return
        except SandboxError as exc:
            result = error_result(exc)
        except Exception as exc:
            result = unforeseen_result(exc, call.call_id, self._log)
        if result is None:
            await self._lose(call, stored, lost)
        else:
            seconds = call.ran_seconds if call.ran_seconds is not None else _age(stored)
            await self._calls.end(call, record, live, with_notice(result, _RESUMED), seconds)

    async def _result(self, sandbox: Sandbox, call: Call, stored: CallRecord) -> ToolResult | None:
        """Wait for the end inside; None when nobody there knows the call."""
        seconds = stored.timeout_seconds or self._limits.command_seconds
        limit = self._limits.output_bytes
        if stored.tool == "python":
            outcome = await sandbox.follow_python(call.call_id, seconds, call.emit, limit)
        else:
            age = _age(stored)
            outcome = await sandbox.follow_bash(call.call_id, seconds, call.emit, limit, age)
        if outcome is None:
            return None
        call.ran_seconds = outcome.duration_seconds
        make = python_result if stored.tool == "python" else bash_result
        return await in_thread(make, outcome, self._limits, seconds, owner=sandbox.python.owner)

    async def _lend(
        self, stack: contextlib.AsyncExitStack, live: Conversation, stored: CallRecord
    ) -> Sandbox | None:
        """Give the sandbox until the stack is left; None when it is gone.

        An engine that does not answer says nothing of the sandbox: it is asked again.
        """
        delay, most = _RETRY_SECONDS
        while True:
            try:
                async with self._attaching:
                    return await stack.enter_async_context(self._borrow(live))
            except Unavailable as exc:
                if _age(stored) > self._limits.command_seconds + _GIVE_UP_SECONDS:
                    raise
                self._log.info("call %s cannot be followed yet: %s", stored.call_id, exc)
            await asyncio.sleep(delay)
            delay = min(most, 2 * delay)

    @contextlib.asynccontextmanager
    async def _borrow(self, live: Conversation) -> AsyncIterator[Sandbox | None]:
        """Lend what is there and make nothing new."""
        record = await self._database.conversation(live.conversation_id)
        state = None if record is None else record.state
        if state == State.SUSPENDED:
            async with live.use() as woken:
                yield woken
        elif state == State.RUNNING:
            async with live.use_running() as sandbox:
                yield sandbox
        else:
            yield None

    async def _lose(self, call: Call, stored: CallRecord, text: str) -> None:
        shape: dict[str, JsonValue] = error_result(ToolError(text, code="lost")).to_json()
        if await self._records.finish(stored.call_id, shape, "lost"):
            message = result_message(stored.call_id, stored.tool, "lost", shape)
            self._journal.add(stored.conversation_id, "result", message)
        self._log.info("call %s (%s) is lost", stored.call_id, stored.tool)
        call.finish(shape, "lost")


def _age(stored: CallRecord) -> float:
    return max(0.0, (datetime.now(UTC) - stored.started_at).total_seconds())
