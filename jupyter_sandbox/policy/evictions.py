"""Which sandbox makes room for another one, or gives its memory back when the host's runs short.

Pure: what is known of each comes with the question, and so does the time. The rules: who uses more
than a fair share gives first, and nobody gives for one who asks for more than that; of one owner
the least recently used goes first; one that is in use stays, but for an owner over the share while
memory is almost used up; suspending loses nothing and is done readily, ending one costs its
workspace.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from .memory import Level
from .places import Bound

_OVER = 1.5
"""So many times a fair share (all memory in use, divided by its owners) is too much."""

LEAST_IDLE = timedelta(seconds=6)
"""Servers note uses every five seconds: one that was used later may be in use at another server."""


class MoveKind(enum.StrEnum):
    """What is done to a sandbox."""

    SUSPEND = "suspend"
    TERMINATE = "terminate"


@dataclass(frozen=True)
class Candidate:
    """A sandbox that runs or is suspended.

    Attributes
    ----------
    used_at : datetime
        When it was used last, as far as the database knows.
    in_use : bool
        A call or a cell runs in it, or somebody wants it kept awake.
    memory_bytes : int
        What it takes of the host's memory, its uploads included. 1: not known or not asked for,
        so that sandboxes are counted.
    """

    conversation_id: str
    owner: str
    is_running: bool
    used_at: datetime
    in_use: bool = False
    memory_bytes: int = 1


@dataclass(frozen=True)
class Move:
    """What to do to which sandbox, if nobody has used it since; None: also if it is in use."""

    kind: MoveKind
    conversation_id: str
    unused_since: datetime | None


def to_make_room(
    candidates: Sequence[Candidate],
    bound: Bound,
    requester: str,
    now: datetime,
    end_after: timedelta,
) -> list[Move]:
    """Give the moves that would make one place, the best first.

    Parameters
    ----------
    candidates : sequence of Candidate
        All that live.
    bound : Bound
        The limit that is met.
    requester : str
        The owner who needs a place. When the limit is that of all, others give only if the
        requester would have no more than a fair share (all sandboxes divided by their owners), and
        only those who have more than the requester, those with the most first.
    end_after : timedelta
        Only a sandbox that was not used for so long is ended.
    """
    counted = [each for each in candidates if each.is_running or not bound.is_of_running]
    share = Counter(each.owner for each in counted)
    fair = -(-len(counted) // len({*share, requester}))
    may_ask_others = not bound.is_of_user and share[requester] < fair
    idle_for = LEAST_IDLE if bound.is_of_running else max(end_after, LEAST_IDLE)
    free = [
        each
        for each in counted
        if _is_idle(each, now, idle_for)
        and (each.owner == requester or (may_ask_others and share[each.owner] > share[requester]))
    ]
    if bound.is_of_user:
        free.sort(key=lambda each: each.used_at)
    else:
        free.sort(key=lambda each: (-share[each.owner], each.used_at))
    kind = MoveKind.SUSPEND if bound.is_of_running else MoveKind.TERMINATE
    return [Move(kind, each.conversation_id, each.used_at) for each in free]


def to_free_memory(
    candidates: Sequence[Candidate], level: Level, now: datetime, end_after: timedelta
) -> list[Move]:
    """Give the moves that help when memory is short, the best first; the caller measures between.

    While it is short, what runs idle is suspended, so that it takes no more; then those that were
    not used for ``end_after`` are ended. While it is critical, suspended ones are ended at once,
    then the idle ones that run. Owners who use too much come first, who uses the most before all
    others; while there are any, sandboxes of others are ended only when memory is critical and
    none of theirs is left, not even one in use.
    """
    if level is Level.ENOUGH:
        return []
    used: Counter[str] = Counter()
    for each in candidates:
        used[each.owner] += each.memory_bytes
    too_much = _OVER * used.total() / max(1, len(used))
    over = {owner for owner, size in used.items() if size > too_much}

    def order(each: Candidate) -> tuple[int, datetime]:
        return (-used[each.owner] if each.owner in over else 0, each.used_at)

    there = sorted(candidates, key=order)
    idle = [each for each in there if _is_idle(each, now, LEAST_IDLE)]
    if level is Level.CRITICAL:
        ends = sorted(idle, key=lambda each: (each.owner not in over, each.is_running))
        theirs = [each for each in ends if each.owner in over]
        in_use = [each for each in there if each.owner in over and each not in idle]
        forced = [Move(MoveKind.TERMINATE, each.conversation_id, None) for each in in_use]
        rest = [each for each in ends if each.owner not in over]
        return [*map(_end, theirs), *forced, *map(_end, rest)]
    suspends = [
        Move(MoveKind.SUSPEND, each.conversation_id, each.used_at)
        for each in idle
        if each.is_running
    ]
    old = [each for each in idle if not each.is_running and _is_idle(each, now, end_after)]
    return suspends + [_end(each) for each in old if not over or each.owner in over]


def _is_idle(candidate: Candidate, now: datetime, least: timedelta) -> bool:
    return not candidate.in_use and now - candidate.used_at >= least


def _end(candidate: Candidate) -> Move:
    return Move(MoveKind.TERMINATE, candidate.conversation_id, candidate.used_at)
