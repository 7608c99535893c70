"""What a file looks like around an edit: the new text with four lines on each side, bounded."""

from __future__ import annotations

from typing import Any, Dict, Tuple

from .opening import read_at
from .search import Match
from .text import TextKind

AROUND_LINES = 4
_AROUND_BYTES = 16 * 1024  # of each side
_NEW_BYTES = 64 * 1024


def snippet_around(
    fd: int, kind: TextKind, match: Match, new_bytes: int
) -> Tuple[Dict[str, Any], bytes]:
    """Give the lines around the new text of ``new_bytes`` that stands where ``match`` was.

    Returns
    -------
    dict
        ``first_line``, ``last_line`` of the new text, ``snippet_first_line``, ``snippet_cut``: a
        line or the new text was too long and is not there whole.
    bytes
        The lines, as they are in the file.
    """
    new = read_at(fd, match.start, new_bytes)
    before, cut_before = _before(fd, kind, match.start)
    cut = cut_before
    ends = kind.count_lines(new)
    closed = new.endswith(kind.newline)
    if len(new) > _NEW_BYTES:
        cut = True
        shown, after = kind.whole_characters(new[:_NEW_BYTES]), b""
    else:
        shown = new
        lines = AROUND_LINES + (0 if closed else 1)
        after, cut_after = _after(fd, kind, match.start + new_bytes, lines)
        cut = cut or cut_after
    first = match.line
    answer = {
        "first_line": first,
        "last_line": first + ends - (1 if closed else 0),
        "snippet_first_line": first - kind.count_lines(before),
        "snippet_cut": cut,
    }
    return answer, before + shown + after


def _before(fd: int, kind: TextKind, start: int) -> Tuple[bytes, bool]:
    begin = max(kind.bom_bytes, start - _AROUND_BYTES)
    data = read_at(fd, begin, start - begin)
    at = len(data)
    for back in range(AROUND_LINES + 1):
        at = kind.line_start(data, at)
        if at == 0 or back == AROUND_LINES:
            break
        at -= kind.width
    if at or begin == kind.bom_bytes:
        return data[at:], False
    while data and kind.codec == "utf-8" and 0x80 <= data[0] < 0xC0:
        data = data[1:]
    return data, True


def _after(fd: int, kind: TextKind, start: int, lines: int) -> Tuple[bytes, bool]:
    data = read_at(fd, start, _AROUND_BYTES)
    end = kind.after_line(data, lines)
    if end >= 0:
        return data[:end], False
    if len(data) < _AROUND_BYTES:
        return data, False
    return kind.whole_characters(data), True
