"""Commands and cells that run while the server is killed, restarted, or away: nothing is lost."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
import urllib.request
import uuid

import pytest

from jupyter_sandbox.client import Refused
from tests import long_running
from tests.conftest import on_each_engine
from tests.server_process import ServerProcess

MARK = "open('/tmp/mark', 'w').write"
RESUMED = "The server was restarted while this ran"


@pytest.fixture
def server(short_dir, engine_name):
    process = ServerProcess(short_dir / "s", engine_name)
    process.start()
    yield process
    process.close()


@pytest.fixture
def conversation(server):
    with server.client() as client:
        made = client.conversation()
        made.call("bash", {"command": "true"})
        yield made


def await_text(conversation, call, text: str) -> None:
    """Wait until a command that writes to a file has written so much."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = conversation.call("bash", {"command": "cat /tmp/mark 2>/dev/null"})
        if text in found.text:
            return
    raise AssertionError(f"{call} has not come so far")


def test_a_command_that_prints_all_the_time_goes_on_over_a_kill(server, conversation):
    command = "for i in $(seq 60); do echo line $i; echo $i > /tmp/mark; sleep 0.1; done; exit 3"
    call = conversation.start("bash", {"command": command})
    await_text(conversation, call, "10")
    server.kill()
    server.start()
    result = conversation.wait(call)
    assert (result.state, result.exit_code, result.is_error) == ("finished", 3, False)
    assert RESUMED in result.text
    lines = "".join(f"line {i}\n" for i in range(1, 61))
    assert lines in result.text
    status = result.text.split("\n")[-1]
    assert status.startswith("[exit code 3 · ")
    assert result.duration_seconds >= 6  # from its beginning, not from the restart
    assert conversation.wait(call).text == result.text


@on_each_engine
@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_silent_command_and_a_cell_go_on_at_the_same_time(server, conversation, end):
    conversation.call("python", {"code": "kept = 41"})
    command = conversation.start("bash", {"command": "sleep 6; echo silent no more"})
    code = f"{MARK}('begun')\nimport time\nprint('first')\ntime.sleep(6)\nprint('last')\nkept + 1"
    cell = conversation.start("python", {"code": code})
    await_text(conversation, cell, "begun")
    behind = conversation.start("python", {"code": "kept + 2"})
    conversation.call("bash", {"command": "sleep 1"})  # it stands in the kernel's queue by then
    getattr(server, end)()
    server.start()
    bash, python, second = (conversation.wait(call) for call in (command, cell, behind))
    for result in (bash, python, second):
        assert result.state == "finished", result.text
        assert RESUMED in result.text
    assert "silent no more\n[exit code 0" in bash.text
    assert "first\nlast\n42\n" in python.text
    assert "43\n[ok · " in second.text
    after = conversation.call("python", {"code": "kept"})
    assert after.text.startswith("41")


def test_what_ends_and_what_runs_out_of_time_while_no_server_is_there(server, conversation):
    conversation.call("python", {"code": "kept = 41"})
    ended = conversation.start("bash", {"command": "sleep 4; echo ended alone; exit 5"})
    late = conversation.start(
        "bash", {"command": "echo before; setsid sleep 1234 & sleep 1234", "timeout_seconds": 5}
    )
    flood = conversation.start(
        "bash", {"command": "sleep 3; yes 0123456789 | head -c 200000000; echo the end"}
    )
    cell = conversation.start(
        "python",
        {
            "code": f"{MARK}('begun')\nprint('in time')\nimport time\ntime.sleep(1000)",
            "timeout_seconds": 3,
        },
    )
    await_text(conversation, cell, "begun")
    server.kill()
    time.sleep(14)  # the kernel's own deadline is 10 s behind the server's
    server.start()
    result = conversation.wait(ended)
    assert (result.exit_code, result.state) == (5, "finished"), result.text
    assert "ended alone\n[exit code 5 · 4." in result.text
    result = conversation.wait(late)
    assert "before\n[command timed out after 5 s]\n" in result.text
    assert "were ended; " in result.text
    result = conversation.wait(cell)
    assert "in time\n" in result.text
    assert "[cell timed out after 3 s]" in result.text
    result = conversation.wait(flood)
    assert result.truncated
    assert "the end\n... output truncated (exceeded 1 MiB) ..." in result.text
    assert len(result.text) < 1_048_576 + 3000
    assert all(RESUMED in conversation.wait(call).text for call in (ended, late, flood, cell))
    assert conversation.call("python", {"code": "kept"}).text.startswith("41")
    left = conversation.call("bash", {"command": "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"})
    assert "1234" not in left.text
    peak = "grep -h VmHWM /proc/[0-9]*/status | sort -k2 -n | tail -1"
    most_kib = int(conversation.call("bash", {"command": peak}).text.split()[1])
    assert most_kib < 160 * 1024  # of guest and kernel; 200 MB went through


