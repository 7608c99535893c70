"""One client of a conversation's kernel: what it sends, and what of the answers it gets.

It knows messages and neither websockets nor their encodings. The rule: a request to run code is a
use of the conversation, and starts or wakes what is missing; a connection that only listens is
none. While the sandbox is suspended other requests are answered here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest, LimitExceeded, NotFound
from ..fair_turns import in_thread
from ..policy.displays import ToClean, bundles_of, with_cleaned
from ..previews.rendering import Renderer
from ..sandbox.kernel_channels import KernelChannels
from ..sandbox.kernel_messages import KernelMessage
from ..sandbox.output_gate import Message, OutputGate
from ..sandbox.python_kernel import PythonKernel
from .resting_kernel import answer_resting, message_of

if TYPE_CHECKING:
    from .kernels import ConversationKernel

Send = Callable[[str, Message | None], Awaitable[None]]
"""Sends a message on a channel to the client, and waits until it is on its way; None: goodbye."""

_IN_A_THREAD_BYTES = 32 * 1024
_INFO_BYTES = 32 * 1024
_CHANNELS = frozenset(("shell", "control", "stdin"))


class KernelClient:
    """A connection.

    Parameters
    ----------
    renderer : Renderer
        Cleans what is HTML in a display.
    """

    def __init__(
        self,
        kernel: ConversationKernel,
        kernel_id: str,
        send: Send,
        gate: OutputGate,
        renderer: Renderer,
    ) -> None:
        self.kernel_id = kernel_id
        self._kernel = kernel
        self._python: PythonKernel | None = None
        self._send = send
        self._gate = gate
        self._renderer = renderer
        self._channels: KernelChannels | None = None
        self._connecting = asyncio.Lock()  # guards the two above while they change
        self._closed = False

    def __repr__(self) -> str:
        return f"<KernelClient {self._python!r}>"

    async def connect(self, python: PythonKernel) -> None:
        """Connect to a kernel that was started; returns when it answers. Twice is once.

        Raises
        ------
        Unavailable
            It does not answer.
        """
        async with self._connecting:
            if self._closed or (self._python is python and self._channels is not None):
                return
            await self._disconnect()
            channels = python.channels()
            try:
                await channels.open(self._on_message)
            except BaseException:
                await asyncio.shield(channels.close())
                raise
            self._python, self._channels = python, channels

    async def disconnect(self) -> None:
        """Let go of the kernel; the client stays, and may be connected again."""
        async with self._connecting:
            await self._disconnect()

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
                if sandbox.python.kernel_id != self.kernel_id:
                    raise NotFound("There is no such kernel.")
                await sandbox.python.ensure_started()
                await self.connect(sandbox.python)
                await self._pass_on(channel, parts)
        elif self._channels is None or self._kernel.conversation.rests_since is not None:
            for where, message in answer_resting(channel, header, self._kernel.info):
                await self._send(where, message)
        else:
            await self._pass_on(channel, parts)

    async def restarted(self) -> None:
        """Tell the client that the kernel is a new one, once that answers here."""
        if self._channels is not None:
            await self._channels.ready()
        await self.tell_state("restarting")

    async def tell_state(self, state: str) -> None:
        """Tell the client the kernel's state."""
        await self._send("iopub", message_of("status", {"execution_state": state}))

    async def close(self) -> None:
        """Let go of the kernel and say goodbye. Twice is once."""
        if self._closed:
            return
        self._closed = True
        self._kernel.disconnected(self)
        await self.disconnect()
        await self._send("", None)

    async def _disconnect(self) -> None:
        channels, self._channels, self._python = self._channels, None, None
        if channels is not None:
            await channels.close()

    async def _pass_on(self, channel: str, parts: list[bytes]) -> None:
        channels = self._channels
        if channels is not None:  # else it was closed meanwhile
            await channels.send(channel, parts)

    async def _on_message(self, channel: str, message: KernelMessage) -> None:
        owner = self._kernel.conversation.owner
        if message.size > _IN_A_THREAD_BYTES:
            admitted = await in_thread(self._gate.admit, channel, message, owner=owner)
        else:
            admitted = self._gate.admit(channel, message)
        for each in admitted:
            for bundle in bundles_of(each["content"]):
                await self._clean(bundle, owner)
        if message.msg_type == "kernel_info_reply" and admitted and message.size < _INFO_BYTES:
            self._kernel.note_info(admitted[0]["content"])
        for each in admitted:
            await self._send(channel, each)

    async def _clean(self, bundle: dict[str, Any], owner: str) -> None:
        """Clean a display's HTML in a worker; what takes too long there is not shown."""
        html = bundle.get("text/html")
        if not isinstance(html, ToClean):
            return
        cleaned = None
        with contextlib.suppress(LimitExceeded, InvalidRequest):
            cleaned = await self._renderer.render("display", html.kind, html.text, owner)
        shown = with_cleaned(bundle, lambda _: cleaned)
        bundle.clear()
        bundle.update(shown)
