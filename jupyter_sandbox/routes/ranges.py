"""Which bytes a request asks for, and whether it has them already: pure functions of header values.

The rule: one range is honoured; several, or anything malformed, is as if the header were not there.

Source: https://www.rfc-editor.org/rfc/rfc9110#section-13 and #section-14.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII | re.IGNORECASE)
_TAG = re.compile(r'(?:W/)?"[^"]*"')


@dataclass(frozen=True)
class Part:
    """``size`` bytes from ``first`` on."""

    first: int
    size: int


class Unsatisfiable(ValueError):
    """No byte of the file is in the range (416)."""


def parse_range(header: str | None, size_bytes: int) -> Part | None:
    """Give the part of a file that a ``Range`` header asks for; None: the whole file.

    Raises
    ------
    Unsatisfiable
        The range lies beyond the end, or is empty.
    """
    match = _ONE_RANGE.fullmatch(header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first_text, last_text = match.groups()
    if not first_text:  # the last so many bytes
        size = min(int(last_text), size_bytes)
        if size == 0:
            raise Unsatisfiable
        return Part(size_bytes - size, size)
    first = int(first_text)
    last = int(last_text) if last_text else size_bytes - 1
    if last_text and last < first:
        return None  # malformed
    if first >= size_bytes:
        raise Unsatisfiable
    return Part(first, min(last, size_bytes - 1) - first + 1)


def has_already(if_none_match: str | None, etag: str) -> bool:
    """Decide whether a client has this version (304)."""
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    return any(tag.removeprefix("W/") == etag for tag in _TAG.findall(if_none_match))


def may_resume(if_range: str | None, etag: str) -> bool:
    """Decide whether a range may be given: not of another version. A date never matches."""
    return if_range is None or if_range.strip() == etag
