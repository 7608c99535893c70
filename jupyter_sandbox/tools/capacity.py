"""The check before every call that the conversation's files are within its capacity.

What a conversation keeps changes only when it shares or removes files, so the sum is asked for
again after ``FRESH_SECONDS`` at the latest, or when ``forget`` says that it changed here.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from ..errors import LimitExceeded, Unavailable
from ..policy.capacity import decide_capacity
from .context import ShareRecords

FRESH_SECONDS = 5.0
_MOST_KNOWN = 1000


class Capacity:
    """Knows for a moment what each conversation keeps."""

    def __init__(
        self,
        database: ShareRecords,
        capacity_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._capacity_bytes = capacity_bytes
        self._clock = clock
        self._known: dict[str, tuple[float, int]] = {}

    def __repr__(self) -> str:
        return f"<Capacity of {len(self._known)} conversations>"

    def check_of(self, conversation_id: str) -> Callable[[], Awaitable[None]]:
        """Give the ``check_capacity`` of a call."""
        return lambda: self.check(conversation_id)

    async def check(self, conversation_id: str) -> None:
        """Raise ``LimitExceeded`` (413) if the conversation keeps more than it may."""
        now = self._clock()
        asked_at, used = self._known.get(conversation_id, (-FRESH_SECONDS, 0))
        if now - asked_at >= FRESH_SECONDS or used > self._capacity_bytes:
            try:
                used = (await self._database.usage(conversation_id)).total_bytes
            except Unavailable:  # what was known last: nothing is added while the database fails
                if conversation_id not in self._known:
                    raise
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[conversation_id] = (now, used)
        decision = decide_capacity(used, self._capacity_bytes)
        if not decision:
            raise LimitExceeded(decision.reason, status=413)

    def forget(self, conversation_id: str) -> None:
        """Ask anew at the next check."""
        self._known.pop(conversation_id, None)
