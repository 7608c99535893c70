"""``/sandbox/api/tools`` and the calls of a conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from ..errors import InvalidRequest
from ..models import JsonValue
from ..tools.call import Call
from ..tools.registry import FORMATS, export
from .base import SandboxHandler, endpoint
from .links import with_links

_HEARTBEAT_SECONDS = 10.0


class ToolsHandler(SandboxHandler):
    """The tools, for any assistant."""

    _track_activity = False
    needs_access = False  # without it there are no tools: an answer that any assistant can use

    @endpoint
    async def get(self) -> None:
        """Give the tools in one of three schemas, and the guidance for system instructions."""
        wanted = self.get_query_argument("format", "anthropic")
        if wanted not in FORMATS:
            raise InvalidRequest(f"format: must be one of {', '.join(FORMATS)}.")
        if not self.services.engine_available or not self.has_access:
            self.answer({"tools": [], "guidance": ""})
            return
        limits = self.services.limits
        self.answer({"tools": export(wanted, limits), "guidance": self.services.guidance()})


class ToolCallHandler(SandboxHandler):
    """Calls of one tool."""

    @endpoint
    async def post(self, conversation_id: str, name: str) -> None:
        """Call it; the body is its arguments.

        ``Accept: text/event-stream``: ``output`` events, then one ``result``. ``?wait=SECONDS``:
        202 with the call if it still runs then, or if this server stops before its end. The call
        goes on when the client goes away. ``?call_id=UUID``: an id that the caller has chosen;
        asking again with it, also of a later server process, gives the same call.
        """
        record = await self.find_for_use(conversation_id)
        wait = self.integer_argument("wait", -1, 0, 86400)
        body = self.json_body()
        call_id = self.get_query_argument("call_id", "")
        call = await self.services.calls.start(record, name, body, call_id)
        if "text/event-stream" in self.request.headers.get("Accept", ""):
            await self._stream(call)
            return
        if wait >= 0:
            await asyncio.wait([call.done], timeout=wait)
            if not call.done.done():
                await self.services.calls.announce(call)
                await self.answer_large(self.to_json(call), 202)
                return
        await call.done  # unshielded: nobody cancels a handler
        await self.answer_large(self.to_json(call), 202 if call.state == "running" else 200)

    def to_json(self, call: Call) -> Mapping[str, JsonValue]:
        """Give the model of a call, its files with their addresses."""
        return with_links(self.base_url, call.conversation_id, call.to_json())

    async def _stream(self, call: Call) -> None:
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Accel-Buffering", "no")
        await self.services.calls.announce(call)
        await self._event("call", {"call_id": call.call_id})
        pieces = call.follow()
        pending = asyncio.ensure_future(anext(pieces))
        try:
            while True:
                done, _ = await asyncio.wait([pending], timeout=_HEARTBEAT_SECONDS)
                if not done:
                    self.write(": still running\n\n")
                    await self.flush()
                    continue
                try:
                    text = pending.result()
                except StopAsyncIteration:
                    break
                await self._event("output", {"text": text})
                pending = asyncio.ensure_future(anext(pieces))
            if call.state != "running":  # else the server stops: the client asks the next one
                await self._event("result", self.to_json(call))
        finally:
            pending.cancel()
        super(SandboxHandler, self).finish(set_content_type="text/event-stream")

    async def _event(self, name: str, data: object) -> None:
        await self.write_large(f"event: {name}\ndata: {await self.encoded(data)}\n\n")


class CallHandler(SandboxHandler):
    """A running or finished call."""

    @endpoint
    async def get(self, conversation_id: str, call_id: str) -> None:
        """Give its state and, when it is over, its result; ``?wait=SECONDS`` waits for the end."""
        record = await self.find(conversation_id)
        wait = self.integer_argument("wait", 0, 0, 86400)
        call = await self.services.calls.fetch(record, call_id, wait)
        await self.answer_large(with_links(self.base_url, conversation_id, call))


class CancelHandler(SandboxHandler):
    """The end of a running call."""

    @endpoint
    async def post(self, conversation_id: str, call_id: str) -> None:
        """End it: its command is interrupted, and ended if that does not help."""
        record = await self.find(conversation_id)
        await self.services.calls.cancel(record, call_id)
        call = await self.services.calls.fetch(record, call_id, 0)
        await self.answer_large(with_links(self.base_url, conversation_id, call), 202)
