"""The four channels of one client that is not ours: a notebook, a console, any Jupyter client.

It carries messages between a client and the kernel and knows neither websockets nor what may pass.
The rule: one message of a channel is handed on before the next is read, so a client that reads
slowly holds up its own sockets and nobody's memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable

import zmq
import zmq.asyncio
from jupyter_client.session import DELIM, Session

from ..errors import LimitExceeded, Unavailable
from ..fair_turns import in_thread
from .kernel_messages import KernelMessage, MessageError, read_message

OnMessage = Callable[[str, KernelMessage], Awaitable[None]]
"""Is given a channel and a message; the channel's next one is read when it is done."""

_QUEUE = 8  # messages in either direction; the relay bounds their size
_LARGE_BYTES = 64 * 1024  # read in a thread
_ASK_AGAIN_SECONDS = 0.5
_READY_SECONDS = 20.0
_SEND_SECONDS = 30.0
_MOST_PROBES = 100


class KernelChannels:
    """One client's connection to a kernel that runs.

    Parameters
    ----------
    urls : dict
        Of the channels ``shell``, ``control``, ``iopub`` and ``stdin``.
    session : Session
        With the kernel's key; not shared with anybody.
    owner : callable
        Gives whose turns reading large messages takes.
    """

    def __init__(
        self,
        context: zmq.asyncio.Context,
        urls: dict[str, str],
        session: Session,
        owner: Callable[[], str],
        log: logging.Logger,
    ) -> None:
        self._session = session
        self._owner = owner
        self._log = log
        self._tasks: list[asyncio.Task[None]] = []
        self._probes: set[str] = set()
        self._heard = asyncio.Event()
        self._answered = asyncio.Event()
        identity = uuid.uuid4().bytes  # one name on all: the kernel asks for input by it
        self._sockets = {
            channel: _socket(context, zmq.SUB if channel == "iopub" else zmq.DEALER, url, identity)
            for channel, url in urls.items()
        }

    def __repr__(self) -> str:
        return f"<KernelChannels {'open' if self._tasks else 'closed'}>"

    async def open(self, on_message: OnMessage) -> None:
        """Begin to read; returns when the kernel answers and its output arrives.

        Raises
        ------
        Unavailable
            It does not, in time.
        """
        for channel, socket in self._sockets.items():
            task = asyncio.ensure_future(self._read(channel, socket, on_message))
            self._tasks.append(task)
        await self.ready()

    async def ready(self) -> None:
        """Wait until the kernel answers and its output arrives, also after a restart.

        Raises
        ------
        Unavailable
            It does not, in time.
        """
        self._heard.clear()
        self._answered.clear()
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not (self._heard.is_set() and self._answered.is_set()):
                    await self._probe()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_ASK_AGAIN_SECONDS):
                            await self._answered.wait()
                            await self._heard.wait()
        except TimeoutError:
            raise Unavailable("the Python kernel does not answer", status=504) from None

    async def send(self, channel: str, parts: list[bytes]) -> None:
        """Send a client's message: header, parent, metadata, content, buffers, as they came.

        Raises
        ------
        Unavailable
            The kernel has read nothing for a while.
        """
        frames = [DELIM, self._session.sign(parts[:4]), *parts]
        try:
            async with asyncio.timeout(_SEND_SECONDS):
                await self._sockets[channel].send_multipart(frames)
        except TimeoutError:
            raise Unavailable("the Python kernel reads no requests", status=504) from None

    async def close(self) -> None:
        """Stop. Twice is once."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)
        for socket in self._sockets.values():
            socket.close(linger=0)

    async def _probe(self) -> None:
        """Ask the kernel what it is, on the channel that answers even while a cell runs."""
        message = self._session.msg("kernel_info_request", {})
        if len(self._probes) >= _MOST_PROBES:
            self._probes.clear()
        self._probes.add(str(message["header"]["msg_id"]))
        await self._sockets["control"].send_multipart(self._session.serialize(message))

    async def _read(self, channel: str, socket: zmq.asyncio.Socket, on_message: OnMessage) -> None:
        while True:
            frames: list[bytes] = await socket.recv_multipart()
            try:
                if sum(len(frame) for frame in frames) > _LARGE_BYTES:
                    message = await in_thread(
                        read_message, self._session, frames, owner=self._owner()
                    )
                else:
                    message = read_message(self._session, frames)
            except (MessageError, LimitExceeded) as exc:
                self._log.debug("%r: a message was dropped: %s", self, exc)
                continue
            if channel == "iopub":
                self._heard.set()
            elif channel == "control":
                self._answered.set()
            if message.parent_id in self._probes:
                continue
            try:
                await on_message(channel, message)
            except Exception:
                self._log.exception("%r: a message could not be handed on", self)


def _socket(
    context: zmq.asyncio.Context, kind: int, url: str, identity: bytes
) -> zmq.asyncio.Socket:
    socket = context.socket(kind)
    socket.linger = 0
    socket.rcvhwm = _QUEUE
    socket.sndhwm = _QUEUE
    socket.reconnect_ivl = 50
    socket.reconnect_ivl_max = 1000
    if kind == zmq.SUB:
        socket.subscribe(b"")
    else:
        socket.identity = identity
    socket.connect(url)
    return socket
