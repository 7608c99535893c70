"""Jupyter messages for bash on a stream: requests in, status, output and replies out.

Protocol: https://jupyter-client.readthedocs.io/en/stable/messaging.html, framed as
docs/guest-protocol.md says. One stream may carry several requests; each execution is followed by a
thread of its own, so a request on a stream never waits for another.
"""

from __future__ import annotations

import datetime
import threading
import uuid
from typing import Any, Dict, Optional

from .. import __version__
from ..streams import Stream, StreamClosed
from .executions import Execution, Executions, TooMany, bounds

_PROTOCOL_VERSION = "5.4"


def serve_bash(stream: Stream, executions: Executions) -> None:
    """Answer messages until the stream ends."""
    session = _Session(stream, executions)
    while True:
        session.handle(stream.receive().body)


class _Session:
    def __init__(self, stream: Stream, executions: Executions) -> None:
        self._stream = stream
        self._executions = executions
        self._id = uuid.uuid4().hex

    def handle(self, message: Dict[str, Any]) -> None:
        header = message.get("header")
        content = message.get("content")
        if not isinstance(header, dict) or not isinstance(content, dict):
            return
        msg_type, msg_id = header.get("msg_type"), header.get("msg_id")
        handler = getattr(self, "_on_%s" % msg_type, None) if isinstance(msg_type, str) else None
        if handler is None or not isinstance(msg_id, str) or not 0 < len(msg_id) <= 128:
            return
        metadata = message.get("metadata")
        ours = metadata.get("sandbox") if isinstance(metadata, dict) else None
        handler(header, content, ours if isinstance(ours, dict) else {})

    def _on_kernel_info_request(
        self, parent: Dict[str, Any], content: Dict[str, Any], ours: Dict[str, Any]
    ) -> None:
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

    def _on_execute_request(
        self, parent: Dict[str, Any], content: Dict[str, Any], ours: Dict[str, Any]
    ) -> None:
        self._status(parent, "busy")
        code = content.get("code")
        error: Optional[str] = None
        if not isinstance(code, str) or "\0" in code:
            error = "the command is not text, or has a NUL character"
        else:
            timeout, limit = bounds(ours)
            try:
                execution = self._executions.start(parent["msg_id"], code, timeout, limit)
            except TooMany as exc:
                error = str(exc)
        if error is not None:
            self._error(parent, "execute_reply", "Refused", error)
            self._status(parent, "idle")
            return
        self._follow_in_thread(parent, execution, "execute_reply")

    def _on_attach_request(
        self, parent: Dict[str, Any], content: Dict[str, Any], ours: Dict[str, Any]
    ) -> None:
        execution = self._executions.get(str(content.get("execution_id")))
        if execution is None:
            self._error(parent, "attach_reply", "NotFound", "no such execution")
            return
        self._follow_in_thread(parent, execution, "attach_reply")

    def _on_interrupt_request(
        self, parent: Dict[str, Any], content: Dict[str, Any], ours: Dict[str, Any]
    ) -> None:
        wanted = content.get("execution_id")
        count = 0
        for execution in self._executions.running():
            if wanted is None or execution.id == wanted:
                execution.stop("interrupted")
                count += 1
        self._send("control", "interrupt_reply", parent, {"status": "ok", "count": count})

    def _on_shutdown_request(
        self, parent: Dict[str, Any], content: Dict[str, Any], ours: Dict[str, Any]
    ) -> None:
        for execution in self._executions.running():
            execution.stop("shutdown")
        self._send("control", "shutdown_reply", parent, {"status": "ok", "restart": False})

    def _follow_in_thread(
        self, parent: Dict[str, Any], execution: Execution, reply_type: str
    ) -> None:
        threading.Thread(
            target=self._follow, args=(parent, execution, reply_type), daemon=True
        ).start()

    def _follow(self, parent: Dict[str, Any], execution: Execution, reply_type: str) -> None:
        try:
            for text in execution.follow():
                self._send("iopub", "stream", parent, {"name": "stdout", "text": text})
            report = execution.report or {}
            ok = report.get("exit_code") == 0
            content: Dict[str, Any] = {"status": "ok", "execution_count": 0, "payload": []}
            if not ok:
                content = {
                    "status": "error",
                    "ename": "ExitCode",
                    "evalue": str(report.get("exit_code")),
                    "traceback": [],
                }
            self._send("shell", reply_type, parent, content, {"sandbox": report})
            self._status(parent, "idle")
        except StreamClosed:
            pass  # the host went away; the execution goes on and can be attached to

    def _error(self, parent: Dict[str, Any], reply_type: str, name: str, value: str) -> None:
        content = {"status": "error", "ename": name, "evalue": value, "traceback": []}
        self._send("shell", reply_type, parent, content)

    def _status(self, parent: Dict[str, Any], state: str) -> None:
        self._send("iopub", "status", parent, {"execution_state": state})

    def _send(
        self,
        channel: str,
        msg_type: str,
        parent: Dict[str, Any],
        content: Dict[str, Any],
        metadata: Optional[Dict[str, Any]] = None,
    ) -> None:
        self._stream.send(
            {
                "channel": channel,
                "header": {
                    "msg_id": uuid.uuid4().hex,
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
        )
