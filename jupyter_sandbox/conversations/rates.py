"""How often each user has done what is limited by rate, in this server process.

It remembers buckets; whether one more is allowed is the policy's (``policy.rates``). The rule:
users are bounded in number; whose bucket is dropped was seen longest ago and begins anew.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from ..errors import LimitExceeded
from ..models import Limits
from ..policy.rates import Bucket, decide_rate

_MINUTE = 60.0
_HOUR = 3600.0
_MOST_BUCKETS = 20_000


class Rates:
    """The rates of all users.

    Parameters
    ----------
    clock : callable
        Gives seconds that only rise.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, str], Bucket] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Rates {len(self._buckets)} buckets>"

    def take_call(self, owner: str) -> None:
        """Count a call of a tool; ``LimitExceeded`` (429) when there were too many."""
        most = self._limits.calls_per_minute
        self._take("calls", owner, most, _MINUTE, f"{most} calls of tools a minute")

    def take_conversation(self, owner: str) -> None:
        """Count a new conversation; ``LimitExceeded`` (429) when there were too many."""
        most = self._limits.conversations_per_hour
        self._take("conversations", owner, most, _HOUR, f"{most} new conversations an hour")

    def _take(self, kind: str, owner: str, most: int, seconds: float, words: str) -> None:
        key = (kind, owner)
        taken = decide_rate(self._buckets.get(key), self._clock(), most, seconds)
        self._buckets[key] = taken.bucket
        self._buckets.move_to_end(key)
        if len(self._buckets) > _MOST_BUCKETS:
            self._buckets.popitem(last=False)
        if not taken.decision:
            raise LimitExceeded(
                f"A user may make {words} on this server; {taken.decision.reason}.",
                retry_after_seconds=taken.retry_after_seconds,
            )
