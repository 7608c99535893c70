"""One client of a conversation's kernel: what it sends, and what of the answers it gets.

It knows messages and neither websockets nor their encodings. The rule: a request to run code is a
use of the conversation, and starts what is missing; a connection that only listens is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ..errors import NotFound
from ..sandbox.kernel_messages import KernelMessage
from ..sandbox.output_gate import Message, OutputGate
from ..sandbox.python_kernel import PythonKernel

if TYPE_CHECKING:
    from .kernels import ConversationKernel

Send = Callable[[str, Message | None], Awaitable[None]]
"""Sends a message on a channel to the client, and waits until it is on its way; None: goodbye."""

_IN_A_THREAD_BYTES = 2 * 1024
_CHANNELS = frozenset(("shell", "control", "stdin"))


class KernelClient:
    """A connection.

    Parameters
    ----------
    threads : ThreadPoolExecutor
        Where long messages are cleaned: not where the rest of the server's work is done.
    """

    def __init__(
        self,
        kernel: ConversationKernel,
        python: PythonKernel,
        send: Send,
        gate: OutputGate,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._kernel = kernel
        self._python = python
        self._send = send
        self._gate = gate
        self._threads = threads
        self._channels = python.channels()
        self._closed = False

    def __repr__(self) -> str:
        return f"<KernelClient {self._python!r}>"

    async def open(self) -> None:
        """Begin; returns when the kernel answers."""
        await self._channels.open(self._on_message)

    async def request(self, channel: str, header: dict[str, Any], parts: list[bytes]) -> None:
        """Send a message of the client's to the kernel.

        Parameters
        ----------
        header : dict
            As it was read from ``parts``, which go on as they are: header, parent, metadata,
            content, buffers.

        Raises
        ------
        NotFound
            The sandbox of this kernel is gone, and its kernel with it.
        """
        if channel not in _CHANNELS:
            return
        msg_id, msg_type = header.get("msg_id"), header.get("msg_type")
        if isinstance(msg_id, str):
            self._gate.note_request(msg_id)
        self._kernel.note_activity()
        if msg_type == "execute_request":
            async with self._kernel.conversation.use() as sandbox:
                if sandbox.python is not self._python:
                    raise NotFound("There is no such kernel.")
                await self._python.ensure_started()
                await self._channels.send(channel, parts)
        else:
            await self._channels.send(channel, parts)

    async def restarted(self) -> None:
        """Tell the client that the kernel is a new one, once that answers here."""
        await self._channels.ready()
        await self.tell_state("restarting")

    async def tell_state(self, state: str) -> None:
        """Tell the client the kernel's state."""
        moment = datetime.now(UTC)
        header = {
            "msg_id": uuid4().hex,
            "msg_type": "status",
            "username": "",
            "session": "",
            "date": moment,
            "version": "5.4",
        }
        content = {"execution_state": state}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        await self._send("iopub", {**message, "buffers": []})

    async def close(self) -> None:
        """Let go of the kernel and say goodbye. Twice is once."""
        if self._closed:
            return
        self._closed = True
        self._kernel.disconnected(self)
        await self._channels.close()
        await self._send("", None)

    async def _on_message(self, channel: str, message: KernelMessage) -> None:
        if message.size > _IN_A_THREAD_BYTES:
            loop = asyncio.get_running_loop()
            admitted = await loop.run_in_executor(self._threads, self._gate.admit, channel, message)
        else:
            admitted = self._gate.admit(channel, message)
        for each in admitted:
            await self._send(channel, each)
