"""Wrong requests get a clear refusal: never a 500, never a traceback, never a hang."""

from __future__ import annotations

import asyncio
import time
import uuid

import pytest

from tests.conftest import text_of

ABSENT = str(uuid.uuid4())


@pytest.fixture
def engine_name():
    return "bubblewrap"  # what is refused at the door is the same on each engine


@pytest.mark.parametrize(
    ("method", "parts", "body", "status"),
    [
        ("POST", ["conversations"], "{", 400),
        ("POST", ["conversations"], b"\xff\xfe", 400),
        ("POST", ["conversations"], "[" * 100_000, 400),
        ("POST", ["conversations"], "[]", 422),
        ("POST", ["conversations"], '{"titel": "x"}', 422),
        ("POST", ["conversations"], '{"title": 3}', 422),
        ("POST", ["conversations"], '{"title": "' + "x" * 300 + '"}', 422),
        ("POST", ["conversations"], '{"title": "a\\u0000b"}', 422),
        ("POST", ["conversations"], '{"title": "\\ud800"}', 422),
        ("POST", ["conversations"], '{"key": ""}', 422),
        ("GET", ["conversations?limit=0"], None, 422),
        ("GET", ["conversations?limit=ten"], None, 422),
        ("GET", ["conversations?after=nonsense"], None, 422),
        ("GET", ["conversations", ABSENT], None, 404),
        ("GET", ["conversations", "not-a-uuid"], None, 404),
        ("GET", ["conversations", "..%2F..%2Fetc"], None, 404),
        ("GET", ["conversations", ABSENT.upper()], None, 404),
        ("PATCH", ["conversations", ABSENT], '{"title": "x"}', 404),
        ("DELETE", ["conversations", ABSENT], None, 404),
        ("PUT", ["conversations", ABSENT], "{}", 405),
        ("POST", ["conversations", ABSENT, "interrupt"], "", 404),
        ("POST", ["conversations", ABSENT, "tools", "bash"], '{"command": "id"}', 404),
        ("GET", ["conversations", ABSENT, "calls", ABSENT], None, 404),
        ("POST", ["conversations", ABSENT, "calls", ABSENT, "cancel"], "", 404),
        ("GET", ["tools?format=xml"], None, 422),
        ("POST", ["tools"], "{}", 405),
    ],
)
async def test_a_wrong_request_gets_its_status(api, method, parts, body, status):
    response = await api.raw(method, *parts, body=body, allow_nonstandard_methods=True)
    assert response.code == status
    text = response.body.decode()
    assert "Traceback" not in text
    assert '"message"' in text
    assert "/work" not in text


async def test_a_huge_body_is_refused_before_it_is_kept(api):
    response = await api.raw(
        "POST", "conversations", ABSENT, "tools", "bash", body=b'{"command": "' + b"x" * 17_000_000
    )
    assert response.code in (413, 599)


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("bash", {}, "command"),
        ("bash", {"command": 3}, "command"),
        ("bash", {"command": "id", "comand": "x"}, "comand"),
        ("bash", {"command": "id", "timeout_seconds": "ten"}, "timeout_seconds"),
        ("bash", {"command": "id", "timeout_seconds": 0}, "timeout_seconds"),
        ("bash", {"command": "a\0b"}, "NUL"),
        ("view", {"path": 3}, "path"),
        ("view", {"path": "/etc", "view_range": [1]}, "view_range"),
        ("create_file", {"path": "/workspace/x"}, "file_text"),
        ("share_files", {"paths": []}, "paths"),
        ("share_files", {"paths": ["/x"] * 21}, "20"),
        ("python", {}, "code"),
        ("no_such_tool", {}, "bash"),
    ],
)
async def test_a_wrong_call_is_a_result_that_the_model_can_act_on(api, tool, arguments, words):
    conversation = await api.conversation()
    result = await api.call(conversation, tool, **arguments)
    assert result["is_error"] is True
    assert result["code"] in ("invalid_arguments", "unknown_tool")
    assert words in text_of(result)
    _, model = await api.json("GET", "conversations", conversation)
    assert model["state"] == "absent", "a refused call makes no sandbox"


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("view", {"path": "relative"}, "absolute"),
        ("create_file", {"path": "a/b", "file_text": ""}, "absolute"),
        ("str_replace", {"path": "/workspace/x", "old_str": "", "new_str": "x"}, "old_str"),
    ],
)
async def test_a_call_that_cannot_be_meant_so_says_what_to_do(api, tool, arguments, words):
    conversation = await api.conversation()
    result = await api.call(conversation, tool, **arguments)
    assert result["is_error"] is True
    assert words in text_of(result)


async def test_the_tools_come_in_three_schemas_with_guidance(api):
    for name, marker in (
        ("anthropic", "input_schema"),
        ("openai", "function"),
        ("mcp", "inputSchema"),
    ):
        status, body = await api.json("GET", f"tools?format={name}")
        assert status == 200
        assert len(body["tools"]) == 6
        assert all(marker in tool for tool in body["tools"])
        assert "/mnt/user-data/outputs" in body["guidance"]


async def test_the_same_key_gives_the_same_conversation(api):
    first = await api.json("POST", "conversations", body={"key": "chat-1"})
    second = await api.json("POST", "conversations", body={"key": "chat-1"})
    assert (first[0], second[0]) == (201, 200)
    assert first[1]["id"] == second[1]["id"]


async def test_conversations_are_listed_newest_first_in_pages(api):
    ids = [await api.conversation(title=str(n)) for n in range(5)]
    _status, page = await api.json("GET", "conversations?limit=3")
    assert [c["id"] for c in page["conversations"]] == ids[:1:-1]
    _status, rest = await api.json("GET", f"conversations?limit=3&after={page['next']}")
    assert [c["id"] for c in rest["conversations"]] == ids[1::-1]
    assert rest["next"] is None


async def test_a_call_that_ends_as_it_becomes_a_long_one_is_recorded_once(
    api, jp_serverapp, monkeypatch
):
    services = await jp_serverapp.web_app.settings["jupyter_sandbox"].ready()
    calls = services.calls
    encoded = calls._encoded

    async def busy(result, owner):
        until = time.monotonic() + 0.1  # the loop is busy: the timer of a long call is due
        while time.monotonic() < until:
            pass
        await asyncio.sleep(0)  # and comes right after this task's next step, in which it ends
        return await encoded(result, owner)

    conversation = await api.conversation()
    await api.bash(conversation, "true")  # from now on a call takes less than a long one
    monkeypatch.setattr(calls, "_encoded", busy)
    result = await api.call(conversation, "bash", command="echo kept")
    async with asyncio.timeout(10):
        while calls.find(conversation, result["call_id"]) is not None:
            await asyncio.sleep(0.02)
    _, stored = await api.json("GET", "conversations", conversation, "calls", result["call_id"])
    assert (stored["state"], stored["code"]) == ("finished", "ok")


async def test_a_path_of_millions_of_characters_is_refused_before_it_is_looked_at(api):
    conversation = await api.conversation()
    api.base = ("sandbox", "c")
    for method, path, body in (
        ("POST", ("api", "contents", "uploads"), {"copy_from": "./" * 7_000_000}),
        ("PATCH", ("api", "contents", "uploads", "a"), {"path": "uploads/" + "/" * 15_000_000}),
    ):
        began = time.monotonic()
        response = await api.raw(method, conversation, *path, body=body)
        assert response.code == 400, response.body
        assert b"at most 4,096 characters" in response.body
        assert time.monotonic() - began < 5
    api.base = ("sandbox", "api")
