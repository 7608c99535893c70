"""What of a flood is shown: the head at once, the tail at the end, the whole in a file.

``BoundedOutput`` takes the bytes of one execution and gives the text to send. It holds at most its
limit in memory. While the output is below the limit nothing is lost and nothing is written to disk.
Used by the bash kernel and by the Python kernel's streams; the host bounds again what it receives.
"""

from __future__ import annotations

import codecs
import collections
import contextlib
import os
import re
from typing import Callable, Deque, List, Optional, Union

MIB = 1024 * 1024
DEFAULT_LIMIT_BYTES = MIB
DEFAULT_SPOOL_BYTES = 64 * MIB
SPOOL_DIR = "/var/tmp/sandbox-output"
KEPT_SPOOLS = 20
_JOINED_BYTES = 4096

_SURROGATE_BYTE = re.compile("[\udc80-\udcff]")


def decode(data: bytes) -> str:
    r"""Give text; bytes that are not UTF-8 become ``\xNN``, NUL becomes ``\x00``."""
    text = data.decode("utf-8", "surrogateescape")
    if not text.isprintable():
        text = _SURROGATE_BYTE.sub(lambda m: "\\x%02x" % (ord(m.group()) - 0xDC00), text)
        text = text.replace("\0", "\\x00")
    return text


class Utf8Pieces:
    """Cut bytes into text at character borders: an incomplete character waits for its rest."""

    def __init__(self) -> None:
        self._rest = b""

    def take_rest(self) -> bytes:
        """Give and forget the beginning of a character whose rest has not come."""
        rest, self._rest = self._rest, b""
        return rest

    def feed(self, data: bytes, final: bool = False) -> str:
        """Take bytes; give the text that is complete with them (``final``: all of it)."""
        data = self._rest + data
        self._rest = b""
        if not final:
            keep = _incomplete_suffix(data)
            if keep:
                self._rest = data[-keep:]
                data = data[:-keep]
        return decode(data)


