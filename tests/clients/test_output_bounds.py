"""A flood of output over a websocket: the client gets its cap and the notice, the server stays small.

The server is a process of its own, whose resident memory is watched while cells print.
"""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid

import psutil
import pytest
import websocket

MEBIBYTE = 1_048_576
NOTICE = "... output truncated (exceeded 1 MiB) ..."
MEMORY_BYTES = 40 * MEBIBYTE
SECONDS = 120

# one message of 20 MB, sent past the kernel's own cap; and a million lines, through it
ONE_MESSAGE = """
from IPython import get_ipython
k = get_ipython().kernel
k.session.send(k.iopub_socket, 'stream', {'name': 'stdout', 'text': 'x' * 20_000_000},
               parent=k.get_parent())
"""
MILLION_LINES = "for n in range(1_000_000): print(n)"
FLOODS = {
    "one print": "print('x' * 20_000_000)",
    "one message": ONE_MESSAGE,
    "a million lines": MILLION_LINES,
    "many messages": "for _ in range(30_000): print('x' * 200, flush=True)",
}


class Peak:
    """The most resident memory that a process has while the block runs, above what it had before."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._over = threading.Event()

    def __enter__(self) -> Peak:
        self._before = self._most = self._process.memory_info().rss
        self._watching = threading.Thread(target=self._watch)
        self._watching.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._watching.join()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self._most = max(self._most, self._process.memory_info().rss)

    @property
    def growth_bytes(self) -> int:
        return self._most - self._before


class Notebook:
    """A websocket of a conversation's kernel."""

    def __init__(self, server, conversation: str, receive_bytes: int = 0) -> None:
        model = server.ask("POST", conversation, "kernels")
        url = f"{server.of(conversation)}api/kernels/{model['id']}/channels".replace(
            "http", "ws", 1
        )
        # a small window: what the client does not read cannot lie in the kernel's buffers
        options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)] if receive_bytes else []
        self.socket = websocket.create_connection(
            url, header=[f"Authorization: token {server.token}"], timeout=SECONDS, sockopt=options
        )

    def begin(self, code: str) -> str:
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": "execute_request",
            "session": "s",
            "username": "u",
            "date": "2026-01-01T00:00:00Z",
            "version": "5.4",
        }
        content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        self.socket.send(json.dumps({**message, "channel": "shell", "buffers": []}))
        return header["msg_id"]

    def end(self, msg_id: str) -> list[tuple[str, str]]:
        """Read until the cell is over; give its streams, by name."""
        streams, is_idle, has_reply = [], False, False
        while not (is_idle and has_reply):
            message = json.loads(self.socket.recv())
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            kind, content = message["header"]["msg_type"], message["content"]
            if kind == "stream":
                streams.append((content["name"], content["text"]))
            has_reply = has_reply or kind == "execute_reply"
            is_idle = is_idle or content.get("execution_state") == "idle"
        return streams

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def conversation(sandbox_server):
    """One whose kernel has run: what a server needs once is not part of a figure."""
    conversation = sandbox_server.conversation()
    notebook = Notebook(sandbox_server, conversation)
    notebook.end(notebook.begin("print('x' * 3_000_000)"))
    notebook.close()
    return conversation


@pytest.mark.parametrize("code", FLOODS.values(), ids=FLOODS)
def test_a_flood_is_capped_with_a_notice_on_stderr(sandbox_server, conversation, code):
    notebook = Notebook(sandbox_server, conversation)
    with Peak(sandbox_server.pid) as peak:
        streams = notebook.end(notebook.begin(code))
    print(f"the server grew by {peak.growth_bytes / 1e6:.1f} MB")
    notices = [name for name, text in streams if NOTICE in text]
    assert notices == ["stderr"]
    assert sum(len(text) for _, text in streams) < MEBIBYTE + 2000
    assert peak.growth_bytes < MEMORY_BYTES
    assert notebook.end(notebook.begin("print('next')")) == [("stdout", "next\n")]
    notebook.close()


def test_a_client_that_never_reads_costs_the_server_nothing(sandbox_server, conversation):
    deaf = [Notebook(sandbox_server, conversation, receive_bytes=4096) for _ in range(4)]
    with Peak(sandbox_server.pid) as peak:
        for notebook, code in zip(deaf, FLOODS.values(), strict=True):
            if code != MILLION_LINES:  # which takes long; the next test has it
                notebook.begin(code)
        # the kernel works through all of it; the assistant's call waits its turn behind
        shown = sandbox_server.text(
            conversation, "python", code="print('still here')", timeout_seconds=SECONDS
        )
    print(f"the server grew by {peak.growth_bytes / 1e6:.1f} MB")
    assert "still here" in shown
    assert peak.growth_bytes < MEMORY_BYTES
    reader = Notebook(sandbox_server, conversation)
    assert reader.end(reader.begin("print('next')")) == [("stdout", "next\n")]
    for notebook in (*deaf, reader):
        notebook.close()


def test_a_flood_goes_on_without_clients_and_is_over_when_they_come_back(
    sandbox_server, conversation
):
    notebook = Notebook(sandbox_server, conversation)
    code = f"{MILLION_LINES}\nprint('x' * 20_000_000)\nlast = n"
    with Peak(sandbox_server.pid) as peak:
        notebook.begin(code)
        while json.loads(notebook.socket.recv())["header"]["msg_type"] != "stream":
            pass
        notebook.close()
        deadline = time.monotonic() + SECONDS
        while sandbox_server.ask("GET", conversation, "status")["connections"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        back = Notebook(sandbox_server, conversation)
        streams = back.end(back.begin("print(last)"))
    print(f"the server grew by {peak.growth_bytes / 1e6:.1f} MB")
    assert streams == [("stdout", "999999\n")]
    assert peak.growth_bytes < MEMORY_BYTES
    back.close()
