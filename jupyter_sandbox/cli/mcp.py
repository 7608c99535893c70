"""``jupyter sandbox mcp``: the running server's tools for clients that start their MCP servers.

Reads JSON-RPC messages from stdin, one a line, sends each to the server's ``/sandbox/mcp`` and
writes what comes back to stdout. It knows HTTP and lines, nothing of tools. The rule: stdout
carries messages only; whatever goes wrong is the answer to the request it went wrong with.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from jupyter_server.utils import url_path_join
from tornado.httpclient import HTTPClientError
from tornado.httputil import HTTPHeaders
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from traitlets import Unicode

from .running_server import find_server
from .strict_app import StrictApp

_MOST_AT_ONCE = 100
_END_SECONDS = 5.0
_MOST_BYTES = 64 * 1024 * 1024
_CANNOT_REACH = -32000
_NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_META_VERSION = "io.modelcontextprotocol/protocolVersion"


class McpApp(StrictApp):
    """Give the tools of the running Jupyter Server to a client over stdin and stdout."""

    name = "jupyter-sandbox-mcp"
    description = __doc__ or ""

    url = Unicode(
        help="The Jupyter Server, http://host:port/base. Default: the one that this user runs."
    ).tag(config=True)
    chat = Unicode(
        help="Key of the conversation to work in, as in `X-Jupyter-Chat-Id`; the same key finds "
        "it again. Default: a new conversation for each start of this command."
    ).tag(config=True)

    aliases = {"url": "McpApp.url", "chat": "McpApp.chat"}  # noqa: RUF012

    def start(self) -> None:
        """Pass messages until stdin ends; exit with 1 when there is no server to pass them to."""
        try:
            url, token = find_server(self.url, os.environ.get("JUPYTER_TOKEN", ""))
        except LookupError as exc:
            print(f"jupyter sandbox mcp: {exc}", file=sys.stderr)
            self.exit(1)
        bridge = Bridge(url_path_join(url, "sandbox/mcp"), token, self.chat, sys.stdout)
        asyncio.run(bridge.run(sys.stdin))


class Bridge:
    """Passes messages between lines and HTTP.

    Parameters
    ----------
    url : str
        Of the server's MCP endpoint.
    chat : str
        Key of the conversation; "" for one of this bridge's own.
    """

    def __init__(self, url: str, token: str, chat: str, out: TextIO) -> None:
        self._url = url
        self._out = out
        self._headers = {
            "Authorization": f"token {token}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "Mcp-Session-Id": uuid.uuid4().hex,
        }
        if chat:
            self._headers["X-Jupyter-Chat-Id"] = chat
        self._version = ""
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Bridge to {self._url}>"

    async def run(self, lines: TextIO) -> None:
        """Pass messages until the input ends; then give the last ones a moment."""
        self._client = SimpleAsyncHTTPClient(
            force_instance=True, max_clients=_MOST_AT_ONCE, max_body_size=_MOST_BYTES
        )
        queue: asyncio.Queue[str] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        threading.Thread(target=_read, args=(lines, loop, queue), daemon=True).start()
        while line := await queue.get():
            if not line.strip():
                continue
            task = asyncio.create_task(self._pass(line))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            if '"initialize"' in line:
                await asyncio.wait([task])  # its answer says what the next ones must carry
        if self._tasks:
            _, unanswered = await asyncio.wait(self._tasks, timeout=_END_SECONDS)
            for task in unanswered:
                task.cancel()
        self._client.close()

    async def _pass(self, line: str) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            self._write(
                {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "Parse error"}}
            )
            return
        message = message if isinstance(message, dict) else {}
        events = _Events(self._take)
        try:
            answer = await self._client.fetch(
                self._url,
                method="POST",
                body=line.encode(),
                headers=HTTPHeaders({**self._headers, **self._routing(message)}),
                streaming_callback=events.feed,
                header_callback=events.header,
                connect_timeout=10,
                request_timeout=0,
                raise_error=False,
            )
        except (OSError, HTTPClientError) as exc:
            self._fail(message, f"the Jupyter Server cannot be reached: {exc}")
            return
        if not events.end() and answer.code not in (200, 202):
            self._fail(message, f"the Jupyter Server answered {answer.code}: {events.rest[:500]}")

    def _routing(self, message: dict[str, Any]) -> dict[str, str]:
        """Give the headers that repeat what the body says, as HTTP wants it."""
        params = message.get("params")
        params = params if isinstance(params, dict) else {}
        meta = params.get("_meta")
        version = meta.get(_META_VERSION) if isinstance(meta, dict) else None
        if not isinstance(version, str):
            is_first = message.get("method") == "initialize"
            return {"MCP-Protocol-Version": self._version} if self._version and not is_first else {}
        headers = {"MCP-Protocol-Version": version, "Mcp-Method": str(message.get("method"))}
        field = _NAMED_BY.get(str(message.get("method")))
        if field is not None and isinstance(params.get(field), str):
            headers["Mcp-Name"] = params[field]
        return headers

    def _take(self, message: dict[str, Any]) -> None:
        result = message.get("result")
        if isinstance(result, dict) and isinstance(result.get("protocolVersion"), str):
            self._version = result["protocolVersion"]
        self._write(message)

    def _fail(self, message: dict[str, Any], text: str) -> None:
        if "id" in message:
            error = {"code": _CANNOT_REACH, "message": text}
            self._write({"jsonrpc": "2.0", "id": message["id"], "error": error})
        else:
            print(f"jupyter sandbox mcp: {text}", file=sys.stderr)

    def _write(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message) + "\n")  # ASCII: no line separators of Unicode
        self._out.flush()


class _Events:
    """Finds the messages of an answer: one in JSON, or the events of a stream."""

    def __init__(self, take: Callable[[dict[str, Any]], None]) -> None:
        self._take = take
        self._buffer = b""
        self._is_stream = False
        self._took = False

    def __repr__(self) -> str:
        return f"<_Events {len(self._buffer)} bytes wait>"

    @property
    def rest(self) -> str:
        """What was no message."""
        return self._buffer.decode("utf-8", "replace")

    def header(self, line: str) -> None:
        """Take a line of the answer's head."""
        name, _, value = line.partition(":")
        if name.lower() == "content-type":
            self._is_stream = value.strip().startswith("text/event-stream")

    def feed(self, data: bytes) -> None:
        """Take a piece of the answer."""
        self._buffer += data
        if self._is_stream:
            *events, self._buffer = self._buffer.split(b"\n\n")
            for event in events:
                for message in _data(event):
                    self._take(message)
                    self._took = True

    def end(self) -> bool:
        """Take what is left; say whether there was any message."""
        if self._buffer and not self._is_stream:
            try:
                message = json.loads(self._buffer)
            except ValueError:
                return False
            if isinstance(message, dict) and "jsonrpc" in message:
                self._take(message)
                return True
        return self._took


def _data(event: bytes) -> Iterator[dict[str, Any]]:
    lines = event.decode("utf-8", "replace").split("\n")
    data = "\n".join(line[5:].lstrip(" ") for line in lines if line.startswith("data:"))
    if data:
        yield json.loads(data)


def _read(lines: TextIO, loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[str]) -> None:
    """Read lines in a thread: stdin may be a file, a pipe or a terminal."""
    for line in lines:
        loop.call_soon_threadsafe(queue.put_nowait, line if line.strip() else "\n")
    loop.call_soon_threadsafe(queue.put_nowait, "")