def _incomplete_suffix(data: bytes) -> int:
    """Give how many bytes at the end begin a character whose rest is missing (0 to 3)."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:  # a lead byte: 2, 3 or 4 bytes long
            need = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if need > back else 0
        if byte < 0x80:
            return 0
    return 0


class BoundedOutput:
    """Head, tail and spool of one execution's output.

    Parameters
    ----------
    limit_bytes : int
        Of text as UTF-8 that may be shown in all, not counting the two notices.
    new_spool : callable
        Gives the path of a new file for the whole output; called once, when the limit is passed.
        None: no file is written.
    spool_bytes : int
        Size at which the file ends.

    Attributes
    ----------
    total_bytes, omitted_bytes : int
        Of what was produced; of that not shown.
    truncated : bool
    spool_path : str or None
    """

    def __init__(
        self,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        new_spool: Optional[Callable[[], str]] = None,
        spool_bytes: int = DEFAULT_SPOOL_BYTES,
    ) -> None:
        self.limit_bytes = limit_bytes
        self._head_left = limit_bytes // 4
        self._tail_bytes = limit_bytes - self._head_left
        self._pieces = Utf8Pieces()
        self._held: Deque[bytes] = (
            collections.deque()
        )  # after the head; the last of it becomes the tail
        self._held_bytes = 0
        self._kept: List[bytes] = []  # all that was produced, until the limit is passed
        self._new_spool = new_spool
        self._spool_left = spool_bytes
        self._spool_fd = -1
        self.spool_path: Optional[str] = None
        self.total_bytes = 0
        self.omitted_bytes = 0
        self.truncated = False

    def __repr__(self) -> str:
        return "<BoundedOutput %d bytes%s>" % (
            self.total_bytes,
            ", truncated" if self.truncated else "",
        )

    def feed(self, data: bytes) -> str:
        """Take output; give the text that may be shown now (empty when the head is full)."""
        self.total_bytes += len(data)
        text = ""
        if self.truncated:
            self._spool(data)
        else:
            _append(self._kept, data)
        if self._head_left > 0:
            now, data = data[: self._head_left], data[self._head_left :]
            text = self._pieces.feed(now)
            self._head_left -= max(len(now), len(text.encode("utf-8", "replace")))
            if self._head_left <= 0:  # a character is cut nowhere: it goes to what follows
                data = self._pieces.take_rest() + data
        if data:
            self._hold(data)
        return text

    def finish(self) -> str:
        """Give the rest of the text: the tail with its notices when something was left out."""
        tail = b"".join(self._held)
        self._held.clear()
        if not self.truncated:
            text = self._pieces.feed(tail, final=True)
            if len(text.encode("utf-8", "replace")) <= self._tail_bytes + 4 * 3:
                self._kept.clear()
                return text
            # Escaping made it too long (invalid bytes show as four characters): cut the text.
            self.truncated = True
            self._open_spool()
        if self._spool_fd >= 0:
            os.close(self._spool_fd)
            self._spool_fd = -1
        self.omitted_bytes += max(0, len(tail) - self._tail_bytes)
        tail = tail[-self._tail_bytes :]
        while tail and 0x80 <= tail[0] < 0xC0 and len(tail) > self._tail_bytes - 4:
            tail = tail[1:]
        text = _last_bytes(decode(tail), self._tail_bytes)
        where = ""
        if self.spool_path:
            rest = "the first 64 MiB of the output" if self._spool_left <= 0 else "whole output"
            where = "; %s: %s (read on with view, grep or tail)" % (rest, self.spool_path)
        return "\n[... %s bytes not shown%s ...]\n%s\n%s\n" % (
            format(self.omitted_bytes, ","),
            where,
            text.rstrip("\n"),
            notice(self.limit_bytes),
        )

    def _hold(self, data: bytes) -> None:
        _append(self._held, data)
        self._held_bytes += len(data)
        if self._held_bytes <= self._tail_bytes:
            return
        if not self.truncated:
            self.truncated = True
            self._open_spool()
        while self._held_bytes - len(self._held[0]) >= self._tail_bytes:
            dropped = self._held.popleft()
            self._held_bytes -= len(dropped)
            self.omitted_bytes += len(dropped)

    def _open_spool(self) -> None:
        kept, self._kept = self._kept, []
        if self._new_spool is None:
            return
        try:
            self.spool_path = self._new_spool()
            self._spool_fd = os.open(
                self.spool_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644
            )
        except OSError:
            self.spool_path = None
            return
        for data in kept:
            self._spool(data)

    def _spool(self, data: bytes) -> None:
        if self._spool_fd < 0 or self._spool_left <= 0:
            return
        data = data[: self._spool_left]
        try:
            while data:
                written = os.write(self._spool_fd, data)
                self._spool_left -= written
                data = data[written:]
        except OSError:  # no space: what is there stays readable
            self._spool_left = 0


def _append(parts: "Union[Deque[bytes], List[bytes]]", data: bytes) -> None:
    """Append; small pieces are joined, or a million of them would take fifty times their size."""
    if parts and len(parts[-1]) + len(data) <= _JOINED_BYTES:
        parts[-1] += data
    else:
        parts.append(data)


def notice(limit_bytes: int) -> str:
    """Give the line that ends a cut output."""
    size = "%g MiB" % (limit_bytes / MIB) if limit_bytes >= MIB else "%s bytes" % f"{limit_bytes:,}"
    return "... output truncated (exceeded %s) ..." % size


def _last_bytes(text: str, limit: int) -> str:
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return text
    return codecs.decode(data[-limit:], "utf-8", "ignore")


def spool_namer(directory: str = SPOOL_DIR) -> Callable[[], str]:
    """Give a function that names new spool files and removes the oldest beyond ``KEPT_SPOOLS``."""

    def new_spool() -> str:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        names = sorted(n for n in os.listdir(directory) if re.match(r"\d{6}\.log$", n))
        for name in names[: max(0, len(names) - KEPT_SPOOLS + 1)]:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(directory, name))
        number = int(names[-1][:6]) + 1 if names else 1
        while True:
            path = os.path.join(directory, "%06d.log" % number)
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
            except FileExistsError:
                number += 1
                continue
            return path

    return new_spool
