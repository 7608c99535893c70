"""The disk guard: who is measured when, who is stopped, and the host's floor."""

from __future__ import annotations

import asyncio
import logging
import weakref
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from jupyter_sandbox.engines.base import EngineSandbox, EngineState, EngineUsage, Resources
from jupyter_sandbox.errors import Unavailable
from jupyter_sandbox.sandbox import disk_guard
from jupyter_sandbox.sandbox.disk_guard import LOW, DiskGuard, Space, Watched, is_over
from jupyter_sandbox.sandbox.limit_hits import DiskState

GIB = 2**30
LIMITS = Resources(disk_bytes=10 * GIB, disk_entries=1000)
ROOMY = Space(1000 * GIB, 500 * GIB, 10**6)


class Engine:
    """Remembers what it is asked; sandboxes take what ``sizes`` says."""

    def __init__(self) -> None:
        self.sizes: dict[str, EngineUsage] = {}
        self.asked: list[str] = []
        self.done: list[tuple[str, str]] = []

    async def usage(self, sandbox_id: str, *, disk: bool = False) -> EngineUsage:
        self.asked.append(sandbox_id)
        return self.sizes[sandbox_id]

    async def pause(self, sandbox_id: str) -> None:
        self.done.append(("pause", sandbox_id))

    async def resume(self, sandbox_id: str) -> None:
        self.done.append(("resume", sandbox_id))

    def disk_paths(self):
        return ("/",)


class Attached:
    """A sandbox whose guest obeys, or does not answer."""

    def __init__(self, engine: Engine, name: str, obeys: bool = True) -> None:
        self.engine, self.name, self.obeys = engine, name, obeys
        self.gone, self.is_new = False, True
        self.limits = SimpleNamespace(disk=DiskState())

    async def end_processes(self) -> None:
        if not self.obeys:
            raise Unavailable("no answer")
        self.engine.done.append(("end_processes", self.name))


