"""The engine's service is down, hangs, is slow or answers nonsense, and comes back.

The real Docker behind a socket that fails: what is asked of it goes the way it goes in production.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.conftest import text_of

from .conftest import Held
from .engine_socket import EngineSocket
from .table import fault

_REQUEST_SECONDS = 4.0
_START_SECONDS = 10.0
# A start that fails: its own time, then what has been made is removed within five seconds more.
_BOUND_SECONDS = _START_SECONDS + 5 + 9


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker)])
def engine_name(request):
    return request.param


@pytest.fixture
def service(short_dir, jp_asyncio_loop):
    socket = EngineSocket(short_dir / "docker.sock")
    jp_asyncio_loop.run_until_complete(socket.up())
    yield socket
    socket.flow()
    jp_asyncio_loop.run_until_complete(socket.down())


@pytest.fixture
def sandbox_config(service):
    return {
        "DockerEngine": {
            "docker_host": service.url,
            "request_timeout_seconds": _REQUEST_SECONDS,
        },
        "SandboxApp": {"start_timeout_seconds": _START_SECONDS},
    }


async def refused(api, conversation: str) -> str:
    """Make a call that cannot be served; give its text when it came in time and says so."""
    started = time.monotonic()
    result = await api.call(conversation, "bash", command="echo hello")
    seconds = time.monotonic() - started
    text = text_of(result)
    assert result["is_error"], text
    assert result["code"] == "unavailable", text
    assert text.startswith("exec failed: "), text
    assert text.endswith("A retry may succeed."), text
    assert seconds < _BOUND_SECONDS
    return text


@pytest.fixture(params=["down", "stalled", "nonsense"])
def broken(request, service):
    """A way in which the service fails, to be entered and left."""
    return {
        "down": (service.down, service.up),
        "stalled": (_now(service.stall), _now(service.flow)),
        "nonsense": (_nonsense(service, True), _nonsense(service, False)),
    }[request.param]


def _now(act):
    async def run():
        act()

    return run


def _nonsense(service, talks):
    async def run():
        service.talks_nonsense = talks
        await service.cut()

    return run


@fault("engine-down", "engine-hangs", "engine-wrong")
async def test_a_first_call_says_so_in_time_and_the_next_one_works_when_it_is_back(
    api, app, broken
):
    conversation, neighbour = await api.conversation(), await api.conversation()
    await api.bash(neighbour, "echo kept > file")
    begin, end = broken
    await begin()
    await refused(api, conversation)
    # Whoever has a sandbox needs no engine.
    assert "kept" in await api.bash(neighbour, "cat file")
    assert "42" in await api.text(neighbour, "python", code="6 * 7")
    status, health = await api.json("GET", "health")
    assert status == 503
    assert health["code"] == "unhealthy"
    assert not health["engine"]["available"]
    assert "Docker" in health["message"] or "does not answer" in health["message"]

    await end()
    text = await api.bash(conversation, "echo hello")
    assert text.startswith("[New sandbox")
    assert "hello\n[exit code 0" in text
    assert (await api.json("GET", "health"))[0] == 200


@fault("engine-down", "engine-hangs", "engine-wrong")
async def test_a_sandbox_that_cannot_be_looked_at_is_not_given_up(api, app, broken):
    conversation = await api.conversation()
    await api.bash(conversation, "echo kept > file; export NAME=kept-too")
    services = await app.ready()
    before = await services.database.conversation(conversation)
    begin, end = broken
    await begin()
    await services.conversations.live(conversation).detach()  # as a server does that starts now
    await refused(api, conversation)
    await refused(api, conversation)

    await end()
    text = await api.bash(conversation, "cat file; echo $NAME")
    assert text.startswith("kept\nkept-too\n[exit code 0")
    after = await services.database.conversation(conversation)
    assert after.sandbox_id == before.sandbox_id


@fault("engine-down", "engine-hangs", "engine-wrong")
async def test_calls_in_flight_go_on(api, broken):
    conversation = await api.conversation()
    await api.bash(conversation, "true")
    begin, end = broken
    call = asyncio.ensure_future(
        api.call(conversation, "bash", command="echo begun; sleep 3; echo done; false")
    )
    await asyncio.sleep(0.5)
    await begin()
    result = await asyncio.wait_for(call, _BOUND_SECONDS)
    await end()
    assert "begun\ndone\n[exit code 1" in text_of(result)


@fault("engine-slow")
async def test_a_slow_service_makes_starts_slow_and_nothing_else(api, service):
    conversation = await api.conversation()
    service.delay_seconds = 0.7
    assert "hello\n[exit code 0" in await api.bash(conversation, "echo hello")
    started = time.monotonic()
    for _ in range(10):
        await api.bash(conversation, "echo again")
    assert time.monotonic() - started < 10 * 0.7


@fault("engine-hangs")
async def test_many_first_calls_while_it_hangs_end_in_time_and_leave_nothing(api, app, service):
    conversations = [await api.conversation() for _ in range(12)]
    await api.text(conversations[0], "python", code="1")
    services = await app.ready()
    sandboxes = services.conversations._around.sandboxes
    held = Held()
    service.stall()
    await asyncio.gather(*(refused(api, each) for each in conversations[1:]))
    service.flow()
    shown = await asyncio.gather(*(api.bash(each, "echo hello") for each in conversations[1:]))
    assert [text for text in shown if "hello\n[exit code 0" not in text] == []
    for each in conversations[1:]:
        await api.raw("DELETE", "conversations", each)
    assert len(await sandboxes.list()) == 1  # none that a late answer has made
    # The client keeps 25 connections, each of which has three ends here.
    await held.is_back(slack=3 * 25)
