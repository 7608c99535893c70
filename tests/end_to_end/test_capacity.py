"""Small limits and real sandboxes: who makes room, who waits, who is refused, and what they read."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import timedelta

import pytest

from jupyter_sandbox.engines.base import EngineState
from jupyter_sandbox.policy import evictions
from jupyter_sandbox.policy.memory import Memory
from tests.conftest import Api, on_each_engine, text_of
from tests.end_to_end.test_access import Users

GIB = 1024**3
PLENTY = Memory(64 * GIB, 32 * GIB)
SHORT = Memory(64 * GIB, 3 * GIB)
CRITICAL = Memory(64 * GIB, 1 * GIB)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """No other server uses these sandboxes: idle is idle at once."""
    monkeypatch.setattr(evictions, "LEAST_IDLE", timedelta(0))


@pytest.fixture
def limits(request):
    return request.param


@pytest.fixture
def sandbox_config(limits):
    return {
        "ServerApp": {"identity_provider_class": Users},
        "SandboxLifecycle": {"evict_idle_seconds": 0.0, **limits},
    }


@pytest.fixture
def alice(api):
    return Api(as_user(api, "alice"))


@pytest.fixture
def bob(api):
    return Api(as_user(api, "bob"))


def as_user(api, name: str):
    """Give the requests of one user."""

    async def fetch(*parts, **kwargs):
        headers = {**kwargs.pop("headers", {}), "Authorization": f"token {name}"}
        return await api._fetch(*parts, headers=headers, **kwargs)

    return fetch


async def begun(user, conversation, command) -> asyncio.Future:
    """Begin a command; give it when it runs."""
    running = asyncio.ensure_future(user.call(conversation, "bash", command=command))
    async with asyncio.timeout(20):
        while not (await user.json("GET", "sandboxes", conversation))[1]["calls_running"]:
            await asyncio.sleep(0.02)
    return running


async def services_of(app):
    return await app.web_app.settings["jupyter_sandbox"].ready()


async def states(user, *conversations) -> list[str]:
    found = []
    for conversation in conversations:
        _, shape = await user.json("GET", "conversations", conversation)
        found.append(shape["state"])
    return found


@on_each_engine
@pytest.mark.parametrize("limits", [{"running_per_user": 2}], indirect=True)
async def test_for_a_third_the_least_recently_used_is_suspended_and_loses_nothing(
    alice, jp_serverapp
):
    first, second, third = [await alice.conversation() for _ in range(3)]
    await alice.bash(first, "echo kept > /workspace/a; (sleep 100 &)")
    await alice.bash(second, "true")
    await alice.bash(third, "true")
    assert await states(alice, first, second, third) == ["suspended", "running", "running"]
    services = await services_of(jp_serverapp)
    record = await services.database.conversation(first)
    found = await services.engine.inspect(record.sandbox_id)
    assert found.state is EngineState.PAUSED

    text = await alice.bash(first, "cat /workspace/a; pgrep -c sleep || ps ax | grep -c '[s]leep'")
    assert "[The sandbox was suspended and goes on now." in text
    assert "kept\n1\n" in text
    assert await states(alice, first, second, third) == ["running", "suspended", "running"]


@pytest.mark.parametrize(
    "limits", [{"running_per_user": 1, "place_wait_seconds": 20.0}], indirect=True
)
async def test_a_sandbox_with_a_call_in_flight_stays_and_the_next_one_waits_for_its_end(alice):
    busy, waits = await alice.conversation(), await alice.conversation()
    await alice.bash(busy, "true")
    running = await begun(alice, busy, "sleep 3; echo done")
    waited = await alice.call(waits, "bash", command="echo hello")
    assert "hello\n" in text_of(waited)
    assert running.done() or waited["duration_seconds"] > 1
    assert "done\n" in text_of(await running)
    assert await states(alice, busy, waits) == ["suspended", "running"]


@pytest.mark.parametrize(
    "limits", [{"running_per_user": 1, "place_wait_seconds": 0.2}], indirect=True
)
async def test_a_refusal_says_what_to_do_and_ending_one_helps(alice):
    busy, refused = await alice.conversation(), await alice.conversation()
    await alice.bash(busy, "true")
    running = await begun(alice, busy, "sleep 60")
    result = await alice.call(refused, "bash", command="echo hello")
    assert result["is_error"]
    assert result["code"] == "limit_exceeded"
    assert "this user may have 1 running sandboxes at once, and each is in use" in text_of(result)
    assert "Nothing was run." in text_of(result)
    assert "jupyter sandbox terminate" in text_of(result)

    response = await alice.raw("POST", "conversations", refused, "wake")
    assert response.code == 409  # there is none to wake
    assert await states(alice, refused) == ["absent"]

    assert (await alice.json("POST", "conversations", busy, "terminate"))[0] == 200
    assert "hello\n" in await alice.bash(refused, "echo hello")
    running.cancel()


@pytest.mark.parametrize(
    "limits", [{"running_per_user": 1, "place_wait_seconds": 0.2}], indirect=True
)
async def test_a_wake_by_hand_is_refused_with_429_and_when_to_try_again(alice):
    suspended, busy = await alice.conversation(), await alice.conversation()
    await alice.bash(suspended, "true")
    await alice.json("POST", "conversations", suspended, "suspend")
    await alice.bash(busy, "true")
    running = await begun(alice, busy, "sleep 60")
    response = await alice.raw("POST", "conversations", suspended, "wake")
    assert response.code == 429
    assert int(response.headers["Retry-After"]) > 0
    assert json.loads(response.body)["code"] == "limit_exceeded"
    assert await states(alice, suspended) == ["suspended"]
    await alice.json("POST", "conversations", busy, "terminate")
    assert (await alice.json("POST", "conversations", suspended, "wake"))[0] == 200
    running.cancel()


@pytest.mark.parametrize("limits", [{"live_per_user": 2}], indirect=True)
async def test_beyond_the_live_ones_the_least_recently_used_is_ended_and_its_next_call_says_why(
    alice,
):
    first, second, third = [await alice.conversation() for _ in range(3)]
    await alice.bash(first, "touch /workspace/mine")
    await alice.json("POST", "conversations", first, "suspend")
    await alice.bash(second, "true")
    await alice.bash(third, "true")
    assert await states(alice, first, second, third) == ["terminated", "running", "running"]
    text = await alice.bash(first, "ls /workspace")
    assert "[The previous sandbox is gone (its owner's places were all taken" in text
    assert "mine" not in text.split("]", 1)[1]


@pytest.mark.parametrize("limits", [{"running_total": 2}], indirect=True)
async def test_in_the_places_of_all_those_give_who_have_the_most(alice, bob):
    mine = [await alice.conversation(), await alice.conversation()]
    for conversation in mine:
        await alice.bash(conversation, "true")
    theirs = [await bob.conversation(), await bob.conversation()]
    await bob.bash(theirs[0], "true")
    assert await states(alice, *mine) == ["suspended", "running"]
    # Now each has one: a second one of Bob's is taken from his own.
    await bob.bash(theirs[1], "true")
    assert await states(alice, *mine) == ["suspended", "running"]
    assert await states(bob, *theirs) == ["suspended", "running"]


@pytest.mark.own_server
@pytest.mark.parametrize("limits", [{"place_wait_seconds": 0.2}], indirect=True)
async def test_when_memory_runs_short_idle_ones_rest_and_when_critical_they_end(
    alice, jp_serverapp
):
    services = await services_of(jp_serverapp)
    guard = services.memory_guard
    idle, busy = await alice.conversation(), await alice.conversation()
    await alice.bash(idle, "true")
    await alice.bash(busy, "true")
    running = await begun(alice, busy, "sleep 60")

    readings = [SHORT, PLENTY]
    guard.read = lambda: readings.pop(0) if len(readings) > 1 else readings[0]
    await guard.look()
    assert await states(alice, idle, busy) == ["suspended", "running"]
    _, report = await alice.json("GET", "health")
    assert report["ok"]
    assert report["memory"]["level"] == "enough"
    assert report["places"]["live"] == 2
    assert report["places"]["running"] == 1

    guard.read = lambda: CRITICAL
    await guard.look()
    assert await states(alice, idle, busy) == ["terminated", "running"]
    status, report = await alice.json("GET", "health")
    assert status == 503
    assert report["memory"] == {
        "level": "critical",
        "available_bytes": GIB,
        "total_bytes": 64 * GIB,
    }
    assert "memory" in report["message"]
    refused = await alice.call(idle, "bash", command="true")
    assert refused["code"] == "unavailable"
    assert text_of(refused).startswith("exec failed: the memory of the host is almost used up")
    assert "y\n" in await alice.bash(busy, "echo y")  # what runs goes on

    guard.read = lambda: PLENTY
    await guard.look()
    text = await alice.bash(idle, "true")
    assert "[The previous sandbox is gone (the host's memory ran short" in text
    await alice.json("POST", "conversations", busy, "terminate")
    running.cancel()


@pytest.mark.parametrize("limits", [{"running_total": 2, "place_wait_seconds": 60}], indirect=True)
async def test_a_crowd_in_few_places_is_served_whole(alice, bob):
    """Twelve conversations of two users, all at once, in two places."""
    began = time.monotonic()
    users = [alice, bob] * 6
    ids = [await user.conversation() for user in users]
    texts = await asyncio.gather(
        *(user.bash(id, f"echo {n}") for n, (user, id) in enumerate(zip(users, ids, strict=True)))
    )
    for n, text in enumerate(texts):
        assert f"{n}\n[exit code 0" in text, (n, text, time.monotonic() - began)
