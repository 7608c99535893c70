"""The database is locked, deleted, damaged or not there: said in time, and nothing is lost."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time

import pytest

from tests.conftest import text_of
from tests.jupyter_servers import in_directories

from .conftest import Held
from .table import fault

_HOLD = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""
# Five seconds that a statement waits, and as much again for a machine under load.
_BOUND_SECONDS = 10.0


pytestmark = pytest.mark.own_server


@pytest.fixture
def sandbox_config(short_dir):
    return {"SandboxApp": in_directories(short_dir)}


@pytest.fixture(params=[pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)])
def engine_name(request):
    return request.param


@pytest.fixture
def file(short_dir):
    return short_dir / "data" / "sandbox.db"


class Holder:
    """Another program that holds the write lock."""

    def __init__(self, file) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _HOLD, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout.readline() == b"held\n"

    def release(self) -> None:
        self._process.communicate()


async def unhealthy(api) -> str:
    status, health = await api.json("GET", "health")
    assert status == 503
    assert not health["database"]["available"]
    assert health["message"] == health["database"]["reason"]
    return health["message"]


async def healthy(api) -> None:
    status, health = await api.json("GET", "health")
    assert status == 200, health


@fault("database-locked")
async def test_while_it_is_locked_answers_come_in_time_and_sandboxes_go_on(api, file):
    conversation = await api.conversation(title="known")
    await api.bash(conversation, "echo kept > file")
    other = await api.conversation()
    for each in (conversation, other):  # their kernels start in the background else
        await api.text(each, "python", code="1")
    held = Held()
    holder = await asyncio.to_thread(Holder, file)
    started = time.monotonic()
    refused, text = await asyncio.gather(
        asyncio.gather(*(api.raw("POST", "conversations", body={}) for _ in range(12))),
        api.bash(conversation, "cat file"),
    )
    assert time.monotonic() - started < 2 * _BOUND_SECONDS  # not once for each of the twelve
    assert "kept\n[exit code 0" in text
    for response in refused:
        assert response.code == 502
        assert response.headers["Retry-After"]
        assert b"locked by another program" in response.body
    assert "locked" in await unhealthy(api)
    assert (await api.json("GET", "conversations"))[0] == 200  # readers do not wait

    await asyncio.to_thread(holder.release)
    await api.conversation()
    await healthy(api)
    _, page = await api.json("GET", "conversations", conversation, "messages")
    shown = str([message for message in page["messages"] if message["type"] == "result"])
    assert "kept" in shown  # told while nothing could be written, written now
    await held.is_back(slack=8)


@fault("database-locked")
async def test_a_first_call_waits_for_a_lock_of_a_few_seconds(api, file):
    conversation = await api.conversation()
    holder = await asyncio.to_thread(Holder, file)
    call = asyncio.ensure_future(api.call(conversation, "bash", command="echo hello"))
    await asyncio.sleep(2)  # how long the other program takes
    await asyncio.to_thread(holder.release)
    assert "hello\n[exit code 0" in text_of(await asyncio.wait_for(call, _BOUND_SECONDS))


@fault("database-deleted")
@pytest.mark.parametrize("endings", [("",), ("", "-wal", "-shm")], ids=["file", "all"])
async def test_a_deleted_file_is_written_anew_with_all_it_had(api, file, endings):
    conversation = await api.conversation(title="before")
    await api.raw("PUT", "conversations", conversation, "uploads", "kept.txt", body=b"kept")
    await api.bash(conversation, "echo kept > file")
    for ending in endings:
        file.with_name(file.name + ending).unlink()
    assert "kept\n[exit code 0" in await api.bash(conversation, "cat file")
    await api.conversation(title="after")
    _, page = await api.json("GET", "conversations")
    assert {model["title"] for model in page["conversations"]} == {"before", "after"}
    response = await api.raw("GET", "conversations", conversation, "uploads", "kept.txt")
    assert response.body == b"kept"
    await healthy(api)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in file.parent.iterdir() if "saved" in p.name] == []


@fault("database-damaged")
async def test_a_damaged_file_is_said_and_a_good_one_in_its_place_is_used(api, app, file):
    conversation = await api.conversation(title="before")
    await api.bash(conversation, "echo kept > file")
    good = file.with_name("good.db")
    services = await app.ready()
    await services.database.connections.run(
        lambda connection: connection.exec_driver_sql(f"VACUUM INTO '{good}'")
    )
    bad = file.with_name("bad.db")
    bad.write_bytes(b"no database" * 10_000)
    bad.rename(file)
    response = await api.raw("POST", "conversations", body={})
    assert response.code == 502
    assert b"the sandbox database is damaged" in response.body
    assert response.headers["Retry-After"]
    assert "damaged" in await unhealthy(api)
    assert "kept\n[exit code 0" in await api.bash(conversation, "cat file")

    for ending in ("-wal", "-shm"):
        file.with_name(file.name + ending).unlink(missing_ok=True)
    good.rename(file)
    await api.conversation(title="after")
    _, page = await api.json("GET", "conversations")
    assert {model["title"] for model in page["conversations"]} == {"before", "after"}
    assert "kept\n[exit code 0" in await api.bash(conversation, "cat file")
    await healthy(api)


@fault("database-damaged")
async def test_pages_that_are_damaged_in_place_are_said_too(api, app, file):
    await api.conversation(title="x" * 200)
    services = await app.ready()

    def forget(connection):
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    await services.database.connections.run(forget)
    saved = file.with_name("saved.db")
    shutil.copy(file, saved)
    with file.open("r+b") as pages:
        pages.seek(100)
        pages.write(b"\xff" * (file.stat().st_size - 100))
    # What the connection has read before it need not read again.
    await services.database.connections.run(lambda c: c.exec_driver_sql("PRAGMA shrink_memory"))
    response = await api.raw("GET", "conversations")
    assert response.code == 502, response.body
    assert b"damaged" in response.body
    for ending in ("-wal", "-shm"):
        file.with_name(file.name + ending).unlink(missing_ok=True)
    saved.rename(file)
    _, page = await api.json("GET", "conversations")
    assert [model["title"] for model in page["conversations"]] == ["x" * 200]


class TestAtTheStart:
    """There is no database to be had when the server starts."""

    @pytest.fixture
    def jp_serverapp_is_not_ready(self, short_dir):
        (short_dir / "data").mkdir(mode=0o700)
        (short_dir / "data" / "sandbox.db").mkdir()

    @fault("database-absent")
    async def test_requests_say_so_and_work_when_it_is_there(
        self, jp_serverapp_is_not_ready, api, file
    ):
        for _ in range(2):
            response = await api.raw("POST", "conversations", body={})
            assert response.code == 503
            assert response.headers["Retry-After"]
            assert b"the sandbox database" in response.body
        file.rmdir()
        assert "hello\n[exit code 0" in await api.bash(await api.conversation(), "echo hello")
