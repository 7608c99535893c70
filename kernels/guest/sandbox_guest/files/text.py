"""What kind of text a file is: encoding, line endings, number of lines. One pass, flat memory.

``scan`` reads a file once in pieces. It also finds where a line begins, so that a view needs no
second search. Lines end with LF (or the two bytes of it in UTF-16); a CR before it belongs to the
line's end; a CR alone is a character like any other.
"""

from __future__ import annotations

import codecs
import re
import time
from dataclasses import dataclass
from typing import Optional

from .opening import pieces_of, read_at

SNIFF_BYTES = 8192
SCAN_SECONDS = 10.0

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "binary"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MAGIC = (b"%PDF-",)
_CONTROL = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f]")


@dataclass(frozen=True)
class TextKind:
    """How to read and count the lines of an encoding.

    Attributes
    ----------
    encoding : str
        ``utf-8``, ``utf-8-sig``, ``utf-16-le``, ``utf-16-be``, ``latin-1`` or ``binary``.
    """

    encoding: str

    @property
    def codec(self) -> str:
        """The Python codec of the text after the byte order mark."""
        return {"utf-8-sig": "utf-8", "binary": "latin-1"}.get(self.encoding, self.encoding)

    @property
    def width(self) -> int:
        """Bytes of a code unit; every offset of a line is a multiple of it."""
        return 2 if self.encoding.startswith("utf-16") else 1

    @property
    def bom_bytes(self) -> int:
        """Bytes of the byte order mark at the beginning of the file."""
        return {"utf-8-sig": 3, "utf-16-le": 2, "utf-16-be": 2}.get(self.encoding, 0)

    @property
    def newline(self) -> bytes:
        """The bytes of LF."""
        return "\n".encode(self.codec)

    def count_lines(self, data: bytes) -> int:
        """Give the number of line ends in ``data``."""
        if self.width == 1:
            return data.count(b"\n")
        return data.decode(self.codec, "replace").count("\n")

    def count_crlf(self, data: bytes) -> int:
        """Give the number of CRLF in ``data``."""
        if self.width == 1:
            return data.count(b"\r\n") if b"\r" in data else 0
        return data.decode(self.codec, "replace").count("\r\n")

    def after_line(self, data: bytes, number: int) -> int:
        """Give the offset after the ``number``-th line end in ``data``, -1 if there are fewer."""
        offset = 0
        for _ in range(number):
            found = self._find(data, offset)
            if found < 0:
                return -1
            offset = found + self.width
        return offset

    def after_last_line(self, data: bytes) -> int:
        """Give the offset after the last line end in ``data``, 0 if there is none."""
        return self.line_start(data, len(data))

    def line_start(self, data: bytes, end: int) -> int:
        """Give the offset after the last line end in ``data[:end]``, 0 if there is none."""
        found = data.rfind(self.newline, 0, end)
        while found > 0 and found % self.width:
            found = data.rfind(self.newline, 0, found + self.width - 1)
        return found + self.width if found >= 0 and not found % self.width else 0

    def whole_characters(self, data: bytes) -> bytes:
        """Give ``data`` without an incomplete character at its end."""
        if self.width == 2:
            data = data[: len(data) & ~1]
            unit = int.from_bytes(data[-2:], "little" if self.encoding == "utf-16-le" else "big")
            return data[:-2] if 0xD800 <= unit < 0xDC00 else data
        if self.codec == "utf-8":
            for back in range(1, min(3, len(data)) + 1):
                byte = data[-back]
                if byte >= 0xC0:
                    need = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
                    return data[:-back] if need > back else data
                if byte < 0x80:
                    break
        return data

    def _find(self, data: bytes, offset: int) -> int:
        found = data.find(self.newline, offset)
        while found >= 0 and found % self.width:
            found = data.find(self.newline, found + 1)
        return found


@dataclass(frozen=True)
class TextScan:
    """What one pass over a file found.

    Attributes
    ----------
    newline : str
        ``lf``, ``crlf``, ``mixed``, or ``none`` when there is no line end.
    newlines, total_lines : int
        Line ends; lines (one more if the last has no end). Up to where the scan came.
    line_offset : int or None
        Where the line that was asked for begins. None: there are not so many.
    complete : bool
        False when the file was not read to its end in ``SCAN_SECONDS``.
    """

    kind: TextKind
    size: int
    newline: str
    newlines: int
    total_lines: int
    ends_with_newline: bool
    line_offset: Optional[int]
    complete: bool


def sniff(head: bytes) -> Optional[TextKind]:
    """Give the kind of a file by its first ``SNIFF_BYTES``; None: UTF-8 or Latin-1, read on."""
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return TextKind(encoding)
    if b"\0" in head or head.startswith(_MAGIC):
        return TextKind("binary")
    if not _is_utf8(head) and len(_CONTROL.findall(head)) * 50 > len(head):
        return TextKind("binary")
    return None


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, len(head) < SNIFF_BYTES)
    except UnicodeDecodeError:
        return False
    return True


def scan(fd: int, line: int = 1, seconds: float = SCAN_SECONDS) -> TextScan:
    """Read a file once.

    Parameters
    ----------
    line : int
        1-based; where it begins is looked for.
    seconds : float
        When to stop.
    """
    known = sniff(read_at(fd, 0, SNIFF_BYTES))
    kind = known or TextKind("utf-8")
    utf8 = _Utf8Check() if known is None else None
    newlines = crlf = size = 0
    line_offset = 0 if line == 1 else None
    last = b""  # the last code unit of the piece before
    carriage_return = "\r".encode(kind.codec)
    complete = True
    ends_at = time.monotonic() + seconds
    for piece in pieces_of(fd):
        count = kind.count_lines(piece)
        if line_offset is None and newlines + count >= line - 1:
            line_offset = size + kind.after_line(piece, line - 1 - newlines)
        newlines += count
        crlf += kind.count_crlf(piece)
        if last == carriage_return and piece.startswith(kind.newline):
            crlf += 1
        if utf8:
            utf8.feed(piece)
        size += len(piece)
        last = piece[-kind.width :]
        if time.monotonic() > ends_at:
            complete = False
            break
    if utf8 and not utf8.holds(complete):
        kind = TextKind("latin-1")
    ends = last == kind.newline
    text_bytes = size - kind.bom_bytes
    total = newlines + (1 if text_bytes > 0 and not ends else 0)
    if complete and line_offset is not None and line > max(total, 1):
        line_offset = None
    style = "none" if not newlines else "lf" if not crlf else "crlf"
    if 0 < crlf < newlines:
        style = "mixed"
    return TextScan(kind, size, style, newlines, total, ends, line_offset, complete)


class _Utf8Check:
    """Whether what was fed is UTF-8 so far."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._valid = True
        self._pending = False

    def feed(self, piece: bytes) -> None:
        if not self._valid or (piece.isascii() and not self._pending):
            return
        try:
            self._decoder.decode(piece)
        except UnicodeDecodeError:
            self._valid = False
        self._pending = bool(self._decoder.getstate()[0])

    def holds(self, at_end: bool) -> bool:
        return self._valid and not (at_end and self._pending)
