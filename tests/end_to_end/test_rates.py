"""Rate limits as a client meets them."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def engine_name():
    return "bubblewrap"  # what is limited is above the engines


@pytest.fixture
def sandbox_config():
    return {"SandboxLimits": {"calls_per_minute": 3, "conversations_per_hour": 2}}


async def test_too_many_are_refused_with_the_time_to_wait_and_touch_no_sandbox(api):
    conversation = await api.conversation(key="mine")
    for _ in range(3):  # refused ones count too: they cost as much
        await api.call(conversation, "no_such_tool")
    response = await api.raw(
        "POST", "conversations", conversation, "tools", "bash", body={"command": "true"}
    )
    assert response.code == 429
    assert 1 <= int(response.headers["Retry-After"]) <= 20
    told = json.loads(response.body)
    assert told["code"] == "limit_exceeded"
    assert "3 calls of tools a minute" in told["message"]
    assert (await api.json("GET", "conversations", conversation))[1]["state"] == "absent"

    await api.conversation()
    response = await api.raw("POST", "conversations", body={})
    assert (response.code, response.headers["Retry-After"]) == (429, "1800")
    assert await api.conversation(key="mine") == conversation  # a known one is not new
