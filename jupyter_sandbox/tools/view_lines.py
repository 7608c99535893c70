"""Lines of a file as ``view`` shows them: numbered, cut to the limit, with what one must know.

The rule: the text is never larger than the limit; a cut one names the range that continues it, and
ends with the notice of SPEC.md 3.
"""

from __future__ import annotations

import re

from ..sandbox.file_models import LinesView
from .bounds import VIEW_NOTICE, cut_head
from .texts import split_lines

_LAST_WORDS_BYTES = 420
"""For the notes, the line that names the next range, and the notice."""

_ENCODINGS = {
    "utf-8-sig": "UTF-8 with a byte order mark",
    "utf-16-le": "UTF-16 (little-endian)",
    "utf-16-be": "UTF-16 (big-endian)",
    "latin-1": "Latin-1",
}

_SURROGATES = re.compile("[\udc80-\udcff]")
_C1_CONTROLS = re.compile("[\x80-\x9f]")
_STRAY_BYTES = r"UTF-8 with bytes that are none (shown as \xNN)"


def lines_text(path: str, view: LinesView, asked_last: int, limit_bytes: int) -> tuple[str, bool]:
    """Give the text of some lines of a file, and whether it was cut.

    Parameters
    ----------
    asked_last : int
        Last line that was asked for; -1 is the end.
    """
    if view.size_bytes == 0:
        return f"The file {path} is empty (0 bytes).", False
    text, encoding = _decoded(view)
    lines = split_lines(text)
    header = f"Here's the result of running `cat -n` on {path}:"
    rows = [f"{at:6}\t{line}" for at, line in enumerate(lines, view.first)]
    notes = _notes(view, encoding)
    clamped = _clamped(view, asked_last)
    whole = "\n".join([header, *rows, *notes, *clamped])
    if not view.truncated and len(whole.encode("utf-8", "replace")) <= limit_bytes:
        return whole, False
    room = max(64, limit_bytes - len(header.encode("utf-8", "replace")) - _LAST_WORDS_BYTES)
    shown, cut_bytes = _fitting(rows, room)
    complete = len(shown) == len(rows) and not view.truncated
    if view.cut_line and not cut_bytes and shown:
        cut_bytes = len(shown[-1].encode("utf-8", "replace")) - 7
    last = view.first + len(shown) - 1
    said = _continuation(view, last, asked_last, cut_bytes)
    if complete and not cut_bytes:  # only the notes did not fit
        return "\n".join([header, *shown, *clamped]), False
    return "\n".join([header, *shown, *notes, *said, VIEW_NOTICE]), True


def _fitting(rows: list[str], room: int) -> tuple[list[str], int]:
    """Give the rows that fit, one at least; and of a row that had to be cut how much is shown."""
    shown: list[str] = []
    for row in rows:
        data = row.encode("utf-8", "replace")
        if len(data) + 1 > room:
            if shown:
                break
            data = cut_head(data, room - 1)
            return [data.decode("utf-8")], max(1, len(data) - row.index("\t") - 1)
        room -= len(data) + 1
        shown.append(row)
    return shown, 0


def _continuation(view: LinesView, last: int, asked_last: int, cut_bytes: int) -> list[str]:
    """Give the line that says what is shown and how to read on."""
    total = view.total_lines
    end = asked_last if asked_last != -1 and (total is None or asked_last < total) else -1
    more = last != end and (total is None or last < total)
    read_on = f"read on with view_range [{last + 1}, {end}]" if more else ""
    of = f" of {total}" if total is not None else ""
    if cut_bytes:
        parts = [
            f"line {last}{of} is very long, only its first {cut_bytes:,} bytes are shown",
            "use bash (cut -b, grep -o) for the rest of it",
        ]
    else:
        parts = [f"lines {view.first}-{last}{of} are shown"]
    return [f"[{'; '.join([*parts, read_on] if read_on else parts)}]"]


def _decoded(view: LinesView) -> tuple[str, str]:
    r"""Give the text, and its encoding if that is worth telling.

    A file is Latin-1 for the guest as soon as one byte of it is not UTF-8. Where the lines shown
    are mostly good UTF-8, they are shown as such, and the strays as ``\xNN``.
    """
    if view.encoding != "latin-1":
        return view.text, _ENCODINGS.get(view.encoding, "")
    as_utf8 = view.data.decode("utf-8", "surrogateescape")
    strays = len(_SURROGATES.findall(as_utf8))
    if sum(c > "\x7f" for c in as_utf8) > 2 * strays:
        shown = _SURROGATES.sub(lambda m: f"\\x{ord(m.group()) - 0xDC00:02x}", as_utf8)
        return shown, _STRAY_BYTES if strays else ""
    shown = _C1_CONTROLS.sub(lambda m: f"\\x{ord(m.group()):02x}", view.text)
    return shown, _ENCODINGS["latin-1"]


def _notes(view: LinesView, encoding: str) -> list[str]:
    """Give what the numbered lines cannot show."""
    notes = [f"encoding: {encoding}"] if encoding else []
    if view.newline == "crlf":
        notes.append("line endings: CRLF (not shown)")
    elif view.newline == "mixed":
        notes.append("line endings: LF and CRLF mixed (not shown)")
    if view.last == view.total_lines and not view.truncated and not view.ends_with_newline:
        notes.append("no newline at the end of the file")
    return [f"[{'; '.join(notes)}]"] if notes else []


def _clamped(view: LinesView, asked_last: int) -> list[str]:
    total = view.total_lines
    if total is None or asked_last <= total:
        return []
    return [f"[the file has {total} lines: the end of view_range was taken as {total}]"]
