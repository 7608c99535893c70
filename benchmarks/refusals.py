"""A sandbox that keeps asking for hosts it may not reach, switched on and off from outside.

For measuring what that costs its neighbours: everything of the way is real, from the forwarder
inside to the result of the command. The rule: it runs for as long as it is told to, and counts.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from .client import SandboxClient

_DIR = PurePosixPath("/workspace")
_SETTLE_SECONDS = 0.2
# Eight threads: more than the proxy grants a conversation, so it is always at its bound.
_SCRIPT = """
import os, socket, threading, time
count = 0
def ask():
    with socket.create_connection(("127.0.0.1", 3128)) as sock:
        sock.sendall(b"CONNECT flood.example:443 HTTP/1.1\\r\\n\\r\\n")
        assert b" 403 " in sock.recv(65536)
def work():
    global count
    while not os.path.exists("stop"):
        if not os.path.exists("go"):
            time.sleep(0.01)
            continue
        try:
            ask()
            count += 1
        except (OSError, AssertionError):
            time.sleep(0.01)
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("refused", count)
"""


class Flood:
    """The switch; it costs a call to the other sandbox, so it is not part of what is measured."""

    def __init__(self, client: SandboxClient, conversation: str) -> None:
        self._client = client
        self._conversation = conversation
        self._is_on = False
        self.refused = 0

    def switch(self, on: bool) -> None:
        """Start or stop asking, and let that settle. Twice is once."""
        if on != self._is_on:
            command = f"touch {_DIR}/go" if on else f"rm -f {_DIR}/go"
            self._client.call(self._conversation, "bash", command=command)
            time.sleep(_SETTLE_SECONDS)
            self._is_on = on

    def beside(self, work: Callable[[], object], on: bool) -> Callable[[], float]:
        """Give an arm that does the work while the flood is on, or while it is off."""

        def arm() -> float:
            self.switch(on)
            started = time.perf_counter()
            work()
            return time.perf_counter() - started

        return arm


@contextlib.contextmanager
def flood(client: SandboxClient) -> Iterator[Flood]:
    """Give a flood that is off, in a conversation of its own; after it, how many were refused."""
    conversation = client.create()
    client.call(conversation, "create_file", path=f"{_DIR}/flood.py", file_text=_SCRIPT)
    client.call(conversation, "bash", command=f"cd {_DIR} && python3 flood.py > count 2> errors &")
    made = Flood(client, conversation)
    try:
        yield made
        ended = "touch stop; until grep -q refused count; do sleep 0.05; done; cat count"
        shown = json.loads(client.call(conversation, "bash", command=f"cd {_DIR}; {ended}"))
        made.refused = int(shown["content"][0]["text"].partition("refused ")[2].split()[0])
    finally:
        client.delete(conversation)
