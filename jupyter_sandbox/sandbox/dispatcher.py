"""One reader of all that a kernel sends, for any number of executions at once.

It owns three sockets (shell, control, iopub) to the relay and gives each message to the execution
whose request it answers. An execution is over when its reply and its idle status have both come, in
either order; once one of them is there, the other is awaited for a bounded time. What no execution
waits for is dropped. Whatever a kernel sends, the reader goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable
from typing import Any, Literal, cast

import zmq
import zmq.asyncio
from jupyter_client.session import Session

from ..errors import LimitExceeded, SandboxError, Unavailable
from ..fair_turns import in_thread
from ..models import Emit
from .cell_result import CellResult
from .kernel_messages import KernelMessage, MessageError, read_message
from .pace import Pace

_OTHER_HALF_SECONDS = 5.0
_RECEIVE_QUEUE = 4  # messages; the relay bounds their size, so this bounds memory
_LARGE_BYTES = 512 * 1024  # read in a thread: signature, JSON and base64 take milliseconds
_ASK_AGAIN_SECONDS = 0.5
_MAX_RUNNING = 256
_MAX_FENCES = 16
_MOST_ERRORS = 1000


class Execution:
    """A cell that was sent.

    Attributes
    ----------
    started : asyncio.Event
        The kernel has begun with it.
    first : asyncio.Event
        No earlier cell of ours is before it.
    done : asyncio.Future
        The reply's content, ``{}`` if there never was one; raises when the connection was lost.
    """

    def __init__(self, msg_id: str, result: CellResult) -> None:
        self.msg_id = msg_id
        self.result = result
        self.started = asyncio.Event()
        self.first = asyncio.Event()
        self.done: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.metadata: dict[str, Any] = {}
        self.on_start: Callable[[], None] | None = None
        self.is_read = False  # from the kernel's records, by ``CellReader``: not from its messages
        self.earlier_seconds = 0.0  # that it ran before it was followed from here
        self.ran_seconds: float | None = None  # of one that had ended before that
        self._reply: dict[str, Any] | None = None
        self._is_idle = False
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "done" if self.done.done() else "running" if self.started.is_set() else "queued"
        return f"<Execution {self.msg_id[:8]} {state}>"

    def start(self) -> None:
        """Note that the kernel has begun."""
        if not self.started.is_set():
            self.started.set()
            if self.on_start is not None:
                self.on_start()

    def reply(self, message: KernelMessage) -> None:
        """Take the reply."""
        self._reply, self.metadata = message.content, message.metadata
        self._half()

    def end(self, content: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Take the reply of one whose output is all here."""
        self._reply, self.metadata = content, metadata
        self._finish()

    def idle(self) -> None:
        """Take the idle status."""
        self._is_idle = True
        self._half()

    def fail(self, error: SandboxError) -> None:
        """End it without a reply."""
        self._cancel_timer()
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # nobody may be waiting any more

    def _half(self) -> None:
        if self._reply is not None and self._is_idle:
            self._finish()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_OTHER_HALF_SECONDS, self._finish)

    def _finish(self) -> None:
        self._cancel_timer()
        if not self.done.done():
            self.done.set_result(self._reply or {})

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Dispatcher:
    """The reader of one kernel process.

    Parameters
    ----------
    urls : dict
        Of the channels ``shell``, ``control`` and ``iopub``.
    session : Session
        With the kernel's key; not shared with anybody.
    owner : callable
        Gives whose turns reading large messages takes.

    Attributes
    ----------
    protocol_errors : int
        Messages that were no messages.
    on_violation : callable or None
        Called once with the reason when there are too many of them.
    """

    def __init__(
        self,
        context: zmq.asyncio.Context,
        urls: dict[str, str],
        session: Session,
        owner: Callable[[], str],
        log: logging.Logger,
    ) -> None:
        self._session = session
        self._owner = owner
        self._log = log
        self._tasks: list[asyncio.Task[None]] = []
        self._executions: dict[str, Execution] = {}  # in the order sent
        self._fences: dict[str, list[Execution]] = {}
        self._asked: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._running: set[str] = set()  # execute requests of anybody that the kernel works on
        self._heard = asyncio.Event()
        self._answered = asyncio.Event()
        self.protocol_errors = 0
        self.on_violation: Callable[[str], None] | None = None
        self._shell = _socket(context, zmq.DEALER, urls["shell"])
        self._control = _socket(context, zmq.DEALER, urls["control"])
        self._iopub = _socket(context, zmq.SUB, urls["iopub"])

    def __repr__(self) -> str:
        return f"<Dispatcher {len(self._executions)} executions, {self.protocol_errors} errors>"

    @property
    def is_busy(self) -> bool:
        """Whether a cell, ours or another client's, runs or waits."""
        return bool(self._executions or self._running)

    def start(self) -> None:
        """Begin to read."""
        for socket, handle in (
            (self._shell, self._on_shell),
            (self._control, self._on_control),
            (self._iopub, self._on_iopub),
        ):
            self._tasks.append(asyncio.ensure_future(self._read(socket, handle)))

    async def ready(self) -> None:
        """Wait until the kernel answers and its output arrives; the caller bounds the time.

        The output's subscription travels on its own connection: what is sent before it has arrived
        is lost. Control answers even while a cell runs.
        """
        while True:
            self._send(self._control, "kernel_info_request", {})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ASK_AGAIN_SECONDS):
                    await self._answered.wait()
                    await self._heard.wait()
                    return

    def submit(
        self,
        code: str,
        limit_bytes: int,
        emit: Emit,
        call_id: str = "",
        timeout_seconds: float = 0.0,
    ) -> Execution:
        """Send a cell; the kernel runs what it is sent one after the other.

        Parameters
        ----------
        call_id : str
            Under which a later server process can ask for it.
        timeout_seconds : float
            After which, and some grace, the kernel interrupts it by itself.
        """
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        asked = {"limit_bytes": limit_bytes, "timeout_seconds": timeout_seconds}
        metadata = {"sandbox": asked}
        msg_id = self._send(self._shell, "execute_request", content, metadata, call_id)
        return self._add(Execution(msg_id, CellResult(limit_bytes, emit)))

    def expect(self, call_id: str, limit_bytes: int, emit: Emit) -> Execution:
        """Wait for a cell that an earlier server process has sent; a ``CellReader`` reads it."""
        execution = Execution(call_id, CellResult(limit_bytes, emit))
        execution.is_read = True
        return self._add(execution)

    async def ask(
        self, channel: Literal["shell", "control"], msg_type: str, content: dict[str, Any]
    ) -> dict[str, Any]:
        """Send a request and give its reply's content; the caller bounds the time."""
        socket = self._shell if channel == "shell" else self._control
        msg_id = self._send(socket, msg_type, content)
        reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[msg_id] = reply
        try:
            return await reply
        finally:
            self._asked.pop(msg_id, None)

    def _add(self, execution: Execution) -> Execution:
        msg_id = execution.msg_id
        if not self._executions:
            execution.first.set()
        self._executions[msg_id] = execution
        execution.done.add_done_callback(lambda _: self._remove(msg_id))
        return execution

    def suspect(self) -> None:
        """Messages may have been lost: find out which executions ended without our knowing.

        The kernel answers requests in order. When it answers one that is sent now, the replies of
        earlier ones have come or never will.
        """
        if self._executions and self._tasks and len(self._fences) < _MAX_FENCES:
            with contextlib.suppress(Unavailable):  # it reads nothing: their time will run out
                fence = self._send(self._shell, "kernel_info_request", {})
                self._fences[fence] = list(self._executions.values())

    async def close(self, reason: SandboxError) -> None:
        """Stop reading; executions that wait raise ``reason``. Twice is once."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)
        for execution in list(self._executions.values()):
            execution.fail(reason)
        for socket in (self._shell, self._control, self._iopub):
            socket.close(linger=0)

    def _send(
        self,
        socket: zmq.asyncio.Socket,
        msg_type: str,
        content: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        msg_id: str = "",
    ) -> str:
        header = self._session.msg_header(msg_type)
        if msg_id:
            header["msg_id"] = msg_id
        message = self._session.msg(msg_type, content, metadata=metadata, header=header)
        frames = self._session.serialize(message)
        # With DONTWAIT it is done when the call returns: queued, or refused.
        sent = cast("asyncio.Future[Any]", socket.send_multipart(frames, flags=zmq.DONTWAIT))
        if (refused := sent.exception()) is not None:
            raise Unavailable("the Python kernel reads no requests", detail=repr(refused))
        return str(message["header"]["msg_id"])

    async def _read(
        self, socket: zmq.asyncio.Socket, handle: Callable[[KernelMessage], None]
    ) -> None:
        pace = Pace()
        while True:
            frames: list[bytes] = await socket.recv_multipart()
            pace.begin()
            try:
                if sum(len(frame) for frame in frames) > _LARGE_BYTES:
                    message = await in_thread(
                        read_message, self._session, frames, owner=self._owner()
                    )
                    pace.begin()
                else:
                    message = read_message(self._session, frames)
                handle(message)
            except (MessageError, LimitExceeded) as exc:
                self._note_error(exc)
            except Exception:
                self._log.exception("%r: a message could not be handled", self)
            await pace.rest()  # a message that is there already is given without a pause

    def _note_error(self, error: Exception) -> None:
        self.protocol_errors += 1
        if self.protocol_errors in (1, 10, 100):
            self._log.warning("%r: a malformed message: %s", self, error)
        if self.protocol_errors == _MOST_ERRORS:
            self._log.warning("%r: too many malformed messages: %s", self, error)
            if self.on_violation is not None:
                self.on_violation("too many malformed messages")

    def _on_iopub(self, message: KernelMessage) -> None:
        self._heard.set()
        execution = self._executions.get(message.parent_id)
        if message.msg_type == "status":
            self._on_status(message, execution)
        elif execution is not None and not execution.is_read:
            execution.start()
            execution.result.add(message.msg_type, message.content, message.size)

    def _on_status(self, message: KernelMessage, execution: Execution | None) -> None:
        state = message.content.get("execution_state")
        if message.parent_type == "execute_request":
            if state == "busy" and len(self._running) < _MAX_RUNNING:
                self._running.add(message.parent_id)
            elif state == "idle":
                self._running.discard(message.parent_id)
        # Busy is no start: until execute_input the kernel still ignores an interrupt.
        if execution is not None and state == "idle" and not execution.is_read:
            execution.idle()

    def _on_shell(self, message: KernelMessage) -> None:
        execution = self._executions.get(message.parent_id)
        is_reply = message.msg_type == "execute_reply"
        if execution is not None and is_reply and not execution.is_read:
            execution.reply(message)
        for suspected in self._fences.pop(message.parent_id, []):
            if not suspected.is_read:
                suspected.idle()  # it has ended: a reply that is not here by now was lost
        self._answer(message)

    def _on_control(self, message: KernelMessage) -> None:
        self._answered.set()
        self._answer(message)

    def _answer(self, message: KernelMessage) -> None:
        asked = self._asked.get(message.parent_id)
        if asked is not None and not asked.done():
            asked.set_result(message.content)

    def _remove(self, msg_id: str) -> None:
        self._executions.pop(msg_id, None)
        for execution in self._executions.values():
            execution.first.set()
            return


def _socket(context: zmq.asyncio.Context, kind: int, url: str) -> zmq.asyncio.Socket:
    socket = context.socket(kind)
    socket.linger = 0
    socket.rcvhwm = _RECEIVE_QUEUE
    socket.reconnect_ivl = 50
    socket.reconnect_ivl_max = 1000
    if kind == zmq.SUB:
        socket.subscribe(b"")
    else:
        # A name of our own: after a reconnect the kernel finds us again with its replies.
        socket.identity = uuid.uuid4().bytes
    socket.connect(url)
    return socket
