"""One test of a kill: at a point, on an engine. The two files of tests take it from here.

Each kills a server at one point, starts it again on the same data, and looks: at what users were
told, and at the host. One installation is used again and again, as long as it is as it should be.
``make test`` takes a quarter of the points, another one for another commit; ``make test-all`` takes
all. ``JSBX_CRASH_ROUNDS=5`` does all of it five times, and everything on each engine.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from .actions import ACTIONS
from .points import POINTS, Point
from .scene import Scene
from .site import Launcher, ServerDied, Site
from .traces import left_behind, untrue

ROUNDS = int(os.environ.get("JSBX_CRASH_ROUNDS", "0"))
CLEAN_SECONDS = 20.0
_PARTS = 4
_FRESH = ("first_start", "first_call_of_all")  # actions that need an installation without a past
_BY_HAND = ("suspend", "wake", "terminate", "terminate_a_suspended_one", "stop")


class Crashes:
    """The kills on one engine."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._launcher = Launcher()
        self._scene: Scene | None = None

    def close(self) -> None:
        if self._scene is not None:
            self._scene.site.close()
        self._launcher.close()

    def kill_at(self, point: Point) -> str:
        """Kill a server at a point and check what follows; give the figures."""
        is_fresh = point.action in _FRESH
        scene = None if is_fresh else self._scene
        if scene is None:
            scene = Scene(Site(self._launcher, self._engine))
        site = scene.site
        try:
            if not site.pid and not is_fresh:
                site.start()
                site.wait_answers()
            _kill_at(point, scene)
            began = time.monotonic()
            site.start()
            site.wait_answers()
            answered = time.monotonic() - began
            if point.action in _BY_HAND:  # else a call comes at once, and puts it right
                _wait_until_nothing(untrue, site)
            next_call = scene.check()
            _wait_until_nothing(left_behind, site)
            clean = time.monotonic() - began
            scene.tidy()
        except BaseException:
            if not is_fresh:
                self._scene = None
            site.close()
            raise
        if is_fresh:
            site.close()
        else:
            self._scene = scene
        return f"answers after {answered:.1f} s, next call {next_call:.2f} s, clean {clean:.1f} s"


def _wait_until_nothing(look: Callable[[Site], list[str]], site: Site) -> None:
    deadline = time.monotonic() + CLEAN_SECONDS
    while found := look(site):
        assert time.monotonic() < deadline, "\n".join([*found, site.last_words()])
        time.sleep(0.1)


def cases(engine: str):
    """Give the parameters of an engine's test."""
    for turn in range(max(ROUNDS, 1)):
        for number, point in enumerate(POINTS):
            if engine in point.engines or (ROUNDS and ".engines." not in point.target):
                name = point.name + (f" ({turn + 1})" if turn else "")
                is_in_turn = number % _PARTS == _part()
                yield pytest.param(point, id=name, marks=[] if is_in_turn else pytest.mark.full)


@cache
def _part() -> int:
    """Give the part of the points for this commit: a run of the same commit has the same tests."""
    command = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    return int(done.stdout[:4] or "0", 16) % _PARTS


def _kill_at(point: Point, scene: Scene) -> None:
    """Let the server die at the point, on the way of its action."""
    site = scene.site
    steps = ACTIONS[point.action](scene)
    next(steps)
    site.died_at()
    site.arm(point.name)
    try:
        next(steps, None)
    except ServerDied:
        pass
    finally:
        site.arm("")
    ended = site.has_ended(10)
    hit = site.died_at()
    if not ended:
        site.kill()
    assert hit == point.name, f"the server did not come by here\n{site.last_words()}"
