"""A new server process on data that an earlier one left in every state that a kill can leave."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jupyter_sandbox import metrics
from jupyter_sandbox.errors import Unavailable
from tests.claims import claim
from tests.conftest import on_each_engine

_SECONDS = 30.0


class Server:
    """The server of a test, and what it knows."""

    def __init__(self, app, api) -> None:
        self.app, self.api = app, api

    async def services(self):
        return await self.app.ready()

    async def restarted(self):
        """Build all parts anew, as a new server process does; no call is made."""
        await self.app.stop_extension()
        return await self.app.ready()

    async def record(self, conversation: str):
        record = await (await self.services()).database.conversation(conversation)
        assert record is not None
        return record

    async def sandboxes(self):
        return (await self.services()).conversations._around.sandboxes

    async def state(self, conversation: str) -> str:
        """Give what the engine says of a conversation's environment."""
        record = await self.record(conversation)
        return await (await self.sandboxes()).state(record.sandbox_id)

    async def run(self, chore: str) -> None:
        assert await (await self.services()).housekeeping.run_now(chore)


pytestmark = pytest.mark.own_server


@pytest.fixture
def server(api, jp_serverapp):
    return Server(jp_serverapp.web_app.settings["jupyter_sandbox"], api)


async def until(condition) -> None:
    async with asyncio.timeout(_SECONDS):
        while not condition():
            await asyncio.sleep(0.02)


@on_each_engine
async def test_a_new_server_adopts_sandbox_and_kernel_before_any_call(server):
    api = server.api
    busy, idle, bare = [await api.conversation() for _ in range(3)]
    for conversation in (busy, idle):
        await api.text(conversation, "python", code=f"x = {conversation[:8]!r}")
    await api.bash(bare, "sleep 1000 & echo $! > /tmp/job; touch here")
    used = {c: (await server.record(c)).used_at for c in (busy, idle, bare)}
    sandbox = (await server.services()).conversations.live(busy).sandbox
    running = asyncio.ensure_future(
        sandbox.run_python(
            *("adopted", "import time; time.sleep(6); y = 1", 60, lambda text: None, 1000)
        )
    )
    await until(lambda: sandbox.python.state == "busy")
    running.add_done_callback(lambda done: done.cancelled() or done.exception())

    services = await server.restarted()
    live = {c: services.conversations.live(c) for c in (busy, idle, bare)}
    await until(lambda: all(each.is_attached for each in live.values()))
    kernels = [live[c].sandbox.python for c in (busy, idle)]
    await until(lambda: all(each.state != "absent" for each in kernels))
    attached = {c: each.sandbox for c, each in live.items()}
    for conversation in (busy, idle):
        text = await api.text(conversation, "python", code="x")
        assert conversation[:8] in text
    assert "1" in await api.text(busy, "python", code="y"), "the cell has run to its end"
    assert "alive\n" in await api.bash(
        bare, "test -e here && kill -0 $(cat /tmp/job) && echo alive"
    )
    for conversation, each in live.items():
        assert each.sandbox is attached[conversation], "the call found it adopted"
        assert used[conversation] <= (await server.record(conversation)).used_at


async def test_adoption_and_an_early_call_attach_once_and_use_nothing(server):
    api = server.api
    conversation = await api.conversation()
    await api.text(conversation, "python", code="x = 1")
    used_at = (await server.record(conversation)).used_at
    await server.app.stop_extension()
    services = await server.services()
    attached: list[str] = []
    sandboxes = await server.sandboxes()
    attach = sandboxes.attach

    async def counted(sandbox_id, *arguments, **named):
        attached.append(sandbox_id)
        return await attach(sandbox_id, *arguments, **named)

    sandboxes.attach = counted
    live = services.conversations.live(conversation)
    await live.detach()
    attached.clear()
    await asyncio.gather(*(live.put_right() for _ in range(5)), server.run("adopt"))
    assert len(attached) == 1
    assert (await server.record(conversation)).used_at == used_at, "adoption is no use"
    await live.detach()
    await asyncio.gather(server.run("adopt"), api.bash(conversation, "true"), live.put_right())
    assert len(attached) == 2


@on_each_engine
async def test_the_engine_follows_the_record_after_a_kill_between_two_steps(server):
    api = server.api
    asleep, awake, gone, ended = [await api.conversation() for _ in range(4)]
    for conversation in (asleep, awake, gone, ended):
        await api.bash(conversation, "echo kept > file")
    services, sandboxes = await server.services(), await server.sandboxes()
    ids = {c: (await server.record(c)).sandbox_id for c in (asleep, awake, gone, ended)}
    for each in ids:
        await services.conversations.live(each).detach()
    # Killed between the note of a suspension and the engine's pause.
    assert await services.database.set_state(asleep, "running", "suspended")
    # Killed between the note of a wake and the engine's resume.
    await sandboxes.pause(ids[awake])
    # Removed by others; the second one while it was suspended.
    assert await services.database.set_state(ended, "running", "suspended")
    for each in (gone, ended):
        await sandboxes.engine.remove(ids[each])

    services = await server.restarted()
    await server.run("adopt")
    assert await server.state(asleep) == "paused"
    assert (await server.record(asleep)).state == "suspended"
    assert await server.state(awake) == "running"
    assert (await server.record(awake)).state == "running"
    assert services.conversations.live(awake).is_attached
    for each in (gone, ended):
        assert (await server.record(each)).state == "terminated"
    for each in (asleep, awake):
        assert "kept\n" in await api.bash(each, "cat file")
    for each in (gone, ended):
        text = await api.bash(each, "cat file")
        assert "it had been removed" in text
        assert "No such file" in text


