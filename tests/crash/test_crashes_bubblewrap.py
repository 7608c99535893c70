"""The server is killed at every step of the lifecycle, on bubblewrap: nothing is lost, nothing is left."""

from __future__ import annotations

import pytest

from .actions import ACTIONS
from .crashing import Crashes, cases
from .points import POINTS, Point

ENGINE = "bubblewrap"


@pytest.fixture(scope="module")
def crashes():
    crashes = Crashes(ENGINE)
    yield crashes
    crashes.close()


@pytest.mark.slow
@pytest.mark.bubblewrap
@pytest.mark.parametrize("point", list(cases(ENGINE)))
def test_a_kill_loses_nothing_and_leaves_nothing(crashes: Crashes, point: Point):
    print(crashes.kill_at(point))


def test_each_action_leads_somewhere_and_there_are_enough_points():
    assert {point.action for point in POINTS} == set(ACTIONS)
    assert len({point.name for point in POINTS}) == len(POINTS)
    assert sum(len(point.engines) for point in POINTS) >= 50
