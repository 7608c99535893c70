"""Turns between owners: who is next, who is refused, what a cancelled one leaves."""

from __future__ import annotations

import asyncio
import re
import threading
from pathlib import Path

import pytest

from jupyter_sandbox import fair_turns
from jupyter_sandbox.errors import LimitExceeded, Unavailable
from jupyter_sandbox.fair_turns import NOBODY, FairTurns, Turns, acting_for, in_thread


def order_of(turns: Turns[str], asked: str) -> str:
    """Give the order in which items get turns, each after the end of the one before."""
    for at, owner in enumerate(asked):
        assert turns.ask(owner, f"{owner}{at}")
    order = []
    while (due := turns.due()) is not None:
        order.append(due[1])
        turns.end(due[0])
    return " ".join(order)


@pytest.mark.parametrize(
    ("asked", "order"),
    [
        ("aaa", "a0 a1 a2"),
        ("aaaab", "a0 b4 a1 a2 a3"),
        ("aaaabb", "a0 b4 a1 b5 a2 a3"),
        ("aabbcc", "a0 b2 c4 a1 b3 c5"),
        ("", ""),
    ],
)
def test_owners_take_turns_and_each_is_served_in_order(asked, order):
    assert order_of(Turns(1, 1, 10), asked) == order


@pytest.mark.parametrize(
    ("at_once", "of_owner", "asked", "begun"),
    [
        (2, 2, "aab", "a0 b2"),  # who has none comes before who has one
        (2, 2, "aa", "a0 a1"),  # alone an owner may have all
        (2, 1, "aa", "a0"),  # but for what is kept for others
        (2, 1, "aab", "a0 b2"),
        (2, 2, "aaabb", "a0 b3"),
        (3, 2, "aaab", "a0 b3 a1"),
        (0, 0, "a", ""),
    ],
)
def test_no_more_turns_are_given_than_there_are_and_than_one_owner_may_have(
    at_once, of_owner, asked, begun
):
    turns: Turns[str] = Turns(at_once, of_owner, 10)
    for at, owner in enumerate(asked):
        turns.ask(owner, f"{owner}{at}")
    given = []
    while (due := turns.due()) is not None:
        given.append(due[1])
    assert " ".join(given) == begun


def test_an_owner_with_too_many_waiting_is_refused_and_others_and_the_server_are_not():
    turns: Turns[int] = Turns(1, 1, 2)
    assert turns.ask("a", 0)
    assert turns.due() == ("a", 0)
    assert turns.ask("a", 1)
    assert turns.ask("a", 2)
    assert not turns.ask("a", 3)
    assert turns.ask("b", 4)
    assert all(turns.ask(NOBODY, number) for number in range(10, 20))
    assert turns.waiting == 13


def test_one_that_is_withdrawn_is_not_served_and_makes_room():
    turns: Turns[int] = Turns(1, 1, 1)
    turns.ask("a", 0)
    turns.due()
    turns.ask("a", 1)
    assert not turns.ask("a", 2)
    assert turns.withdraw("a", 1)
    assert not turns.withdraw("a", 1)
    assert turns.ask("a", 3)
    turns.end("a")
    assert turns.due() == ("a", 3)


async def test_a_neighbour_waits_for_one_piece_of_work_however_many_an_owner_asks_for():
    turns, gate, done = FairTurns("test", 1, waiting=100), threading.Event(), []

    def work(name: str) -> None:
        gate.wait(10)
        done.append(name)

    theirs = [asyncio.ensure_future(turns.run(work, f"a{n}", owner="a")) for n in range(50)]
    await asyncio.sleep(0)
    with acting_for("b"):
        mine = asyncio.ensure_future(turns.run(work, "b"))
    await asyncio.sleep(0)
    gate.set()
    await mine
    assert done.index("b") <= 1
    await asyncio.gather(*theirs)
    assert len(done) == 51
    turns.close()


