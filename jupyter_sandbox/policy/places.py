"""How many sandboxes there may be at once, for each user and for all; and who waits before whom.

Pure: the counts come with the question. A *place* is what a sandbox takes: a live one (starting,
running or suspended) takes one of memory and disk, one that starts or runs also one of processors.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..models import Lifecycle, PlacesTaken
from .decision import ALLOWED, Decision

_PART_OF_QUEUE = 4  # a user may take so much of the queue: one part in four


class Bound(enum.StrEnum):
    """Which limit is met."""

    LIVE_PER_USER = "live_per_user"
    RUNNING_PER_USER = "running_per_user"
    LIVE_TOTAL = "live_total"
    RUNNING_TOTAL = "running_total"

    @property
    def is_of_user(self) -> bool:
        """Whether only this user's sandboxes are counted."""
        return self in (Bound.LIVE_PER_USER, Bound.RUNNING_PER_USER)

    @property
    def is_of_running(self) -> bool:
        """Whether suspending one makes room; else one must end."""
        return self in (Bound.RUNNING_PER_USER, Bound.RUNNING_TOTAL)


@dataclass(frozen=True)
class Place:
    """Whether one more is allowed; the limit that is met if not."""

    decision: Decision
    bound: Bound | None = None


def decide_place(taken: PlacesTaken, limits: Lifecycle, is_live: bool = False) -> Place:
    """Decide on one more sandbox that runs; the user's own limits come first. 0 is no limit.

    Parameters
    ----------
    taken : PlacesTaken
        By all other conversations.
    is_live : bool
        It is suspended: it has its live place already.
    """
    for bound, used, most in (
        (Bound.LIVE_PER_USER, taken.live_of_user, limits.live_per_user),
        (Bound.RUNNING_PER_USER, taken.running_of_user, limits.running_per_user),
        (Bound.LIVE_TOTAL, taken.live, limits.live_total),
        (Bound.RUNNING_TOTAL, taken.running, limits.running_total),
    ):
        if most and used >= most and (bound.is_of_running or not is_live):
            return Place(Decision(False, _reason(bound, most)), bound)
    return Place(ALLOWED)


def decide_wait(waiting: Sequence[str], owner: str, most: int) -> Decision:
    """Decide whether one more call may wait for a place.

    Parameters
    ----------
    waiting : sequence of str
        The owners of those that wait.
    most : int
        So many may wait; a single user a quarter of them, at least one.
    """
    if len(waiting) >= most:
        return Decision(False, f"{most} calls wait for one already")
    mine = max(1, most // _PART_OF_QUEUE)
    if waiting.count(owner) >= mine:
        return Decision(False, f"{mine} calls of this user wait for one already")
    return ALLOWED


def fair_order(waiting: Sequence[str], running: Mapping[str, int]) -> list[int]:
    """Give the positions of those that wait in the order in which they get places.

    Whose user would have the fewest running sandboxes with it comes first; of equals, who came
    first. So calls of one user are served as they came, and many of one user do not hold up
    another's first.

    Parameters
    ----------
    waiting : sequence of str
        The owners of those that wait, in the order in which they came.
    running : mapping
        How many sandboxes of each owner run.
    """
    before: Counter[str] = Counter()
    shares = []
    for owner in waiting:
        shares.append(running.get(owner, 0) + before[owner])
        before[owner] += 1
    return sorted(range(len(waiting)), key=lambda position: (shares[position], position))


def _reason(bound: Bound, most: int) -> str:
    kind = "running sandboxes" if bound.is_of_running else "sandboxes"
    whose = "this user may have" if bound.is_of_user else "this server may have"
    return f"{whose} {most} {kind} at once"
