"""A sandbox that others paused, killed, removed or stopped: said in time, put right, and one only.

On each engine, by the means that somebody on the host has: `docker pause`, `docker kill`, signals.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from jupyter_sandbox.sandbox import silence
from tests.conftest import text_of

from .conftest import Held, eventually
from .table import fault

# Two looks that find nothing, the engine's answer, and what a loaded machine adds.
_NOTICED_SECONDS = 2 * (silence.LOOK_SECONDS + silence.ANSWER_SECONDS) + 10


class Outsider:
    """Somebody on the host who meddles with a conversation's sandbox."""

    def __init__(self, services) -> None:
        self.services = services
        self.engine = services.engine

    async def sandbox_id(self, conversation: str) -> str:
        return (await self.services.database.conversation(conversation)).sandbox_id

    async def pid(self, conversation: str) -> int:
        """The sandbox's PID 1, as the host numbers it."""
        sandbox_id = await self.sandbox_id(conversation)
        if self.engine.name == "docker":
            return int(await docker("inspect", "-f", "{{.State.Pid}}", f"jsbx-{sandbox_id}"))
        return self.engine._records.read(sandbox_id).init.pid

    async def pause(self, conversation: str) -> None:
        sandbox_id = await self.sandbox_id(conversation)
        if self.engine.name == "docker":
            await docker("pause", f"jsbx-{sandbox_id}")
        else:
            record = self.engine._records.read(sandbox_id)
            if not record.groups.can_freeze:
                await self.engine.pause(sandbox_id)
                return
            # It may never stand as a whole: on a loaded machine it is resumed on its way there.
            await asyncio.to_thread(record.groups.freeze, 5.0)

    async def kill(self, conversation: str) -> None:
        if self.engine.name == "docker":
            await docker("kill", f"jsbx-{await self.sandbox_id(conversation)}")
        else:
            os.kill(await self.pid(conversation), signal.SIGKILL)

    async def remove(self, conversation: str) -> None:
        sandbox_id = await self.sandbox_id(conversation)
        if self.engine.name == "docker":
            await docker("rm", "-f", f"jsbx-{sandbox_id}")
        else:
            await self.engine.remove(sandbox_id)

    async def guests(self, conversation: str) -> list[int]:
        """PID 1 and its child that serves, which is its first."""
        init = await self.pid(conversation)
        children = Path(f"/proc/{init}/task/{init}/children").read_text().split()
        return [init, min(int(pid) for pid in children)]


