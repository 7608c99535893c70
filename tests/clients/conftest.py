"""A server process on loopback that clients nobody changed work with.

The tests are synchronous: the server and the clients are processes of their own, so they take no
fixture of pytest-jupyter.
"""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from benchmarks.server import running_server
from tests.live_server import LiveServer

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
        yield JupyterServer(server)


class JupyterServer(LiveServer):
    """The server, and what clients of Jupyter servers ask of it."""

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
