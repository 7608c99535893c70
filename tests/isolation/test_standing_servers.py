"""A server that a sandbox has made to stand: it can be ended, and the next one does not stand again.

The test plays the sandbox, from the host, against a server without its defences.
"""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import time
import urllib.request

import pytest

from jupyter_sandbox.client import Conversation
from tests.attacks import attack
from tests.isolation.test_descriptor_attacks import passed
from tests.server_process import ServerProcess

pytestmark = [pytest.mark.timeout(150), pytest.mark.alone, pytest.mark.bubblewrap]


@pytest.fixture
def server(short_dir):
    process = ServerProcess(short_dir / "s", "bubblewrap")
    process.program = ("tests.unprotected_server",)
    process.start()
    yield process
    process.close()


def stands(server: ServerProcess) -> bool:
    try:
        urllib.request.urlopen(f"{server.url}/api", timeout=1).close()
    except TimeoutError:
        return True
    return False


def ask(server: ServerProcess, statement: str, conversation: Conversation) -> list[str]:
    """Give the first column that the server's database has for a conversation."""
    with contextlib.closing(sqlite3.connect(server.base / "data" / "sandbox.db")) as database:
        return [row[0] for row in database.execute(statement, (conversation.id,))]


def await_true(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition does not come true"
        time.sleep(0.05)


@attack("T46", on="")
def test_a_server_that_stands_is_ended_by_sigterm_and_the_next_does_not_adopt_who_made_it(server):
    with server.client() as client:
        hostile, neighbour = client.conversation(), client.conversation()
        for each in (hostile, neighbour):
            each.call("bash", {"command": "echo kept > /tmp/mark"})
    sandbox = ask(server, "SELECT sandbox_id FROM conversations WHERE conversation_id = ?", hostile)
    (path,) = (server.base / "run" / sandbox[0][:12] / "dial").glob("*.sock")
    assert server.process is not None
    with passed(path, b"x", server.process.pid, count=8):
        await_true(lambda: stands(server))
        await_true(lambda: "it is quarantined" in server.log())
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(20)
        print(f"ended {time.monotonic() - started:.1f} s after SIGTERM")
    server.program = ("jupyter", "server")
    server.start()
    with server.client() as client:
        result = client.existing(hostile.id).call("bash", {"command": "cat /tmp/mark"})
        assert "it had kept the server from answering anybody" in result.text
        assert "No such file" in result.text
        result = client.existing(neighbour.id).call("bash", {"command": "cat /tmp/mark"})
        assert result.text.startswith("kept")
        event = "SELECT action FROM audit WHERE conversation_id = ?"
        await_true(lambda: "sandbox_quarantined" in ask(server, event, hostile))
