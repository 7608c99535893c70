"""Framing of a stream, sans-io: bytes in, frames out. Both ends use this one module.

A frame is a prelude of eight bytes (two big-endian unsigned 32-bit lengths: JSON, payload), a JSON
object and a payload of raw bytes. The rule: a decoder never holds more than the bounds it was made
with plus what it was fed last, and after an error it accepts nothing more.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

from .protocol import MAX_JSON_BYTES, MAX_PAYLOAD_BYTES

_PRELUDE = struct.Struct("!II")


class FrameError(ValueError):
    """The other side broke the framing; the stream is of no further use."""


class Frame(NamedTuple):
    """One message: a JSON object and the bytes that go with it."""

    body: Dict[str, Any]
    payload: bytes


def encode(body: Dict[str, Any], payload: bytes = b"") -> bytes:
    """Give the bytes of one frame.

    Parameters
    ----------
    body : dict
        JSON-serialisable. Lone surrogates are escaped, so any ``str`` can travel.
    payload : bytes
        At most ``MAX_PAYLOAD_BYTES``.

    Raises
    ------
    FrameError
        When it would be larger than a reader accepts.
    """
    text = json.dumps(body, separators=(",", ":")).encode("ascii")
    if len(text) > MAX_JSON_BYTES:
        raise FrameError("frame too large: %d bytes of JSON" % len(text))
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise FrameError("frame too large: %d bytes of payload" % len(payload))
    return _PRELUDE.pack(len(text), len(payload)) + text + payload


class FrameDecoder:
    """Cut a byte stream into frames.

    Parameters
    ----------
    max_json_bytes, max_payload_bytes : int
        Larger frames are refused when their prelude is read, before their bytes are kept.
    check : callable, optional
        Is given the JSON text before it is parsed; its ``ValueError`` refuses the frame.
    """

    def __init__(
        self,
        max_json_bytes: int = MAX_JSON_BYTES,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        check: Optional[Callable[[bytes], None]] = None,
    ) -> None:
        self._check = check
        self._max_json = max_json_bytes
        self._max_payload = max_payload_bytes
        self._buffer = bytearray()
        self._broken = False

    def __repr__(self) -> str:
        state = "broken" if self._broken else "%d bytes waiting" % len(self._buffer)
        return "<FrameDecoder %s>" % state

    @property
    def waiting_bytes(self) -> int:
        """How much was fed and not given yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> List[Frame]:
        """Take bytes; give the frames that are complete with them.

        Raises
        ------
        FrameError
            A length over the bounds, JSON that does not parse or is no object, or bytes after an
            earlier error.
        """
        self.push(data)
        return list(self._frames())

    def push(self, data: bytes) -> None:
        """Take bytes for `next_frame`: what follows a frame may be no frame (a raw stream)."""
        if self._broken:
            raise FrameError("the stream is broken")
        self._buffer += data

    def take_rest(self) -> bytes:
        """Give and forget the bytes after the last frame, for a stream that goes on raw."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _frames(self) -> Iterator[Frame]:
        while True:
            frame = self.next_frame()
            if frame is None:
                return
            yield frame

    def next_frame(self) -> Any:
        """Give one complete frame from what was fed, or None; the rest stays for later."""
        try:
            return self._next_frame()
        except FrameError:
            self._broken = True
            self._buffer.clear()
            raise

    def _next_frame(self) -> Any:
        buffer = self._buffer
        if len(buffer) < _PRELUDE.size:
            return None
        json_bytes, payload_bytes = _PRELUDE.unpack_from(buffer)
        if json_bytes > self._max_json or payload_bytes > self._max_payload:
            raise FrameError("frame too large: %d + %d bytes" % (json_bytes, payload_bytes))
        start = _PRELUDE.size
        end = start + json_bytes + payload_bytes
        if len(buffer) < end:
            return None
        with memoryview(buffer) as view:
            text = bytes(view[start : start + json_bytes])
            payload = bytes(view[start + json_bytes : end])
        del buffer[:end]
        return Frame(_parse(text, self._check), payload)


def _parse(text: bytes, check: Optional[Callable[[bytes], None]]) -> Dict[str, Any]:
    try:
        if check is not None:
            check(text)
        body = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as exc:  # bad UTF-8, bad JSON, huge integers, deep nesting
        raise FrameError("not JSON: %s" % type(exc).__name__) from None
    if not isinstance(body, dict):
        raise FrameError("not a JSON object")
    return body
