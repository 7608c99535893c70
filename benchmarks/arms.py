"""Two arms, measured in turn, and what their times say.

An arm gives the seconds of one round, so that what it prepares and clears up stays out of them. The
rule: ours and its floor alternate, in the same process, so that a slow moment of the machine hits
both.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Arm = Callable[[], float]


@dataclass(frozen=True)
class Sample:
    """Times of one arm, in seconds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def p90(self) -> float:
        ordered = sorted(self.values)
        return ordered[math.ceil(0.9 * len(ordered)) - 1]

    @property
    def p95(self) -> float:
        ordered = sorted(self.values)
        return ordered[math.ceil(0.95 * len(ordered)) - 1]

    @property
    def minimum(self) -> float:
        return min(self.values)

    def plus(self, other: Sample) -> Sample:
        """Give the sum of two steps measured apart: each of these by the median of that."""
        return Sample(tuple(value + other.median for value in self.values))


def timed(work: Callable[[], object]) -> Arm:
    """Give the arm whose whole round counts."""

    def arm() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return arm


def alternate(
    ours: Arm, floor: Arm, rounds: int, *, block: int = 1, pause_seconds: float = 0.0
) -> tuple[Sample, Sample]:
    """Measure both in turn.

    Parameters
    ----------
    block : int
        Rounds of one arm before the other has its turn. More than one where the point is that
        calls come back to back.
    pause_seconds : float
        Between rounds, as an assistant pauses.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for arm in (ours, floor):
        arm()  # the first of each is not like the others
    for _ in range(math.ceil(rounds / block)):
        for arm, into in zip((ours, floor), times, strict=True):
            for _ in range(block):
                if pause_seconds:
                    time.sleep(pause_seconds)
                into.append(arm())
    return Sample(tuple(times[0])), Sample(tuple(times[1]))
