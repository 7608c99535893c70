"""The kernel: ipykernel's, with one bounded output for each execution and without a debugger."""

# mypy: disallow-untyped-calls=False
# (ipykernel's own functions have no annotations)

from __future__ import annotations

import ctypes
import signal
import sys
import threading
from typing import Any, Optional

from ipykernel.ipkernel import IPythonKernel
from traitlets import Type

from .bounds import bound_bundle, bound_reply
from .cell_output import Outputs
from .deadline import Deadline
from .records import Records
from .shell import ZMQInteractiveShell
from .streams import CellStream

_MAX_LIMIT_BYTES = 64 * 1024 * 1024
_MAX_SECONDS = 7 * 86400.0
_ATTACH = "sandbox_attach_request"
_TRIM = "sandbox_trim_request"


class SandboxKernel(IPythonKernel):
    """Executes cells. Before a reply is sent, all text of the cell has been."""

    shell_class = Type(ZMQInteractiveShell)
    outputs: Outputs
    records: Records

    def __init__(self, **kwargs: Any) -> None:
        self._facts: dict[str, dict[str, Any]] = {}
        self._deadline = Deadline()
        super().__init__(**kwargs)
        self.control_handlers[_ATTACH] = self.attach_request
        self.control_handlers[_TRIM] = self.trim_request
        self._execute_sleep = 0.0  # streams are sent in order here: nothing to wait for

    async def poll_stopped_queue(self) -> None:
        """There is no debugger whose events could be polled."""

    async def attach_request(self, socket: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Give what an execution has given so far, also to a server that did not ask for it."""
        asked = parent["content"]
        content = self.records.read(asked.get("execution_id"), asked.get("position"))
        assert self.session is not None
        self.session.send(socket, "sandbox_attach_reply", content, parent, ident)

    async def trim_request(self, socket: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Give free memory back to the system; the sandbox is about to stand still."""
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        content = {"status": "ok", "trimmed": bool(trim is not None and trim(0))}
        assert self.session is not None
        self.session.send(socket, "sandbox_trim_reply", content, parent, ident)

    def _publish_status(self, status: str, channel: str, parent: Any = None) -> None:
        """Publish busy and idle, but not about ours: an editor would show them as the cell's."""
        if channel == "control" and parent is None:
            header = (self.get_parent("control") or {}).get("header") or {}
            if header.get("msg_type") in (_ATTACH, _TRIM):
                return
        super()._publish_status(status, channel, parent)

    async def do_execute(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run a cell; see ipykernel. Gives the reply's content."""
        parent = self.get_parent("shell")
        header = parent["header"]
        asked = _asked(parent)
        limit = _asked_limit(asked)
        if asked is not None:
            self.records.begin(header["msg_id"], limit or self.outputs.limit_bytes)
            self._deadline.begin(_asked_seconds(asked))
        self.outputs.begin(header, limit)
        for stream in self._streams():
            stream.rearm()
        try:
            reply = await super().do_execute(*args, **kwargs)
        except KeyboardInterrupt:  # it came outside the user's code
            reply = {
                "status": "error",
                "ename": "KeyboardInterrupt",
                "evalue": "",
                "traceback": ["KeyboardInterrupt"],
                "execution_count": self.execution_count,
                "user_expressions": {},
                "payload": [],
            }
        finally:
            # An interrupt from here on would cost the reply. post_handler_hook() sets what was.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            has_passed = asked is not None and self._deadline.end()
            facts = self._facts[header["msg_id"]] = self._finish(header)
            if has_passed:
                facts["timed_out"] = True
        return bound_reply(reply, self.outputs.limit_bytes)

    def finish_metadata(
        self, parent: dict[str, Any], metadata: dict[str, Any], reply_content: dict[str, Any]
    ) -> dict[str, Any]:
        """Add ``sandbox``: what became of the text, as in docs/guest-protocol.md."""
        metadata = super().finish_metadata(parent, metadata, reply_content)
        metadata["sandbox"] = self._facts.pop(parent["header"]["msg_id"], {})
        return metadata

    async def do_inspect(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Describe an object; see ipykernel."""
        reply: dict[str, Any] = super().do_inspect(*args, **kwargs)
        return dict(reply, data=bound_bundle(reply.get("data") or {}, self.outputs.limit_bytes))

    def _finish(self, header: dict[str, Any]) -> dict[str, Any]:
        for stream in self._streams():
            stream.drain()
        return self.outputs.finish(header)

    def _streams(self) -> list[CellStream]:
        """Give our streams, also while user code has put others in their place."""
        found = {id(s): s for s in (self._stdout, self._stderr, sys.stdout, sys.stderr)}
        return [stream for stream in found.values() if isinstance(stream, CellStream)]


def _asked(parent: dict[str, Any]) -> Optional[dict[str, Any]]:
    """Give what a server of ours asked for beside the code; None for any other client."""
    asked = (parent.get("metadata") or {}).get("sandbox")
    return asked if isinstance(asked, dict) else None


def _asked_limit(asked: Optional[dict[str, Any]]) -> Optional[int]:
    limit = asked.get("limit_bytes") if asked is not None else None
    return limit if isinstance(limit, int) and 0 < limit <= _MAX_LIMIT_BYTES else None


def _asked_seconds(asked: dict[str, Any]) -> float:
    seconds = asked.get("timeout_seconds")
    if isinstance(seconds, (int, float)) and 0 < seconds <= _MAX_SECONDS:
        return float(seconds)
    return _MAX_SECONDS
