"""What the audit log and Jupyter's event system are told of a conversation's life, and what not."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
import yaml

from jupyter_sandbox.events.emitting import DETAILS, SCHEMA_FILE, SCHEMA_ID

SOURCES = Path(SCHEMA_FILE).parents[1]


@pytest.fixture
def engine_name():
    return "bubblewrap"  # what is noted is above the engines


async def test_a_conversations_life_is_noted_with_sizes_and_without_contents(api, jp_serverapp):
    heard: list[dict] = []

    async def listen(logger, schema_id, data):
        heard.append(data)

    services = await jp_serverapp.web_app.settings["jupyter_sandbox"].ready()
    jp_serverapp.event_logger.add_listener(schema_id=SCHEMA_ID, listener=listen)
    conversation = await api.conversation(title="private-title")
    await api.raw("PUT", "conversations", conversation, "uploads", "private-name", body=b"12345")
    await api.bash(conversation, "echo private-code > /mnt/user-data/outputs/private-out")
    await api.call(conversation, "share_files", paths=["/mnt/user-data/outputs/private-out"])
    await api.call(conversation, "no_such_tool")
    await api.raw("GET", "conversations", conversation, "uploads", "private-name")
    assert (await api.json("PUT", "policy", body={}))[0] == 200
    await api.raw("DELETE", "conversations", conversation)
    await services.audit.flush()

    rows = await services.audit._records.rows()
    noted = [(row.action, row.actor, json.loads(row.detail)) for row in rows]
    actions = [action for action, _, _ in noted]
    assert actions == [
        "policy_in_force",
        *("conversation_created", "upload", "sandbox_started", "call", "call", "call", "download"),
        *("policy_changed", "conversation_deleted"),
    ], actions
    assert {actor for _, actor, _ in noted[1:]} == {"local"}
    details = [detail for _, _, detail in noted[1:]]
    assert details[1] == {"bytes": 5}
    assert (details[3]["tool"], details[3]["code"], details[3]["exit_code"]) == ("bash", "ok", 0)
    assert (details[4]["files"], details[4]["bytes"]) == (1, 13)
    assert (details[5]["tool"], details[5]["code"]) == ("other", "unknown_tool")
    assert details[6] == {"bytes": 5}
    assert "private" not in str(noted)
    assert (await services.audit._records.verify()).problems == ()

    for _ in range(100):
        if len(heard) == len(rows):
            break
        await asyncio.sleep(0.01)
    assert [data["action"] for data in heard] == actions
    told = json.dumps(heard)
    for secret in (conversation, "local", "private"):  # every user may listen
        assert secret not in told
    assert len({data["conversation"] for data in heard}) == 2  # one, and none (the policy)


def test_the_schema_names_every_action_and_every_detail_that_is_told():
    schema = yaml.safe_load(SCHEMA_FILE.read_text())
    source = "\n".join(path.read_text() for path in SOURCES.rglob("*.py"))
    noted = set(re.findall(r'note\(\s*"(\w+)"', source))
    assert noted == set(schema["properties"]["action"]["enum"])
    assert set(schema["properties"]) == DETAILS | {"action", "number", "actor", "conversation"}
