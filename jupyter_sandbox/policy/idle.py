"""When a sandbox that nobody uses is suspended and ended: pure decisions.

The rule: what counts as use keeps a sandbox as it is. A background job counts as use as long as it
keeps a processor at work, but no longer than ``max_busy_seconds`` after the last real use. Times
come from one clock, the database's; 0 seconds means never.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ..models import ConversationRecord, IdleTimes, Lifecycle

BUSY_CPU_SHARE = 0.05
"""Of one processor, on average between two looks. Measured: a sandbox with an idle Python kernel
takes 0.0005 to 0.001, with a shell loop that looks at a file once a second 0.002."""

_ROUND_SECONDS = 60.0  # a job that was at work so shortly ago is at work
_SLACK = timedelta(seconds=60)  # clocks of servers on one database may differ by as much


class Move(enum.StrEnum):
    """What becomes of a sandbox."""

    STAY = "stay"
    SUSPEND = "suspend"
    TERMINATE = "terminate"


@dataclass(frozen=True)
class IdleDecision:
    """The move, and why: a clause."""

    move: Move
    reason: str


def choose_times(groups: Collection[str], lifecycle: Lifecycle) -> IdleTimes | None:
    """Give what applies to a user of these groups; None: what applies to all.

    Of several groups the longest time wins, for each of the two.
    """
    found = [lifecycle.group_times[name] for name in groups if name in lifecycle.group_times]
    if not found:
        return None
    return IdleTimes(
        _longest([each.suspend_seconds for each in found]),
        _longest([each.terminate_seconds for each in found]),
    )


def times_of(record: ConversationRecord, lifecycle: Lifecycle) -> IdleTimes:
    """Give what applies to a conversation: what was stored at its uses, else what applies to all.

    Settings without group times let what an earlier configuration had stored rest.
    """
    stored = (record.suspend_seconds, record.terminate_seconds)
    if not lifecycle.group_times or None in stored:
        return IdleTimes(lifecycle.suspend_seconds, lifecycle.terminate_seconds)
    return IdleTimes(stored[0] or 0.0, stored[1] or 0.0)


def last_use(record: ConversationRecord, lifecycle: Lifecycle) -> datetime:
    """Give when it was used last, with what a background job counts for."""
    if record.busy_at is None or record.busy_at <= record.used_at:
        return record.used_at
    latest = record.used_at + timedelta(seconds=lifecycle.max_busy_seconds)
    return max(record.used_at, min(record.busy_at, latest))


def suspends_at(record: ConversationRecord, lifecycle: Lifecycle) -> datetime | None:
    """Give when it is suspended if nothing uses it; None: never, or it does not run."""
    if record.state != "running":
        return None
    return _due(record, lifecycle, times_of(record, lifecycle).suspend_seconds)


def terminates_at(record: ConversationRecord, lifecycle: Lifecycle) -> datetime | None:
    """Give when it is ended if nothing uses it; None: never, or there is nothing to end."""
    if record.state not in ("running", "suspended"):
        return None
    return _due(record, lifecycle, times_of(record, lifecycle).terminate_seconds)


def decide_idle(
    now: datetime, record: ConversationRecord, lifecycle: Lifecycle, *, in_use: bool
) -> IdleDecision:
    """Decide on one sandbox.

    Parameters
    ----------
    in_use : bool
        A call, a command or a cell is in flight, on whichever server.
    """
    ends, rests = terminates_at(record, lifecycle), suspends_at(record, lifecycle)
    if in_use:
        return IdleDecision(Move.STAY, "it is in use")
    if ends is None and rests is None:
        return IdleDecision(Move.STAY, "there is nothing to do")
    times = times_of(record, lifecycle)
    if ends is not None and ends <= now:
        return IdleDecision(
            Move.TERMINATE, f"it had not been used for {in_words(times.terminate_seconds)}"
        )
    if rests is None or rests > now:
        return IdleDecision(Move.STAY, "its time has not come")
    if record.busy_at is not None and (now - record.busy_at).total_seconds() < _ROUND_SECONDS:
        seconds = (now - record.used_at).total_seconds()
        return IdleDecision(
            Move.SUSPEND, f"nothing but background work had used it for {in_words(seconds)}"
        )
    return IdleDecision(Move.SUSPEND, f"it had not been used for {in_words(times.suspend_seconds)}")


def cap_keep_awake(until: datetime | None, now: datetime, lifecycle: Lifecycle) -> datetime | None:
    """Give until when it may be kept awake at most; None: a time that is over, or not at all."""
    if until is None:
        return None
    capped = min(until, now + timedelta(seconds=lifecycle.keep_awake_seconds))
    return capped if capped > now else None


def correct_times(
    now: datetime, record: ConversationRecord, lifecycle: Lifecycle
) -> ConversationRecord | None:
    """Give the record with its times put right if the clock was set back since; None: all is well.

    So that a time that has not come yet keeps nothing for longer than one that has.
    """
    used_at, busy_at, until = record.used_at, record.busy_at, record.keep_awake_until
    if used_at > now + _SLACK:
        used_at = now
    if busy_at is not None and busy_at > now + _SLACK:
        busy_at = None
    if until is not None and until > now + timedelta(seconds=lifecycle.keep_awake_seconds) + _SLACK:
        until = cap_keep_awake(until, now, lifecycle)
    corrected = replace(record, used_at=used_at, busy_at=busy_at, keep_awake_until=until)
    return None if corrected == record else corrected


def is_busy(cpu_seconds: float, elapsed_seconds: float) -> bool:
    """Say whether so much processor time in so much time is work, and not an idle kernel's."""
    return elapsed_seconds > 0 and cpu_seconds / elapsed_seconds >= BUSY_CPU_SHARE


def in_words(seconds: float) -> str:
    """Give a length of time as people say it, in its two largest units."""
    rest, said = max(0, round(seconds)), []
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        count, rest = divmod(rest, length)
        if count:
            said.append(f"{count} {name}{'' if count == 1 else 's'}")
        elif said:
            break
    return " ".join(said[:2]) or "0 seconds"


def _due(record: ConversationRecord, lifecycle: Lifecycle, seconds: float) -> datetime | None:
    if not seconds:
        return None
    due = last_use(record, lifecycle) + timedelta(seconds=seconds)
    return due if record.keep_awake_until is None else max(due, record.keep_awake_until)


def _longest(seconds: list[float]) -> float:
    return 0.0 if 0 in seconds else max(seconds)