async def docker(*words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "docker", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors
    return out.decode().strip()


@pytest.fixture
def outsider(app, jp_asyncio_loop):
    return Outsider(jp_asyncio_loop.run_until_complete(app.ready()))


async def in_flight(api, conversation: str, command: str, tool: str = "bash") -> asyncio.Task:
    """Begin a command, or a cell that does the same, and wait until it runs."""
    command = f"touch begun; {command}"
    code = f"import subprocess\nsubprocess.run({command!r}, shell=True)"
    arguments = {"command": command} if tool == "bash" else {"code": code}
    call = asyncio.ensure_future(api.call(conversation, tool, **arguments))
    await eventually_there(api, conversation, "begun")
    return call


async def eventually_there(api, conversation: str, path: str) -> None:
    for _ in range(200):
        if "yes" in await api.bash(conversation, f"[ -e {path} ] && echo yes"):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{path} is not there")


@fault("paused")
async def test_one_that_others_paused_is_resumed_and_the_call_succeeds(api, outsider):
    conversation, neighbour = await api.conversation(), await api.conversation()
    await api.text(conversation, "python", code="kept = 42")
    await api.bash(neighbour, "true")
    await outsider.pause(conversation)
    started = time.monotonic()
    call = asyncio.ensure_future(api.bash(conversation, "echo hello"))
    assert "here\n[exit code 0" in await api.bash(neighbour, "echo here")
    text = await asyncio.wait_for(call, _NOTICED_SECONDS)
    assert time.monotonic() - started < _NOTICED_SECONDS
    assert text.startswith("[The sandbox had been paused from outside this server")
    assert "hello\n[exit code 0" in text
    assert "42" in await api.text(conversation, "python", code="kept")


@pytest.mark.parametrize("tool", ["bash", "python", "view"])
@fault("paused")
async def test_one_that_is_paused_in_the_middle_of_a_call_goes_on(api, outsider, tool):
    conversation = await api.conversation()
    await api.text(conversation, "python", code="import time")
    await api.bash(conversation, "echo text > file")
    arguments = {
        "bash": {"command": "touch begun; sleep 2; echo done"},
        "python": {"code": "open('begun', 'w'); time.sleep(2); print('done')"},
        "view": {"path": "/workspace/file"},
    }[tool]
    if tool == "view":
        await outsider.pause(conversation)
        call = asyncio.ensure_future(api.call(conversation, tool, **arguments))
    else:
        call = asyncio.ensure_future(api.call(conversation, tool, **arguments))
        await eventually_there(api, conversation, "begun")
        await outsider.pause(conversation)
    result = await asyncio.wait_for(call, _NOTICED_SECONDS + 5)
    assert not result["is_error"], result
    assert ("text" if tool == "view" else "done") in text_of(result)
    assert "had been paused" in text_of(result)


@pytest.mark.parametrize("how", ["kill", "remove"])
@pytest.mark.parametrize("tool", ["bash", "python"])
@fault("killed")
async def test_one_that_others_killed_or_removed_ends_the_call_and_is_made_anew(
    api, outsider, how, tool
):
    conversation, neighbour = await api.conversation(), await api.conversation()
    await api.raw("PUT", "conversations", conversation, "uploads", "kept.txt", body=b"kept")
    await api.bash(neighbour, "echo of-the-neighbour > file")
    call = await in_flight(api, conversation, "sleep 60", tool)
    started = time.monotonic()
    await getattr(outsider, how)(conversation)
    result = await asyncio.wait_for(call, 15)
    assert result["code"] == "unavailable"
    assert text_of(result).startswith("exec failed: ")
    text = await api.bash(conversation, "ls; cat /mnt/user-data/uploads/kept.txt")
    assert text.startswith("[The previous sandbox is gone (it had ")
    assert "Lost: the workspace" in text
    assert "Kept: uploads" in text
    assert "begun" not in text
    assert "kept" in text.split("]\n", 1)[1]
    assert time.monotonic() - started < 40
    assert "of-the-neighbour" in await api.bash(neighbour, "cat file")


@fault("guest-killed")
async def test_a_guest_that_is_killed_is_back_at_once_with_files_and_variables(api, outsider):
    conversation = await api.conversation()
    await api.text(conversation, "python", code="kept = 42")
    call = await in_flight(api, conversation, "sleep 60")
    _, serving = await outsider.guests(conversation)
    os.kill(serving, signal.SIGKILL)
    result = await asyncio.wait_for(call, 15)
    assert text_of(result).startswith("exec failed: ")
    assert "begun\n[exit code 0" in await api.bash(conversation, "ls")
    assert "42" in await api.text(conversation, "python", code="kept")


@fault("guest-stopped")
async def test_a_guest_that_is_stopped_is_resumed(api, outsider):
    """A half-open stream: the guest neither reads nor closes."""
    conversation, neighbour = await api.conversation(), await api.conversation()
    await api.text(conversation, "python", code="kept = 42")
    await api.bash(neighbour, "true")
    _, serving = await outsider.guests(conversation)
    os.kill(serving, signal.SIGSTOP)
    call = asyncio.ensure_future(api.bash(conversation, "echo hello"))
    assert "here\n[exit code 0" in await api.bash(neighbour, "echo here")
    assert "hello\n[exit code 0" in await asyncio.wait_for(call, _NOTICED_SECONDS)
    assert "42" in await api.text(conversation, "python", code="kept")


class TestASandboxThatStaysSilent:
    """PID 1 and its child are stopped: the engine says that it runs, and nothing answers."""

    @pytest.fixture(autouse=True)
    def impatience(self, monkeypatch):
        from jupyter_sandbox.conversations import conversation

        monkeypatch.setattr(silence, "PATIENCE_SECONDS", 8.0)
        monkeypatch.setattr(silence, "LOOK_SECONDS", 2.0)
        monkeypatch.setattr(silence, "ANSWER_SECONDS", 2.0)
        monkeypatch.setattr(conversation, "PATIENCE_SECONDS", 8.0)

    async def stop(self, outsider, conversation: str) -> list[int]:
        pids = await outsider.guests(conversation)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        return pids

    # bubblewrap takes a stopped PID 1 for a paused sandbox where it has no freezer, and resumes it
    @pytest.mark.parametrize(
        "engine_name", [pytest.param("docker", marks=pytest.mark.docker)], indirect=True
    )
    @fault("guest-silent")
    async def test_ends_its_calls_and_is_replaced_by_the_next(self, api, outsider):
        conversation, neighbour = await api.conversation(), await api.conversation()
        await api.text(conversation, "python", code="1")
        await api.text(neighbour, "python", code="1")
        await api.bash(neighbour, "echo of-the-neighbour > file")
        held = Held()
        call = await in_flight(api, conversation, "sleep 60")
        await self.stop(outsider, conversation)
        result = await asyncio.wait_for(call, 30)
        assert "has not answered for 8 s" in text_of(result)
        assert text_of(result).startswith("exec failed: ")
        text = await api.bash(conversation, "ls")
        assert "(it did not answer any more)" in text
        assert "of-the-neighbour" in await api.bash(neighbour, "cat file")
        await api.text(conversation, "python", code="1")
        await held.is_back(slack=16)

    @fault("guest-silent")
    async def test_keeps_everything_when_it_speaks_again_in_time(self, api, outsider):
        conversation = await api.conversation()
        await api.bash(conversation, "echo kept > file")
        pids = await self.stop(outsider, conversation)
        call = asyncio.ensure_future(api.bash(conversation, "cat file"))
        live = outsider.services.conversations.live(conversation)
        await eventually(lambda: live.sandbox.silence.since is not None)
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)
        assert "kept\n[exit code 0" in await asyncio.wait_for(call, 20)
