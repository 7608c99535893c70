"""The host's end of the streams that a guest opens: listen, keep idle streams, name their target.

The rule: this side creates the socket and accepts; it never connects to a path a sandbox can write.
Whatever comes from a stream is hostile: frames are bounded, streams are accepted at a bounded rate,
a first frame is small and awaited for a bounded time, a surplus stream is closed. One link is one
sandbox (the directory is the identity).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import re
import socket
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox_guest import protocol
from sandbox_guest.frames import Frame, FrameDecoder, FrameError, encode

from ..errors import SandboxError, Unavailable
from ..policy.json_bounds import check_json
from ..proxies.guest_sockets import GuestListener, listen

_READ_BYTES = 256 * 1024
_HELLO_SECONDS = 5.0
_MAX_IDLE = 2 * protocol.IDLE_STREAMS
_MAX_STREAMS = protocol.MAX_STREAMS
_MAX_HELLOS = 32  # streams at once that have not said who they are
_HELLO_BYTES = 4096
# A flood of connections costs the loop some 0.1 ms each, whoever they are from. Beyond this rate
# they wait in the socket's backlog, and beyond that whoever connects is refused.
_ACCEPTS_AT_ONCE = 256
_ACCEPTS_PER_SECOND = 200.0
_BACKLOG = 128
_POOLED = 4


_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")


class GuestError(SandboxError):
    """An error answer of the guest.

    Attributes
    ----------
    code : str
        Of docs/guest-protocol.md, e.g. ``"not_found"``. A claim of the sandbox, like all else.
    facts : dict
        Further fields of the answer.
    """

    def __init__(self, code: str, message: str, facts: dict[str, Any]) -> None:
        super().__init__(message)
        self.code = code
        self.facts = facts

    @classmethod
    def from_answer(cls, error: object) -> GuestError:
        """Read the ``error`` member of an answer; anything malformed is ``failed``."""
        if not isinstance(error, dict):
            return cls("failed", "the sandbox gave a malformed answer", {})
        facts = {k: v for k, v in error.items() if k not in ("code", "message")}
        code, message = error.get("code"), error.get("message")
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            code = "failed"
        return cls(code, valid_text(message[:2000]) if isinstance(message, str) else "", facts)


def closed(why: str = "", detail: str = "") -> Unavailable:
    """Give the error of streams that have ended; ``why`` when it was not the guest."""
    return Unavailable(why or "the sandbox closed the connection", detail=detail)


def valid_text(text: str) -> str:
    """Give a text that can be encoded: lone surrogates, which no honest guest sends, are shown."""
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True)
class Hello:
    """What a guest said of itself when it dialled."""

    boot_id: str
    version: str
    python: str


class GuestStream:
    """One stream: frames both ways, or raw bytes once its target is a socket inside.

    ``reader`` and ``writer`` are for the raw kind; bytes that came with the last frame are in
    ``take_rest()``.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.target = ""
        self.why = ""  # it was closed on this side, if not because its work is done
        self._decoder = FrameDecoder(_HELLO_BYTES, 0, check_json)  # until it is known

    def __repr__(self) -> str:
        return f"<GuestStream {self.target or 'idle'}{' closed' if self.closed else ''}>"

    @property
    def closed(self) -> bool:
        """Whether the stream is of no more use."""
        return self.writer.is_closing() or self.reader.at_eof()

    async def send(self, body: dict[str, Any], payload: bytes = b"") -> None:
        """Send one frame; waits while the guest does not read (back-pressure)."""
        try:
            self.writer.write(encode(body, payload))
            await self.writer.drain()
        except OSError as exc:
            raise closed(self.why, repr(exc)) from exc

    @property
    def has_more(self) -> bool:
        """Whether bytes have come that nobody has asked for."""
        return self._decoder.waiting_bytes > 0

    def trust_frames(self) -> None:
        """Take frames of every allowed size from now on: the stream has said who it is."""
        rest = self._decoder.take_rest()
        self._decoder = FrameDecoder(check=check_json)
        self._decoder.push(rest)

    async def receive(self) -> Frame:
        """Give the next frame. The caller bounds the time.

        Raises
        ------
        Unavailable
            The stream ended, or the guest broke the framing.
        """
        try:
            while True:
                frame: Frame | None = self._decoder.next_frame()
                if frame is not None:
                    return frame
                data = await self.reader.read(_READ_BYTES)
                if not data:
                    raise closed(self.why)
                self._decoder.push(data)
        except (OSError, FrameError) as exc:
            self.close()
            why = self.why or "the connection to the sandbox broke"
            raise closed(why, repr(exc)) from exc

    async def call(self, body: dict[str, Any], payload: bytes = b"") -> Frame:
        """Send a request, give its ``ok`` frame.

        Raises
        ------
        GuestError
            The guest refused.
        Unavailable
            It did not answer.
        """
        await self.send(body, payload)
        return await self.answer()

    async def answer(self) -> Frame:
        """Give the next frame if it is an ``ok``; raise what else it is."""
        frame = await self.receive()
        if "error" in frame.body:
            raise GuestError.from_answer(frame.body["error"])
        if not isinstance(frame.body.get("ok"), dict):
            raise Unavailable("the sandbox gave a malformed answer")
        return frame

    def take_rest(self) -> bytes:
        """Give the bytes after the last frame, for a stream that goes on raw."""
        return self._decoder.take_rest()

    def close(self) -> None:
        """End the stream. Twice is once."""
        self.writer.close()


