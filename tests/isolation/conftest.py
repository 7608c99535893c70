"""Attacks run on every engine: Docker with runc and with gVisor, bubblewrap."""

import pytest

from tests.conftest import ENGINES, GVISOR


@pytest.fixture(params=[*ENGINES, GVISOR])
def engine_name(request) -> str:
    return request.param
