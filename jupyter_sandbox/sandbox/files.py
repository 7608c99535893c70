"""The host's end of the file service: files of one sandbox, as typed calls.

Contents go through the guest only; no path of a sandbox is ever opened here. The rule: every answer
is checked, every wait is bounded, and bytes are counted here, never believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from sandbox_guest.frames import Frame, FrameError
from sandbox_guest.protocol import CHUNK_BYTES, FILES, MAX_PAYLOAD_BYTES

from ..errors import Unavailable
from .answers import Answer, malformed
from .file_errors import refine
from .file_models import (
    Edit,
    Exported,
    FileBytes,
    FileStat,
    LinesView,
    Listing,
    Room,
    Usage,
    WriteResult,
)
from .link import GuestError, GuestLink, GuestStream

QUICK_SECONDS = 10.0
SLOW_SECONDS = 60.0
REMOVE_SECONDS = 120.0
STEP_SECONDS = 30.0  # between two frames of a chunked exchange
_SLOWEST_EXPORT = 2 * 1024 * 1024  # bytes a second
_SMALL_PIECE_BYTES = 16 * 1024  # the guest's have CHUNK_BYTES, but for the last one
_MOST_SMALL_PIECES = 64

T = TypeVar("T")
Sink = Callable[[bytes], Awaitable[None]]
"""Takes the next piece of a file; its exception ends the export."""


class GuestFiles:
    """The files of one sandbox.

    Every method raises ``GuestError`` when the guest refuses (``code`` as in
    docs/guest-protocol.md) and ``Unavailable`` when it does not answer, or not sensibly, in time.
    Paths are absolute inside or relative to the workspace.
    """

    def __init__(self, link: GuestLink) -> None:
        self._link = link

    def __repr__(self) -> str:
        return f"<GuestFiles {self._link!r}>"

    async def stat(self, path: str, follow: bool = True) -> FileStat:
        """Give what a path is; with ``follow`` false a link is looked at itself."""
        frame = await self._ask({"op": "stat", "path": path, "follow": follow})
        return FileStat.from_answer(_ok(frame))

    async def list(
        self,
        path: str,
        *,
        depth: int = 1,
        max_entries: int = 1000,
        hidden: bool = False,
        skip: Sequence[str] = (),
    ) -> Listing:
        """Give a directory's entries, sorted, ``depth`` (1 to 3) levels deep.

        Parameters
        ----------
        max_entries : int
            1 to 5,000; the number beyond is in ``more``.
        skip : sequence of str
            Names to leave out wherever they are, e.g. ``node_modules``.
        """
        request = {
            "op": "list",
            "path": path,
            "depth": depth,
            "max_entries": max_entries,
            "hidden": hidden,
            "skip": [*skip],
        }
        return Listing.from_answer(_ok(await self._ask(request, SLOW_SECONDS)), max_entries)

    async def read(
        self, path: str, offset: int = 0, max_bytes: int = MAX_PAYLOAD_BYTES
    ) -> FileBytes:
        """Give up to ``max_bytes`` (at most 4 MiB) from ``offset``; empty beyond the end."""
        request = {"op": "read", "path": path, "offset": offset, "max_bytes": max_bytes}
        frame = await self._ask(request, SLOW_SECONDS)
        return FileBytes(_payload(frame, max_bytes), _ok(frame).whole("size"))

    async def view(
        self, path: str, first: int = 1, last: int = -1, max_bytes: int = 1024 * 1024
    ) -> LinesView:
        """Give the lines ``first`` to ``last`` (1-based; -1 is the end), at most ``max_bytes``.

        Raises
        ------
        BadRange
            There are no such lines.
        """
        request = {
            "op": "view",
            "path": path,
            "first": first,
            "last": last,
            "max_bytes": max_bytes,
        }
        frame = await self._ask(request, SLOW_SECONDS)
        return LinesView.from_answer(_ok(frame), _payload(frame, max_bytes))

    async def write(
        self,
        path: str,
        data: bytes | AsyncIterable[bytes],
        overwrite: bool = False,
        mode: int | None = None,
    ) -> WriteResult:
        """Write a whole file, all at once for those who read it; parents are made.

        Parameters
        ----------
        data : bytes or async iterable of bytes
            Of any size. If the iterable raises, nothing is written and its exception passes. How
            long it may take is for the caller to bound.
        overwrite : bool
            False: an existing file is refused (``exists``).
        mode : int, optional
            Permission bits of a new file; an existing file keeps its own.
        """
        request: dict[str, Any] = {"op": "write", "path": path, "overwrite": overwrite}
        if mode is not None:
            request["mode"] = mode
        frame = await self._send(request, data)
        return WriteResult.from_answer(_ok(frame))

    async def replace(self, path: str, old: str, new: str) -> Edit:
        """Change the one occurrence of ``old``, or nothing.

        Raises
        ------
        NoMatch, ManyMatches
            With what a message needs.
        """
        try:
            old_data, new_data = old.encode("utf-8"), new.encode("utf-8")
        except UnicodeEncodeError:
            raise GuestError("bad_request", "old and new text must be valid Unicode", {}) from None
        request = {"op": "replace", "path": path, "old_bytes": len(old_data)}
        frame = await self._send(request, old_data + new_data)
        return Edit.from_answer(_ok(frame), frame.payload)

    async def export(self, path: str, root: str, max_bytes: int, sink: Sink) -> Exported:
        """Hand a regular file beneath ``root``, reached without any link, to ``sink``.

        What ``sink`` has got is worth nothing unless this returns: ``changed`` and ``too_large``
        may come after it.
        """
        digest = hashlib.sha256()
        size = pieces = 0
        request = {"op": "export", "path": path, "root": root, "max_bytes": max_bytes}
        seconds = SLOW_SECONDS + max_bytes / _SLOWEST_EXPORT
        async with _in_time(seconds), self._exchange() as stream:
            await _step(stream.send(request))
            while True:
                frame = await _step(stream.receive())
                if "error" in frame.body:
                    raise GuestError.from_answer(frame.body["error"])
                last = "ok" in frame.body
                if not last and (frame.body.get("chunk") is not True or not frame.payload):
                    raise malformed("a chunk was due")
                size += len(frame.payload)
                pieces += 1
                if size > max_bytes:
                    raise malformed("more than was asked for")
                if pieces > _MOST_SMALL_PIECES + size // _SMALL_PIECE_BYTES:
                    raise malformed("too many small pieces")
                digest.update(frame.payload)
                if frame.payload:
                    await sink(frame.payload)
                if last:
                    break
            claim = _ok(frame)
            if claim.whole("size") != size or claim.text("sha256", 64) != digest.hexdigest():
                raise malformed("size or hash is not that of the bytes")
            return Exported(
                size,
                digest.hexdigest(),
                claim.moment("modified_at"),
                claim.whole("mode", 0, 0o7777),
            )

    async def usage(
        self, paths: Sequence[str], max_entries: int = 1_000_000, top: int = 0
    ) -> Usage:
        """Give the bytes on the disk below ``paths``, and the ``top`` (0 to 20) largest files."""
        request = {"op": "usage", "paths": [*paths], "max_entries": max_entries, "top": top}
        return Usage.from_answer(_ok(await self._ask(request, SLOW_SECONDS)), top)

    async def room(
        self, paths: Sequence[str], *, everywhere: bool = False, entries: bool = False
    ) -> Room:
        """Give which file systems of ``paths`` are full, and what is largest in them.

        ``everywhere``: what is largest also where nothing is full; ``entries``: by their number.
        """
        request = {"op": "room", "paths": [*paths], "all": everywhere, "entries": entries}
        return Room.from_answer(_ok(await self._ask(request)))

    async def mkdir(self, path: str) -> None:
        """Make a directory and its parents; ``exists`` if something is there."""
        await self._ask({"op": "mkdir", "path": path})

    async def rename(self, path: str, to: str) -> None:
        """Give another name; ``exists`` if it is taken."""
        await self._ask({"op": "rename", "path": path, "to": to})

    async def remove(self, path: str, recursive: bool = False) -> None:
        """Remove a file, a link or a directory (``not_empty`` unless ``recursive``)."""
        request = {"op": "remove", "path": path, "recursive": recursive}
        await self._ask(request, REMOVE_SECONDS)

    async def _ask(self, request: dict[str, Any], seconds: float = QUICK_SECONDS) -> Frame:
        try:
            return await self._link.request(FILES, request, timeout_seconds=seconds)
        except GuestError as exc:
            raise refine(exc) from None
        except FrameError:
            raise _request_too_large() from None

    async def _send(self, request: dict[str, Any], data: bytes | AsyncIterable[bytes]) -> Frame:
        """Send a request with contents in chunks; give its answer."""
        async with self._exchange() as stream:
            body = request
            pieces = _pieces(data)
            held = await anext(pieces, b"")
            try:
                async for piece in pieces:
                    await _step(stream.send({**body, "more": True}, held))
                    body, held = {"chunk": True}, piece
            except (Unavailable, asyncio.CancelledError):
                raise
            except Exception:  # of the iterable: the guest forgets what it got
                if body is not request:
                    await _step(stream.send({"chunk": True, "abort": True}))
                    with contextlib.suppress(GuestError):
                        await _step(stream.answer())
                raise
            await _step(stream.send(body, held))
            async with _in_time(SLOW_SECONDS):
                return await stream.answer()

    @contextlib.asynccontextmanager
    async def _exchange(self) -> AsyncIterator[GuestStream]:
        try:
            async with self._link.pooled(FILES) as stream:
                yield stream
        except GuestError as exc:
            raise refine(exc) from None
        except FrameError:
            raise _request_too_large() from None


async def _pieces(data: bytes | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Cut contents into pieces of at most ``CHUNK_BYTES``; join what is smaller."""
    if isinstance(data, bytes):
        for start in range(0, len(data), CHUNK_BYTES):
            yield data[start : start + CHUNK_BYTES]
        return
    waiting = bytearray()
    async for piece in data:
        waiting += piece
        while len(waiting) >= CHUNK_BYTES:
            yield bytes(waiting[:CHUNK_BYTES])
            del waiting[:CHUNK_BYTES]
    if waiting:
        yield bytes(waiting)


@contextlib.asynccontextmanager
async def _in_time(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Unavailable("the sandbox does not answer", status=504) from None


async def _step(awaitable: Awaitable[T]) -> T:
    async with _in_time(STEP_SECONDS):
        return await awaitable


def _request_too_large() -> GuestError:
    """Give the error for arguments (a path of megabytes) that no frame can carry."""
    return GuestError("bad_request", "the arguments are too large", {})


def _ok(frame: Frame) -> Answer:
    return Answer(frame.body.get("ok"))


def _payload(frame: Frame, most: int) -> bytes:
    if len(frame.payload) > most:
        raise malformed("more bytes than were asked for")
    return frame.payload
