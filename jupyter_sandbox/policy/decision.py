"""What every policy gives: whether, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """A decision with its reason.

    ``reason`` is a clause that is safe to show; "" if it is allowed and needs none. A decision is
    true when it is allowed.
    """

    allowed: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.allowed


ALLOWED = Decision(True)
