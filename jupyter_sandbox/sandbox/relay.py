"""Host-private ipc endpoints of a kernel whose sockets live inside a sandbox.

For each of the five channels one unix socket that only this user can reach. Each connection to it
(of the host's libzmq) opens a stream of the guest to the kernel's own socket and is spliced with
it; what comes from the kernel passes through `ZmtpFilter`. The relay knows nothing of messages.

The rule: the host never touches a path inside; connections, held bytes and waits are bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from ..errors import Unavailable
from .link import GuestError, GuestLink, GuestStream
from .pace import Pace
from .zmtp import ZmtpError, ZmtpFilter

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")  # port 1 to 5, as the guest numbers them

_PIECE_BYTES = 256 * 1024
_MAX_CONNECTIONS = 64
_MAX_HELD_BYTES = 40 * 1024 * 1024
_FILTERED_BYTES = 8 * 1024  # at once: as many as 4,000 frames, 10 ms
_SMALL_MESSAGE_BYTES = 1024 * 1024  # stdin, control and heartbeat carry no output
_CONNECT_SECONDS = 20.0
_PAUSE_SECONDS = 0.03  # a kernel binds its sockets some 0.3 s after its start


class KernelRelay:
    """The five endpoints of one kernel process.

    Parameters
    ----------
    link : GuestLink
        To the sandbox.
    remote_prefix : str
        Inside: the kernel's sockets are ``{remote_prefix}-1`` to ``-5``. Never used on the host.
    local_prefix : Path
        Here: the relay's sockets; their directory is made with mode 0700 if it is missing.
    on_broken : callable, optional
        Called when a connection ended that had been established: messages may have been lost.
    on_violation : callable, optional
        Called with the reason when a kernel sent what no kernel sends; its connection is closed.
    """

    def __init__(
        self,
        link: GuestLink,
        remote_prefix: str,
        local_prefix: Path,
        *,
        on_broken: Callable[[], None] | None = None,
        on_violation: Callable[[str], None] | None = None,
        log: logging.Logger | None = None,
    ) -> None:
        self._link = link
        self._remote_prefix = remote_prefix
        self._local_prefix = local_prefix
        self._log = log or logging.getLogger(__name__)
        self._servers: list[asyncio.AbstractServer] = []
        self._connections: dict[asyncio.Task[None], ZmtpFilter] = {}
        self._first = asyncio.Lock()  # held by the connection that tries until the kernel is up
        self._is_up = False
        self._dropped = 0
        self._closed = False
        self.on_broken = on_broken
        self.on_violation = on_violation

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._connections)} connections"
        return f"<KernelRelay {self._local_prefix.name} {state}, {self.dropped} dropped>"

    @property
    def dropped(self) -> int:
        """How many messages of the kernel were over a bound."""
        return self._dropped + sum(each.dropped for each in self._connections.values())

    async def start(self) -> None:
        """Listen.

        Raises
        ------
        Unavailable
            The directory cannot be used, or its path is too long for a socket.
        """
        try:
            self._local_prefix.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for port, channel in enumerate(CHANNELS, start=1):
                path = self._path(port)
                path.unlink(missing_ok=True)
                # It listens only when it is on the list: asyncio gives a server that listens
                # after a pause, and one that is cancelled in it would listen for ever.
                server = await asyncio.start_unix_server(
                    self._accept_on(channel, port),
                    path=path,
                    limit=_PIECE_BYTES,
                    start_serving=False,
                )
                self._servers.append(server)
                path.chmod(0o600)
                await server.start_serving()
        except BaseException as exc:
            await asyncio.shield(self.close())
            if not isinstance(exc, OSError):
                raise
            raise Unavailable("the runtime directory is not usable", detail=repr(exc)) from exc

    async def close(self) -> None:
        """End all connections and remove the sockets. Twice is once."""
        if self._closed:
            return
        self._closed = True
        for server in self._servers:
            server.close()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)
        for port in range(1, len(CHANNELS) + 1):
            with contextlib.suppress(OSError):
                self._path(port).unlink()

    def _path(self, port: int) -> Path:
        return self._local_prefix.with_name(f"{self._local_prefix.name}-{port}")

    def _accept_on(
        self, channel: str, port: int
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self._closed or len(self._connections) >= _MAX_CONNECTIONS:
                writer.close()
                return
            if channel in ("shell", "iopub"):
                messages = ZmtpFilter()
            else:
                messages = ZmtpFilter(max_message_bytes=_SMALL_MESSAGE_BYTES)
            task = asyncio.ensure_future(self._serve(channel, port, reader, writer, messages))
            self._connections[task] = messages
            task.add_done_callback(self._forget)

        return accept

    def _forget(self, task: asyncio.Task[None]) -> None:
        messages = self._connections.pop(task)
        self._dropped += messages.dropped
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("%r: a connection failed", self, exc_info=error)

    async def _serve(
        self,
        channel: str,
        port: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        messages: ZmtpFilter,
    ) -> None:
        stream: GuestStream | None = None
        try:
            stream = await self._open(f"unix:{self._remote_prefix}-{port}")
            async with asyncio.TaskGroup() as both:
                both.create_task(self._outward(reader, stream))
                both.create_task(self._inward(stream, writer, messages))
        except* (Unavailable, GuestError, OSError) as group:
            self._log.debug("%r: %s: %s", self, channel, group.exceptions[0])
        except* ZmtpError as group:
            self._log.warning("%r: %s was cut off: %s", self, channel, group.exceptions[0])
            if self.on_violation is not None and not self._closed:
                self.on_violation(str(group.exceptions[0]))
        finally:
            writer.close()
            if stream is not None:
                stream.close()
                if self.on_broken is not None and not self._closed:
                    self.on_broken()

    async def _open(self, target: str) -> GuestStream:
        """Open the kernel's socket; waits while a kernel that was just started has none yet."""
        if self._is_up:
            return await self._try(target)
        async with self._first:  # one connection tries, the others wait for its success
            stream = await self._try(target)
            self._is_up = True
            return stream

    async def _try(self, target: str) -> GuestStream:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _CONNECT_SECONDS
        while True:
            try:
                return await self._link.open(target)
            except GuestError:
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _outward(self, reader: asyncio.StreamReader, stream: GuestStream) -> None:
        while data := await reader.read(_PIECE_BYTES):
            stream.writer.write(data)
            await stream.writer.drain()
        stream.writer.write_eof()

    async def _inward(
        self, stream: GuestStream, writer: asyncio.StreamWriter, messages: ZmtpFilter
    ) -> None:
        data = stream.take_rest() or await stream.reader.read(_PIECE_BYTES)
        pace = Pace()
        while data:
            for start in range(0, len(data), _FILTERED_BYTES):
                pace.begin()
                passed = messages.feed(data[start : start + _FILTERED_BYTES])
                if passed:
                    writer.write(passed)
                    await writer.drain()
                await pace.rest()
            if sum(each.held_bytes for each in self._connections.values()) > _MAX_HELD_BYTES:
                raise ZmtpError("too many bytes of unfinished messages")
            data = await stream.reader.read(_PIECE_BYTES)
        writer.write_eof()
