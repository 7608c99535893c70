"""Fixtures: the engine of a test's server, its configuration, a client for its API."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from _pytest.mark.structures import ParameterSet
from tornado.httpclient import HTTPClientError

pytest_plugins = [
    "pytest_jupyter.jupyter_server",
    "tests.collected_attacks",
    "tests.jupyter_servers",
    "tests.taking_turns",
]

DOCKER = pytest.param("docker", marks=pytest.mark.docker)
GVISOR = pytest.param("gvisor", marks=pytest.mark.docker)
BUBBLEWRAP = pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)


def full(param: ParameterSet) -> ParameterSet:
    """Return the parameter for ``make test-all`` only."""
    return pytest.param(*param.values, id=param.id, marks=[*param.marks, pytest.mark.full])


# For a claim about what an engine does; any other is tested on one.
on_each_engine = pytest.mark.parametrize("engine_name", [DOCKER, BUBBLEWRAP], indirect=True)
# For an attack that gVisor's own kernel answers.
on_gvisor_too = pytest.mark.parametrize("engine_name", [DOCKER, BUBBLEWRAP, GVISOR], indirect=True)


@pytest.fixture(scope="module", params=[BUBBLEWRAP, full(DOCKER)])
def engine_name(request) -> str:
    """The engine of a test's server; of module scope, so that tests on one follow each other."""
    return request.param


@pytest.fixture
def sandbox_config() -> dict[str, Any]:
    """Further settings of the server; a test overrides it."""
    return {}


@pytest.fixture
def jp_server_config(engine_name, sandbox_config):
    """The configuration of the server; tests that want the same one share the server."""
    config = {
        "ServerApp": {"jpserver_extensions": {"jupyter_sandbox": True}},
        "SandboxApp": {
            "engine": "docker" if engine_name == "gvisor" else engine_name,
            "start_timeout_seconds": 30.0,
        },
        # Most tests run no Python code: its kernel costs as much as their sandbox.
        "SandboxLifecycle": {"python_kernel": "lazy"},
        # Finding the presets' hosts asks pip and npm: a second that most tests do without.
        "SandboxEgress": {"presets": []},
    }
    if engine_name == "gvisor":
        config["DockerEngine"] = {"oci_runtime": "runsc"}
    for section, values in sandbox_config.items():
        config.setdefault(section, {}).update(values)
    return config


class Api:
    """The REST API as an assistant uses it; errors come back as (status, body)."""

    def __init__(self, fetch) -> None:
        self._fetch = fetch
        self.base = ("sandbox", "api")

    async def raw(self, method: str, *parts: str, body: Any = None, **kwargs: Any):
        if body is not None and not isinstance(body, (str, bytes)):
            body = json.dumps(body)
        if method in ("POST", "PUT", "PATCH") and body is None:
            body = ""
        kwargs.setdefault("request_timeout", 120)
        *front, last = parts
        last, _, query = last.partition("?")
        kwargs["params"] = dict(parse_qsl(query))
        parts = (*front, last)
        try:
            return await self._fetch(*self.base, *parts, method=method, body=body, **kwargs)
        except HTTPClientError as exc:
            return exc.response

    async def json(self, method: str, *parts: str, body: Any = None, **kwargs: Any):
        response = await self.raw(method, *parts, body=body, **kwargs)
        return response.code, json.loads(response.body) if response.body else None

    async def conversation(self, **fields: Any) -> str:
        status, model = await self.json("POST", "conversations", body=fields)
        assert status in (200, 201), model
        return model["id"]

    async def call(self, conversation: str, tool: str, /, **arguments: Any) -> dict[str, Any]:
        status, result = await self.json(
            "POST", "conversations", conversation, "tools", tool, body=arguments
        )
        assert status == 200, result
        return result

    async def text(self, conversation: str, tool: str, /, **arguments: Any) -> str:
        return text_of(await self.call(conversation, tool, **arguments))

    async def bash(self, conversation: str, command: str, **arguments: Any) -> str:
        return await self.text(conversation, "bash", command=command, **arguments)


def text_of(result: dict[str, Any]) -> str:
    return "\n".join(p["text"] for p in result["content"] if p["type"] == "text")


@pytest.fixture
def api(jp_fetch) -> Api:
    """The API of a running server."""
    return Api(jp_fetch)


@pytest.fixture(scope="session", autouse=True)
def no_container_is_left():
    """What the tests make they remove; what was there before, or is in use, is somebody else's.

    A container of these tests that was left behind has lost its directory on the host with the
    test's short directory; one whose directory is there belongs to another run on this machine.
    """
    before = _containers()
    yield
    left = {name for name in _containers() - before if not _has_its_directory(name)}
    assert not left, f"containers were left behind: {left}"


def _containers() -> set[str]:
    if shutil.which("docker") is None:
        return set()
    return set(_docker("ps", "-aq", "--filter", "name=jsbx-").split())


def _has_its_directory(container: str) -> bool:
    sources = _docker("inspect", "-f", "{{range .Mounts}}{{println .Source}}{{end}}", container)
    return not sources or all(Path(source).exists() for source in sources.split())


def _docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=False, capture_output=True, text=True).stdout
