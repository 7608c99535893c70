"""The disk of the data directory is almost full, and is not the one that sandboxes write on.

The attack: uploads, shared files and results go on until nothing is left for the database itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError

from jupyter_sandbox.engines.base import EngineState
from jupyter_sandbox.sandbox.disk_guard import LOW
from tests.attacks import attack
from tests.conftest import text_of
from tests.jupyter_servers import in_directories

from .conftest import eventually
from .table import fault

pytestmark = [pytest.mark.own_server, pytest.mark.bubblewrap]

_SIZE = 32 * 2**20  # a quarter is the floor: 8 MiB
_LEFT = 5 * 2**20


@pytest.fixture
def engine_name() -> str:
    return "bubblewrap"


@pytest.fixture
def sandbox_config(short_dir: Path) -> dict[str, Any]:
    state_dir = str(short_dir / "engine")
    return {
        "SandboxApp": in_directories(short_dir),
        "BubblewrapEngine": {"state_dir": state_dir},
    }


@pytest.fixture
def data_disk(short_dir: Path):
    """Mount a small file system at the data directory."""
    place = short_dir / "data"
    place.mkdir(mode=0o700)
    options = f"size={_SIZE},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path, left: int = _LEFT) -> None:
    found = os.statvfs(place)
    size = found.f_bavail * found.f_frsize - left
    (place / "filler").write_bytes(bytes(max(0, size)))


@fault("disk-full-data")
@attack("T58", on="")
async def test_below_its_floor_nothing_more_is_stored_and_all_goes_on_by_itself(
    data_disk, api, jp_serverapp, jp_fetch
):
    services = await jp_serverapp.web_app.settings["jupyter_sandbox"].ready()
    conversation = await api.conversation()
    await api.raw("PUT", "conversations", conversation, "uploads", "kept", body=b"kept")
    await api.bash(conversation, "echo hello > /mnt/user-data/outputs/file")
    calls = await count(services, "calls")
    fill(data_disk)
    await eventually(lambda: services.disk_guard.room.lack)

    async def refused(*parts: str, **kwargs: Any) -> None:
        response = await api.raw(*parts, **kwargs)
        assert (response.code, response.headers["Retry-After"]) == (507, "60"), response.body
        assert json.loads(response.body)["code"] == "disk_full"

    uploads = ("conversations", conversation, "uploads")
    await refused("PUT", *uploads, "more", body=b"x")
    form = b'--b\r\nContent-Disposition: form-data; name="f"; filename="more"\r\n\r\nx\r\n--b--\r\n'
    head = {"Content-Type": "multipart/form-data; boundary=b"}
    await refused("POST", *uploads, body=form, headers=head)
    await refused("POST", "conversations", conversation, "messages", body={"text": "x" * 60_000})
    drive = ("sandbox", "c", conversation, "api", "contents", "uploads", "more")
    file = json.dumps({"type": "file", "format": "text", "content": "x"})
    with pytest.raises(HTTPClientError) as caught:
        await jp_fetch(*drive, method="PUT", body=file)
    assert caught.value.code == 507
    other = await api.conversation()
    for tool, arguments in (
        ("share_files", {"paths": ["/mnt/user-data/outputs/file"]}),
        ("bash", {"command": "head -c 1000000 /dev/urandom | base64"}),
        ("python", {"code": "1"}),
    ):
        for where in (conversation, other):
            result = await api.call(where, tool, **arguments)
            assert (result["is_error"], result["code"]) == (True, "disk_full"), result
            assert text_of(result) == f"exec failed: {LOW} A retry may succeed."
    assert await count(services, "calls") == calls
    states = {each.state for each in await services.conversations._around.sandboxes.list()}
    assert states == {EngineState.PAUSED}
    status, health = await api.json("GET", "health")
    assert (status, "full" in health["message"]) == (503, True)

    assert (await api.raw("GET", *uploads, "kept")).body == b"kept"
    assert (await api.raw("DELETE", *uploads, "kept")).code == 204
    assert (await api.raw("DELETE", "conversations", other)).code == 204

    (data_disk / "filler").unlink()
    await eventually(lambda: not services.disk_guard.room.lack)
    assert "hello\n[exit code 0" in await api.bash(conversation, "cat /mnt/user-data/outputs/file")
    result = await api.call(conversation, "share_files", paths=["/mnt/user-data/outputs/file"])
    assert not result["is_error"], text_of(result)
    assert (await api.raw("PUT", *uploads, "more", body=b"x")).code == 201
    assert (await api.json("GET", "health"))[0] == 200


@fault("disk-full-data")
@attack("T58", on="")
async def test_what_is_under_way_ends_at_the_floor(data_disk, api, jp_serverapp):
    services = await jp_serverapp.web_app.settings["jupyter_sandbox"].ready()
    conversation = await api.conversation()
    incoming = await services.uploads.receive(conversation, "big")
    await incoming.write(bytes(2**20))
    fill(data_disk)
    await eventually(lambda: services.disk_guard.room.lack)
    with pytest.raises(Exception, match="almost full") as caught:
        await incoming.write(bytes(2**20))
    assert caught.value.status == 507
    await incoming.close()
    left = [path for path in (data_disk / "vault").rglob("*") if path.is_file()]
    assert left == []


@fault("disk-full-data")
async def test_a_call_that_was_refused_so_begins_when_it_is_asked_for_again(
    data_disk, api, jp_serverapp
):
    services = await jp_serverapp.web_app.settings["jupyter_sandbox"].ready()
    conversation = await api.conversation()
    call_id = str(uuid.uuid4())
    services.disk_guard.room.lack = LOW
    tool = ("POST", "conversations", conversation, "tools", f"bash?call_id={call_id}")
    status, result = await api.json(*tool, body={"command": "echo once"})
    assert (status, result["code"]) == (200, "disk_full")
    await eventually(lambda: not services.disk_guard.room.lack)  # the guard has looked again
    status, result = await api.json(*tool, body={"command": "echo once"})
    assert (status, "once\n[exit code 0" in str(text_of(result))) == (200, True), result


async def count(services: Any, table: str) -> int:
    await asyncio.sleep(0.2)  # calls are recorded a moment after their answer
    return await services.database.connections.run(
        lambda connection: connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()
    )
