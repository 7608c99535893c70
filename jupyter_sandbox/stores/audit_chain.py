"""The chain that holds audit rows together: each row's seal covers the seal of the row before.

Pure. Whoever has the database and not the master key can neither change, remove, insert nor reorder
rows without a break that ``ChainCheck`` finds; what is missing at the end shows against the head,
which has a seal of its own, as has the mark that is kept outside the database. What may be missing
at the beginning the head says: rows that were removed for their age.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..models import AuditRow

START = "0" * 64
"""What the first row has in place of a seal before it."""

DAMAGE = "log_damaged"
"""The action of a row by which a server notes that the log was not as it had left it."""

KEY_BYTES = 40
"""Of a key under which head and mark are sealed too. Earlier releases made keys of 32 bytes and no
such seals; a key says so itself, because who cannot wrap one cannot go back to that."""

_SEAL_KEY_BYTES = 32
_MOST_PROBLEMS = 100


class Mark(NamedTuple):
    """The last row that a server had written, as noted outside the database."""

    number: int
    seal: str
    mark_seal: str = ""


@dataclass(frozen=True)
class Head:
    """Where the chain ends, and where it begins: after row ``pruned_number`` with its seal."""

    number: int = 0
    seal: str = START
    pruned_number: int = 0
    pruned_seal: str = START


def needs_seals(key: bytes) -> bool:
    """Say whether head and mark have seals under this key."""
    return len(key) == KEY_BYTES


def head_seal(key: bytes, head: Head) -> str:
    """Return the head's seal, in hexadecimal."""
    return _mac(key, "head", [head.number, head.seal, head.pruned_number, head.pruned_seal])


def mark_of(key: bytes, head: Head) -> Mark:
    """Return the mark of a chain that ends so."""
    return Mark(head.number, head.seal, _mac(key, "mark", [head.number, head.seal]))


def is_right_mark(key: bytes, mark: Mark) -> bool:
    """Say whether a server has written this mark."""
    said = _mac(key, "mark", [mark.number, mark.seal])
    return not needs_seals(key) or hmac.compare_digest(said, mark.mark_seal)


def _mac(key: bytes, what: str, values: list[int | str]) -> str:
    text = f"{what}\0{json.dumps(values, separators=(',', ':'))}"
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def seal_of(key: bytes, row: AuditRow, before: str) -> str:
    """Give a row's seal, in hexadecimal; ``row.seal`` is not looked at."""
    text = json.dumps(
        [row.number, row.at, row.action, row.actor, row.conversation_id, row.detail, before],
        separators=(",", ":"),
    )
    return hmac.new(key[:_SEAL_KEY_BYTES], text.encode(), hashlib.sha256).hexdigest()


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
    text_bytes = b"reference\0" + text.encode()
    return hmac.new(key[:_SEAL_KEY_BYTES], text_bytes, hashlib.sha256).hexdigest()[:16]


class ChainCheck:
    """Follows the chain, row by row.

    Parameters
    ----------
    marks : mapping of int to str
        Seals that rows are known to have had, by number: noted elsewhere.
    head : Head
        Where the chain begins.
    known_number : int
        Damage that servers have noted up to this row is no problem.
    """

    def __init__(
        self, key: bytes, marks: dict[int, str], head: Head, known_number: int = 0
    ) -> None:
        self.problems: list[str] = []
        self.rows = 0
        self.number = head.pruned_number
        self.seal = head.pruned_seal
        self._known_number = known_number
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
        elif row.action == DAMAGE and row.number > self._known_number:
            self._say(f"row {row.number}: a server noted that the log was damaged: {row.detail}")
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
