"""One request of the file service: its arguments, checked, and its chunks.

It knows nothing of files. The rule: whatever happens to a request, all of its frames are read
before the answer goes out, so that the stream stays in step.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List, Optional

from ..frames import Frame
from .problems import FileError, bad_request

Receive = Callable[[], Frame]
Send = Callable[..., None]

_MISSING = object()


class OutOfStep(Exception):
    """A frame that is neither a chunk nor an abort came where one was due: the stream must end."""


class Request:
    """A request frame with the frames that follow it.

    Parameters
    ----------
    frame : Frame
        The first one.
    receive, send : callable
        Of the stream. ``receive()`` is called only while the request announces more frames.
    """

    def __init__(self, frame: Frame, receive: Receive, send: Send) -> None:
        self.body = frame.body
        self.send = send
        self._first: Optional[bytes] = frame.payload
        self._receive = receive
        self._more = frame.body.get("more") is True

    def __repr__(self) -> str:
        return "<Request %s%s>" % (self.body.get("op"), " …" if self._more else "")

    def chunks(self) -> Iterator[bytes]:
        """Give the contents piece by piece; ``aborted`` if the sender gave up."""
        first, self._first = self._first, None
        if first:
            yield first
        while self._more:
            frame = self._next()
            if frame.body.get("abort"):
                raise FileError("aborted", "the sender gave up; nothing was changed")
            if frame.payload:
                yield frame.payload

    def content(self, limit: int) -> bytes:
        """Give the contents whole; ``too_large`` beyond ``limit`` bytes."""
        pieces: List[bytes] = []
        total = 0
        for piece in self.chunks():
            total += len(piece)
            if total > limit:
                raise FileError("too_large", "more than %d bytes" % limit, max_bytes=limit)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def drain(self) -> None:
        """Read and forget the frames that are still to come."""
        self._first = None
        while self._more:
            self._next()

    def text(self, name: str) -> str:
        """Give a string argument that must be there."""
        value = self.body.get(name)
        if not isinstance(value, str):
            raise bad_request("`%s` must be a string" % name)
        return value

    def flag(self, name: str, default: bool) -> bool:
        """Give a true or false argument."""
        value = self.body.get(name, default)
        if not isinstance(value, bool):
            raise bad_request("`%s` must be true or false" % name)
        return value

    def whole(self, name: str, low: int, high: int, default: Any = _MISSING) -> int:
        """Give a whole number from ``low`` to ``high``."""
        value = self.body.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise bad_request("`%s` must be a whole number" % name)
        if not low <= value <= high:
            raise bad_request("`%s` must be from %d to %d" % (name, low, high))
        return value

    def texts(self, name: str, most: int) -> List[str]:
        """Give a list of at most ``most`` strings; empty if it is not there."""
        value = self.body.get(name, [])
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise bad_request("`%s` must be a list of strings" % name)
        if len(value) > most:
            raise bad_request("`%s` may have %d items at most" % (name, most))
        return value

    def _next(self) -> Frame:
        frame = self._receive()
        body: Dict[str, Any] = frame.body
        self._more = body.get("more") is True
        if body.get("abort"):
            self._more = False
        elif body.get("chunk") is not True:
            self._more = False
            raise OutOfStep("a chunk was due")
        return frame
