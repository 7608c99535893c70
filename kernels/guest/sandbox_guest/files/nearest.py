"""Why nothing matched: the place in a file that is most like the text, and how it differs.

First the text is looked for with one kind of difference after the other forgiven (white space,
quotes, case). If it is found so, what had to be forgiven is the answer. Otherwise the place where
most of its lines stand is given, then the line with the most words in common. Only the first MiB
of a file are looked at, and for a bounded time: this is a hint.
"""

from __future__ import annotations

import difflib
import re
import time
from collections import Counter
from typing import Any, Callable, Dict, FrozenSet, List, Optional, Tuple

from .opening import read_at
from .text import TextScan

LOOKED_AT_BYTES = 1024 * 1024
SECONDS = 1.0
_TEXT_CHARACTERS = 4000
_OLD_LINES = 400
_LINE_CHARACTERS = 300
_PLACES_PER_LINE = 50
_LIKE_ENOUGH = 0.6

_QUOTES = str.maketrans(
    {
        "\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201b": "'", "\u2032": "'", "`": "'",
        "\u201c": '"', "\u201d": '"', "\u201e": '"', "\u201f": '"', "\u2033": '"',
        "\u00ab": '"', "\u00bb": '"',
        "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": "-", "\u2212": "-",
    }
)  # fmt: skip
_SPACE = "[ \t\u00a0\u2007\u202f\u3000]"
# A run is looked at once, from its beginning.
_TRAILING = re.compile("(?<!" + _SPACE + ")" + _SPACE + "+$", re.MULTILINE)
_LEADING = re.compile("^" + _SPACE + "+", re.MULTILINE)
_INNER = re.compile(r"(?<=\S)" + _SPACE + r"+(?=\S)")
_WORD = re.compile(r"\w+")

_FORGIVE: Dict[str, Callable[[str], str]] = {
    "line_endings": lambda text: text.replace("\r", ""),
    "trailing_whitespace": lambda text: _TRAILING.sub("", text),
    "indentation": lambda text: _LEADING.sub("", text),
    "spaces": lambda text: _INNER.sub(" ", text),
    "quotes": lambda text: text.translate(_QUOTES),
    "case": str.lower,
}
_ALL = frozenset(_FORGIVE)


def nearest(fd: int, file: TextScan, old: str) -> Optional[Dict[str, Any]]:
    """Give where the text probably was meant, None if nothing is like it.

    Returns
    -------
    dict or None
        ``first_line``, ``last_line``, ``text`` of the place, and ``differences``.
    """
    if file.kind.encoding == "binary" or len(old) > LOOKED_AT_BYTES:
        return None
    data = file.kind.whole_characters(read_at(fd, file.kind.bom_bytes, LOOKED_AT_BYTES))
    text = data.decode(file.kind.codec, "replace")
    wanted = old.strip("\r\n")
    if not wanted.strip():
        return None
    lines = text.split("\n")
    place = _with_differences_forgiven(text, wanted)
    if place is None:
        place = _by_lines(lines, wanted)
    if place is None:
        return None
    first, last = place
    last = min(last, len(lines) - 1)
    found = "\n".join(lines[first : last + 1])
    differences = _differences(wanted, found)
    at_end = file.kind.bom_bytes + len(data) >= file.size and last == len(lines) - 1
    if old.endswith("\n") and at_end and lines[-1]:
        differences.append("final_newline")
    return {
        "first_line": first + 1,
        "last_line": last + 1,
        "text": found[:_TEXT_CHARACTERS],
        "differences": differences or ["content"],
    }


def _forgive(text: str, what: FrozenSet[str]) -> str:
    for name, change in _FORGIVE.items():
        if name in what:
            text = change(text)
    return text


def _with_differences_forgiven(text: str, wanted: str) -> Optional[Tuple[int, int]]:
    """Give first and last line (0-based) of the text when all that may be forgiven is."""
    needle = _forgive(wanted, _ALL)
    hay = _forgive(text, _ALL)
    found = hay.find(needle)
    if found < 0 or not needle:
        return None
    first = hay.count("\n", 0, found)
    return first, first + needle.count("\n")


def _by_lines(lines: List[str], wanted: str) -> Optional[Tuple[int, int]]:
    """Give the place where most lines of the text stand, as far apart as they do in it."""
    ends_at = time.monotonic() + SECONDS
    wanted_lines = wanted.split("\n")
    count = len(wanted_lines)
    keys = [_forgive(line, _ALL).strip() for line in wanted_lines[:_OLD_LINES]]
    places: Dict[str, List[int]] = {key: [] for key in keys if _WORD.search(key)}
    for number, line in enumerate(lines):
        known = places.get(_forgive(line, _ALL).strip())
        if known is not None and len(known) < _PLACES_PER_LINE:
            known.append(number)
        if not number % 1024 and time.monotonic() > ends_at:
            break
    votes: Counter[int] = Counter()
    for offset, key in enumerate(keys):
        for number in places.get(key, ()):
            if number >= offset:
                votes[number - offset] += 1
    if votes:
        most = max(votes.values())
        first = min(place for place, number in votes.items() if number == most)
        return first, first + count - 1
    return _by_words(lines, keys, count, ends_at)


def _by_words(
    lines: List[str], keys: List[str], count: int, ends_at: float
) -> Optional[Tuple[int, int]]:
    """Give the place of the line that is most like the longest line of the text."""
    longest = max(keys, key=len)[:_LINE_CHARACTERS]
    words = frozenset(_WORD.findall(longest))
    if not words:
        return None
    best: List[Tuple[int, int]] = []  # words in common, line
    for number, line in enumerate(lines):
        common = len(words.intersection(_WORD.findall(line[:_LINE_CHARACTERS].lower())))
        if common:
            best.append((-common, number))
        if not number % 1024 and time.monotonic() > ends_at:
            break
    best.sort()
    score, at = 0.0, -1
    for _, number in best[:10]:
        line = _forgive(lines[number][:_LINE_CHARACTERS], _ALL).strip()
        ratio = difflib.SequenceMatcher(None, longest, line, autojunk=False).ratio()
        if ratio > score:
            score, at = ratio, number
    if score < _LIKE_ENOUGH:
        return None
    first = max(0, at - next(i for i, key in enumerate(keys) if key.startswith(longest)))
    return first, first + count - 1


def _differences(wanted: str, found: str) -> List[str]:
    """Name what keeps ``wanted`` from standing in ``found``."""
    if _forgive(wanted, _ALL) in _forgive(found, _ALL):
        return _needed(wanted, found)
    names: List[str] = []
    for one, other in zip(wanted.split("\n"), found.split("\n")):  # noqa: B905  (3.9)
        if one != other and _forgive(one, _ALL) == _forgive(other, _ALL):
            names += [name for name in _needed(one, other) if name not in names]
    return [*names, "content"]


def _needed(wanted: str, found: str) -> List[str]:
    """Give what must be forgiven so that ``wanted`` stands in ``found``: each alone is missed."""
    needed = [
        name
        for name in _FORGIVE
        if _forgive(wanted, _ALL - {name}) not in _forgive(found, _ALL - {name})
    ]
    if {"indentation", "spaces"}.intersection(needed) and ("\t" in wanted) != ("\t" in found):
        for columns in (4, 8, 2):
            without = _ALL - {"indentation", "spaces"}
            one = _forgive(wanted.expandtabs(columns), without)
            if one in _forgive(found.expandtabs(columns), without):
                needed = [name for name in needed if name not in ("indentation", "spaces")]
                break
        needed.append("tabs")
    return needed
