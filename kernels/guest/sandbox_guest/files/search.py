"""Find a text in a file of any size: its occurrences, counted as ``str.count`` does.

The file is read in pieces that overlap by the length of the text; nothing else is kept. Occurrences
do not overlap: the search goes on after the end of each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import List, Optional, Tuple

from .opening import read_at
from .text import TextKind

COUNT_LIMIT = 1000
LISTED = 10
_PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Match:
    """Where an occurrence is: bytes from ``start`` to ``end``, beginning on ``line`` (1-based)."""

    start: int
    end: int
    line: int
    text: bytes = field(repr=False)


@dataclass(frozen=True)
class Matches:
    """The occurrences: how many (``COUNT_LIMIT`` means at least that), and the first ``LISTED``."""

    count: int
    listed: Tuple[Match, ...]


class Needle:
    r"""What is looked for.

    Parameters
    ----------
    text : str
        Not empty.
    kind : TextKind
        Of the file.
    codec : str
        To encode the text with. ``UnicodeEncodeError`` if it cannot.
    any_newline : bool
        An LF in the text stands for LF or CRLF.
    """

    def __init__(self, text: str, kind: TextKind, codec: str, any_newline: bool = False) -> None:
        data = text.encode(codec)
        self._width = kind.width
        self._data: Optional[bytes] = data
        self.most_bytes = len(data)
        if any_newline and "\n" in text:
            self._data = None
            line_feed, carriage_return = "\n".encode(codec), "\r".encode(codec)
            pieces = [re.escape(piece.encode(codec)) for piece in text.split("\n")]
            end = b"(?:" + re.escape(carriage_return) + b")?" + re.escape(line_feed)
            self._pattern = re.compile(end.join(pieces), re.DOTALL)
            self.most_bytes += len(carriage_return) * text.count("\n")

    def find(self, data: bytes, offset: int) -> Optional[Tuple[int, int]]:
        """Give start and end of the first occurrence from ``offset``; ``data`` is aligned."""
        while True:
            if self._data is not None:
                start = data.find(self._data, offset)
                end = start + len(self._data)
            else:
                found = self._pattern.search(data, offset)
                start, end = found.span() if found else (-1, -1)
            if start < 0:
                return None
            if not start % self._width:
                return start, end
            offset = start + 1  # between two code units of UTF-16: not a character


def find_all(fd: int, kind: TextKind, needle: Needle) -> Matches:
    """Give the occurrences of ``needle`` after the file's byte order mark."""
    listed: List[Match] = []
    count = 0
    base = read_to = kind.bom_bytes  # `data` is the file from base to read_to
    search_from = counted_to = base
    line = 1
    data = b""
    step = max(_PIECE_BYTES, needle.most_bytes + needle.most_bytes % 2)
    while True:
        piece = read_at(fd, read_to, step)
        data += piece
        read_to += len(piece)
        while count < COUNT_LIMIT:
            found = needle.find(data, search_from - base)
            if found is None:
                break
            count += 1
            start, end = found
            if len(listed) < LISTED:
                line += kind.count_lines(data[counted_to - base : start])
                counted_to = base + start
                listed.append(Match(base + start, base + end, line, data[start:end]))
            search_from = base + end
        if len(piece) < step or count >= COUNT_LIMIT:
            return Matches(count, tuple(listed))
        # What may still begin an occurrence stays; the rest is counted and let go.
        keep_from = max(search_from, read_to - needle.most_bytes + 1)
        keep_from -= keep_from % kind.width if kind.width > 1 else 0
        keep_from = max(keep_from, base)
        if counted_to < keep_from:
            line += kind.count_lines(data[counted_to - base : keep_from - base])
            counted_to = keep_from
        data = data[keep_from - base :]
        search_from = max(search_from, keep_from)
        base = keep_from
