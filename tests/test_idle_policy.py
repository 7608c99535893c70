"""When a sandbox is suspended and ended: both sides of every border."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from traitlets import TraitError
from traitlets.config import Config

from jupyter_sandbox.models import ConversationRecord, IdleTimes, Lifecycle
from jupyter_sandbox.policy.idle import (
    BUSY_CPU_SHARE,
    Move,
    cap_keep_awake,
    choose_times,
    correct_times,
    decide_idle,
    in_words,
    is_busy,
    suspends_at,
    terminates_at,
)
from jupyter_sandbox.settings import SandboxLifecycle

USED = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY = 86400.0
USUAL = Lifecycle(900.0, 30 * DAY, 7200.0, DAY)


def after(seconds: float) -> datetime:
    return USED + timedelta(seconds=seconds)


def record(state: str = "running", **fields) -> ConversationRecord:
    return ConversationRecord("c", "o", "", None, state, USED, USED, sandbox_id="5" * 24, **fields)


@pytest.mark.parametrize(
    ("seconds", "state", "in_use", "fields", "expected"),
    [
        (899, "running", False, {}, Move.STAY),
        (900, "running", False, {}, Move.SUSPEND),
        (900, "running", True, {}, Move.STAY),
        (900, "suspended", False, {}, Move.STAY),
        (30 * DAY - 1, "suspended", False, {}, Move.STAY),
        (30 * DAY, "suspended", False, {}, Move.TERMINATE),
        (30 * DAY, "suspended", True, {}, Move.STAY),
        (30 * DAY, "running", False, {}, Move.TERMINATE),
        *((40 * DAY, state, False, {}, Move.STAY) for state in ("absent", "starting", "error")),
        (40 * DAY, "terminated", False, {}, Move.STAY),
        # a background job that is at work
        (900, "running", False, {"busy_at": after(100)}, Move.STAY),
        (999, "running", False, {"busy_at": after(100)}, Move.STAY),
        (1000, "running", False, {"busy_at": after(100)}, Move.SUSPEND),
        (8099, "running", False, {"busy_at": after(8090)}, Move.STAY),
        (8100, "running", False, {"busy_at": after(8090)}, Move.SUSPEND),
        (900, "running", False, {"busy_at": after(-100)}, Move.SUSPEND),
        # kept awake
        (950, "running", False, {"keep_awake_until": after(1000)}, Move.STAY),
        (1000, "running", False, {"keep_awake_until": after(1000)}, Move.SUSPEND),
        (30 * DAY, "suspended", False, {"keep_awake_until": after(31 * DAY)}, Move.STAY),
        (899, "running", False, {"keep_awake_until": after(10)}, Move.STAY),
        # a clock that was set back
        (-10 * DAY, "running", False, {}, Move.STAY),
    ],
)
def test_what_becomes_of_a_sandbox(seconds, state, in_use, fields, expected):
    decision = decide_idle(after(seconds), record(state, **fields), USUAL, in_use=in_use)
    assert decision.move is expected, decision


@pytest.mark.parametrize(
    ("seconds", "fields", "reason"),
    [
        (900, {}, "it had not been used for 15 minutes"),
        (30 * DAY, {}, "it had not been used for 30 days"),
        (8100, {"busy_at": after(8090)}, "nothing but background work had used it for 2 hours 15"),
    ],
)
def test_the_reason_is_half_a_sentence(seconds, fields, reason):
    decision = decide_idle(after(seconds), record(**fields), USUAL, in_use=False)
    assert decision.reason.startswith(reason)


@pytest.mark.parametrize("state", ["running", "suspended"])
def test_never_is_never(state):
    never = Lifecycle(0, 0)
    decision = decide_idle(after(4000 * DAY), record(state), never, in_use=False)
    assert decision.move is Move.STAY
    assert suspends_at(record(state), never) is None
    assert terminates_at(record(state), never) is None


@pytest.mark.parametrize("most", [0, 60])
def test_a_job_counts_no_longer_than_it_may(most):
    lifecycle = Lifecycle(900, 30 * DAY, most)
    assert suspends_at(record(busy_at=after(5000)), lifecycle) == after(900 + most)


def test_the_times_in_a_model_are_those_of_the_decision():
    assert suspends_at(record(), USUAL) == after(900)
    assert suspends_at(record("suspended"), USUAL) is None
    assert terminates_at(record("suspended"), USUAL) == after(30 * DAY)
    assert suspends_at(record(keep_awake_until=after(5000)), USUAL) == after(5000)


GROUPS = {
    "short": IdleTimes(60, DAY),
    "long": IdleTimes(3600, 2 * DAY),
    "never": IdleTimes(0, 0),
}


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ((), None),
        (("unknown",), None),
        (("short",), IdleTimes(60, DAY)),
        (("short", "long"), IdleTimes(3600, 2 * DAY)),
        (("long", "never", "short"), IdleTimes(0, 0)),
    ],
)
def test_of_several_groups_the_longest_time_wins(groups, expected):
    assert choose_times(groups, Lifecycle(group_times=GROUPS)) == expected


def test_what_was_stored_applies_while_there_are_group_times():
    stored = record(suspend_seconds=60.0, terminate_seconds=0.0)
    with_groups = Lifecycle(900, 30 * DAY, group_times=GROUPS)
    assert suspends_at(stored, with_groups) == after(60)
    assert terminates_at(stored, with_groups) is None
    assert suspends_at(stored, USUAL) == after(900)
    assert suspends_at(record(), with_groups) == after(900)


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        (None, None),
        (after(-1), None),
        (after(0), None),
        (after(1), after(1)),
        (after(DAY), after(DAY)),
        (after(DAY + 1), after(DAY)),
        (after(9000 * DAY), after(DAY)),
    ],
)
def test_keeping_awake_has_a_cap(until, expected):
    assert cap_keep_awake(until, USED, USUAL) == expected


def test_nobody_keeps_awake_where_that_is_off():
    assert cap_keep_awake(after(10), USED, Lifecycle(keep_awake_seconds=0)) is None


def test_times_that_have_not_come_yet_are_put_right():
    assert correct_times(after(-59), record(), USUAL) is None, "clocks differ a little"
    kept = record(keep_awake_until=after(DAY))
    assert correct_times(after(0), kept, USUAL) is None
    now = after(-10 * DAY)
    right = correct_times(now, record(busy_at=after(5), keep_awake_until=after(DAY)), USUAL)
    assert (right.used_at, right.busy_at) == (now, None)
    assert right.keep_awake_until == now + timedelta(days=1)
    assert correct_times(now, right, USUAL) is None


@pytest.mark.parametrize(
    ("cpu_seconds", "elapsed", "expected"),
    [
        (BUSY_CPU_SHARE * 20, 20, True),
        (BUSY_CPU_SHARE * 20 - 0.01, 20, False),
        (5, 0, False),
        (-1, 20, False),
    ],
)
def test_what_is_work(cpu_seconds, elapsed, expected):
    assert is_busy(cpu_seconds, elapsed) is expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (59.6, "1 minute"),
        (61, "1 minute 1 second"),
        (900, "15 minutes"),
        (3600, "1 hour"),
        (3660, "1 hour 1 minute"),
        (3601, "1 hour"),
        (90061, "1 day 1 hour"),
        (30 * DAY, "30 days"),
        (-5, "0 seconds"),
    ],
)
def test_lengths_of_time_in_words(seconds, expected):
    assert in_words(seconds) == expected


def test_settings_become_data():
    config = Config()
    config.SandboxLifecycle.suspend_seconds = 0
    config.SandboxLifecycle.group_times = {"staff": {"terminate_seconds": 3600}}
    lifecycle = SandboxLifecycle(config=config).to_lifecycle()
    assert (lifecycle.suspend_seconds, lifecycle.terminate_seconds) == (0, 30 * DAY)
    assert lifecycle.group_times == {"staff": IdleTimes(0, 3600)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"suspend_seconds": 59},
        {"terminate_seconds": -1},
        {"max_busy_seconds": -1},
        {"keep_awake_seconds": -1},
        {"group_times": {"g": {"suspend": 900}}},
        {"group_times": {"g": {"suspend_seconds": 1}}},
    ],
)
def test_a_wrong_setting_is_refused_at_the_start(wrong):
    with pytest.raises(TraitError):
        SandboxLifecycle(config=Config(SandboxLifecycle=wrong)).to_lifecycle()