def test_a_call_can_be_cancelled_after_a_restart(server, conversation):
    command = conversation.start("bash", {"command": "echo said; sleep 1000"})
    code = f"{MARK}('begun')\nprint('said')\nimport time\ntime.sleep(1000)"
    cell = conversation.start("python", {"code": code})
    await_text(conversation, cell, "begun")
    server.kill()
    server.start()
    for call in (command, cell):
        conversation.cancel(call)
        result = conversation.wait(call)
        assert "said\n" in result.text, result.text
        assert "interrupt" in result.text.lower() or "cancelled" in result.text, result.text


def test_a_request_can_be_made_again_with_the_callers_own_id(server, conversation):
    call = str(uuid.uuid4())
    arguments = {"command": "echo x >> /tmp/mark; sleep 3; cat /tmp/mark"}
    assert conversation.start("bash", arguments, call) == call
    assert conversation.start("bash", arguments, call) == call
    await_text(conversation, call, "x")
    server.kill()
    server.start()
    assert conversation.start("bash", arguments, call) == call
    assert "\nx\n[exit code 0" in conversation.wait(call).text
    assert "\nx\n[exit code 0" in conversation.call("bash", {"command": "echo; cat /tmp/mark"}).text
    with pytest.raises(Refused, match="another call has this id"):
        conversation.start("python", {"code": "1"}, call)
    with server.client() as client, pytest.raises(Refused, match="another call has this id"):
        client.conversation().start("bash", arguments, call)
    with pytest.raises(Refused, match="must be a UUID"):
        conversation.start("bash", arguments, "mine")


def test_a_call_that_nobody_knows_inside_ends_as_lost(server, conversation):
    with server.client() as client:
        empty = client.conversation()
        server.kill()
        rows = [
            (conversation.id, "bash", "check what the call has done before you repeat it"),
            (conversation.id, "python", "the Python kernel does not know the cell"),
            (conversation.id, "create_file", "check what the call has done"),
            (empty.id, "bash", "the sandbox it ran in is gone"),
        ]
        calls = [forge_running(server, *row[:2]) for row in rows]
        server.start()
        for call, (where, tool, text) in zip(calls, rows, strict=True):
            result = client.existing(where).wait(call)
            assert (result.state, result.tool, result.code) == ("lost", tool, "lost")
            assert result.is_error
            assert text in result.text


def forge_running(server, conversation_id: str, tool: str) -> str:
    """Put a call into the database that a server has begun which is dead."""
    call_id = str(uuid.uuid4())
    with contextlib.closing(sqlite3.connect(server.base / "data" / "sandbox.db")) as database:
        database.execute(
            "INSERT INTO calls (call_id, conversation_id, tool, state, started_at, server) "
            "VALUES (?, ?, ?, 'running', ?, 'dead')",
            (call_id, conversation_id, tool, int(time.time() * 1e6)),
        )
        database.commit()
    return call_id


@on_each_engine
def test_a_long_command_and_a_cell_outlive_client_server_and_browser(short_dir, engine_name):
    limit = "--SandboxLimits.command_seconds=1200"
    server = ServerProcess(short_dir / "s", engine_name, limit)
    try:
        seen = long_running.run(server, 30, ask_as_page)
        long_running.check(seen, 30)
    finally:
        server.close()


def ask_as_page(url: str, token: str, path: str) -> str:
    """Give the state of a call as a new page would ask for it; Chromium does it by hand."""
    request = urllib.request.Request(f"{url}/{path}", headers={"Authorization": f"token {token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(json.load(answer)["state"])
