"""Commands and cells that run while the server is killed, restarted, or away: nothing is lost."""

from __future__ import annotations

import time

import pytest

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


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_silent_command_and_a_cell_go_on_at_the_same_time(server, conversation, end):
    conversation.call("python", {"code": "kept = 41"})
    command = conversation.start("bash", {"command": "sleep 6; echo silent no more"})
    code = f"{MARK}('begun')\nimport time\nprint('first')\ntime.sleep(6)\nprint('last')\nkept + 1"
    cell = conversation.start("python", {"code": code})
    await_text(conversation, cell, "begun")
    getattr(server, end)()
    server.start()
    bash, python = conversation.wait(command), conversation.wait(cell)
    for result in (bash, python):
        assert result.state == "finished", result.text
        assert RESUMED in result.text
    assert "silent no more\n[exit code 0" in bash.text
    assert "first\nlast\n42\n" in python.text
    after = conversation.call("python", {"code": "kept"})
    assert after.text.startswith("41")