class World:
    """One engine, two sandboxes, a clock and a disk that tests turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine = Engine()
        self.space = ROOMY
        self.now = 1000.0
        self.held = [Attached(self.engine, name) for name in ("a", "b")]
        self.sandboxes = SimpleNamespace(
            engine=self.engine,
            settings=SimpleNamespace(resources=LIMITS),
            attached=weakref.WeakValueDictionary({each.name: each for each in self.held}),
            paused_because="",
            list=self.list,
            end=self.end,
        )
        for each in self.held:
            self.engine.sizes[each.name] = EngineUsage(GIB, 10)
        monkeypatch.setattr(disk_guard, "_spaces", lambda paths: [self.space])
        self.guard = DiskGuard(self.sandboxes, 0, logging.getLogger("test"), lambda: self.now)

    async def list(self):
        return [
            EngineSandbox(each.name, "s", EngineState.RUNNING, "", datetime.now(UTC))
            for each in self.held
        ]

    async def end(self, sandbox_id: str, why: str) -> None:
        self.engine.done.append(("end", sandbox_id))
        self.held = [each for each in self.held if each.name != sandbox_id]

    async def later(self, seconds: float, took: int = 0) -> None:
        self.now += seconds
        self.space = replace(self.space, free_bytes=self.space.free_bytes - took)
        await self.guard.look()


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


async def test_nothing_is_measured_while_nothing_is_written(world):
    await world.guard.look()
    for _ in range(20):
        await world.later(1)
    assert world.engine.asked == []
    await world.later(60)
    assert sorted(world.engine.asked) == ["a", "b"]  # one may write what another deletes


async def test_a_burst_is_measured_at_once_and_a_trickle_now_and_then(world):
    await world.guard.look()
    await world.later(1, 10 * 2**20)
    assert world.engine.asked == []
    await world.later(5, 0)
    assert sorted(world.engine.asked) == ["a", "b"]
    world.engine.asked.clear()
    await world.later(0.5, 5 * GIB)
    assert sorted(world.engine.asked) == ["a", "b"]


async def test_who_is_over_is_stopped_once_and_again_when_it_grows(world):
    await world.guard.look()
    world.engine.sizes["a"] = EngineUsage(10 * GIB + 1, 10)
    await world.later(1, 9 * GIB)
    assert world.engine.done == [("end_processes", "a")]
    assert world.held[0].limits.disk.stops == 1
    assert world.held[0].limits.disk.over is not None
    world.engine.sizes["a"] = EngineUsage(10 * GIB - 2**20 + 1, 10)
    world.engine.sizes["a"] = replace(world.engine.sizes["a"], disk_bytes=10 * GIB + 1)
    await world.later(2)  # deletes, or reads: it is left alone
    assert len(world.engine.done) == 1
    world.engine.sizes["a"] = EngineUsage(10 * GIB + 5 * 2**20, 10)
    await world.later(2)
    assert world.engine.done == [("end_processes", "a")] * 2
    world.engine.sizes["a"] = EngineUsage(GIB, 10)
    await world.later(2)
    assert world.held[0].limits.disk.over is None
    assert world.held[1].limits.disk.stops == 0


async def test_too_many_files_are_too_much_too(world):
    await world.guard.look()
    world.engine.sizes["b"] = EngineUsage(GIB, 1001)
    world.space = replace(world.space, free_entries=ROOMY.free_entries - 990)
    await world.later(1)
    assert world.engine.done == [("end_processes", "b")]


async def test_a_guest_that_does_not_obey_is_paused_and_in_the_end_removed(world):
    world.held[0].obeys = False
    await world.guard.look()
    world.engine.sizes["a"] = EngineUsage(11 * GIB, 10)
    await world.later(1, 9 * GIB)
    assert world.engine.done == [("pause", "a")]
    world.engine.sizes["a"] = EngineUsage(14 * GIB, 10)
    await world.later(2, 3 * GIB)
    assert world.engine.done[-1] == ("end", "a")


async def test_below_the_floor_all_stand_until_there_is_room(world):
    await world.guard.look()
    world.space = replace(ROOMY, free_bytes=49 * GIB)
    await world.guard.look()
    assert sorted(world.engine.done) == [("pause", "a"), ("pause", "b")]
    assert world.sandboxes.paused_because == LOW
    await world.later(10)
    assert len(world.engine.done) == 2
    world.space = ROOMY
    await world.guard.look()
    assert sorted(world.engine.done)[2:] == [("resume", "a"), ("resume", "b")]
    assert world.sandboxes.paused_because == ""


@pytest.mark.parametrize(
    ("total", "free", "floor", "below"),
    [
        (1000, 49, 0, True),
        (1000, 51, 0, False),
        (4, 0.9, 0, True),
        (4, 1.1, 0, False),
        (10, 1.9, 0, True),
        (10, 2.1, 0, False),
        (1000, 20, 10, False),
        (1000, 9, 10, True),
    ],
)
def test_the_floor_is_a_twentieth_at_least_2_gib_or_what_was_set(total, free, floor, below):
    space = Space(total * GIB, int(free * GIB), 10**6)
    assert space.is_below(floor * GIB) is below


def test_both_sides_of_each_limit():
    assert not is_over(EngineUsage(10 * GIB, 1000), LIMITS)
    assert is_over(EngineUsage(10 * GIB + 1, 0), LIMITS)
    assert is_over(EngineUsage(0, 1001), LIMITS)
    assert not is_over(EngineUsage(13 * GIB, 251_250), LIMITS, far=True)
    assert is_over(EngineUsage(14 * GIB, 0), LIMITS, far=True)
    assert is_over(EngineUsage(0, 251_251), LIMITS, far=True)


def test_a_measurement_that_takes_long_is_not_repeated_at_once():
    known = Watched(EngineUsage(9 * GIB, 0), ROOMY, measured_at=100, cost_seconds=1.0)
    less = replace(ROOMY, free_bytes=ROOMY.free_bytes - GIB)
    assert not known.is_due(less, LIMITS, 104.9)
    assert known.is_due(less, LIMITS, 105.1)


async def test_the_guard_ends_when_it_is_closed(world):
    world.guard.start()
    await asyncio.sleep(0)
    await world.guard.close()
    await world.guard.close()
