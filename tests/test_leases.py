"""Leases of previews: what lets in, for how long, how many."""

from __future__ import annotations

import pytest

from jupyter_sandbox.errors import NotFound
from jupyter_sandbox.previews.leases import IDLE_SECONDS, LIFE_SECONDS, Leases


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def leases(clock):
    return Leases(clock, most=6, most_of_owner=4)


def is_open(leases, token) -> bool:
    try:
        leases.find(token)
    except NotFound:
        return False
    return True


def test_a_token_has_32_random_bytes_and_is_kept_nowhere(leases):
    token, lease = leases.open("ann", "c1", "file")
    other, _ = leases.open("ann", "c1", "file")
    assert len(token) == 43
    assert token != other
    assert leases.find(token) is lease
    assert token not in repr(vars(leases)) + repr(vars(lease))
    for wrong in ("", token[:-1], token + "A", lease.lease_id, "\ud800"):
        assert not is_open(leases, wrong)


def test_it_lives_while_it_is_renewed_and_two_minutes_longer(leases, clock):
    token, lease = leases.open("ann", "c1", "file")
    for _ in range(5):
        clock.now += IDLE_SECONDS
        leases.renew("ann", lease.lease_id)
    clock.now += IDLE_SECONDS
    assert is_open(leases, token)
    clock.now += 0.1
    assert not is_open(leases, token)
    with pytest.raises(NotFound):
        leases.renew("ann", lease.lease_id)  # an ended one does not come back


def test_no_renewal_carries_it_over_its_longest_life(leases, clock):
    token, lease = leases.open("ann", "c1", "file")
    while clock.now < 1000 + LIFE_SECONDS:
        leases.renew("ann", lease.lease_id)
        clock.now += 110
    assert clock.now > 1000 + LIFE_SECONDS
    assert not is_open(leases, token)
    assert not leases.is_live(lease)


def test_only_its_owner_renews_it(leases):
    _, lease = leases.open("ann", "c1", "file")
    with pytest.raises(NotFound):
        leases.renew("bob", lease.lease_id)
    with pytest.raises(NotFound):
        leases.renew("ann", "0" * 32)


def test_a_deleted_conversation_ends_its_own_and_no_other(leases):
    mine = [leases.open("ann", "c1", n)[0] for n in range(2)]
    other, _ = leases.open("ann", "c2", "file")
    leases.end_conversation("c1")
    leases.end_conversation("c1")
    assert [is_open(leases, token) for token in (*mine, other)] == [False, False, True]


def test_beyond_the_bounds_the_one_that_was_renewed_longest_ago_ends(leases, clock):
    opened = []
    for n in range(4):
        clock.now += 1
        opened.append(leases.open("ann", "c1", n))
    leases.renew("ann", opened[0][1].lease_id)
    clock.now += 1
    fifth, _ = leases.open("ann", "c1", 5)
    assert [is_open(leases, token) for token, _ in opened] == [True, False, True, True]
    assert is_open(leases, fifth)
    # Of all owners together; ann's third was renewed longest ago.
    for n in range(3):
        clock.now += 1
        leases.open(f"owner {n}", "c3", n)
    assert [is_open(leases, token) for token, _ in opened] == [True, False, False, True]
    assert repr(leases) == "<Leases 6 of at most 6>"


def test_ended_ones_take_no_room(leases, clock):
    for n in range(4):
        leases.open("ann", "c1", n)
    clock.now += IDLE_SECONDS + 1
    leases.open("ann", "c1", "new")
    assert repr(leases) == "<Leases 1 of at most 6>"
