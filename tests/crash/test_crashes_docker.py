"""The server is killed at every step of the lifecycle, on docker: nothing is lost, nothing is left."""

from __future__ import annotations

import pytest

from .crashing import Crashes, cases
from .points import Point

ENGINE = "docker"


@pytest.fixture(scope="module")
def crashes():
    crashes = Crashes(ENGINE)
    yield crashes
    crashes.close()


@pytest.mark.slow
@pytest.mark.docker
@pytest.mark.parametrize("point", list(cases(ENGINE)))
def test_a_kill_loses_nothing_and_leaves_nothing(crashes: Crashes, point: Point):
    print(crashes.kill_at(point))
