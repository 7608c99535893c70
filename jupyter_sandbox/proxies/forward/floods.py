"""What a flood of one conversation may cost others in log lines and reports.

The rule: so many in a window, then they are counted instead, and the count is told once the window
has passed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_MAX_KEYS = 10_000


class FloodGate:
    """Lets through so many per key and window.

    Parameters
    ----------
    count : int
        That pass in each window.
    """

    def __init__(
        self, count: int, window_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count = count
        self._window = window_seconds
        self._clock = clock
        self._seen: dict[str, tuple[float, int]] = {}

    def __repr__(self) -> str:
        return f"<FloodGate keys={len(self._seen)}>"

    def passes(self, key: str) -> bool:
        """Say whether one more may pass now; it counts."""
        return self.admit(key)[0]

    def admit(self, key: str) -> tuple[bool, int]:
        """Give whether one more passes, and how many the window before it has held back."""
        now = self._clock()
        since, seen = self._seen.get(key, (now, 0))
        held = 0
        if now - since >= self._window:
            held, since, seen = max(0, seen - self._count), now, 0
        if len(self._seen) >= _MAX_KEYS and key not in self._seen:
            self._forget(now)
        self._seen[key] = (since, seen + 1)
        return seen < self._count, held

    def _forget(self, now: float) -> None:
        kept = {k: (s, n) for k, (s, n) in self._seen.items() if now - s < self._window}
        self._seen = kept if len(kept) < _MAX_KEYS else {}
