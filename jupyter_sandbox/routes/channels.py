"""``/sandbox/c/{id}/api/kernels/{kernel}/channels``: the kernel's messages over a websocket.

Both subprotocols of Jupyter. The rule: one message is written before the next is taken from the
kernel, and one is sent to the kernel before the next is read, so nothing here grows.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any

from jupyter_server.base.websocket import WebSocketMixin
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from ..conversations.kernel_client import KernelClient
from ..conversations.kernels import ConversationKernel
from ..errors import LimitExceeded, SandboxError
from .base import SandboxHandler, endpoint
from .websocket_messages import V1, decode, encode

_NOT_A_MESSAGE = 1007
_NO_ACCESS = 1008
_CANNOT = 1011
_TRY_AGAIN = 1013
_CLOSING: set[asyncio.Task[None]] = set()


class ChannelsHandler(WebSocketMixin, WebSocketHandler, SandboxHandler):
    """A client's websocket."""

    _kernel: ConversationKernel
    _client: KernelClient | None = None
    _is_gone = False

    def set_default_headers(self) -> None:
        """Set none: those of pages make no sense here."""

    async def prepare(self) -> None:  # type: ignore[override]
        """Identify the caller; who is unknown is answered by ``get``, not sent to a login page."""
        await SandboxHandler.prepare(self)

    @endpoint
    async def get(self, conversation_id: str, kernel_id: str) -> None:
        """Open the websocket; who may not gets the answers of all routes, before it is one."""
        await self.find(conversation_id)
        live = self.services.conversations.live(conversation_id)
        self._kernel = self.services.kernels.of(live)
        await self._kernel.require(kernel_id)
        await super().get(conversation_id, kernel_id)

    async def open(self, conversation_id: str, kernel_id: str) -> None:
        """Connect to the kernel; messages are read when that is done."""
        super().open(conversation_id, kernel_id)
        try:
            client = await self._kernel.connect(kernel_id, self._send)
        except SandboxError as exc:
            code = _TRY_AGAIN if isinstance(exc, LimitExceeded) else _CANNOT
            self.close(code, exc.message[:100])
            return
        self._client = client
        if self._is_gone:
            await client.close()

    async def on_message(self, message: bytes | str) -> None:
        """Hand a message on to the kernel."""
        client = self._client
        if client is None:
            return
        try:
            channel, header, parts = decode(message, self.selected_subprotocol == V1)
        except ValueError:
            self.close(_NOT_A_MESSAGE, "not a Jupyter message")
            return
        if not self.has_access and channel != "stdin":  # what runs goes on, nothing new begins
            self.close(_NO_ACCESS, "no chat access")
            return
        try:
            await client.request(channel, header, parts)
        except SandboxError as exc:
            self.close(_CANNOT, exc.message[:100])

    def on_close(self) -> None:
        """Let go of the kernel's side."""
        self._is_gone = True
        if self._client is not None:
            closing = asyncio.ensure_future(self._client.close())
            _CLOSING.add(closing)
            closing.add_done_callback(_CLOSING.discard)

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Choose the newer one if the client has it."""
        return V1 if V1 in subprotocols else None

    def get_compression_options(self) -> dict[str, Any] | None:
        """Give the server's."""
        options: dict[str, Any] | None = self.settings.get("websocket_compression_options")
        return options

    async def _send(self, channel: str, message: dict[str, Any] | None) -> None:
        if message is None:
            self.close()
            return
        data = encode(channel, message, self.selected_subprotocol == V1)
        with contextlib.suppress(WebSocketClosedError, StreamClosedError):
            sent: Awaitable[None] = self.write_message(data, binary=isinstance(data, bytes))
            await sent
