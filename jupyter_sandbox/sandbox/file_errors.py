"""Refusals of the file service that carry facts, checked: what a tool's text is made of.

Each is a ``GuestError`` with the same code as before; only facts of the right type and within
bounds are kept, the rest is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import Unavailable
from .answers import Answer
from .link import GuestError

_DIFFERENCES = (
    "tabs",
    "indentation",
    "spaces",
    "trailing_whitespace",
    "line_endings",
    "quotes",
    "case",
    "final_newline",
    "content",
)
_LINES_LISTED = 10
_NEAREST_CHARACTERS = 4000
_LAST_LINE = 2**53


@dataclass(frozen=True)
class Nearest:
    """The place that is most like a text which was not found, and how it differs.

    ``differences`` are some of: tabs, indentation, spaces, trailing_whitespace, line_endings,
    quotes, case, final_newline, content.
    """

    first_line: int
    last_line: int
    text: str = field(repr=False)
    differences: tuple[str, ...]


class NoMatch(GuestError):
    """The old text is not in the file; ``nearest`` is where it probably was meant."""

    nearest: Nearest | None = None


class ManyMatches(GuestError):
    """The old text is in the file more than once.

    ``count`` 1000 means at least that; ``lines`` are the first lines of up to 10 of them.
    """

    count: int = 2
    lines: tuple[int, ...] = ()


class BadRange(GuestError):
    """The lines are not in the file; ``total_lines`` is None where that is not the reason."""

    total_lines: int | None = None


def refine(error: GuestError) -> GuestError:
    """Give the error with its facts checked; an error of another kind as it is."""
    facts = Answer(error.facts)
    refined: GuestError
    if error.code == "no_match":
        refined = no_match = NoMatch(error.code, error.message, {})
        no_match.nearest = _nearest(facts)
    elif error.code == "many_matches":
        refined = many = ManyMatches(error.code, error.message, {})
        many.count, many.lines = _places(facts)
    elif error.code == "bad_range":
        refined = bad = BadRange(error.code, error.message, {})
        bad.total_lines = _total(facts)
    else:
        refined = error
    return refined


def _nearest(facts: Answer) -> Nearest | None:
    try:
        claim = facts.inner("nearest")
        names = claim.items("differences", len(_DIFFERENCES))
        return Nearest(
            claim.whole("first_line", 1, _LAST_LINE),
            claim.whole("last_line", 1, _LAST_LINE),
            claim.text("text", _NEAREST_CHARACTERS),
            tuple(name for name in _DIFFERENCES if name in names),
        )
    except Unavailable:
        return None


def _places(facts: Answer) -> tuple[int, tuple[int, ...]]:
    try:
        lines = facts.items("lines", _LINES_LISTED)
        return facts.whole("count", 2), tuple(
            line for line in lines if isinstance(line, int) and 0 < line <= _LAST_LINE
        )
    except Unavailable:
        return 2, ()


def _total(facts: Answer) -> int | None:
    try:
        return facts.maybe_whole("total_lines", 0, _LAST_LINE)
    except Unavailable:
        return None
