"""Packages from the real registries, installed inside through the way out, and used."""

from __future__ import annotations

import shutil

import pytest

from tests.attacks import attack
from tests.conftest import DOCKER, GVISOR, on_gvisor_too, text_of
from tests.packages import mirror_networks, registry_rules

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def mirrors() -> list[str]:
    """Networks of registries that this machine reaches at addresses that are not public."""
    return mirror_networks(registry_rules())


@pytest.fixture
def sandbox_config(mirrors):
    return {"SandboxEgress": {"allow_cidrs": mirrors, "presets": ["pypi", "npm", "debian"]}}


async def run(api, conversation: str, command: str) -> str:
    result = await api.call(conversation, "bash", command=command, timeout_seconds=120)
    text = text_of(result)
    assert result["exit_code"] == 0, text
    return text


@attack("T12")
@on_gvisor_too
async def test_pip_installs_a_package_that_can_be_imported(api):
    conversation = await api.conversation()
    await run(api, conversation, "pip install roman")
    shown = await run(api, conversation, "python3 -c 'import roman; print(roman.toRoman(1987))'")
    assert "MCMLXXXVII" in shown


async def test_a_cell_installs_a_package_and_imports_it(api):
    conversation = await api.conversation()
    result = await api.call(conversation, "python", code="%pip install roman", timeout_seconds=120)
    assert "Successfully installed roman" in text_of(result)
    result = await api.call(conversation, "python", code="import roman\nroman.toRoman(14)")
    assert "XIV" in text_of(result)


async def test_npm_installs_a_package_that_can_be_required(api, engine_name):
    if engine_name == "bubblewrap" and shutil.which("npm") is None:
        pytest.skip("a bubblewrap sandbox has the host's programs, and this host has no npm")
    conversation = await api.conversation()
    await run(api, conversation, "mkdir app && cd app && npm install left-pad")
    shown = await run(
        api, conversation, """node -e 'console.log(require("left-pad")("7", 3, "0"))'"""
    )
    assert "007" in shown


@pytest.mark.parametrize("engine_name", [DOCKER], indirect=True)
async def test_npm_installs_many_packages_at_once_without_a_pause(api):
    conversation = await api.conversation()
    shown = await run(api, conversation, "mkdir app && cd app && npm install express && echo done")
    assert "done\n" in shown
    code = "require('express')(); console.log(Object.keys(process.versions).length > 0)"
    assert "true" in await run(api, conversation, f'node -e "{code}"')


@pytest.mark.parametrize("engine_name", [DOCKER, GVISOR], indirect=True)
@attack("T12")
async def test_apt_installs_a_package_that_can_be_run(api):
    conversation = await api.conversation()
    await run(api, conversation, "apt-get update && apt-get install -y tree")
    assert "tree v" in await run(api, conversation, "tree --version")
