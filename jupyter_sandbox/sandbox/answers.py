"""Read an answer that comes out of a sandbox: every member's type and bounds are checked.

Nothing here is believed, it is only made safe to handle: a number is a number within its bounds, a
text is a bounded text. What is malformed is ``Unavailable``: the guest that answers so is not ours
any more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from ..errors import Unavailable

MOST = 2**63 - 1
_SURROGATE = re.compile("[\ud800-\udfff]")
PATH_CHARACTERS = 4 * 4096  # each byte may be shown as \xNN


class Answer:
    """The members of one JSON object.

    Parameters
    ----------
    body : object
        Anything; ``Unavailable`` if it is no object.
    """

    def __init__(self, body: object) -> None:
        if not isinstance(body, dict):
            raise malformed("no object")
        self._body: dict[str, Any] = body

    def __repr__(self) -> str:
        return f"<Answer {', '.join(str(name)[:32] for name in list(self._body)[:20])}>"

    def has(self, name: str) -> bool:
        """Say whether the member is there and not null."""
        return self._body.get(name) is not None

    def text(self, name: str, most: int = PATH_CHARACTERS) -> str:
        """Give a text of at most ``most`` characters, all of which can be encoded."""
        value = self._body.get(name)
        if not isinstance(value, str) or len(value) > most or _SURROGATE.search(value):
            raise malformed(name)
        return value

    def choice(self, name: str, choices: Collection[str]) -> str:
        """Give one of some words."""
        value = self._body.get(name)
        if not isinstance(value, str) or value not in choices:
            raise malformed(name)
        return value

    def whole(self, name: str, low: int = 0, high: int = MOST) -> int:
        """Give a whole number from ``low`` to ``high``."""
        value = self._body.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise malformed(name)
        return value

    def maybe_whole(self, name: str, low: int = 0, high: int = MOST) -> int | None:
        """Give a whole number, or None for null."""
        return self.whole(name, low, high) if self.has(name) else None

    def flag(self, name: str) -> bool:
        """Give true or false."""
        value = self._body.get(name)
        if not isinstance(value, bool):
            raise malformed(name)
        return value

    def moment(self, name: str) -> datetime:
        """Give a time that travels as seconds since 1970."""
        value = self._body.get(name)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise malformed(name)
        try:
            return datetime.fromtimestamp(value, UTC)
        except (ValueError, OverflowError, OSError):
            raise malformed(name) from None

    def inner(self, name: str) -> Answer:
        """Give a member that is an object itself."""
        return Answer(self._body.get(name))

    def items(self, name: str, most: int) -> tuple[object, ...]:
        """Give a list of at most ``most`` items."""
        value = self._body.get(name)
        if not isinstance(value, list) or len(value) > most:
            raise malformed(name)
        return tuple(value)


def malformed(what: str) -> Unavailable:
    """Give the error for an answer that cannot be right; ``what`` is for the log."""
    return Unavailable("the sandbox gave a malformed answer", detail=what)
