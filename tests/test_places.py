"""How many sandboxes there may be, who waits before whom, who makes room: both sides of borders."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from jupyter_sandbox.conversations import places as places_module
from jupyter_sandbox.conversations.places import Places
from jupyter_sandbox.errors import LimitExceeded, Unavailable
from jupyter_sandbox.models import Lifecycle, PlacesTaken
from jupyter_sandbox.policy.evictions import (
    LEAST_IDLE,
    Candidate,
    MoveKind,
    to_free_memory,
    to_make_room,
)
from jupyter_sandbox.policy.memory import Level, Memory, level_of
from jupyter_sandbox.policy.places import Bound, decide_place, decide_wait, fair_order
from jupyter_sandbox.sandbox.host_memory import read_memory
from jupyter_sandbox.stores import schema
from jupyter_sandbox.stores.database import Database
from jupyter_sandbox.stores.place_records import PlaceRecords, Taking
from tests.database_url import url_of
from tests.sealed_rows import calls_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Lifecycle(live_per_user=5, running_per_user=3, live_total=20, running_total=10)
LOG = logging.getLogger(__name__)


@pytest.mark.parametrize(
    ("taken", "is_live", "bound"),
    [
        (PlacesTaken(4, 2, 19, 9), False, None),
        (PlacesTaken(5, 2, 19, 9), False, Bound.LIVE_PER_USER),
        (PlacesTaken(5, 2, 19, 9), True, None),
        (PlacesTaken(4, 3, 19, 9), False, Bound.RUNNING_PER_USER),
        (PlacesTaken(4, 3, 19, 9), True, Bound.RUNNING_PER_USER),
        (PlacesTaken(4, 2, 20, 9), False, Bound.LIVE_TOTAL),
        (PlacesTaken(4, 2, 20, 9), True, None),
        (PlacesTaken(4, 2, 19, 10), False, Bound.RUNNING_TOTAL),
        (PlacesTaken(4, 2, 19, 10), True, Bound.RUNNING_TOTAL),
        (PlacesTaken(6, 4, 21, 11), False, Bound.LIVE_PER_USER),  # the user's own come first
        (PlacesTaken(4, 2, 21, 11), False, Bound.LIVE_TOTAL),
    ],
)
def test_a_place_is_there_up_to_each_limit_and_not_beyond(taken, is_live, bound):
    place = decide_place(taken, LIMITS, is_live)
    assert place.bound is bound
    assert bool(place.decision) is (bound is None)
    assert bool(place.decision.reason) is (bound is not None)


def test_a_limit_of_0_is_none():
    unlimited = Lifecycle(live_per_user=0, running_per_user=0, live_total=0, running_total=0)
    assert decide_place(PlacesTaken(9999, 9999, 9999, 9999), unlimited).decision


@pytest.mark.parametrize(
    ("waiting", "most", "allowed"),
    [
        ([], 1, True),
        (["b"], 1, False),
        ([], 0, False),
        (["a"] * 4, 20, True),
        (["a"] * 5, 20, False),  # a quarter
        (["b"] * 19, 20, True),
        (["b"] * 20, 20, False),
        (["b"], 2, True),
        (["a"], 3, False),
    ],
)
def test_a_user_may_take_a_quarter_of_the_queue(waiting, most, allowed):
    assert bool(decide_wait(waiting, "a", most)) is allowed


@pytest.mark.parametrize(
    ("waiting", "running", "order"),
    [
        ("aaa", {}, [0, 1, 2]),
        ("aaab", {}, [0, 3, 1, 2]),  # who came later does not wait for all of another user's
        ("aaab", {"b": 1}, [0, 1, 3, 2]),
        ("ab", {"a": 2}, [1, 0]),
        ("ab", {"a": 1, "b": 1}, [0, 1]),
        ("", {"a": 1}, []),
    ],
)
def test_who_waits_is_served_as_it_came_within_a_user_and_fairly_between_users(
    waiting, running, order
):
    assert fair_order(list(waiting), running) == order


def candidate(name: str, idle: float, *, runs: bool = True, used: bool = False) -> Candidate:
    """Give a candidate whose owner is the first letter of its name."""
    return Candidate(name, name[0], runs, NOW - timedelta(seconds=idle), used)


def names(moves, kind):
    assert all(move.kind is kind for move in moves)
    return [move.conversation_id for move in moves]


def rooms(candidates, bound, requester, end_after=600.0):
    return to_make_room(candidates, bound, requester, NOW, timedelta(seconds=end_after))


def test_for_a_running_place_of_a_user_the_least_recently_used_of_the_same_is_suspended():
    least = LEAST_IDLE.total_seconds()
    there = [
        candidate("a1", 100),
        candidate("a2", 300),
        candidate("a3", 900, used=True),
        candidate("a4", 1000, runs=False),
        candidate("a5", least),
        candidate("a6", least - 0.1),
        candidate("b1", 5000),
    ]
    moves = rooms(there, Bound.RUNNING_PER_USER, "a")
    assert names(moves, MoveKind.SUSPEND) == ["a2", "a1", "a5"]
    assert moves[0].unused_since == NOW - timedelta(seconds=300)


def test_for_a_live_place_only_what_was_not_used_for_long_is_ended():
    there = [
        candidate("a1", 600),
        candidate("a2", 599.9),
        candidate("a3", 700, runs=False),
        candidate("a4", 9000, runs=False, used=True),
        candidate("b1", 5000),
    ]
    assert names(rooms(there, Bound.LIVE_PER_USER, "a"), MoveKind.TERMINATE) == ["a3", "a1"]
    assert names(rooms(there, Bound.LIVE_PER_USER, "a", 0.0), MoveKind.TERMINATE) == [
        "a3",
        "a1",
        "a2",
    ]


def test_for_a_place_of_all_those_give_who_have_the_most_and_more_than_who_asks():
    there = [
        candidate("a1", 1000),
        candidate("b1", 700),
        candidate("b2", 800),
        candidate("c1", 9000),
        candidate("c2", 10, used=True),
        candidate("c3", 5000, runs=False),
    ]
    total = Bound.RUNNING_TOTAL
    assert names(rooms(there, total, "d"), MoveKind.SUSPEND) == ["c1", "b2", "b1", "a1"]
    assert names(rooms(there, total, "a"), MoveKind.SUSPEND) == ["c1", "b2", "b1", "a1"]
    # Who has two may only ask the own ones: nobody has more.
    assert names(rooms(there, total, "b"), MoveKind.SUSPEND) == ["b2", "b1"]
    # Suspended ones count among the live; who has a fair share of them may ask only the own ones.
    assert names(rooms(there, Bound.LIVE_TOTAL, "b"), MoveKind.TERMINATE) == ["b2", "b1"]
    assert names(rooms(there, Bound.LIVE_TOTAL, "a"), MoveKind.TERMINATE) == [
        "c1",
        "c3",
        "b2",
        "b1",
        "a1",
    ]


def test_while_memory_is_short_idle_ones_are_suspended_and_then_old_ones_ended():
    there = [
        candidate("a1", 700),
        candidate("a2", 300, runs=False),
        candidate("a3", 800, runs=False),
        candidate("a4", 50),
        candidate("a5", 900, used=True),
        candidate("a6", 1),
    ]
    after = timedelta(seconds=600)
    assert to_free_memory(there, Level.ENOUGH, NOW, after) == []
    short = to_free_memory(there, Level.SHORT, NOW, after)
    assert [(move.kind, move.conversation_id) for move in short] == [
        ("suspend", "a1"),
        ("suspend", "a4"),
        ("terminate", "a3"),
    ]
    critical = to_free_memory(there, Level.CRITICAL, NOW, after)
    assert names(critical, MoveKind.TERMINATE) == ["a3", "a2", "a1", "a4"]


GIB = 1024**3


@pytest.mark.parametrize(
    ("memory", "low", "stalled", "level"),
    [
        (Memory(100 * GIB, 5 * GIB), 0, 0, Level.ENOUGH),
        (Memory(100 * GIB, 5 * GIB - 1), 0, 0, Level.SHORT),
        (Memory(100 * GIB, 5 * GIB // 2), 0, 0, Level.SHORT),
        (Memory(100 * GIB, 5 * GIB // 2 - 1), 0, 0, Level.CRITICAL),
        (Memory(4 * GIB, GIB // 2), 0, 0, Level.ENOUGH),
        (Memory(4 * GIB, GIB // 2 - 1), 0, 0, Level.SHORT),
        (Memory(4 * GIB, GIB // 4 - 1), 0, 0, Level.CRITICAL),
        (Memory(4 * GIB, 2 * GIB), 2 * GIB, 0, Level.ENOUGH),
        (Memory(4 * GIB, 2 * GIB - 1), 2 * GIB, 0, Level.SHORT),
        (Memory(4 * GIB, 2 * GIB, 20.0), 0, 20.0, Level.ENOUGH),
        (Memory(4 * GIB, 2 * GIB, 20.1), 0, 20.0, Level.SHORT),
        (Memory(4 * GIB, 2 * GIB, 99.0), 0, 0, Level.ENOUGH),
        (Memory(4 * GIB, 2 * GIB, None), 0, 20.0, Level.ENOUGH),
        (Memory(4 * GIB, 0, 0.0), 0, 20.0, Level.CRITICAL),
    ],
)
def test_memory_is_short_below_the_limit_and_critical_below_its_half(memory, low, stalled, level):
    assert level_of(memory, low, stalled) is level


def test_the_memory_of_this_host_is_read_and_a_host_without_is_said(tmp_path):
    memory = read_memory()
    assert memory is not None
    assert 0 < memory.available_bytes <= memory.total_bytes
    assert read_memory(tmp_path) is None
    (tmp_path / "meminfo").write_text("MemTotal: 8 kB\nMemAvailable: 2 kB\nHugePages_Total: 0\n")
    assert read_memory(tmp_path) == Memory(8192, 2048, None)
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure" / "memory").write_text(
        "some avg10=9.00 avg60=0.00 avg300=0.00 total=1\n"
        "full avg10=3.25 avg60=0.00 avg300=0.00 total=1\n"
    )
    assert read_memory(tmp_path) == Memory(8192, 2048, 3.25)


# Taken in the database


@contextlib.asynccontextmanager
async def opened(tmp_path):
    database = Database(url_of(tmp_path / "sandbox.db"))
    await database.open()
    try:
        yield database, PlaceRecords(database.connections)
    finally:
        await database.close()


def running_at_most(most: int, of_user: int = 0):
    limits = Lifecycle(running_per_user=of_user, running_total=most, live_per_user=0, live_total=0)
    return lambda taken: bool(decide_place(taken, limits).decision)


async def made(database: Database, owner: str) -> str:
    return (await database.create_conversation(owner))[0].conversation_id


async def test_two_servers_never_take_the_last_place(tmp_path):
    async with opened(tmp_path) as (database, first), opened(tmp_path) as (_, second):
        ids = [await made(database, "alice") for _ in range(30)]
        taken = await asyncio.gather(
            *(
                (first, second)[n % 2].claim(id, f"s{n % 2}", 30.0, running_at_most(7))
                for n, id in enumerate(ids)
            )
        )
        assert taken.count(Taking.TAKEN) == 7
        assert taken.count(Taking.FULL) == 23
        assert (await first.taken("alice")).running == 7
        states = [(await database.conversation(id)).state for id in ids]
        assert states.count("starting") == 7
        assert states.count("absent") == 23


async def test_what_is_suspended_lives_and_runs_not_and_a_wake_takes_a_place(tmp_path):
    async with opened(tmp_path) as (database, records):
        a, b = await made(database, "alice"), await made(database, "alice")
        assert await records.claim(a, "s", 30.0, running_at_most(1)) is Taking.TAKEN
        assert await records.claim(a, "t", 30.0, running_at_most(0)) is Taking.MOVED
        assert await database.set_state(a, "starting", "suspended")
        assert await records.taken("alice") == PlacesTaken(1, 0, 1, 0)
        assert await records.taken("bob") == PlacesTaken(0, 0, 1, 0)
        assert await records.claim(b, "s", 30.0, running_at_most(1)) is Taking.TAKEN
        assert await records.wake(await database.conversation(a), running_at_most(1)) is Taking.FULL
        assert (await database.conversation(a)).state == "suspended"
        assert (
            await records.wake(await database.conversation(a), running_at_most(2)) is Taking.TAKEN
        )
        assert (
            await records.wake(await database.conversation(a), running_at_most(2)) is Taking.MOVED
        )
        assert await records.running_by_owner() == {"alice": 2}


async def test_a_user_s_places_are_not_those_of_another(tmp_path):
    async with opened(tmp_path) as (database, records):
        mine = [await made(database, "alice") for _ in range(3)]
        theirs = await made(database, "bob")
        allow = running_at_most(0, of_user=2)
        takings = [await records.claim(id, "s", 30.0, allow) for id in (*mine, theirs)]
        assert takings == [Taking.TAKEN, Taking.TAKEN, Taking.FULL, Taking.TAKEN]


async def test_one_whose_maker_died_takes_no_place_and_may_be_taken_over(tmp_path):
    async with opened(tmp_path) as (database, records):
        a, b = await made(database, "alice"), await made(database, "alice")
        assert await records.claim(a, "dead", -1.0, running_at_most(1)) is Taking.TAKEN
        assert await records.claim(b, "s", 30.0, running_at_most(1)) is Taking.TAKEN
        assert await records.claim(a, "s", 30.0, running_at_most(1)) is Taking.FULL
        assert await records.claim(a, "s", 30.0, running_at_most(2)) is Taking.TAKEN


async def test_a_call_that_runs_in_any_process_is_seen_unless_it_must_be_over(tmp_path):
    async with opened(tmp_path) as (database, records):
        a = await made(database, "alice")
        await database.set_state(a, "absent", "running")
        assert [each.has_call for each in await records.settled(600.0)] == [False]
        await calls_of(database).begin(a, "c1", "bash")
        assert [each.has_call for each in await records.settled(600.0)] == [True]
        assert [each.has_call for each in await records.settled(-1.0)] == [False]
        await calls_of(database).finish("c1", {})
        assert [each.has_call for each in await records.settled(600.0)] == [False]


async def test_what_is_kept_awake_and_what_is_busy_by_itself_is_seen(tmp_path):
    async with opened(tmp_path) as (database, records):
        a = await made(database, "alice")
        await database.set_state(a, "absent", "running")
        (before,) = await records.settled(600.0)
        assert not before.is_kept_awake
        later = before.used_at + timedelta(seconds=50)

        def set_columns(**values):
            statement = sa.update(schema.conversations).values(
                {name: schema.to_microseconds(at) for name, at in values.items()}
            )
            return database.connections.run(lambda connection: connection.execute(statement))

        await set_columns(keep_awake_until=datetime.now(UTC) + timedelta(seconds=60))
        await set_columns(busy_at=later)
        (after,) = await records.settled(600.0)
        assert after.is_kept_awake
        assert after.used_at == later
        await set_columns(keep_awake_until=datetime.now(UTC) - timedelta(seconds=1))
        assert not (await records.settled(600.0))[0].is_kept_awake


# Waited for

ONE = Lifecycle(
    running_per_user=0, running_total=1, live_per_user=0, live_total=0, place_wait_seconds=5.0
)


async def record_of(database, owner="alice"):
    return (await database.create_conversation(owner))[0]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(places_module, "_LOOK_SECONDS", 0.01)


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_who_waits_gets_the_place_that_is_given_back(tmp_path, quick):
    async with opened(tmp_path) as (database, records):
        places = Places(records, ONE, LOG)
        first, second = await record_of(database), await record_of(database)
        assert await places.claim(first, "s", 30.0)
        waiting = asyncio.ensure_future(places.claim(second, "s", 30.0))
        await until(lambda: places.waiting == 1)
        await database.set_state(first.conversation_id, "starting", "terminated")
        assert await waiting
        assert places.waiting == 0
        await places.close()


@pytest.mark.sqlite  # whose one thread serves one after the other
async def test_users_take_turns_and_calls_of_one_keep_their_order(tmp_path, quick, monkeypatch):
    async with opened(tmp_path) as (database, records):
        places = Places(records, ONE, LOG)
        holder = await record_of(database, "carol")
        assert await places.claim(holder, "s", 30.0)
        served: list[str] = []
        in_round = 0
        running_by_owner = records.running_by_owner

        async def begin_round():
            nonlocal in_round
            running = await running_by_owner()
            in_round = places.waiting
            return running

        async def make_room(bound, owner):
            """End the holder's sandbox once all four are in a round: not in the middle of one."""
            moved = (holder.conversation_id, "starting", "terminated")
            return in_round == 4 and await database.set_state(*moved)

        async def take(record, name):
            assert await places.claim(record, "s", 30.0)
            served.append(name)
            await database.set_state(record.conversation_id, "starting", "terminated")

        waiting = []
        for name in ("a1", "a2", "a3", "b1"):
            waiting.append(asyncio.ensure_future(take(await record_of(database, name[0]), name)))
            await until(lambda: places.waiting == len(waiting))
        monkeypatch.setattr(records, "running_by_owner", begin_round)
        places.make_room = make_room
        await asyncio.gather(*waiting)
        assert served == ["a1", "b1", "a2", "a3"]
        await places.close()


