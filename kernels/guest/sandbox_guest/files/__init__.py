"""The file service: requests on a stream, one at a time, answered from this sandbox's files.

``serve_files`` runs in a thread of its own for each stream and blocks. It may not know what else
the guest does. The rule: whatever a request is and whatever becomes of it, there is exactly one
answer, and the next request is served. docs/guest-protocol.md says what each does.
"""

from __future__ import annotations

import logging
from typing import Any, Callable, Dict, Tuple

from ..frames import Frame
from .editing import replace
from .exporting import export
from .lines import view
from .listing import list_directory
from .managing import mkdir, remove, rename
from .problems import FileError, from_os_error
from .reading import read, stat
from .requests import OutOfStep, Receive, Request, Send
from .room import room
from .usage import usage
from .writing import write

__all__ = ["OPS", "handle", "serve_files"]

Handler = Callable[[Request], Tuple[Dict[str, Any], bytes]]
"""Takes a request, gives the ``ok`` member of the answer and its payload."""

OPS: Dict[str, Handler] = {
    "stat": stat,
    "list": list_directory,
    "read": read,
    "view": view,
    "write": write,
    "replace": replace,
    "export": export,
    "usage": usage,
    "room": room,
    "mkdir": mkdir,
    "rename": rename,
    "remove": remove,
}

_log = logging.getLogger(__name__)


def serve_files(stream: Any) -> None:
    """Answer requests until the stream ends.

    Parameters
    ----------
    stream : object
        With ``receive() -> Frame``, which raises ``ConnectionError`` at the end, and
        ``send(body, payload=b"")``. It is not closed here.
    """
    try:
        while True:
            handle(stream.receive(), stream.receive, stream.send)
    except (ConnectionError, OutOfStep):
        pass  # the other side went away or cannot be understood


def handle(frame: Frame, receive: Receive, send: Send) -> None:
    """Answer one request; further frames of it are taken from ``receive``.

    Raises
    ------
    OutOfStep
        After its error answer: the sender's frames make no sense, the stream must end.
    ConnectionError
        The stream ended.
    """
    request = Request(frame, receive, send)
    try:
        answer, payload = _run(request)
        request.drain()
        send({"ok": answer}, payload)
        return
    except FileError as exc:
        error = exc.to_json()
    except ConnectionError:
        raise
    except OSError as exc:
        error = from_os_error(exc, str(request.body.get("path", ""))[:4096]).to_json()
    except OutOfStep:
        send({"error": {"code": "bad_request", "message": "a chunk was due"}})
        raise
    except Exception as exc:
        _log.exception("files: %r", request)
        name = type(exc).__name__
        error = {"code": "failed", "message": "the file service failed (%s)" % name}
    try:
        request.drain()
    finally:
        send({"error": error})


def _run(request: Request) -> Tuple[Dict[str, Any], bytes]:
    op = request.body.get("op")
    handler = OPS.get(op) if isinstance(op, str) else None
    if handler is None:
        raise FileError("unknown_op", "there is no `%s`" % str(op)[:64])
    return handler(request)
