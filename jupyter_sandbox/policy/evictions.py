"""Which sandbox makes room for another one, or gives its memory back when the host's runs short.

Pure: what is known of each comes with the question, and so does the time. The rules: one that is in
use stays; the least recently used goes first; suspending loses nothing and is done readily, ending
one costs its workspace.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from .memory import Level
from .places import Bound

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
    """

    conversation_id: str
    owner: str
    is_running: bool
    used_at: datetime
    in_use: bool = False


@dataclass(frozen=True)
class Move:
    """What to do to which sandbox, if nobody has used it since."""

    kind: MoveKind
    conversation_id: str
    unused_since: datetime


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
        The owner who needs a place. When the limit is that of all, others give only if they have
        more sandboxes than the requester, those with the most first.
    end_after : timedelta
        Only a sandbox that was not used for so long is ended.
    """
    counted = [each for each in candidates if each.is_running or not bound.is_of_running]
    share = Counter(each.owner for each in counted)
    idle_for = LEAST_IDLE if bound.is_of_running else max(end_after, LEAST_IDLE)
    free = [
        each
        for each in counted
        if _is_idle(each, now, idle_for)
        and (
            each.owner == requester
            or (not bound.is_of_user and share[each.owner] > share[requester])
        )
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
    and then the idle ones that run.
    """
    if level is Level.ENOUGH:
        return []
    idle = sorted(
        (each for each in candidates if _is_idle(each, now, LEAST_IDLE)),
        key=lambda each: each.used_at,
    )
    suspended = [each for each in idle if not each.is_running]
    running = [each for each in idle if each.is_running]
    if level is Level.CRITICAL:
        return [_end(each) for each in (*suspended, *running)]
    rest = [Move(MoveKind.SUSPEND, each.conversation_id, each.used_at) for each in running]
    return rest + [_end(each) for each in suspended if _is_idle(each, now, end_after)]


def _is_idle(candidate: Candidate, now: datetime, least: timedelta) -> bool:
    return not candidate.in_use and now - candidate.used_at >= least


def _end(candidate: Candidate) -> Move:
    return Move(MoveKind.TERMINATE, candidate.conversation_id, candidate.used_at)
