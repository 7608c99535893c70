"""``/sandbox/mcp`` and ``/sandbox/c/{id}/mcp``: the tools over the Model Context Protocol.

A POST is a whole exchange; the server keeps nothing between two but the calls that run. Which
conversation a call is for: the one of the URL; else the owner's with the key that
``X-Jupyter-Chat-Id`` gives; else one for each session of a client (handshake), or for each client
name (stateless). The rule: only a token opens this door (a cookie would let any page in that the
user visits), and whatever a client says about itself selects among its owner's conversations only.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
import re
import uuid
from importlib.metadata import version
from typing import Any
from urllib.parse import quote, urlsplit

from jupyter_server.utils import url_path_join

from ...errors import AccessError, LimitExceeded, SandboxError
from ...fair_turns import in_thread
from ...models import Areas, ConversationRecord, JsonValue
from ...tools.call import Call
from ...tools.registry import export, names
from ..base import SandboxHandler, endpoint
from . import messages
from .content import call_result, error_result, fit_event
from .in_flight import InFlight, Key
from .messages import Message, Refusal, read_message
from .progress import LastLine

_STREAM_AFTER_SECONDS = 2.0
_PROGRESS_SECONDS = 5.0
_SESSION = re.compile(r"[\x21-\x7e]{1,128}")
_CHAT_HEADER = "X-Jupyter-Chat-Id"
_SESSION_HEADER = "Mcp-Session-Id"


class McpHandler(SandboxHandler):
    """The protocol's one address; it offers no stream of its own (GET) and ends no session."""

    needs_access = False  # who has none finds no tools; a call made anyway is refused

    def initialize(self, **kwargs: Any) -> None:
        """Begin with a client that is there."""
        super().initialize(**kwargs)
        self._gone = asyncio.Event()

    def on_connection_close(self) -> None:
        """Note that the client has gone: in the stateless era that cancels its call."""
        super().on_connection_close()
        self._gone.set()

    @endpoint
    async def post(self, conversation_id: str = "") -> None:
        """Answer one message."""
        if not self.token_authenticated:
            self.answer_error(403, "token_required", "MCP clients must send a token.")
            return
        if not self._origin_is_ours():
            self.answer_error(403, "cross_origin", "Requests from this origin are refused.")
            return
        if conversation_id:
            self.require_access()
        record = await self.find(conversation_id) if conversation_id else None
        message = read_message(bytes(self._body), self.request.headers)
        if isinstance(message, Refusal):
            self.answer(message.to_json(), message.status)
        elif message.request_id is None:
            await self._notified(message, conversation_id)
            self.set_status(202)
            await super(SandboxHandler, self).finish()
        else:
            await self._request(message, record)

    async def _request(self, message: Message, record: ConversationRecord | None) -> None:
        match message.method:
            case "initialize" if not message.stateless:
                self.set_header(_SESSION_HEADER, uuid.uuid4().hex)
                self._result(message, self._welcome(message))
            case "ping" if not message.stateless:
                self._result(message, {})
            case "server/discover" if message.stateless:
                self._result(message, self._introduction())
            case "tools/list":
                tools = self._tools()
                self._result(message, {"tools": tools, "ttlMs": 0, "cacheScope": "private"})
            case "tools/call":
                await self._call(message, record)
            case _:
                self._error(message, messages.METHOD_NOT_FOUND, "Method not found")

    def _welcome(self, message: Message) -> dict[str, JsonValue]:
        asked = message.params.get("protocolVersion")
        known = asked in messages.HANDSHAKE_VERSIONS
        return {
            "protocolVersion": str(asked) if known else messages.HANDSHAKE_VERSIONS[-1],
            "capabilities": {"tools": {}},
            "serverInfo": self._server(),
            "instructions": self._guidance(),
        }

    def _introduction(self) -> dict[str, JsonValue]:
        return {
            "supportedVersions": [*messages.STATELESS_VERSIONS],
            "capabilities": {"tools": {}},
            "instructions": self._guidance(),
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": {messages.META_SERVER: self._server()},
        }

    def _server(self) -> dict[str, JsonValue]:
        return {
            "name": "jupyter_sandbox",
            "title": "Jupyter sandbox",
            "version": version("jupyter_sandbox"),
        }

    def _guidance(self) -> str:
        return self.services.guidance() if self._has_tools else ""

    def _tools(self) -> list[JsonValue]:
        return export("mcp", self.services.limits) if self._has_tools else []

    @property
    def _has_tools(self) -> bool:
        return self.services.engine_available and self.has_access

    async def _call(self, message: Message, record: ConversationRecord | None) -> None:
        name, arguments = message.params.get("name"), message.params.get("arguments")
        arguments = {} if arguments is None else arguments
        if not isinstance(name, str) or not isinstance(arguments, dict):
            self._error(message, messages.INVALID_PARAMS, "name and arguments are needed")
            return
        if name not in names():
            self._error(message, messages.INVALID_PARAMS, f"Unknown tool: {name[:60]!r}")
            return
        try:
            self.require_access()
        except AccessError as exc:
            self._result(message, error_result(f"Nothing was done: {exc.message}", exc.code))
            return
        if record is None:
            record = await self._own_conversation(message)
        record = await self.find_for_use(record.conversation_id)
        try:
            call = await self.services.calls.start(record, name, arguments)
        except LimitExceeded as exc:  # the model can wait and call again
            self._result(message, error_result(exc.message, exc.code))
            return
        key = self._key(message.request_id, record.conversation_id)
        with self._in_flight.noted(key, record, call):
            await self._follow(message, record, call)

    async def _follow(self, message: Message, record: ConversationRecord, call: Call) -> None:
        """Answer with the result; a call that takes its time gets a stream with progress."""
        streamed = "text/event-stream" in self.request.headers.get("Accept", "")
        if not await self._over(call, _STREAM_AFTER_SECONDS if streamed else None):
            if not self._gone.is_set():
                await self._stream(message, call)
            if not call.done.done():
                await self._left(message, record, call)
                return
        if not self._finished and not self._gone.is_set():
            assert message.request_id is not None
            result = self._complete(message, self._of(call))
            await self.answer_large(messages.result_json(message.request_id, result))

    async def _stream(self, message: Message, call: Call) -> None:
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Accel-Buffering", "no")
        await self.services.calls.announce(call)
        token, ticks, seen = message.progress_token, 0, LastLine(call)
        try:
            while not await self._over(call, _PROGRESS_SECONDS):
                if self._gone.is_set():
                    return
                ticks += 1
                if token is None:
                    await self._write(": still running\n\n")
                    continue
                params: dict[str, JsonValue] = {
                    "progressToken": token,
                    "progress": ticks,
                    "message": seen.text or "still running",
                }
                await self._event(
                    {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
                )
            assert message.request_id is not None
            result = self._complete(message, await in_thread(fit_event, self._of(call)))
            await self._event(messages.result_json(message.request_id, result))
        finally:
            await seen.close()
        await super(SandboxHandler, self).finish(set_content_type="text/event-stream")

    async def _over(self, call: Call, seconds: float | None) -> bool:
        """Wait until the call is over or the client has gone; say whether the call is over."""
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            either: list[asyncio.Future[Any]] = [call.done, gone]
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        return call.done.done()

    async def _left(self, message: Message, record: ConversationRecord, call: Call) -> None:
        """Cancel a call whose client has closed the connection, if that is how it cancels."""
        if message.stateless:
            await self.services.calls.cancel(record, call.call_id)

    async def _notified(self, message: Message, conversation_id: str) -> None:
        """Take a notification; the one that does something is the cancellation."""
        if message.method != "notifications/cancelled":
            return
        if message.stateless and not self._session:
            return  # it cancels by closing its stream; ids of other clients are none of its
        request_id = message.params.get("requestId")
        if not isinstance(request_id, (str, int)):
            return
        found = self._in_flight.find(self._key(request_id, conversation_id))
        if found is not None:
            with contextlib.suppress(SandboxError):  # nobody reads an answer to a notification
                await self.services.calls.cancel(found[0], found[1].call_id)

    async def _own_conversation(self, message: Message) -> ConversationRecord:
        """Give the conversation that this client's calls without one in the URL belong to."""
        chat, session = self.request.headers.get(_CHAT_HEADER), self._session
        if chat:
            key, title = chat, ""
        elif session:
            key, title = f"mcp-session:{session}", "MCP session"
        else:
            client = re.sub(r"[^\w.@ -]", "_", message.client)[:60] or "client"
            key, title = f"mcp-client:{client}", f"MCP: {client}"
        record, _ = await self.services.conversations.create(self.owner, title, key)
        return record

    @property
    def _session(self) -> str:
        session = self.request.headers.get(_SESSION_HEADER, "")
        return session if _SESSION.fullmatch(session) else ""

    def _key(self, request_id: messages.RequestId | None, conversation_id: str) -> Key:
        assert request_id is not None
        return self.owner, self._session or conversation_id, request_id

    @property
    def _in_flight(self) -> InFlight:
        in_flight: InFlight = self.settings.setdefault("jupyter_sandbox_mcp", InFlight())
        return in_flight

    def _origin_is_ours(self) -> bool:
        """Refuse a page of another site that got hold of a token (DNS rebinding).

        The server's own check lets everything with a token pass.
        """
        origin = self.request.headers.get("Origin")
        if origin is None:
            return True
        if urlsplit(origin.lower()).netloc == self.request.host.lower():
            return True
        allowed, pattern = self.allow_origin, self.allow_origin_pat
        if allowed:
            return allowed in ("*", origin)
        return bool(pattern and re.fullmatch(pattern, origin))

    def _of(self, call: Call) -> dict[str, JsonValue]:
        if call.state == "running":
            return error_result(
                "exec failed: the server is being restarted. The call goes on; look at what it "
                "has done before you repeat it.",
                "unavailable",
            )
        return call_result(call.to_json(), lambda path: self._download_url(call, path))

    def _download_url(self, call: Call, path: str) -> str:
        relative = posixpath.relpath(posixpath.normpath(path), Areas().outputs)
        below = url_path_join(
            self.base_url, "sandbox/files", call.conversation_id, quote(relative, safe="/")
        )
        return f"{self.request.protocol}://{self.request.host}{below}"

    def _result(self, message: Message, result: dict[str, JsonValue]) -> None:
        assert message.request_id is not None
        self.answer(messages.result_json(message.request_id, self._complete(message, result)))

    def _complete(self, message: Message, result: dict[str, JsonValue]) -> dict[str, JsonValue]:
        """Add what every result of the stateless era has."""
        return {**result, "resultType": "complete"} if message.stateless else result

    def _error(self, message: Message, code: int, text: str) -> None:
        status = messages.HTTP_STATUS.get(code, 200) if message.stateless else 200
        self.answer(messages.error_json(message.request_id, code, text), status)

    async def _event(self, data: JsonValue) -> None:
        await self._write(f"event: message\ndata: {await self.encoded(data)}\n\n")

    async def _write(self, text: str) -> None:
        await self.write_large(text)
