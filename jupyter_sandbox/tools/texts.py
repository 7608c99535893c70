"""How sizes, lines and quoted text are written for a model. No rule of a tool is here."""

from __future__ import annotations

from collections.abc import Iterable

NO_OUTPUT = "(no output)"

_QUOTED_CHARACTERS = 400
_LINE_CHARACTERS = 2000


def exact_size(size_bytes: int) -> str:
    """Give ``1 byte``, ``1,234 bytes``."""
    return "1 byte" if size_bytes == 1 else f"{size_bytes:,} bytes"


def short_size(size_bytes: int) -> str:
    """Give what ``du -h`` would: ``512``, ``4.0K``, ``1.2M``."""
    if size_bytes < 1024:
        return str(size_bytes)
    size = float(size_bytes)
    for unit in "KMGTP":
        size /= 1024
        if size < 1023.95 or unit == "P":
            break
    return f"{size:.1f}{unit}"


def count(number: int, noun: str) -> str:
    """Give ``1 line``, ``1,234 lines``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def numbered(lines: Iterable[str], first: int) -> list[str]:
    """Give the lines as ``cat -n`` writes them; one that is very long is cut and says so."""
    return [f"{at:6}\t{_clipped_line(line)}" for at, line in enumerate(lines, first)]


def split_lines(text: str) -> list[str]:
    """Give the lines of a text, their ends (LF or CRLF) left out."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def quoted(text: str) -> str:
    """Give the text between backquotes; the middle of a long one is left out."""
    if len(text) > _QUOTED_CHARACTERS:
        half = _QUOTED_CHARACTERS // 2
        left_out = len(text) - 2 * half
        text = f"{text[:half]}[… {left_out:,} characters …]{text[-half:]}"
    return f"`{text}`"


def _clipped_line(line: str) -> str:
    if len(line) <= _LINE_CHARACTERS:
        return line
    return f"{line[:_LINE_CHARACTERS]}[… {len(line) - _LINE_CHARACTERS:,} characters not shown]"