async def test_a_wait_is_bounded_and_its_refusal_says_what_to_do(tmp_path, quick):
    async with opened(tmp_path) as (database, records):
        places = Places(records, replace(ONE, place_wait_seconds=0.05), LOG)
        assert await places.claim(await record_of(database), "s", 30.0)
        with pytest.raises(LimitExceeded) as refused:
            await places.claim(await record_of(database), "s", 30.0)
        assert refused.value.status == 429
        assert refused.value.retry_after_seconds
        assert "this server may have 1 running sandboxes at once, and each is in use" in str(
            refused.value
        )
        assert "jupyter sandbox terminate" in str(refused.value)
        assert places.waiting == 0
        await places.close()


async def test_the_queue_is_bounded_and_without_a_wait_there_is_none(tmp_path, quick):
    async with opened(tmp_path) as (database, records):
        places = Places(records, replace(ONE, place_queue=1), LOG)
        assert await places.claim(await record_of(database), "s", 30.0)
        waiting = asyncio.ensure_future(places.claim(await record_of(database), "s", 30.0))
        await until(lambda: places.waiting == 1)
        with pytest.raises(LimitExceeded, match="1 calls wait for one already"):
            await places.claim(await record_of(database, "bob"), "s", 30.0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert places.waiting == 0
        none = Places(records, replace(ONE, place_wait_seconds=0.0), LOG)
        with pytest.raises(LimitExceeded):
            await none.claim(await record_of(database), "s", 30.0)
        await places.close()


async def test_who_waits_for_a_limit_of_one_user_holds_up_nobody_else(tmp_path, quick):
    async with opened(tmp_path) as (database, records):
        limits = Lifecycle(running_per_user=1, place_queue=1, place_wait_seconds=5.0)
        places = Places(records, limits, LOG)
        assert await places.claim(await record_of(database, "alice"), "s", 30.0)
        waiting = asyncio.ensure_future(places.claim(await record_of(database, "alice"), "s", 30.0))
        await until(lambda: places.waiting == 1)
        assert await places.claim(await record_of(database, "bob"), "s", 30.0)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])
        await places.close()


