"""An HTTP client that costs next to nothing: one connection, one request at a time.

It measures servers, so it does no more than a request needs: prepared headers, TCP_NODELAY, one
``sendall``, the answer by its ``Content-Length``.
"""

from __future__ import annotations

import json
import socket
from typing import Any

_READ_BYTES = 256 * 1024
_SECONDS = 120.0


class CaseFailed(Exception):
    """Something did not work that was to be measured."""


class Client:
    """Keeps one connection to a server on loopback.

    Parameters
    ----------
    headers : str
        Further header fields, each ended by CRLF.
    """

    def __init__(self, port: int, headers: str = "") -> None:
        self._fields = f"Host: 127.0.0.1:{port}\r\n{headers}"
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self._socket.close()

    def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Give status and body of the answer."""
        head = f"{method} {path} HTTP/1.1\r\n{self._fields}Content-Length: {len(body)}\r\n\r\n"
        self._socket.sendall(head.encode() + body)
        data = bytearray()
        end = -1
        while end < 0:
            self._read(data)
            end = data.find(b"\r\n\r\n")
        fields = bytes(data[:end]).lower()
        status = int(fields[9:12])
        length = 0 if status == 204 else _content_length(fields)
        while len(data) < end + 4 + length:
            self._read(data)
        return status, bytes(data[end + 4 :])

    def download(self, path: str) -> int:
        """Give the size of what is there; the bytes are read and dropped."""
        self._socket.sendall(f"GET {path} HTTP/1.1\r\n{self._fields}\r\n".encode())
        data = bytearray()
        while (end := data.find(b"\r\n\r\n")) < 0:
            self._read(data)
        fields = bytes(data[:end]).lower()
        if fields[9:12] != b"200":
            raise CaseFailed(f"GET {path}: {fields[9:12].decode()}")
        length = _content_length(fields)
        got, buffer = len(data) - end - 4, bytearray(_READ_BYTES)
        while got < length:
            size = self._socket.recv_into(buffer)
            if not size:
                raise CaseFailed("the server closed the connection")
            got += size
        return got

    def _read(self, data: bytearray) -> None:
        piece = self._socket.recv(_READ_BYTES)
        if not piece:
            raise CaseFailed("the server closed the connection")
        data += piece


def _content_length(fields: bytes) -> int:
    at = fields.find(b"\r\ncontent-length:")
    if at < 0:
        raise CaseFailed("an answer without a length")
    return int(fields[at + 17 :].partition(b"\r\n")[0])


class SandboxClient:
    """The REST API as a benchmark uses it: whatever is no success ends the case."""

    def __init__(self, port: int, token: str) -> None:
        self._client = Client(port, f"Authorization: token {token}\r\n")

    def close(self) -> None:
        self._client.close()

    def json(self, method: str, path: str, body: object = None) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        status, answer = self._client.request(method, f"/sandbox/api/{path}", data)
        if status >= 300:
            raise CaseFailed(f"{method} {path}: {status} {answer[:300]!r}")
        return json.loads(answer) if answer else None

    def get(self, path: str) -> tuple[int, bytes]:
        """Give status and body of any path of the server."""
        return self._client.request("GET", path)

    def put(self, path: str, data: bytes) -> None:
        """Send bytes as they are."""
        status, answer = self._client.request("PUT", f"/sandbox/api/{path}", data)
        if status >= 300:
            raise CaseFailed(f"PUT {path}: {status} {answer[:300]!r}")

    def download(self, path: str) -> int:
        """Read a file and drop it; give its size."""
        return self._client.download(f"/sandbox/api/{path}")

    def metric(self, name: str) -> float:
        """Give the value of a metric; ``name`` ends with a space, or with the labels."""
        _, text = self._client.request("GET", "/metrics")
        for line in text.decode().splitlines():
            if line.startswith(name):
                return float(line.rpartition(" ")[2])
        return 0.0

    def create(self) -> str:
        """Give the id of a new conversation."""
        conversation: str = self.json("POST", "conversations", {"title": "benchmark"})["id"]
        return conversation

    def delete(self, conversation: str) -> None:
        self.json("DELETE", f"conversations/{conversation}")

    def conversations(self) -> list[str]:
        """Give the ids of all that are there."""
        return [each["id"] for each in self.json("GET", "conversations")["conversations"]]

    def call(self, conversation: str, tool: str, **arguments: object) -> bytes:
        """Call a tool and give the raw answer; the cheap look at it finds every failure."""
        path = f"/sandbox/api/conversations/{conversation}/tools/{tool}"
        status, answer = self._client.request("POST", path, json.dumps(arguments).encode())
        ends = answer[:400] + answer[-400:]
        ran = tool != "bash" or b'"exit_code": 0' in ends
        if status != 200 or b'"is_error": false' not in ends or not ran:
            raise CaseFailed(f"{tool}: {status} {answer[:600]!r}")
        return answer