class GuestLink:
    """All streams of one sandbox to this server process.

    Parameters
    ----------
    dial_dir : Path
        The directory that is mounted read-only in the sandbox; exists, is ours.
    name : str
        Of this process's socket in it (``{name}.sock``); one per server process.
    """

    def __init__(self, dial_dir: Path, name: str, log: logging.Logger | None = None) -> None:
        self._path = dial_dir / f"{name}.sock"
        self._log = log or logging.getLogger(__name__)
        self._listener: GuestListener | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._hellos = 0
        self._refused = 0
        self._idle: deque[GuestStream] = deque()
        self._waiters: deque[asyncio.Future[GuestStream]] = deque()
        self._pool: dict[str, list[GuestStream]] = {}
        self._all: set[GuestStream] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.hello: Hello | None = None
        self.why = ""  # it was closed for, if not because its work is done
        self._closed = False

    def __repr__(self) -> str:
        return f"<GuestLink {self._path.name} idle={len(self._idle)} streams={len(self._all)}>"

    @property
    def connected(self) -> bool:
        """Whether any stream to the guest is open."""
        return any(not stream.closed for stream in self._all)

    async def start(self) -> None:
        """Create the socket and listen. ``Unavailable`` when the path is too long or not ours."""
        try:
            self._listener = await listen(self._path, _BACKLOG)
        except OSError as exc:
            if exc.errno == errno.ENAMETOOLONG:
                raise Unavailable(
                    "the runtime directory's path is too long for a unix socket (107 bytes); "
                    "set SandboxApp.runtime_dir to a shorter one",
                    status=503,
                ) from exc
            raise Unavailable("the runtime directory is not usable", detail=repr(exc)) from exc
        self._accepting = asyncio.ensure_future(self._accept(self._listener))

    async def open(self, target: str, timeout_seconds: float = 10.0) -> GuestStream:
        """Give a stream whose target is named; the guest's answer is awaited.

        Raises
        ------
        GuestError
            The guest cannot reach the target.
        Unavailable
            No guest dialled, or it did not answer, in time.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                while True:
                    stream = await self._take_idle()
                    try:
                        await stream.send({"open": target})
                        frame = await stream.receive()
                    except Unavailable:
                        stream.close()  # it had died while idle: take another
                        continue
                    except BaseException:
                        stream.close()
                        raise
                    break
        except TimeoutError:
            raise Unavailable("the sandbox does not answer", status=504) from None
        if "error" in frame.body:
            stream.close()
            raise GuestError.from_answer(frame.body["error"])
        if frame.body.get("opened") != target:
            stream.close()
            raise Unavailable("the sandbox gave a malformed answer", detail="opened")
        stream.target = target
        return stream

    async def request(
        self, target: str, body: dict[str, Any], payload: bytes = b"", timeout_seconds: float = 30.0
    ) -> Frame:
        """Send one request to ``control`` or ``files`` on a pooled stream; give its answer."""
        try:
            async with asyncio.timeout(timeout_seconds), self.pooled(target) as stream:
                return await stream.call(body, payload)
        except TimeoutError:
            raise Unavailable("the sandbox does not answer", status=504) from None

    @contextlib.asynccontextmanager
    async def pooled(self, target: str) -> AsyncIterator[GuestStream]:
        """Lend a stream for one exchange; it is kept for the next if the exchange ended well."""
        pool = self._pool.setdefault(target, [])
        stream = None
        while pool and stream is None:
            stream = pool.pop()
            if stream.closed:
                stream.close()
                stream = None
        if stream is None:
            stream = await self.open(target)
        try:
            yield stream
        except GuestError:
            self._give_back(pool, stream)
            raise
        except BaseException:
            stream.close()
            raise
        self._give_back(pool, stream)

    async def wait_connected(self, timeout_seconds: float) -> Hello:
        """Wait until the guest has dialled; give what it said."""
        try:
            async with asyncio.timeout(timeout_seconds):
                stream = await self._take_idle()
        except TimeoutError:
            raise Unavailable("the sandbox did not start in time", status=504) from None
        self._idle.appendleft(stream)
        assert self.hello is not None
        return self.hello

    async def close(self, why: str = "") -> None:
        """Close all streams and remove the socket; who waits is told why. Twice is once."""
        if self._closed:
            return
        self._closed = True
        self.why = why
        for stream in self._all:
            stream.why = why
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait([self._accepting], timeout=2)
        if self._listener is not None:
            await self._listener.close()
        for task in list(self._tasks):
            task.cancel()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(Unavailable(why or "the sandbox was closed"))
        for stream in list(self._all):
            stream.close()
        self._all.clear()
        self._idle.clear()
        self._pool.clear()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2)

    def _give_back(self, pool: list[GuestStream], stream: GuestStream) -> None:
        if stream.closed or stream.has_more or len(pool) >= _POOLED or self._closed:
            stream.close()
        else:
            pool.append(stream)

    async def _take_idle(self) -> GuestStream:
        while self._idle:
            stream = self._idle.popleft()
            if not stream.closed:
                return stream
            stream.close()
        if self._closed:
            raise Unavailable(self.why or "the sandbox was closed")
        waiter: asyncio.Future[GuestStream] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._put_idle(waiter.result())
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)

    def _put_idle(self, stream: GuestStream) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(stream)
                return
        if len(self._idle) >= _MAX_IDLE:
            stream.close()
        else:
            self._idle.append(stream)

    async def _accept(self, listener: GuestListener) -> None:
        """Take streams at a bounded rate, for ever; those of other links do not wait for it."""
        loop = asyncio.get_running_loop()
        left, since = float(_ACCEPTS_AT_ONCE), loop.time()
        while True:
            now = loop.time()
            left = min(_ACCEPTS_AT_ONCE, left + (now - since) * _ACCEPTS_PER_SECOND)
            since = now
            if left < 1:
                await asyncio.sleep((1 - left) / _ACCEPTS_PER_SECOND)
                continue
            left -= 1
            try:
                connection = await listener.accept()
            except OSError as exc:  # no descriptors are left: others may give theirs back
                self._log.warning("%s: no stream can be accepted: %s", self, exc.strerror)
                await asyncio.sleep(1)
                continue
            if self._closed or len(self._all) >= _MAX_STREAMS or self._hellos >= _MAX_HELLOS:
                connection.close()
                await asyncio.sleep(0)  # a connection that is there already is given at once
                continue
            self._hellos += 1
            task = asyncio.ensure_future(self._hold(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(0)

    async def _hold(self, connection: socket.socket) -> None:
        """Keep a stream on the books from its hello to its end."""
        stream: GuestStream | None = None
        try:
            try:
                reader, writer = await asyncio.open_unix_connection(
                    sock=connection, limit=_READ_BYTES
                )
                stream = GuestStream(reader, writer)
                self._all.add(stream)
                hello = await self._greet(stream)
            except (TimeoutError, Unavailable, OSError) as exc:
                self._note_refused(exc)
                return
            finally:
                self._hellos -= 1
            self.hello = hello
            self._put_idle(stream)
            with contextlib.suppress(OSError):
                await writer.wait_closed()  # the stream counts until then
        finally:
            if stream is None:
                connection.close()
            else:
                stream.close()
                self._all.discard(stream)

    async def _greet(self, stream: GuestStream) -> Hello:
        async with asyncio.timeout(_HELLO_SECONDS):
            body = (await stream.receive()).body
        if body.get("hello") != protocol.NAME or body.get("protocol") != protocol.VERSION:
            raise Unavailable(f"unknown guest protocol {str(body.get('protocol'))[:20]!r}")
        stream.trust_frames()
        return Hello(
            str(body.get("boot_id", ""))[:64],
            str(body.get("version", ""))[:32],
            str(body.get("python", ""))[:32],
        )

    def _note_refused(self, why: Exception) -> None:
        """Log a stream without a proper hello; a flood of them is no flood of lines."""
        self._refused += 1
        if self._refused in (1, 10, 100) or self._refused % 1000 == 0:
            self._log.warning(
                "%s: a stream without a proper hello was closed (the %d.): %s",
                self,
                self._refused,
                why or "nothing came",
            )
