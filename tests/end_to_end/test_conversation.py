"""A conversation as an assistant has it, on every engine."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.conftest import on_each_engine, text_of
from tests.faults.table import fault


@on_each_engine
async def test_the_first_call_provisions_and_says_so_and_the_second_does_not(api):
    conversation = await api.conversation(title="first")
    first = await api.bash(conversation, "echo hello")
    second = await api.bash(conversation, "echo again")

    assert first.startswith("[New sandbox")
    assert "hello\n[exit code 0 · " in first
    assert first.rstrip().endswith("· cwd /workspace]")
    assert second.startswith("again\n[exit code 0 · ")


@on_each_engine
async def test_state_carries_over_from_call_to_call(api):
    conversation = await api.conversation()
    await api.bash(conversation, "mkdir -p app && cd app && export NAME='two words' && echo x > f")
    result = await api.bash(conversation, 'pwd; echo "$NAME"; cat f')
    assert "/workspace/app\ntwo words\nx\n" in result

    await api.text(conversation, "python", code="x = 41")
    assert "42" in await api.text(conversation, "python", code="x + 1")
    assert "1: x" in (await api.text(conversation, "view", path="/workspace/app/f")).replace(
        "\t", ": "
    )


async def test_bash_starts_in_the_directory_that_python_files_see(api):
    conversation = await api.conversation()
    await api.text(conversation, "create_file", path="/workspace/data.txt", file_text="42\n")
    assert "42" in await api.bash(conversation, "cat data.txt")
    assert "42" in await api.text(conversation, "python", code="print(open('data.txt').read())")


async def test_two_conversations_see_nothing_of_each_other(api):
    one, two = await api.conversation(), await api.conversation()
    await api.bash(
        one,
        "echo secret-of-one > /workspace/s; echo secret-of-one > /tmp/s; "
        "echo secret-of-one > /dev/shm/s; echo secret-of-one > /mnt/user-data/outputs/s; "
        "echo secret-of-one > ~/s; (exec -a marker-of-one sleep 600) & "
        "python3 -c \"import socket,time; s=socket.socket(); s.bind(('127.0.0.1',45678)); s.listen(); "
        "a=socket.socket(socket.AF_UNIX); a.bind('\\0marker'); a.listen(); time.sleep(600)\" &",
    )
    seen = await api.bash(
        two,
        "cat /workspace/s /tmp/s /dev/shm/s /mnt/user-data/outputs/s ~/s; "
        "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; cat /proc/net/unix; ls /proc | grep -c '^[0-9]'; "
        "python3 -c \"import socket; socket.create_connection(('127.0.0.1',45678), 2)\"; "
        "python3 -c \"import socket; a=socket.socket(socket.AF_UNIX); a.connect('\\0marker')\"; cut -d: -f1 /proc/net/dev",
    )
    assert "secret-of-one" not in seen
    assert "marker-of-one" not in seen
    assert seen.count("ConnectionRefusedError") == 2
    assert " lo\n" in seen
    assert "eth0" not in seen


async def test_a_cell_that_computes_keeps_no_tool_waiting(api):
    conversation = await api.conversation()
    await api.text(conversation, "python", code="1")
    cell = asyncio.ensure_future(
        api.call(
            conversation,
            "python",
            code="import time\nend = time.time() + 60\nwhile time.time() < end: pass",
        )
    )
    await asyncio.sleep(0.5)  # the cell is computing now
    started = time.monotonic()
    assert "hello" in await api.bash(conversation, "echo hello")
    await api.text(conversation, "create_file", path="/workspace/a.txt", file_text="text\n")
    assert "text" in await api.text(conversation, "view", path="/workspace/a.txt")
    assert time.monotonic() - started < 20  # the cell takes a minute
    assert not cell.done()
    status, body = await api.json("POST", "conversations", conversation, "interrupt")
    assert (status, body) == (200, {"interrupted": 1})
    result = await asyncio.wait_for(cell, 15)
    assert "KeyboardInterrupt" in text_of(result)
    assert "3" in await api.text(conversation, "python", code="1 + 2")


@pytest.mark.parametrize(
    "death",
    [
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import os; os._exit(3)",
        "x = bytearray(400_000_000)\nfor i in range(0, len(x), 4096): x[i] = 1",
    ],
    ids=["kill-9", "exit", "memory"],
)
class TestAKernelThatDies:
    @pytest.fixture
    def sandbox_config(self):
        return {"SandboxResources": {"memory_bytes": 300_000_000}}

    @on_each_engine
    @fault("kernel-killed")
    async def test_is_back_at_the_next_call_with_the_files_and_the_result_says_so(self, api, death):
        conversation = await api.conversation()
        await api.text(conversation, "python", code="x = 1; open('kept', 'w').write('kept')")
        dead = await api.call(conversation, "python", code=death)
        assert dead["is_error"]
        assert dead["code"] == "kernel_died"
        assert "Variables and imports are lost; files are kept" in text_of(dead)
        after = await api.call(conversation, "python", code="print(open('kept').read()); x")
        assert "kept" in text_of(after)
        assert "NameError" in text_of(after)
        assert "kept" in await api.bash(conversation, "cat kept")


@on_each_engine
@fault("killed")
async def test_a_sandbox_that_was_removed_is_made_anew_and_the_result_says_what_was_lost(
    api, jp_serverapp
):
    conversation = await api.conversation()
    await api.bash(conversation, "echo x > file")
    services = await jp_serverapp.web_app.settings["jupyter_sandbox"].ready()
    record = await services.database.conversation(conversation)
    await services.engine.remove(record.sandbox_id)

    result = await api.bash(conversation, "ls file")
    assert "The previous sandbox is gone" in result
    assert "No such file" in result


@on_each_engine
async def test_deleting_a_conversation_removes_its_sandbox(api, jp_serverapp):
    conversation = await api.conversation()
    await api.bash(conversation, "echo x")
    services = await jp_serverapp.web_app.settings["jupyter_sandbox"].ready()
    record = await services.database.conversation(conversation)
    response = await api.raw("DELETE", "conversations", conversation)

    assert response.code == 204
    assert await services.engine.inspect(record.sandbox_id) is None
    assert (await api.json("GET", "conversations", conversation))[0] == 404


async def test_shared_files_are_copied_and_one_bad_path_spoils_no_other(api):
    conversation = await api.conversation()
    await api.bash(
        conversation,
        "cd /mnt/user-data/outputs && printf '\\x89PNG\\r\\n\\x1a\\n0000' > a.png && echo t > b.txt "
        "&& ln -s /etc/passwd link && mkdir d && mkfifo fifo",
    )
    out = "/mnt/user-data/outputs"
    result = await api.call(
        conversation,
        "share_files",
        paths=[
            f"{out}/a.png",
            f"{out}/link",
            f"{out}/d",
            f"{out}/fifo",
            f"{out}/no",
            "/etc/passwd",
        ],
    )
    cards = [part for part in result["content"] if part["type"] == "file"]
    assert [card.get("code") for card in cards] == [
        None,
        "link",
        "is_a_directory",
        "not_a_file",
        "not_found",
        "outside",
    ]
    assert cards[0]["media_type"] == "image/png"
    assert cards[0]["version"] == 1
    again = await api.call(conversation, "share_files", paths=[f"{out}/a.png"])
    assert next(p for p in again["content"] if p["type"] == "file")["version"] == 2
