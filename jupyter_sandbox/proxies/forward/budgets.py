"""How much each conversation, and all together, have used: connections, requests, bytes of a day.

Knows no sockets. The rule: who is over its connections or its rate waits (and only its own requests
wait with it); who is over its bytes is cut off.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ...policy.egress_rules import EgressCaps
from .kept_bytes import KeptBytes

_DAY_SECONDS = 86_400.0
_MAX_REMEMBERED = 20_000
_ALL = ""  # no conversation's name
# Requests that a refusal counts as. Who goes on asking for what is refused gains nothing by it and
# takes processor time from others: 200 in a second slowed a neighbour's commands by a third.
REFUSAL_COST = 5


class CapReached(Exception):
    """A cap of bytes; the text is the reason, a clause."""


class DayBytes:
    """Bytes both ways within a day that begins with the first of them.

    Parameters
    ----------
    kept : memoryview
        Three words: since when, in nanoseconds (0: it has not begun), up, down.
    """

    def __init__(
        self, up: int, down: int, clock: Callable[[], float], kept: memoryview[int]
    ) -> None:
        self._caps = (up, down)
        self._clock = clock
        self._kept = kept
        if not kept[0]:
            self._begin()

    @property
    def is_over(self) -> bool:
        """Whether this day has passed."""
        return self._clock() - self._kept[0] / 1e9 > _DAY_SECONDS

    def left(self, direction: int) -> int:
        """Give how many bytes may still go up (0) or down (1)."""
        if self.is_over:
            self._begin()
        return self._caps[direction] - self._kept[1 + direction]

    def add(self, direction: int, size: int) -> None:
        """Count bytes that went."""
        self._kept[1 + direction] += size

    def _begin(self) -> None:
        self._kept[1] = self._kept[2] = 0
        self._kept[0] = int(self._clock() * 1e9)


class ConversationBudget:
    """What one conversation uses; outlives its sandboxes and listeners."""

    def __init__(self, caps: EgressCaps, clock: Callable[[], float], kept: memoryview[int]) -> None:
        self._caps = caps
        self._clock = clock
        self.connections = 0
        self.bytes = DayBytes(caps.up_bytes_per_day, caps.down_bytes_per_day, clock, kept)
        self._burst = 2.0 * caps.requests_per_second
        self._tokens = self._burst
        self._filled_at = clock()

    def wait_seconds(self) -> float:
        """Take one request from the rate; give how long it must wait (0.0: not at all)."""
        now = self._clock()
        gained = (now - self._filled_at) * self._caps.requests_per_second
        self._tokens = min(self._burst, self._tokens + gained) - 1.0
        self._filled_at = now
        return max(0.0, -self._tokens / self._caps.requests_per_second)

    def count_refusal(self) -> None:
        """Take the rest of what a refusal costs, for the requests after it to wait for."""
        self._tokens -= REFUSAL_COST - 1

    @property
    def is_idle(self) -> bool:
        """Whether nothing of it need be remembered."""
        return self.connections == 0 and self.bytes.is_over


class Budgets:
    """All conversations and their sum.

    Parameters
    ----------
    kept : KeptBytes
        What earlier processes of this server have counted; None: nothing, and nobody comes after.
    """

    def __init__(
        self,
        caps: EgressCaps,
        clock: Callable[[], float] = time.monotonic,
        kept: KeptBytes | None = None,
    ) -> None:
        self.caps = caps
        self._clock = clock
        self._kept = kept or KeptBytes()
        self._conversations: dict[str, ConversationBudget] = {}
        self._total = DayBytes(
            *(caps.up_bytes_per_day_total, caps.down_bytes_per_day_total),
            *(clock, self._kept.of(_ALL)),
        )

    def __repr__(self) -> str:
        return f"<Budgets conversations={len(self._conversations)}>"

    def of(self, conversation: str) -> ConversationBudget:
        """Give the budget of a conversation."""
        found = self._conversations.get(conversation)
        if found is None:
            if len(self._conversations) >= _MAX_REMEMBERED:
                self._forget_idle()
            found = self._conversations[conversation] = ConversationBudget(
                self.caps, self._clock, self._kept.of(conversation)
            )
        return found

    def meter(self, conversation: str) -> Meter:
        """Give the meter of a new connection."""
        return Meter(self.caps.up_bytes, self.of(conversation).bytes, self._total, self._clock)

    def _forget_idle(self) -> None:
        for name in [name for name, b in self._conversations.items() if b.is_idle]:
            del self._conversations[name]
            self._kept.forget(name)


class Meter:
    """Counts one connection's bytes against all caps that hold for it."""

    def __init__(
        self, up_bytes: int, day: DayBytes, total: DayBytes, clock: Callable[[], float]
    ) -> None:
        self._up_cap = up_bytes
        self._day = day
        self._total = total
        self._clock = clock
        self.used = [0, 0]
        self.active_at = clock()

    def require_some(self) -> None:
        """Raise CapReached if not a byte may go either way: said before a host is bothered."""
        for direction in (0, 1):
            self._require(direction, 1)

    def count(self, direction: int, size: int) -> None:
        """Count bytes before they go on: up is 0, down is 1.

        Raises
        ------
        CapReached
            They may not.
        """
        if direction == 0 and self.used[0] + size > self._up_cap:
            raise CapReached(f"more than {_mib(self._up_cap)} were sent over one connection")
        self._require(direction, size)
        self._day.add(direction, size)
        self._total.add(direction, size)
        self.used[direction] += size
        self.active_at = self._clock()

    def _require(self, direction: int, size: int) -> None:
        way = ("sent", "received")[direction]
        if self._day.left(direction) < size:
            raise CapReached(f"this conversation has {way} all it may within a day")
        if self._total.left(direction) < size:
            raise CapReached(f"all conversations together have {way} all they may within a day")


def _mib(size: int) -> str:
    return f"{size / 1024**2:g} MiB"
