"""Jupyter messages for bash on a stream: requests in, status, output and replies out.

Protocol: https://jupyter-client.readthedocs.io/en/stable/messaging.html, framed as
docs/guest-protocol.md says. One stream may carry several requests, and none waits for another: the
thread that reads the stream runs a command itself, as most streams carry one at a time (no thread
is made, none is woken), and as soon as more comes, another thread reads on.
"""

from __future__ import annotations

import datetime
import os
import time
from typing import Any, Callable, Dict, List, Optional

from .. import __version__
from ..frames import encode
from ..streams import Stream, StreamClosed
from ..threads import Started, start_thread
from .executions import Execution, Executions, Follower, TooMany, bounds

_PROTOCOL_VERSION = "5.4"

# Output and end of a short command go out together: each sending wakes the host once.
_HOLD_BUSY_SECONDS = 0.02
_HOLD_OUTPUT_SECONDS = 0.002
_HELD_CHARACTERS = 32 * 1024
_HELD_BYTES = 48 * 1024  # as frames


def serve_bash(stream: Stream, executions: Executions) -> None:
    """Answer messages until the stream ends."""
    _Session(stream, executions).serve()


class _Session:
    def __init__(self, stream: Stream, executions: Executions) -> None:
        self.stream = stream
        self._executions = executions
        self._id = os.urandom(16).hex()
        self._reader: Optional[Started] = None
        self._handlers: Dict[str, Callable[[Dict[str, Any], Dict[str, Any]], None]] = {
            "kernel_info_request": self._on_kernel_info_request,
            "attach_request": self._on_attach_request,
            "interrupt_request": self._on_interrupt_request,
            "shutdown_request": self._on_shutdown_request,
        }

    def serve(self) -> None:
        while self._reader is None:
            self._handle(self.stream.receive().body, here=not self.stream.has_more)
        self._reader.join()

    def read_on(self) -> None:
        """Leave the reading to another thread: this one runs a command."""
        self._reader = start_thread(self._read)

    def _read(self) -> None:
        try:
            while True:
                self._handle(self.stream.receive().body, here=False)
        except StreamClosed:
            pass

    def _handle(self, message: Dict[str, Any], here: bool) -> None:
        header = message.get("header")
        content = message.get("content")
        if not isinstance(header, dict) or not isinstance(content, dict):
            return
        msg_type, msg_id = header.get("msg_type"), header.get("msg_id")
        if not isinstance(msg_id, str) or not 0 < len(msg_id) <= 128:
            return
        if msg_type == "execute_request":
            metadata = message.get("metadata")
            ours = metadata.get("sandbox") if isinstance(metadata, dict) else None
            self._execute(header, content, ours if isinstance(ours, dict) else {}, here)
        elif isinstance(msg_type, str) and msg_type in self._handlers:
            self._handlers[msg_type](header, content)

    def _on_kernel_info_request(self, parent: Dict[str, Any], content: Dict[str, Any]) -> None:
        self._status(parent, "busy")
        reply = {
            "status": "ok",
            "protocol_version": _PROTOCOL_VERSION,
            "implementation": "sandbox_guest",
            "implementation_version": __version__,
            "language_info": {
                "name": "bash",
                "version": "5",
                "mimetype": "text/x-sh",
                "file_extension": ".sh",
                "codemirror_mode": "shell",
            },
            "banner": "bash in a sandbox",
            "help_links": [],
        }
        self._send("shell", "kernel_info_reply", parent, reply)
        self._status(parent, "idle")

    def _execute(
        self, parent: Dict[str, Any], content: Dict[str, Any], ours: Dict[str, Any], here: bool
    ) -> None:
        code = content.get("code")
        error = ""
        if not isinstance(code, str) or "\0" in code:
            error = "the command is not text, or has a NUL character"
        else:
            timeout, limit = bounds(ours)
            try:
                execution, run = self._executions.start(parent["msg_id"], code, timeout, limit)
            except TooMany as exc:
                error = str(exc)
        if error:
            self._status(parent, "busy")
            self._error(parent, "execute_reply", "Refused", error)
            self._status(parent, "idle")
        elif run is not None and here:
            run(_Direct(self, parent, execution))
        else:
            if run is not None:
                start_thread(run, Follower())
            self.follow_in_thread(parent, execution, "execute_reply", busy=True)

    def _on_attach_request(self, parent: Dict[str, Any], content: Dict[str, Any]) -> None:
        execution = self._executions.get(str(content.get("execution_id")))
        if execution is None:
            self._error(parent, "attach_reply", "NotFound", "no such execution")
            return
        self.follow_in_thread(parent, execution, "attach_reply")

    def _on_interrupt_request(self, parent: Dict[str, Any], content: Dict[str, Any]) -> None:
        wanted = content.get("execution_id")
        count = 0
        for execution in self._executions.running():
            if wanted is None or execution.id == wanted:
                execution.stop("interrupted")
                count += 1
        self._send("control", "interrupt_reply", parent, {"status": "ok", "count": count})

    def _on_shutdown_request(self, parent: Dict[str, Any], content: Dict[str, Any]) -> None:
        for execution in self._executions.running():
            execution.stop("shutdown")
        self._send("control", "shutdown_reply", parent, {"status": "ok", "restart": False})

    def follow_in_thread(
        self,
        parent: Dict[str, Any],
        execution: Execution,
        reply_type: str,
        sent: int = 0,
        busy: bool = False,
    ) -> None:
        """Show an execution from the character ``sent`` on to its end."""
        start_thread(self._follow, parent, execution, reply_type, sent, busy)

    def _follow(
        self,
        parent: Dict[str, Any],
        execution: Execution,
        reply_type: str,
        sent: int,
        busy: bool,
    ) -> None:
        try:
            if busy:
                self._status(parent, "busy")
            for text in execution.follow(sent):
                self._send("iopub", "stream", parent, {"name": "stdout", "text": text})
            for frame in self.end_frames(parent, reply_type, execution.report or {}):
                self.stream.send(frame)
        except StreamClosed:
            pass  # the host went away; the execution goes on and can be attached to

    def end_frames(
        self, parent: Dict[str, Any], reply_type: str, report: Dict[str, Any]
    ) -> List[Dict[str, Any]]:
        """Give the reply and idle."""
        content: Dict[str, Any] = {"status": "ok", "execution_count": 0, "payload": []}
        if report.get("exit_code") != 0:
            content = {
                "status": "error",
                "ename": "ExitCode",
                "evalue": str(report.get("exit_code")),
                "traceback": [],
            }
        return [
            self.frame("shell", reply_type, parent, content, {"sandbox": report}),
            self.frame("iopub", "status", parent, {"execution_state": "idle"}),
        ]

    def _error(self, parent: Dict[str, Any], reply_type: str, name: str, value: str) -> None:
        content = {"status": "error", "ename": name, "evalue": value, "traceback": []}
        self._send("shell", reply_type, parent, content)

    def _status(self, parent: Dict[str, Any], state: str) -> None:
        self._send("iopub", "status", parent, {"execution_state": state})

    def _send(
        self, channel: str, msg_type: str, parent: Dict[str, Any], content: Dict[str, Any]
    ) -> None:
        self.stream.send(self.frame(channel, msg_type, parent, content))

    def frame(
        self,
        channel: str,
        msg_type: str,
        parent: Dict[str, Any],
        content: Dict[str, Any],
        metadata: Optional[Dict[str, Any]] = None,
    ) -> Dict[str, Any]:
        """Give a message."""
        return {
            "channel": channel,
            "header": {
                "msg_id": os.urandom(16).hex(),
                "msg_type": msg_type,
                "session": self._id,
                "username": "sandbox",
                "date": datetime.datetime.now(datetime.timezone.utc).isoformat(),
                "version": _PROTOCOL_VERSION,
            },
            "parent_header": parent,
            "metadata": metadata or {},
            "content": content,
        }


