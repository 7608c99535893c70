"""Attacks run on each engine; on gVisor in `make test` where its own kernel makes the difference."""

import pytest

from tests.conftest import BUBBLEWRAP, DOCKER, GVISOR, full


@pytest.fixture(scope="module", params=[DOCKER, BUBBLEWRAP, full(GVISOR)])
def engine_name(request) -> str:
    return request.param
