"""What calls leave in the database: bounded, told when it goes, gone when it is deleted.

Nothing of it depends on the engine.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.attacks import attack
from tests.conftest import BUBBLEWRAP

MIB = 1024**2
MARKER = "a-marker-of-a-user"
PICTURE = f"""
import os, struct, zlib, IPython.display as display
def part(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
def picture():
    size = struct.pack('>IIBBBBB', 500, 600, 8, 2, 0, 0, 0)
    pixels = zlib.compress(os.urandom(600 * 1501), 0)
    return b'\\x89PNG\\r\\n\\x1a\\n' + part(b'IHDR', size) + part(b'IDAT', pixels) + part(b'IEND', b'')
display.display(display.Image(picture()))
print('{MARKER}')
"""


@pytest.fixture(scope="module", params=[BUBBLEWRAP])
def engine_name(request):
    return request.param


@pytest.fixture
def sandbox_config():
    return {"SandboxLimits": {"result_bytes": 4 * MIB, "owner_result_bytes": 6 * MIB}}


class Store:
    """The database's files, as whoever gets hold of them sees them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def size(self) -> int:
        return (self._directory / "sandbox.db").stat().st_size

    def holds(self, text: str) -> list[str]:
        found = sorted(self._directory.glob("sandbox.db*"))
        return [file.name for file in found if text.encode() in file.read_bytes()]


async def recorded(api, conversation: str, call_id: str):
    """Give a call once it is in the database: a moment after its answer."""
    for _ in range(200):
        status, call = await api.json("GET", "conversations", conversation, "calls", call_id)
        if status == 200 and "finished_at" in call:
            return call
        await asyncio.sleep(0.02)
    raise AssertionError("the call was not recorded")


@attack("T54", on="")
async def test_t54_results_do_not_fill_the_disk_and_what_goes_is_said(
    api, jp_serverapp, server_dir
):
    store = Store(server_dir / "data")
    conversations = [await api.conversation() for _ in range(2)]
    for conversation in conversations:
        made = []
        for _ in range(6):  # 1.2 MB each
            made.append((await api.call(conversation, "python", code=PICTURE))["call_id"])
        await recorded(api, conversation, made[-1])
        _, model = await api.json("GET", "conversations", conversation)
        assert 2 * MIB < model["usage"]["result_bytes"] <= 4 * MIB
        assert model["usage"]["upload_bytes"] + model["usage"]["share_bytes"] == 0
        first = await recorded(api, conversation, made[0])
        assert [part["type"] for part in first["content"]] == ["text", "text"]
        assert MARKER in first["content"][0]["text"]
        assert "no longer kept" in first["content"][1]["text"]
        last = await recorded(api, conversation, made[-1])
        assert [part["type"] for part in last["content"]] == ["text", "image"]
        response = await api.raw("GET", "conversations", conversation, "notebook")
        cells = {cell["id"]: cell for cell in json.loads(response.body)["cells"]}
        assert "no longer kept" in json.dumps(cells[made[0]]["outputs"])
        assert "no longer kept" not in json.dumps(cells[made[-1]]["outputs"])
    usages = [(await api.json("GET", "conversations", each))[1]["usage"] for each in conversations]
    assert sum(usage["result_bytes"] for usage in usages) <= 6 * MIB
    services = await jp_serverapp.web_app.settings["jupyter_sandbox"].ready()
    full = store.size()
    for conversation in conversations:
        assert (await api.json("DELETE", "conversations", conversation))[0] == 204
    await services.housekeeping.run_now("tidy")
    assert full > 4 * MIB
    assert store.size() < full / 3


@attack("T54", on="")
async def test_t54_files_without_contents_are_counted_too(api, monkeypatch):
    monkeypatch.setattr("jupyter_sandbox.policy.capacity.MOST_FILES", 3)
    conversation = await api.conversation()
    out = "/mnt/user-data/outputs/empty"
    await api.bash(conversation, f"touch {out}")
    for _ in range(2):
        assert not (await api.call(conversation, "share_files", paths=[out]))["is_error"]
    for name, expected in (("a", 201), ("b", 413)):
        status, _ = await api.json("PUT", "conversations", conversation, "uploads", name, body="")
        assert status == expected
    refused = await api.call(conversation, "share_files", paths=[out])
    assert (refused["is_error"], refused["code"]) == (True, "limit_exceeded")
    assert "3 is the most. Remove some files" in refused["content"][0]["text"]


@attack("T55", on="")
async def test_t55_no_file_of_the_database_shows_what_a_user_wrote_or_saw(api, server_dir):
    store = Store(server_dir / "data")
    conversation = await api.conversation()
    await api.json("PUT", "conversations", conversation, "uploads", "m.txt", body=MARKER)
    shown = await api.call(conversation, "bash", command="cat /mnt/user-data/uploads/m.txt")
    assert MARKER in json.dumps(shown)
    said = {"text": f"look at {MARKER}"}
    await api.json("POST", "conversations", conversation, "messages", body=said)
    await recorded(api, conversation, shown["call_id"])
    _, page = await api.json("GET", "conversations", conversation, "messages")
    assert json.dumps(page).count(MARKER) == 2
    assert store.holds(MARKER) == []
    assert (await api.json("DELETE", "conversations", conversation))[0] == 204
    assert store.holds(MARKER) == []
