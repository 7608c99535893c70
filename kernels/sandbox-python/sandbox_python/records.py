"""What the host's executions have given, kept until it asks: a server may be away meanwhile.

IOPub drops what nobody is subscribed to, and a reply goes nowhere when its asker is gone. So every
message about an execution is written down here as well, as lines of JSON, and can be read from any
place on. No I/O, any thread. The rule: what is kept is bounded, for one execution and for all that
have ended.
"""

from __future__ import annotations

import collections
import json
import threading
import time
from typing import Any, Optional

PIECE_BYTES = 512 * 1024  # of one answer; the host's relay takes 1 MiB on this channel
KEPT_RECORDS = 16
KEPT_BYTES = 16 * 1024 * 1024
_DISPLAY_BYTES = 16 * 1024 * 1024
_LINE_BYTES = 8 * 1024 * 1024
_OUTPUT = {"stream", "display_data", "update_display_data", "execute_result", "error"}
_START = "execute_input"
_END = "execute_reply"


class Record:
    """One execution: lines ``[msg_type, content]``, the reply with its metadata as a third."""

    def __init__(self, limit_bytes: int) -> None:
        self.data = bytearray()
        self.is_over = False
        self.is_cut = False
        self._left = _DISPLAY_BYTES + 2 * limit_bytes  # JSON of text is longer than the text
        self._begun = time.monotonic()
        self._seconds: Optional[float] = None

    @property
    def seconds(self) -> float:
        """How long it ran, or has been running."""
        return time.monotonic() - self._begun if self._seconds is None else self._seconds

    def add(self, msg_type: str, content: Any, metadata: Any) -> None:
        """Write a message down; one that does not fit is left out, but never the reply."""
        line = [msg_type, content] if msg_type != _END else [msg_type, content, metadata]
        try:
            data = json.dumps(line, default=repr).encode("ascii") + b"\n"
        except (TypeError, ValueError, RecursionError):
            self.is_cut = True
            return
        if msg_type == _END:
            self.is_over = True
            self._seconds = self.seconds
        elif len(data) > min(self._left, _LINE_BYTES):
            self.is_cut = True
            return
        self._left -= len(data)
        self.data += data


class Records:
    """Those that run and the last that have ended."""

    def __init__(self) -> None:
        # Reentrant: a signal handler may print while its thread is in here.
        self._lock = threading.RLock()
        self._table: collections.OrderedDict[str, Record] = collections.OrderedDict()

    def begin(self, msg_id: str, limit_bytes: int) -> None:
        """Keep what comes of an execution from now on."""
        with self._lock:
            self._table.pop(msg_id, None)
            self._trim()
            self._table[msg_id] = Record(limit_bytes)

    def note(self, message: Optional[dict[str, Any]]) -> None:
        """Take any message that the kernel sends."""
        if not message:
            return
        msg_type = message.get("msg_type")
        if msg_type not in _OUTPUT and msg_type not in (_START, _END):
            return
        msg_id = (message.get("parent_header") or {}).get("msg_id")
        with self._lock:
            record = self._table.get(msg_id) if isinstance(msg_id, str) else None
            if record is not None and not record.is_over:
                content = {} if msg_type == _START else message.get("content")
                record.add(msg_type, content, message.get("metadata"))

    def read(self, msg_id: object, position: object) -> dict[str, Any]:
        """Give what there is from ``position`` (a number of characters) on, in bounded pieces."""
        with self._lock:
            record = self._table.get(msg_id) if isinstance(msg_id, str) else None
            if record is None:
                return {"status": "ok", "known": False}
            start = position if isinstance(position, int) and position > 0 else 0
            piece = bytes(record.data[start : start + PIECE_BYTES])
            return {
                "status": "ok",
                "known": True,
                "data": piece.decode("ascii"),
                "over": record.is_over and start + len(piece) >= len(record.data),
                "ended": record.is_over,
                "cut": record.is_cut,
                "seconds": round(record.seconds, 3),
            }

    def _trim(self) -> None:
        """Forget the oldest that have ended, so that there is room for one more."""
        ended = [msg_id for msg_id, record in self._table.items() if record.is_over]
        kept = sum(len(self._table[msg_id].data) for msg_id in ended)
        while len(ended) >= KEPT_RECORDS or kept > KEPT_BYTES:
            kept -= len(self._table.pop(ended.pop(0)).data)
