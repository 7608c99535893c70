"""How often a user may do something: a bucket that fills evenly and holds what one period allows.

Pure: the time comes with the question, the bucket with the answer. Whoever has waited may do a
whole period's worth at once; on average no more than that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .decision import ALLOWED, Decision


@dataclass(frozen=True)
class Bucket:
    """What is left of an allowance, and when that was so (seconds of any clock that only rises)."""

    left: float
    at: float


@dataclass(frozen=True)
class Taken:
    """Whether one more is allowed, the bucket after it, and when a refused one may try again."""

    decision: Decision
    bucket: Bucket
    retry_after_seconds: int = 0


def decide_rate(bucket: Bucket | None, now: float, most: int, period_seconds: float) -> Taken:
    """Decide on one more.

    Parameters
    ----------
    bucket : Bucket or None
        As the decision before gave it; None for the first one.
    most : int
        So many in a period; 0: any number.
    """
    if not most:
        return Taken(ALLOWED, Bucket(0, now))
    per_second = most / period_seconds
    left = float(most)
    if bucket is not None:
        left = min(left, bucket.left + max(0.0, now - bucket.at) * per_second)
    if left >= 1:
        return Taken(ALLOWED, Bucket(left - 1, now))
    wait = max(1, math.ceil((1 - left) / per_second))
    return Taken(Decision(False, f"try again in {wait} s"), Bucket(left, now), wait)