async def test_who_is_cancelled_while_waiting_gives_up_the_place_and_never_runs():
    turns, ran = FairTurns("test", 1, waiting=5), []
    async with turns.turn("a"):
        waiting = [asyncio.ensure_future(turns.run(ran.append, n, owner="a")) for n in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(LimitExceeded, match="test: 5 of this user") as refused:
            await turns.run(ran.append, 9, owner="a")
        assert refused.value.status == 429
        assert refused.value.retry_after_seconds
        for each in waiting[:4]:
            each.cancel()
        await asyncio.wait(waiting[:4])
        assert turns.waiting == 1
    await waiting[4]
    assert ran == [4]
    turns.close()


async def test_work_that_runs_keeps_its_turn_until_its_end_when_its_caller_goes():
    turns, gate = FairTurns("test", 1, waiting=5), threading.Event()
    running = asyncio.ensure_future(turns.run(gate.wait, 10, owner="a"))
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    later = asyncio.ensure_future(turns.run(int, "7", owner="b"))
    await asyncio.sleep(0)
    assert turns.waiting == 1
    gate.set()
    assert await later == 7
    turns.close()


async def test_no_wait_is_longer_than_its_bound():
    turns = FairTurns("test", 1, waiting=5, wait_seconds=0.01)
    async with turns.turn("a"):
        with pytest.raises(LimitExceeded, match="no turn within"):
            async with turns.turn("b"):
                pytest.fail("it had no turn")
    async with turns.turn("b"):
        pass
    assert "running=0 waiting=0" in repr(turns)


async def test_a_turn_that_is_given_to_one_who_is_cancelled_goes_to_the_next():
    turns = FairTurns("test", 1, waiting=5)

    async def have() -> None:
        async with turns.turn("a"):
            await asyncio.sleep(0)

    first = asyncio.ensure_future(have())
    second, third = asyncio.ensure_future(have()), asyncio.ensure_future(have())
    await asyncio.sleep(0)
    await first  # the second has its turn now, and does not know it yet
    second.cancel()
    await asyncio.wait([second, third])
    assert not third.cancelled()
    assert "running=0 waiting=0" in repr(turns)


async def test_errors_of_the_work_are_the_callers_and_the_end_refuses_who_waits():
    turns = FairTurns("test", 1, waiting=5)
    with pytest.raises(ValueError, match="invalid literal"):
        await turns.run(int, "x")
    async with turns.turn("a"):
        waiting = asyncio.ensure_future(turns.run(int, "7", owner="a"))
        await asyncio.sleep(0)
        turns.close()
        with pytest.raises(Unavailable):
            await waiting
    with pytest.raises(Unavailable):
        await turns.run(int, "7")


async def test_users_work_never_takes_all_threads_from_a_neighbour():
    gate = threading.Event()
    theirs = [asyncio.ensure_future(in_thread(gate.wait, 10, owner="a")) for _ in range(50)]
    try:
        async with asyncio.timeout(5):
            assert await in_thread(int, "7", owner="b") == 7
    finally:
        gate.set()
        await asyncio.gather(*theirs)


# Where threads and semaphores are made beside fair turns, and why no user takes them from another.
ELSEWHERE = {
    "app/building.py": "at the start",
    "app/extension.py": "at the start",
    "client/asynchronous.py": "the client's process",
    "conversations/adopting.py": "the server's own work",
    "conversations/idling.py": "the server's own work",
    "conversations/memory_guard.py": "the server's own work",
    "conversations/placing.py": "a few short steps on files of a sandbox that starts",
    "conversations/reaping.py": "the server's own work",
    "conversations/sweeping.py": "the server's own work",
    "directories.py": "at the start",
    "engines/blocking.py": "starts and wakes of sandboxes, which have taken their turn",
    "fair_turns.py": "here they are",
    "previews/rendering.py": "at the end",
    "proxies/client_hosts.py": "at the start",
    "proxies/forward/listener.py": "connections of one sandbox",
    "proxies/forward/process.py": "the proxy's process, which bounds each sandbox",
    "proxies/forward/resolver.py": "the proxy's process, which bounds each sandbox",
    "routes/openapi/handler.py": "once",
    "routes/policy.py": "administrators",
    "sandbox/disk_guard.py": "the server's own work",
    "sandbox/sandboxes.py": "a few short steps on directories of a sandbox that starts or ends",
    "stores/audit_log.py": "the server's own work",
    "testing.py": "engines of tests",
    "tools/resuming.py": "the server's own work",
}


def test_threads_and_semaphores_are_shared_fairly_or_there_is_a_reason():
    made = re.compile(r"to_thread\(|run_in_executor\(|ThreadPoolExecutor\(|asyncio\.Semaphore\(")
    package = Path(fair_turns.__file__).parent
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if made.search(path.read_text(encoding="utf-8"))
    }
    assert found == set(ELSEWHERE)
