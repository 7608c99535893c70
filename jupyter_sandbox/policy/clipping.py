"""What the message stream keeps of something long: its beginning and its end. Pure."""

from __future__ import annotations

from typing import cast

from ..models import JsonValue

_DEEPEST = 8


def clip_text(text: str, limit: int) -> str:
    """Give a text of about ``limit`` characters; of a longer one the middle is left out."""
    if len(text) <= limit:
        return text
    tail = limit // 2
    head = limit - tail
    left_out = len(text) - limit
    return f"{text[:head]}\n[… {left_out:,} characters are left out here …]\n{text[-tail:]}"


class Clipping:
    """Clips values that share one budget.

    Parameters
    ----------
    budget : int
        Characters, and 16 for each value.

    Attributes
    ----------
    was_needed : bool
        Something was left out.
    """

    def __init__(self, budget: int) -> None:
        self._left = budget
        self.was_needed = False

    def __repr__(self) -> str:
        return f"<Clipping {self._left} left>"

    def text(self, text: str) -> str:
        """Give a text within what is left."""
        limit = max(self._left, 0)
        self._left -= len(text) + 16
        if len(text) > limit:
            self.was_needed = True
        return clip_text(text, limit) if limit else ("" if not text else "[…]")

    def value(self, value: object, depth: int = 0) -> JsonValue:
        """Give a JSON value within what is left; what cannot be kept is null."""
        if isinstance(value, str):
            return self.text(value)
        if self._left <= 0 or depth > _DEEPEST:
            self.was_needed = True
            return None
        self._left -= 16
        if isinstance(value, dict):
            made: dict[str, JsonValue] = {}
            for key, member in value.items():
                if self._left <= 0:
                    self.was_needed = True
                    break
                made[self.text(str(key))] = self.value(member, depth + 1)
            return made
        if isinstance(value, list | tuple):
            items: list[JsonValue] = []
            for member in value:
                if self._left <= 0:
                    self.was_needed = True
                    break
                items.append(self.value(member, depth + 1))
            return items
        if isinstance(value, int) and abs(value) > 2**63:
            self.was_needed = True
            return None  # a number of a million digits is a million characters
        return cast(JsonValue, value)
