"""Fixtures: short directories, a real server on each engine, a client for its API."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from tornado.httpclient import HTTPClientError

from jupyter_sandbox.errors import Unavailable

pytest_plugins = ["pytest_jupyter.jupyter_server", "tests.taking_turns"]

ENGINES = [
    pytest.param("docker", marks=pytest.mark.docker),
    pytest.param("bubblewrap", marks=pytest.mark.bubblewrap),
]
GVISOR = pytest.param("gvisor", marks=pytest.mark.docker)
# gVisor is slower and mostly the same to a server: only attacks run on it.
on_gvisor_too = pytest.mark.parametrize("engine_name", [*ENGINES, GVISOR], indirect=True)


@pytest.fixture
def short_dir():
    """A directory whose path is short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="jsb", dir="/tmp"))
    yield path
    subprocess.run(["rm", "-rf", "--one-file-system", "--", str(path)], check=False)


@pytest.fixture(params=ENGINES)
def engine_name(request) -> str:
    """The engine that a server test runs on: each test runs on Docker (runc) and bubblewrap."""
    return request.param


@pytest.fixture
def sandbox_config() -> dict[str, Any]:
    """Further settings of the server; a test overrides it."""
    return {}


@pytest.fixture
def jp_server_config(engine_name, short_dir, sandbox_config):
    config = {
        "ServerApp": {"jpserver_extensions": {"jupyter_sandbox": True}},
        "SandboxApp": {
            "engine": "docker" if engine_name == "gvisor" else engine_name,
            "data_dir": str(short_dir / "data"),
            "runtime_dir": str(short_dir / "run"),
            "start_timeout_seconds": 30.0,
        },
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
def api(jp_serverapp, jp_fetch, jp_asyncio_loop, jp_server_config):
    """The API of a running server; all its sandboxes are gone afterwards."""
    app = jp_serverapp.web_app.settings["jupyter_sandbox"]
    yield Api(jp_fetch)

    async def remove_all() -> None:
        services = await app.ready()
        sandboxes = services.conversations._around.sandboxes
        await app.stop_extension()
        with contextlib.suppress(Unavailable):  # of an engine that is made to fail
            for found in await sandboxes.list():
                await sandboxes.remove(found.sandbox_id)
        plaintext = sandboxes.settings.plaintext
        for sandbox_id in plaintext.sandboxes():  # of sandboxes that a test ended by itself
            plaintext.remove(sandbox_id)
        await sandboxes.engine.close()

    jp_asyncio_loop.run_until_complete(remove_all())


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
