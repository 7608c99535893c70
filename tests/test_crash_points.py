"""The points at which the crash tests kill servers are in the product, also after it was changed."""

from __future__ import annotations

import pytest

from tests.crash.launcher import _owner_of
from tests.crash.points import POINTS


@pytest.mark.parametrize("target", sorted({point.target for point in POINTS}))
def test_a_point_names_something_that_there_is(target):
    owner, name = _owner_of(target)
    assert callable(getattr(owner, name))
