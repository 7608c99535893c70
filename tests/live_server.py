"""A server process on loopback, and its API as an assistant uses it, for synchronous tests."""

from __future__ import annotations

import contextlib
from typing import Any

from benchmarks.server import BenchServer
from tests.conftest import text_of

OUTPUTS = "/mnt/user-data/outputs"


class LiveServer:
    """The server, and its API as an assistant uses it.

    Attributes
    ----------
    url : str
        Ends with ``/``.
    pid : int
        Of its process at first.
    """

    def __init__(self, server: BenchServer) -> None:
        self._server = server
        self.url = server.url
        self.token = server.token
        self.pid = server.pid
        self.directory = server.directory

    def json(self, method: str, path: str, body: object = None) -> Any:
        """Ask the API (``path`` below ``sandbox/api/``); what is no success fails."""
        with contextlib.closing(self._server.client()) as client:
            return client.json(method, path, body)

    def conversation(self, title: str = "") -> str:
        return self.json("POST", "conversations", {"title": title})["id"]

    def call(self, conversation: str, tool: str, **arguments: object) -> dict[str, Any]:
        return self.json("POST", f"conversations/{conversation}/tools/{tool}", arguments)

    def text(self, conversation: str, tool: str, **arguments: object) -> str:
        """Call a tool; give the text that the model reads."""
        return text_of(self.call(conversation, tool, **arguments))

    def upload(self, conversation: str, name: str, data: bytes) -> None:
        with contextlib.closing(self._server.client()) as client:
            client.put(f"conversations/{conversation}/uploads/{name}", data)

    def share(self, conversation: str, name: str, data: bytes) -> dict[str, Any]:
        """Share a file of this name and contents; give its card."""
        self.upload(conversation, name, data)
        copied = self.call(
            conversation, "bash", command=f"cp '/mnt/user-data/uploads/{name}' {OUTPUTS}/"
        )
        assert copied["exit_code"] == 0, copied
        result = self.call(conversation, "share_files", paths=[f"{OUTPUTS}/{name}"])
        assert not result["is_error"], result
        return next(part for part in result["content"] if part["type"] == "file")

    def kill(self) -> None:
        """End the server as a crash does."""
        self._server.kill()

    def start_again(self) -> None:
        """Start the server once more, on the same data, at the same address."""
        self._server.start_again()

    def log(self) -> str:
        """Give what the server has logged."""
        return (self.directory / "server.log").read_text(errors="replace")
