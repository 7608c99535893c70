"""What the text of one execution becomes: pieces to send, in order, bounded. No I/O but the spool.

stdout and stderr of an execution share one bound, so ``Outputs`` keeps one ``CellOutput`` for each
running execution. Text that belongs to no running execution (a thread that goes on, a comm's
callback) goes to a ``LooseOutput``: sent up to the limit, then dropped with a notice, since nobody
can say when it ends. The rule: whoever calls holds the lock of ``Outputs``.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional, Union

from sandbox_guest.output import BoundedOutput, Utf8Pieces, notice

PIECE_BYTES = 64 * 1024  # of UTF-8 in one message
PROMPT_MESSAGES = 400  # after so many, flush() and changes of the stream wait for the timer
MAX_LOOSE = 16

Header = dict[str, Any]
Piece = tuple[str, str]  # name of the stream, text
_NOTHING: tuple[Piece, ...] = ()


def encode(text: str) -> bytes:
    """Give bytes for any ``str``: undecodable bytes of file names come back as they were."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        try:
            return text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return text.encode("utf-8", "backslashreplace")


def slices(text: str, size: int = PIECE_BYTES) -> Iterator[str]:
    """Cut a text, so that nothing ever copies the whole of it."""
    for start in range(0, len(text), size):
        yield text[start : start + size]


def pieces(name: str, text: str) -> list[Piece]:
    """Give messages of at most ``PIECE_BYTES`` of UTF-8 each."""
    if len(text) <= PIECE_BYTES // 4:
        return [(name, text)] if text else []
    given: list[Piece] = []
    for part in slices(text):
        if len(part.encode("utf-8", "replace")) <= PIECE_BYTES:
            given.append((name, part))
        else:
            given.extend((name, small) for small in slices(part, PIECE_BYTES // 4))
    return given


class CellOutput:
    """The text of one running execution."""

    def __init__(self, bounded: BoundedOutput) -> None:
        self.bounded = bounded
        self._name = "stdout"
        self._pending = bytearray()
        self._sent = 0

    @property
    def _is_prompt(self) -> bool:
        shown = self.bounded.total_bytes < self.bounded.limit_bytes // 4
        return shown and self._sent < PROMPT_MESSAGES

    def add(self, name: str, data: bytes) -> Sequence[Piece]:
        """Take output; give what is to be sent before it can wait for the timer."""
        given: Sequence[Piece] = _NOTHING
        if name != self._name:
            if self._pending and self._is_prompt:
                given = self.take()
            self._name = name
        self._pending += data
        return [*given, *self.take()] if len(self._pending) >= PIECE_BYTES else given

    def flush(self) -> Sequence[Piece]:
        """Give what waits, unless so many small messages were sent that the timer must do."""
        return self.take() if self._is_prompt else _NOTHING

    def take(self) -> Sequence[Piece]:
        """Give what waits, as far as it belongs to the head."""
        if not self._pending:
            return _NOTHING
        data = bytes(self._pending)
        self._pending.clear()
        given = pieces(self._name, self.bounded.feed(data))
        self._sent += len(given)
        return given

    def finish(self) -> Sequence[Piece]:
        """Give the rest: what was held back, or the tail with its notices."""
        return [*self.take(), *pieces(self._name, self.bounded.finish())]


class LooseOutput:
    """Text that no running execution owns: its beginning."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = self._left = limit_bytes
        self._is_cut = False
        self._utf8 = Utf8Pieces()
        self._name = "stdout"
        self._pending = bytearray()

    def add(self, name: str, data: bytes) -> Sequence[Piece]:
        """Take output; see `CellOutput.add`."""
        given = self.take() if name != self._name and self._pending else _NOTHING
        self._name = name
        if not self._is_cut:
            self._pending += data
        return [*given, *self.take()] if len(self._pending) >= PIECE_BYTES else given

    def take(self) -> Sequence[Piece]:
        """Give what waits; once the limit is passed, the notice and then nothing."""
        if not self._pending:
            return _NOTHING
        data = bytes(self._pending[: self._left])
        self._is_cut = len(self._pending) > self._left
        self._left -= len(data)
        self._pending.clear()
        text = self._utf8.feed(data, final=self._is_cut)
        if self._is_cut:
            text += f"\n{notice(self._limit)}\n"
        return pieces(self._name, text)

    flush = take


class Outputs:
    """The outputs of all executions of the kernel, for any thread.

    Parameters
    ----------
    send : callable
        ``send(header, name, text)`` publishes one message; must not wait.
    limit_bytes : int
        Of text for each execution that names no limit of its own.
    new_spool : callable or None
        See `BoundedOutput`.
    """

    def __init__(
        self,
        send: Callable[[Header, str, str], None],
        limit_bytes: int,
        new_spool: Optional[Callable[[], str]] = None,
    ) -> None:
        self.limit_bytes = limit_bytes
        self._send = send
        self._new_spool = new_spool
        # Reentrant: a signal handler or a finaliser may print while its thread is in here.
        self._lock = threading.RLock()
        self._running: dict[str, tuple[Header, CellOutput]] = {}
        self._loose: collections.OrderedDict[str, tuple[Header, LooseOutput]] = (
            collections.OrderedDict()
        )

    def begin(self, header: Header, limit_bytes: Optional[int] = None) -> None:
        """Open the output of an execution."""
        bounded = BoundedOutput(limit_bytes or self.limit_bytes, self._new_spool)
        with self._lock:
            self._running[str(header.get("msg_id", ""))] = (header, CellOutput(bounded))

    def limit_of(self, header: Header) -> int:
        """Give the limit of the execution that ``header`` names."""
        running = self._running.get(header.get("msg_id", ""))
        return self.limit_bytes if running is None else running[1].bounded.limit_bytes

    def write(self, header: Header, name: str, data: bytes) -> None:
        """Take output of the execution that ``header`` names."""
        with self._lock:
            owner, output = self._running.get(header.get("msg_id", "")) or self._find_loose(header)
            given = output.add(name, data)
            if given:
                self._send_all(owner, given)

    def flush(self, force: bool = False) -> bool:
        """Send what waits, ``force`` also when that makes many small messages; say if any was."""
        sent = False
        with self._lock:
            outputs: list[tuple[Header, CellOutput | LooseOutput]] = []
            outputs += self._running.values()
            outputs += self._loose.values()
            for owner, output in outputs:
                given = output.take() if force else output.flush()
                self._send_all(owner, given)
                sent = sent or bool(given)
        return sent

    def finish(self, header: Header) -> dict[str, Any]:
        """Send the rest of an execution's text; give what the reply's metadata say of it."""
        with self._lock:
            found = self._running.pop(str(header.get("msg_id", "")), None)
            if found is None:
                return {}
            owner, output = found
            self._send_all(owner, output.finish())
            bounded = output.bounded
        return {
            "truncated": bounded.truncated,
            "omitted_bytes": bounded.omitted_bytes,
            "total_bytes": bounded.total_bytes,
            "spool": bounded.spool_path,
        }

    def _find_loose(self, header: Header) -> tuple[Header, Union[CellOutput, LooseOutput]]:
        msg_id = str(header.get("msg_id", ""))
        loose = self._loose.get(msg_id)
        if loose is None:
            loose = self._loose[msg_id] = (header, LooseOutput(self.limit_bytes))
            while len(self._loose) > MAX_LOOSE:
                self._loose.popitem(last=False)
        return loose

    def _send_all(self, header: Header, given: Sequence[Piece]) -> None:
        for name, text in given:
            self._send(header, name, text)
