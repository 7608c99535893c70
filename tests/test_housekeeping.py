"""Leases, marks of living servers, and the chores that rest on them."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from jupyter_sandbox.conversations.housekeeping import Housekeeping
from jupyter_sandbox.errors import Unavailable
from jupyter_sandbox.stores.connections import Connections
from jupyter_sandbox.stores.leases import LONGEST_SECONDS, Leases
from jupyter_sandbox.stores.server_marks import ServerMarks
from tests.database_url import url_of
from tests.faults.table import fault

LOG = logging.getLogger(__name__)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Store:
    """A database file, as two servers open it."""

    def __init__(self, path) -> None:
        self.path, self.clock, self.opened = path, Clock(), []

    async def leases(self) -> Leases:
        connections = Connections(url_of(self.path))
        self.opened.append(connections)
        await connections.open()
        return Leases(connections, self.clock)

    async def close(self) -> None:
        for connections in self.opened:
            await connections.close()


async def test_a_lease_has_one_holder_until_it_lapses_or_is_given_back(short_dir):
    store = Store(short_dir / "db")
    one, two = await store.leases(), await store.leases()
    assert await one.take("x", "one", 10)
    assert not await two.take("x", "two", 10)
    store.clock.move(9)
    assert await one.take("x", "one", 10), "its holder goes on with it"
    store.clock.move(9.9)
    assert not await two.take("x", "two", 10)
    store.clock.move(0.2)
    assert await two.take("x", "two", 10), "it has lapsed"
    assert not await one.take("x", "one", 10)
    await one.release("x", "one")
    assert not await one.take("x", "one", 10), "it was not one's to give back"
    await two.release("x", "two")
    assert await one.take("x", "one", 10)
    assert await two.take("y", "two", 10), "another lease is another matter"
    await store.close()


async def test_of_twenty_who_take_a_lease_at_once_one_has_it(short_dir):
    store = Store(short_dir / "db")
    both = [await store.leases(), await store.leases()]
    taken = await asyncio.gather(*(both[i % 2].take("x", f"server {i}", 10) for i in range(20)))
    assert sum(taken) == 1
    await store.close()


@fault("clock-jumps")
async def test_a_clock_that_was_set_back_blocks_no_lease_for_ever(short_dir):
    store = Store(short_dir / "db")
    leases = await store.leases()
    assert await leases.take("x", "one", 60)
    store.clock.move(-2 * LONGEST_SECONDS)
    assert await leases.take("x", "two", 60)
    await store.close()


@pytest.mark.parametrize("seconds", [0, -1, LONGEST_SECONDS + 1])
async def test_a_lease_is_taken_for_a_bounded_time(short_dir, seconds):
    store = Store(short_dir / "db")
    leases = await store.leases()
    with pytest.raises(ValueError, match="lease"):
        await leases.take("x", "one", seconds)
    await store.close()


def test_a_server_lives_until_it_clears_its_mark(short_dir):
    one, two = ServerMarks(short_dir, "aa"), ServerMarks(short_dir, "bb")
    assert two.dead() == []
    one.set()
    one.set()
    assert two.is_alive("aa")
    assert one.is_alive("aa")
    assert not two.is_alive("cc")
    assert two.dead() == []
    one.clear()
    assert not two.is_alive("aa")
    assert two.dead() == [], "who stops leaves nothing"


def test_a_killed_server_is_dead_at_once(short_dir):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from jupyter_sandbox.stores.server_marks import ServerMarks\n"
        f"marks = ServerMarks(Path({str(short_dir)!r}), 'aa'); marks.set(); print('set', flush=True)\n"
        "time.sleep(60)"
    )
    marks = ServerMarks(short_dir, "bb")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"set\n"
        assert marks.is_alive("aa")
        marks.forget("aa")
        assert marks.is_alive("aa"), "a living one is not forgotten"
        other.send_signal(signal.SIGKILL)
        other.wait(10)
    assert not marks.is_alive("aa")
    assert marks.dead() == ["aa"]
    marks.forget("aa")
    assert marks.dead() == []


async def test_a_chore_is_done_by_one_server_and_by_the_other_when_that_stops(short_dir):
    store = Store(short_dir / "db")
    done: list[str] = []

    async def server(name: str) -> Housekeeping:
        async def work() -> None:
            done.append(name)

        marks = ServerMarks(short_dir, name)
        marks.set()
        keeping = Housekeeping(await store.leases(), marks, LOG)
        keeping.add("sweep", 5, work)
        return keeping

    one, two = await server("one"), await server("two")
    assert await one.run_now("sweep")
    assert not await two.run_now("sweep")
    assert await one.run_now("sweep")
    await one.close()
    assert await two.run_now("sweep")
    assert done == ["one", "one", "two"]
    await two.close()
    await store.close()


async def test_the_chore_of_a_server_that_died_is_done_by_another_at_once(short_dir):
    store = Store(short_dir / "db")
    marks = {name: ServerMarks(short_dir, name) for name in ("one", "two", "three")}
    done: list[str] = []

    async def server(name: str) -> Housekeeping:
        async def work() -> None:
            done.append(name)

        marks[name].set()
        keeping = Housekeeping(await store.leases(), marks[name], LOG)
        keeping.add("sweep", 300, work)
        return keeping

    one, two, three = [await server(name) for name in marks]
    assert await one.run_now("sweep")
    assert not await two.run_now("sweep")
    marks["one"].clear()  # it died: its lease has not lapsed
    taken = await asyncio.gather(two.run_now("sweep"), three.run_now("sweep"))
    assert sorted(taken) == [False, True], "one of those that are left does it"
    assert done[0] == "one"
    assert len(done) == 2
    for keeping in (two, three):
        await keeping.close()
    await store.close()


async def test_a_chore_of_each_server_needs_no_lease(short_dir):
    store = Store(short_dir / "db")
    done: list[int] = []

    async def work() -> None:
        done.append(1)

    for name in ("one", "two"):
        keeping = Housekeeping(await store.leases(), ServerMarks(short_dir, name), LOG)
        keeping.add("touch", 5, work, alone=False)
        assert await keeping.run_now("touch")
        await keeping.close()
    assert len(done) == 2
    await store.close()


@pytest.mark.parametrize("failure", [Unavailable("the engine is down"), RuntimeError("a mistake")])
async def test_a_chore_that_fails_is_done_again_and_disturbs_no_other(short_dir, failure, caplog):
    store = Store(short_dir / "db")
    rounds: list[str] = []
    thrice = asyncio.Event()

    async def broken() -> None:
        rounds.append("broken")
        if rounds.count("broken") >= 3:
            thrice.set()
        raise failure

    async def sound() -> None:
        rounds.append("sound")

    keeping = Housekeeping(await store.leases(), ServerMarks(short_dir, "one"), LOG)
    keeping.add("broken", 0.01, broken)
    keeping.start()
    keeping.start()
    keeping.add("sound", 0.01, sound)
    await asyncio.wait_for(thrice.wait(), 10)
    await keeping.close()
    await keeping.close()
    assert "sound" in rounds
    assert str(failure) in caplog.text
    await store.close()


async def test_a_round_that_takes_long_keeps_its_lease(short_dir, monkeypatch):
    monkeypatch.setattr("jupyter_sandbox.conversations.housekeeping._LEAST_LEASE_SECONDS", 0.2)
    store = Store(short_dir / "db")
    leases = await store.leases()
    leases._clock = lambda: datetime.now(UTC)
    other = Leases(leases._connections)
    release = asyncio.Event()
    keeping = Housekeeping(leases, ServerMarks(short_dir, "one"), LOG)
    keeping.add("long", 0.01, release.wait)  # type: ignore[arg-type]
    keeping.start()
    async with asyncio.timeout(10):
        while await other.take("chore:long", "two", 0.001):
            await asyncio.sleep(0.01)
    for _ in range(8):
        await asyncio.sleep(0.05)
        assert not await other.take("chore:long", "two", 1)
    release.set()
    await keeping.close()
    assert await other.take("chore:long", "two", 1)
    await store.close()