@on_each_engine
@pytest.mark.parametrize("when", ["before the start", "while nobody looks"])
async def test_what_a_dead_server_was_making_is_removed_and_made_anew_at_once(server, when):
    api = server.api
    conversation = await api.conversation()
    await api.bash(conversation, "true")
    services = await server.services()
    first = (await server.record(conversation)).sandbox_id
    await services.conversations.live(conversation).detach()
    # As a server leaves it that is killed when its engine has just made the environment.
    assert await services.database.set_state(conversation, "running", "terminated")
    assert await claim(services.database, conversation, "ab" * 8, 3600)
    assert await services.database.set_intent(conversation, "ab" * 8, first)
    if when == "before the start":
        await server.restarted()
        await server.run("adopt")
        assert (await server.record(conversation)).state == "error"
        assert await server.state(conversation) == ""
    async with asyncio.timeout(_SECONDS):  # the claim itself holds for an hour
        assert not (await api.call(conversation, "bash", command="true"))["is_error"]
    record = await server.record(conversation)
    assert record.state == "running"
    assert record.sandbox_id != first
    assert [each.sandbox_id for each in await (await server.sandboxes()).list()] == [
        record.sandbox_id
    ]


async def test_what_a_living_server_is_making_is_left_alone(server):
    api = server.api
    conversation = await api.conversation()
    services, sandboxes = await server.services(), await server.sandboxes()
    code = (
        "import sys; from pathlib import Path\n"
        "from jupyter_sandbox.stores.server_marks import ServerMarks\n"
        f"ServerMarks(Path({server.app.data_dir!r}), 'cd' * 8).set()\n"
        "print('set', flush=True); sys.stdin.read()"
    )
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    assert await other.stdout.readline() == b"set\n"
    sandbox_id = secrets.token_hex(12)
    assert await claim(services.database, conversation, "cd" * 8, 3600)
    assert await services.database.set_intent(conversation, "cd" * 8, sandbox_id)
    made = await sandboxes.create(sandbox_id, conversation)
    await made.detach()
    for chore in ("adopt", "reap"):
        await server.run(chore)
    assert await sandboxes.state(sandbox_id) == "running"
    assert (sandboxes.settings.runtime_dir / sandbox_id[:12] / "dial").is_dir()
    assert (await server.record(conversation)).claimed_by == "cd" * 8
    other.send_signal(signal.SIGKILL)
    await other.wait()
    for chore in ("adopt", "reap"):
        await server.run(chore)
    assert await sandboxes.state(sandbox_id) == ""
    assert not (sandboxes.settings.runtime_dir / sandbox_id[:12]).exists()
    assert not (Path(server.app.data_dir) / "servers" / ("cd" * 8)).exists()


@on_each_engine
async def test_what_no_record_names_is_reaped_and_counted(server, caplog):
    api = server.api
    kept, orphan = await api.conversation(), await api.conversation()
    await api.bash(kept, "echo kept > file")
    await api.bash(orphan, "true")
    services, sandboxes = await server.services(), await server.sandboxes()
    lost = (await server.record(orphan)).sandbox_id
    runtime_dir = sandboxes.settings.runtime_dir
    home = runtime_dir / (await server.record(kept)).sandbox_id[:12]
    await services.conversations.live(orphan).detach()
    await services.database.delete_conversation(orphan)  # and killed in the middle of it
    sandboxes.homes.make("dead" * 6)
    stranger = runtime_dir / "0123456789ab"  # of another installation
    (stranger / "dial").mkdir(parents=True)
    dead = home / "dial" / "hdead.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(dead))
        sock.listen()
        before = {kind: _reaped(kind) for kind in ("sandbox", "directory", "socket")}
        caplog.set_level(logging.INFO)
        await server.run("reap")
        assert dead.exists(), "somebody listens"
    assert await sandboxes.state(lost) == ""
    assert not (runtime_dir / lost[:12]).exists()
    assert not (runtime_dir / "deaddeaddead").exists()
    assert stranger.exists()
    await server.run("reap")
    assert not dead.exists()
    assert {kind: _reaped(kind) - count for kind, count in before.items()} == {
        "sandbox": 1,
        "directory": 1,
        "socket": 1,
    }
    for line in (f"reaped: sandbox {lost}", "reaped: directory deaddeaddead", "reaped: socket"):
        assert caplog.text.count(line) == 1
    assert "kept\n" in await api.bash(kept, "cat file")


async def test_nothing_is_reaped_when_the_records_cannot_be_read(server):
    api = server.api
    conversation = await api.conversation()
    await api.bash(conversation, "echo kept > file")
    services = await server.services()

    async def broken(*_: object) -> None:
        raise Unavailable("the database does not answer")

    asked, services.database.conversations_with_sandbox = (
        services.database.conversations_with_sandbox,
        broken,
    )
    for chore in ("reap", "adopt"):
        with pytest.raises(Unavailable):
            await server.run(chore)
    services.database.conversations_with_sandbox = asked
    assert "kept\n" in await api.bash(conversation, "cat file")


def _reaped(kind: str) -> float:
    return metrics.REAPED.labels(kind)._value.get()