class _Direct(Follower):
    """Sends what a command gives from the thread that runs it, while the host takes it at once.

    When it does not, or there is much, a thread of its own takes over for the rest of the command.
    """

    def __init__(self, session: _Session, parent: Dict[str, Any], execution: Execution) -> None:
        self._session = session
        self._parent = parent
        self._execution = execution
        self._frames = [session.frame("iopub", "status", parent, {"execution_state": "busy"})]
        self._sent = 0  # characters
        self._held = 0
        self._is_busy_sent = False
        self._is_over = False  # a thread has taken over, or nobody listens
        self.due = time.monotonic() + _HOLD_BUSY_SECONDS

    def fileno(self) -> int:
        return self._session.stream.socket.fileno()

    def read_on(self) -> None:
        self._session.read_on()

    def add(self, text: str) -> None:
        if self._is_over or not text:
            return
        self._held += len(text)
        if self._held > _HELD_CHARACTERS:
            self._hand_over()
            return
        content = {"name": "stdout", "text": text}
        self._frames.append(self._session.frame("iopub", "stream", self._parent, content))
        soon = time.monotonic() + _HOLD_OUTPUT_SECONDS
        self.due = soon if self.due is None else min(self.due, soon)

    def flush(self) -> None:
        self.due = None
        if self._is_over or not self._frames:
            return
        data = b"".join(encode(frame) for frame in self._frames)
        try:
            if len(data) > _HELD_BYTES or not self._session.stream.try_send(data):
                self._hand_over()
                return
        except StreamClosed:
            self._is_over = True  # the execution goes on and can be attached to
            return
        self._sent += self._held
        self._held = 0
        self._is_busy_sent = True
        self._frames.clear()

    def finish(self, report: Dict[str, Any]) -> None:
        if not self._is_over:
            self._frames += self._session.end_frames(self._parent, "execute_reply", report)
            self.flush()

    def _hand_over(self) -> None:
        self.due = None
        self._is_over = True
        self._frames.clear()
        self._session.follow_in_thread(
            self._parent, self._execution, "execute_reply", self._sent, not self._is_busy_sent
        )
