"""The message stream of a conversation, as its clients see it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.conftest import text_of


@pytest.fixture(params=[pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)])
def engine_name(request):
    """What is told does not depend on the engine."""
    return request.param


async def messages(api, conversation: str, after: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        status, page = await api.json(
            "GET", "conversations", conversation, f"messages?after={after}&limit=3"
        )
        assert status == 200, page
        found += page["messages"]
        if not page["messages"]:
            return found
        after = found[-1]["seq"]


async def test_a_conversation_tells_what_happened_in_it(api):
    conversation = await api.conversation()
    await api.raw("PUT", "conversations", conversation, "uploads", "a.txt", body=b"one")
    await api.raw("PUT", "conversations", conversation, "uploads", "a.txt", body=b"two")
    await api.call(conversation, "bash", command="echo hi; exit 3", description="say hi")
    await api.call(conversation, "bash", nonsense=1)
    path = "/mnt/user-data/outputs/b.txt"
    await api.call(conversation, "create_file", path=path, file_text="hello")
    await api.call(conversation, "share_files", paths=[path])
    await api.raw("DELETE", "conversations", conversation, "uploads", "a.txt")
    told = await messages(api, conversation)
    assert [message["seq"] for message in told] == list(range(1, len(told) + 1))
    kinds = [(message["type"], message.get("tool", message.get("action"))) for message in told]
    assert kinds == [
        ("upload", "added"),
        ("upload", "replaced"),
        ("call", "bash"),
        ("notice", None),
        ("result", "bash"),
        ("call", "bash"),
        ("result", "bash"),
        ("call", "create_file"),
        ("result", "create_file"),
        ("call", "share_files"),
        ("result", "share_files"),
        ("file", None),
        ("upload", "deleted"),
    ]
    call, notice, result, _, refused = told[2:7]
    assert call["description"] == "say hi"
    assert call["arguments"] == {"command": "echo hi; exit 3"}
    assert notice["text"].startswith("[New sandbox")
    assert text_of(result).startswith("hi\n[exit code 3")  # the notice is a message of its own
    assert (result["call_id"], result["exit_code"]) == (call["call_id"], 3)
    assert refused["code"] == "invalid_arguments"
    card = told[11]
    assert card["url"].endswith(f"/sandbox/files/{conversation}/b.txt?version=1")
    assert told[1]["url"].endswith("/uploads/a.txt")


async def test_a_message_of_the_user_brings_files(api):
    conversation = await api.conversation()
    await api.raw("PUT", "conversations", conversation, "uploads", "there.txt", body=b"there")
    attachments = [
        {"name": "new.txt", "media_type": "image/png", "data": base64.b64encode(b"new").decode()},
        {"name": "there.txt"},
    ]
    status, said = await api.json(
        *("POST", "conversations", conversation, "messages"),
        body={"text": "look at these", "attachments": attachments},
    )
    assert status == 201, said
    assert (said["type"], said["text"]) == ("user", "look at these")
    assert [each["name"] for each in said["attachments"]] == ["new.txt", "there.txt"]
    assert said["attachments"][0]["media_type"] == "text/plain"  # as its contents say
    assert (await messages(api, conversation))[-1] == said
    assert [m["type"] for m in await messages(api, conversation)] == ["upload", "upload", "user"]
    shown = await api.bash(conversation, "cat /mnt/user-data/uploads/*")
    assert "newthere" in shown


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"text": ""}, 422),
        ({"text": 3}, 422),
        ({"text": "x" * 65537}, 422),
        ({"text": "x", "more": 1}, 422),
        ({"text": "x", "attachments": {}}, 422),
        ({"text": "x", "attachments": [{"name": "a"}] * 11}, 422),
        ({"text": "x", "attachments": [{"name": "a", "data": ""}] * 2}, 422),
        ({"text": "x", "attachments": [{"name": "../a", "data": ""}]}, 422),
        ({"text": "x", "attachments": [{"name": "a", "data": "not base64!"}]}, 422),
        ({"text": "x", "attachments": [{"name": "a", "data": "ü"}]}, 422),
        ({"text": "x", "attachments": [{"name": "a", "data": "", "media_type": 1}]}, 422),
        ({"text": "x", "attachments": [{"name": "a", "data": ""}, {"name": "missing"}]}, 404),
        ({"text": "x", "attachments": [{"name": "a", "data": "QUJDQUJD"}]}, 413),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else str(value),
)
async def test_of_a_message_that_is_refused_nothing_is_kept(api, jp_serverapp, body, status):
    services = await jp_serverapp.web_app.settings["jupyter_sandbox"].ready()
    object.__setattr__(services.limits, "upload_bytes", 5)
    conversation = await api.conversation()
    code, _ = await api.json("POST", "conversations", conversation, "messages", body=body)
    assert code == status
    assert await messages(api, conversation) == []
    _, listed = await api.json("GET", "conversations", conversation, "uploads")
    assert listed["uploads"] == []


async def test_what_was_told_is_there_after_a_restart_and_gone_with_its_conversation(
    api, jp_serverapp
):
    conversation = await api.conversation()
    await api.call(conversation, "bash", command="echo 1")
    app = jp_serverapp.web_app.settings["jupyter_sandbox"]
    await app.stop_extension()
    told = await messages(api, conversation)
    assert [m["type"] for m in told] == ["call", "notice", "result"]
    await api.raw("DELETE", "conversations", conversation)
    services = await app.ready()
    assert (await services.journal.page(conversation, 0, 10)).last == 0
