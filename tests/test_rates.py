"""How often a user may call and make conversations: both sides of each border."""

from __future__ import annotations

import pytest

from jupyter_sandbox.conversations import rates as rates_module
from jupyter_sandbox.conversations.rates import Rates
from jupyter_sandbox.errors import LimitExceeded
from jupyter_sandbox.models import Limits
from jupyter_sandbox.policy.rates import Bucket, decide_rate


def test_the_worth_of_a_period_is_allowed_at_once_and_then_as_many_as_fill():
    bucket = None
    for _ in range(60):
        taken = decide_rate(bucket, 100.0, 60, 60.0)
        assert taken.decision
        bucket = taken.bucket
    refused = decide_rate(bucket, 100.0, 60, 60.0)
    assert not refused.decision
    assert refused.retry_after_seconds == 1
    assert not decide_rate(refused.bucket, 100.9, 60, 60.0).decision
    assert decide_rate(refused.bucket, 101.0, 60, 60.0).decision
    assert not decide_rate(
        decide_rate(refused.bucket, 101.0, 60, 60.0).bucket, 101.5, 60, 60.0
    ).decision


def test_the_wait_that_a_refusal_names_is_enough():
    for left, most, period in ((0.0, 1, 3600.0), (0.3, 7, 60.0), (0.99, 600, 3600.0)):
        refused = decide_rate(Bucket(left, 50.0), 50.0, most, period)
        assert not refused.decision
        later = 50.0 + refused.retry_after_seconds
        assert decide_rate(refused.bucket, later, most, period).decision


def test_nothing_is_saved_beyond_a_period_and_a_clock_that_stands_gives_nothing():
    assert decide_rate(Bucket(0.0, 0.0), 1e9, 5, 60.0).bucket.left == 4
    assert not decide_rate(Bucket(0.0, 100.0), 90.0, 5, 60.0).decision


def test_zero_is_no_limit():
    assert all(decide_rate(Bucket(0, 1.0), 1.0, 0, 60.0).decision for _ in range(1000))


def test_users_and_kinds_have_buckets_of_their_own_and_their_number_is_bounded(monkeypatch):
    monkeypatch.setattr(rates_module, "_MOST_BUCKETS", 3)
    now = 0.0
    rates = Rates(Limits(calls_per_minute=1, conversations_per_hour=1), lambda: now)
    rates.take_call("alice")
    rates.take_call("bob")
    rates.take_conversation("alice")
    for take in (rates.take_call, rates.take_conversation):
        with pytest.raises(LimitExceeded) as refused:
            take("alice")
        assert refused.value.status == 429
        assert refused.value.retry_after_seconds in (60, 3600)
    for number in range(20):
        rates.take_call(f"user {number}")
    assert len(rates._buckets) == 3
