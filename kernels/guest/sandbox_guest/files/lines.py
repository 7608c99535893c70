"""``view``: some lines of a text file, as they are on the disk.

The file is read once to the end, in pieces, to know its lines and its encoding; then only the lines
that were asked for. Memory stays flat on a file of any size; of a file too large to be read in ten
seconds the number of lines is not known (null).
"""

from __future__ import annotations

import base64
from typing import Any, Dict, Tuple

from .opening import opened, read_at
from .paths import existing
from .problems import FileError
from .requests import Request
from .text import SNIFF_BYTES, TextScan, scan, sniff

MAX_VIEW_BYTES = 1024 * 1024
HEAD_BYTES = 512
_LAST_LINE = 2**53


def view(request: Request) -> Tuple[Dict[str, Any], bytes]:
    """Give the lines ``first`` to ``last`` of a file."""
    text = request.text("path")
    first = request.whole("first", -_LAST_LINE, _LAST_LINE, 1)
    last = request.whole("last", -_LAST_LINE, _LAST_LINE, -1)
    limit = request.whole("max_bytes", 4, MAX_VIEW_BYTES, MAX_VIEW_BYTES)
    with opened(existing(text)) as (fd, found):
        head = read_at(fd, 0, SNIFF_BYTES)
        kind = sniff(head)
        if kind is not None and kind.encoding == "binary":
            return _binary(found.st_size, head), b""
        if first < 1 or (last < first and last != -1):
            raise FileError("bad_range", "there is no range from line %d to %d" % (first, last))
        whole = scan(fd, first)
        if whole.line_offset is None:
            raise _beyond(first, whole)
        data = read_at(fd, whole.line_offset, min(limit, max(0, whole.size - whole.line_offset)))
    wanted = None if last == -1 else last - first + 1
    return _cut(data, first, wanted, whole, max(found.st_size, whole.size))


def _cut(
    data: bytes, first: int, wanted: Any, whole: TextScan, size: int
) -> Tuple[Dict[str, Any], bytes]:
    """Cut what was read to whole lines and say what it is."""
    kind = whole.kind
    end = -1 if wanted is None else kind.after_line(data, wanted)
    at_end = whole.complete and (whole.line_offset or 0) + len(data) >= whole.size
    cut_line = False
    truncated = end < 0 and not at_end
    if end >= 0:
        data = data[:end]
    elif truncated:
        whole_lines = kind.after_last_line(data)
        cut_line = not whole_lines
        data = data[:whole_lines] if whole_lines else kind.whole_characters(data)
    lines = kind.count_lines(data)
    if data and not data.endswith(kind.newline):
        lines += 1
    if not whole.total_lines:
        lines = 0  # there may be a byte order mark
    total = whole.total_lines if whole.complete else None
    next_line = first + lines if truncated else None
    if next_line is not None and total is not None and next_line > total:
        next_line = None
    answer = {
        "first": first,
        "last": first + lines - 1,
        "total_lines": total,
        "size": size,
        "encoding": kind.encoding,
        "newline": whole.newline,
        "ends_with_newline": whole.ends_with_newline,
        "truncated": truncated,
        "next_line": next_line,
        "cut_line": cut_line,
    }
    return answer, data


def _beyond(first: int, whole: TextScan) -> FileError:
    if whole.complete:
        return FileError(
            "bad_range",
            "line %d is beyond the end, the file has %d lines" % (first, whole.total_lines),
            total_lines=whole.total_lines,
        )
    return FileError(
        "too_large",
        "line %d is beyond the first %d lines, all that could be read in time"
        % (first, whole.total_lines),
    )


def _binary(size: int, head: bytes) -> Dict[str, Any]:
    return {
        "first": 1,
        "last": 0,
        "total_lines": 0,
        "size": size,
        "encoding": "binary",
        "newline": "none",
        "ends_with_newline": False,
        "truncated": False,
        "next_line": None,
        "cut_line": False,
        "head": base64.b64encode(head[:HEAD_BYTES]).decode("ascii"),
    }
