"""A server process on loopback that clients nobody changed work with.

The tests are synchronous: the server and the clients are processes of their own, so they take no
fixture of pytest-jupyter.
"""

from __future__ import annotations

import contextlib
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from benchmarks.server import BenchServer, running_server

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.bubblewrap)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def jp_asyncio_loop():
    """Take the place of pytest-jupyter's: the tests have loops of their own."""


@pytest.fixture(autouse=True)
def jp_server_cleanup():
    """Take the place of pytest-jupyter's: no server runs in this process."""


@pytest.fixture(scope="module")
def sandbox_server():
    """A server with sandboxes of bubblewrap; what clients see is the same on each engine."""
    with running_server("bubblewrap") as server:
        yield Server(server)


class Server:
    """The server, and its API as an assistant uses it.

    Attributes
    ----------
    url : str
        Ends with ``/``.
    """

    def __init__(self, server: BenchServer) -> None:
        self._server = server
        self.url = server.url
        self.token = server.token
        self.pid = server.pid

    def json(self, method: str, path: str, body: object = None) -> Any:
        """Ask the API (``path`` below ``sandbox/api/``); what is no success fails."""
        with contextlib.closing(self._server.client()) as client:
            return client.json(method, path, body)

    def conversation(self) -> str:
        return self.json("POST", "conversations", {})["id"]

    def of(self, conversation: str) -> str:
        """Give the base URL of a conversation as a Jupyter server."""
        return f"{self.url}sandbox/c/{conversation}/"

    def ask(self, method: str, conversation: str, path: str) -> Any:
        """Ask a conversation's Jupyter API (``path`` below ``api/``)."""
        request = urllib.request.Request(
            f"{self.of(conversation)}api/{path}",
            data=b"" if method == "POST" else None,
            headers={"Authorization": f"token {self.token}"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def text(self, conversation: str, tool: str, **arguments: object) -> str:
        """Call a tool; give the text that the model reads."""
        result = self.json("POST", f"conversations/{conversation}/tools/{tool}", arguments)
        return "\n".join(p["text"] for p in result["content"] if p["type"] == "text")
