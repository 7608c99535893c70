"""The engines under test, as one fixture: ``lab``."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_lab import Lab
from other_user_engine import OtherUserEngine

from jupyter_sandbox.engines.base import Engine
from jupyter_sandbox.engines.bubblewrap import BubblewrapEngine
from jupyter_sandbox.engines.docker import DockerEngine
from jupyter_sandbox.testing import FakeEngine
from tests.conftest import full


def _bubblewrap(root: Path) -> Engine:
    return BubblewrapEngine(state_dir=root / "state")


def _docker(root: Path) -> Engine:
    return DockerEngine()


def _gvisor(root: Path) -> Engine:
    return DockerEngine(oci_runtime="runsc")


def _fake(root: Path) -> Engine:
    return FakeEngine(root / "fake")


DOCKER = pytest.param(("docker", _docker), id="docker", marks=pytest.mark.docker)
GVISOR = pytest.param(("gvisor", _gvisor), id="gvisor", marks=pytest.mark.docker)
BUBBLEWRAP = pytest.param(
    ("bubblewrap", _bubblewrap), id="bubblewrap", marks=pytest.mark.bubblewrap
)
FAKE = pytest.param(("fake", _fake), id="fake")
ISOLATING = [DOCKER, GVISOR, BUBBLEWRAP]
if os.geteuid() == 0:  # otherwise "bubblewrap" is an ordinary user's already
    ISOLATING.append(
        pytest.param(
            ("bubblewrap-ordinary-user", OtherUserEngine),
            id="bubblewrap-ordinary-user",
            marks=pytest.mark.bubblewrap,
        )
    )
# A container's life is Docker's doing, whatever runtime is in it.
ALL = [full(each) if each is GVISOR else each for each in [*ISOLATING, FAKE]]


def _lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    loop = request.getfixturevalue("jp_asyncio_loop")
    lab = Lab(*request.param)
    yield lab
    loop.run_until_complete(lab.close())


lab = pytest.fixture(params=ALL)(_lab)
isolating_lab = pytest.fixture(params=ISOLATING)(_lab)
# Those whose system calls the host's kernel answers.
filtered_lab = pytest.fixture(params=[each for each in ISOLATING if each is not GVISOR])(_lab)
container_lab = pytest.fixture(params=[DOCKER, GVISOR])(_lab)
gvisor_lab = pytest.fixture(params=[GVISOR])(_lab)
bubblewrap_lab = pytest.fixture(params=[BUBBLEWRAP])(_lab)
# Those whose limits are control groups wherever the tests run as root, and of whose processes the
# host's kernel tells (of gVisor's end Docker mostly does not know that it was for memory).
grouped_lab = pytest.fixture(params=[DOCKER, BUBBLEWRAP])(_lab)
# All but the one in another process, to which a cancellation here does not reach.
local_lab = pytest.fixture(params=[DOCKER, full(GVISOR), BUBBLEWRAP, FAKE])(_lab)
