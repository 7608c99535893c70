"""The chain that holds audit rows together: each row's seal covers the seal of the row before.

Pure. Whoever has the database and not the master key can neither change, remove, insert nor reorder
rows without a break that ``ChainCheck`` finds; what is missing at the end shows against the head.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import replace

from ..models import AuditRow

START = "0" * 64
"""What the first row has in place of a seal before it."""

_MOST_PROBLEMS = 100


def seal_of(key: bytes, row: AuditRow, before: str) -> str:
    """Give a row's seal, in hexadecimal; ``row.seal`` is not looked at."""
    text = json.dumps(
        [row.number, row.at, row.action, row.actor, row.conversation_id, row.detail, before],
        separators=(",", ":"),
    )
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def sealed(key: bytes, rows: Iterable[AuditRow], before: str) -> list[AuditRow]:
    """Give rows with their seals; ``before`` is the seal that they follow."""
    found = []
    for row in rows:
        before = seal_of(key, row, before)
        found.append(replace(row, seal=before))
    return found


def reference_of(key: bytes, text: str) -> str:
    """Give what stands for an id or a name where others may read; "" for ""."""
    if not text:
        return ""
    return hmac.new(key, b"reference\0" + text.encode(), hashlib.sha256).hexdigest()[:16]


class ChainCheck:
    """Follows the chain, row by row.

    Parameters
    ----------
    marks : mapping of int to str
        Seals that rows are known to have had, by number: noted elsewhere.
    """

    def __init__(self, key: bytes, marks: dict[int, str]) -> None:
        self.problems: list[str] = []
        self.rows = 0
        self.number = 0
        self.seal = START
        self._key = key
        self._marks = marks
        self._last_mark = max(marks, default=0)

    def __repr__(self) -> str:
        return f"<ChainCheck {self.rows} rows, {len(self.problems)} problems>"

    def take(self, row: AuditRow) -> None:
        """Check the next row, by number."""
        self.rows += 1
        if row.number > self.number + 1:
            self._say(f"rows {self.number + 1} to {row.number - 1} are missing")
        elif not hmac.compare_digest(seal_of(self._key, row, self.seal), row.seal):
            self._say(f"row {row.number} is not what was written, or not what stood there")
        noted = self._marks.get(row.number)
        if noted is not None and noted != row.seal:
            self._say(f"row {row.number} had another seal when it was noted")
        self.number, self.seal = row.number, row.seal

    def end(self) -> None:
        """Check that nothing is missing at the end."""
        if self.number < self._last_mark:
            self._say(f"rows {self.number + 1} to {self._last_mark} are missing at the end")

    def _say(self, problem: str) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(problem)