async def test_room_is_made_once_for_each_that_waits(tmp_path, quick):
    async with opened(tmp_path) as (database, records):
        places = Places(records, ONE, LOG)
        asked = []
        last = [await record_of(database)]

        async def make_room(bound, owner):
            asked.append((bound, owner))
            return await database.set_state(last.pop().conversation_id, "starting", "suspended")

        places.make_room = make_room
        assert await places.claim(last[0], "s", 30.0)
        for owner in ("a", "b", "c"):
            record = await record_of(database, owner)
            assert await places.claim(record, "s", 30.0)
            last.append(record)
        assert asked == [(Bound.RUNNING_TOTAL, owner) for owner in ("a", "b", "c")]
        await places.close()


async def test_while_memory_is_critical_nothing_starts_and_then_it_goes_on(tmp_path, quick):
    async with opened(tmp_path) as (database, records):
        places = Places(records, ONE, LOG)
        places.memory_level = lambda: Level.CRITICAL
        waiting = asyncio.ensure_future(places.claim(await record_of(database), "s", 30.0))
        await until(lambda: places.waiting == 1)
        places.memory_level = lambda: Level.SHORT
        assert await waiting
        places.memory_level = lambda: Level.CRITICAL
        hurried = Places(records, replace(ONE, place_wait_seconds=0.0), LOG)
        hurried.memory_level = places.memory_level
        with pytest.raises(Unavailable) as refused:
            await hurried.claim(await record_of(database), "s", 30.0)
        assert refused.value.status == 503
        assert refused.value.retry_after_seconds
        await places.close()
