r"""What a terminal's output says, without the terminal.

Colours, titles, links and other control sequences go; a line that a progress bar wrote over and
over is there once, in its last state; control characters go, but for line feed and tab. The rule:
the time is linear in the text, whatever it is.
"""

from __future__ import annotations

import re

_ERASE_RIGHT, _ERASE_LINE = "\x1c", "\x1d"  # stand for CSI K and CSI 2 K while a line is replayed

_NEWLINES = re.compile(r"(?<!\r)\r+\n")  # a run is looked at once, from its beginning
_ERASE = re.compile(r"(?:\x1b\[|\x9b)([02]?)K")
# Bodies never contain ESC, so each scan ends where the next sequence begins. An unfinished one
# loses its introducer only: it must not hide the text that follows.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b\][^\x07\x1b\n]{0,4096}(?:\x07|\x1b\\)"  # OSC: titles, links
    r"|\x1b[PX^_][^\x1b]{0,65536}\x1b\\"  # DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-~]"  # all other
)
_REPLAYED = re.compile(r"([\r\b\x1c\x1d])")
_CONTROLS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (9, 10)}
_CONTROLS_SHOWN: dict[int, str | None] = {**_CONTROLS, 0x0B: "\n", 0x0C: "\n"}
_BEFORE: dict[int, str | None] = {0: "\\x00", 0x1C: None, 0x1D: None, 0x1E: None, 0x1F: None}
# A line that was written over more often than this shows its last part only.
_MOST_MOVES = 20_000
_LAST_CHARACTERS = 65_536
_ANY = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def plain(text: str) -> str:
    """Give the text as a reader of the terminal would have it in the end."""
    if not _ANY.search(text):
        return text
    text = _NEWLINES.sub("\n", text.translate(_BEFORE))
    if "\x1b" in text or "\x9b" in text:
        text = _ERASE.sub(lambda m: _ERASE_LINE if m.group(1) == "2" else _ERASE_RIGHT, text)
        text = _ESCAPES.sub("", text)
    if "\r" in text or "\b" in text or _ERASE_LINE in text:
        text = "\n".join(_replay(line) for line in text.split("\n"))
    return text.translate(_CONTROLS_SHOWN)


def _replay(line: str) -> str:
    """Write a line as a terminal does: back to the start, over what is there."""
    if sum(line.count(move) for move in "\r\b\x1c\x1d") > _MOST_MOVES:
        line = line[-_LAST_CHARACTERS:]
        line = line[line.find("\r") + 1 :]
    parts = _REPLAYED.split(line)
    if len(parts) == 1:
        return line
    cells: list[str] = []
    column = 0
    for part in parts:
        if part == "\r":
            column = 0
        elif part == "\b":
            column = max(0, column - 1)
        elif part == _ERASE_RIGHT:
            del cells[column:]
        elif part == _ERASE_LINE:
            cells.clear()
            column = 0
        else:
            cells[column : column + len(part)] = part
            column += len(part)
    return "".join(cells)
