"""The folder ``workspace``: files of a running sandbox, where an administrator shows them.

Everything goes through the guest's file service. The rule: looking starts, wakes and attaches
nothing that does not run, and is no use of the sandbox; only writing provisions one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime

from ...errors import Forbidden, InvalidRequest, LimitExceeded, NotFound, SandboxError, Unavailable
from ...policy.media import media_of
from ...policy.names import decide_file_name
from ...sandbox.file_models import Kind
from ...sandbox.link import GuestError
from ...sandbox.sandbox import Sandbox
from ..conversation import Conversation
from .area import Area, Node, Parts, Reader

_MOST_ENTRIES = 5000
_PIECE_BYTES = 1024 * 1024
_WAITING_PIECES = 2
_SHOWN: frozenset[Kind] = frozenset(("file", "directory"))


class WorkspaceArea(Area):
    """The workspace of one conversation.

    Parameters
    ----------
    root : str
        Of the workspace, inside.
    limit_bytes : int
        Of a file that is written.
    """

    def __init__(
        self, conversation: Conversation, created_at: datetime, root: str, limit_bytes: int
    ) -> None:
        super().__init__("workspace")
        self._conversation = conversation
        self._created_at = created_at
        self._root = root
        self._limit_bytes = limit_bytes

    async def look(self, parts: Parts) -> Node | None:
        """Give what a path is in the running sandbox; without one only the folder itself is."""
        if not parts:
            return Node(self.name, True, True, self._created_at, self._created_at)
        async with self._conversation.use_running() as sandbox:
            if sandbox is None:
                return None
            try:
                stat = await sandbox.files.stat(self._inside(parts))
            except GuestError as exc:
                if exc.code in ("not_found", "not_a_directory"):
                    return None
                raise _problem(exc) from exc
        if stat.kind not in _SHOWN:
            return None
        return self._node(parts, stat.kind, stat.size_bytes, stat.modified_at)

    async def entries(self, parts: Parts) -> list[Node]:
        """Give files and folders; links, FIFOs and names that no path can have are left out."""
        async with self._conversation.use_running() as sandbox:
            if sandbox is None:
                return []
            try:
                listing = await sandbox.files.list(
                    self._inside(parts), max_entries=_MOST_ENTRIES, hidden=True
                )
            except GuestError as exc:
                raise _problem(exc) from exc
        return [
            self._node((*parts, entry.path), entry.kind, entry.size, entry.modified_at)
            for entry in listing.entries
            if entry.kind in _SHOWN and decide_file_name(entry.path)
        ]

    @contextlib.asynccontextmanager
    async def reading(self, parts: Parts) -> AsyncIterator[tuple[Node, Reader]]:
        """Open a file of the running sandbox."""
        node = await self.look(parts)
        if node is None or node.is_folder:
            raise NotFound("There is no such file.")
        async with self._conversation.use_running() as sandbox:
            if sandbox is None:
                raise NotFound("There is no such file.")
            reader = _WorkspaceReader(sandbox, self._inside(parts))
            media = media_of(node.name, await reader.head())
            size = reader.size_bytes
            yield (
                Node(
                    path=node.path,
                    is_folder=False,
                    is_writable=True,
                    created_at=node.created_at,
                    modified_at=node.modified_at,
                    size_bytes=size,
                    media_type=media.media_type,
                ),
                reader,
            )

    async def begin(self, parts: Parts) -> _WorkspaceFile:
        """Begin to write a file; provisions a sandbox if there is none."""
        if not parts:
            raise InvalidRequest("workspace is a folder.", status=400)
        return _WorkspaceFile(self._conversation, self._inside(parts), self._limit_bytes)

    async def make_folder(self, parts: Parts) -> None:
        """Make a folder; provisions a sandbox if there is none."""
        node = await self.look(parts)
        if node is not None and not node.is_folder:
            raise InvalidRequest("There is a file of this name.", status=409)
        if node is None:
            async with self._using() as sandbox:
                await sandbox.files.mkdir(self._inside(parts))

    async def remove(self, parts: Parts) -> None:
        """Remove a file, or a folder with all that is in it."""
        if not parts:
            raise Forbidden("The folder workspace cannot be deleted.")
        if await self.look(parts) is None:
            raise NotFound("There is no such file.")
        async with self._using() as sandbox:
            await sandbox.files.remove(self._inside(parts), recursive=True)

    async def rename(self, parts: Parts, to: Parts) -> None:
        """Give another name, or move."""
        if not parts or not to:
            raise Forbidden("The folder workspace cannot be renamed.")
        if await self.look(parts) is None:
            raise NotFound("There is no such file.")
        async with self._using() as sandbox:
            await sandbox.files.rename(self._inside(parts), self._inside(to))

    @contextlib.asynccontextmanager
    async def _using(self) -> AsyncIterator[Sandbox]:
        async with self._conversation.use() as sandbox:
            try:
                yield sandbox
            except GuestError as exc:
                raise _problem(exc) from exc

    def _inside(self, parts: Parts) -> str:
        return "/".join((self._root, *parts))

    def _node(self, parts: Parts, kind: Kind, size: int | None, modified_at: datetime) -> Node:
        is_folder = kind == "directory"
        return Node(
            path=self.path(parts),
            is_folder=is_folder,
            is_writable=True,
            created_at=modified_at,
            modified_at=modified_at,
            size_bytes=None if is_folder else size,
        )


class _WorkspaceReader:
    """Reads a file piece by piece; one that is shorter than it was breaks off."""

    def __init__(self, sandbox: Sandbox, path: str) -> None:
        self._files = sandbox.files
        self._path = path
        self.size_bytes = 0

    async def head(self) -> bytes:
        """Give the first bytes; ``size_bytes`` is known then."""
        try:
            piece = await self._files.read(self._path, 0, 8192)
        except GuestError as exc:
            raise _problem(exc) from exc
        self.size_bytes = piece.size_bytes
        return piece.data

    async def pieces(self, first: int = 0, size: int = -1) -> AsyncGenerator[bytes]:
        """Give the bytes."""
        end = self.size_bytes if size < 0 else min(self.size_bytes, first + size)
        while first < end:
            try:
                piece = await self._files.read(self._path, first, min(_PIECE_BYTES, end - first))
            except GuestError as exc:
                raise _problem(exc) from exc
            if not piece.data:
                raise Unavailable("the file was changed while it was read; try again")
            first += len(piece.data)
            yield piece.data


class _WorkspaceFile:
    """A file on its way into the sandbox; the guest puts it in its place when all of it is there.

    A task of its own holds the sandbox meanwhile, because the pieces may come in several requests.
    """

    def __init__(self, conversation: Conversation, path: str, limit_bytes: int) -> None:
        self._conversation = conversation
        self._path = path
        self._limit_bytes = limit_bytes
        self._size_bytes = 0
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING_PIECES)
        self._writing = asyncio.ensure_future(self._write())

    def __repr__(self) -> str:
        return f"<_WorkspaceFile {self._size_bytes} bytes>"

    async def write(self, data: bytes) -> None:
        """Hand on a piece; waits while those before are not yet taken."""
        self._size_bytes += len(data)
        if self._size_bytes > self._limit_bytes:
            raise LimitExceeded(f"The file is larger than {self._limit_bytes:,} bytes.", status=413)
        await self._put(data)

    async def keep(self) -> None:
        """Say that this was all; wait until it is in its place."""
        await self._put(None)
        await asyncio.shield(self._writing)

    async def close(self) -> None:
        """Let go of it."""
        self._writing.cancel()
        await asyncio.wait([self._writing])
        if not self._writing.cancelled():
            self._writing.exception()

    async def _put(self, piece: bytes | None) -> None:
        putting = asyncio.ensure_future(self._pieces.put(piece))
        try:
            await asyncio.wait((putting, self._writing), return_when=asyncio.FIRST_COMPLETED)
            if not putting.done():
                await self._writing  # it failed: nobody takes pieces any more
                raise Unavailable("the file was not written")
        finally:
            putting.cancel()

    async def _write(self) -> None:
        async with self._conversation.use() as sandbox:
            try:
                await sandbox.files.write(self._path, self._taken(), overwrite=True)
            except GuestError as exc:
                raise _problem(exc) from exc

    async def _taken(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            yield piece


def _problem(error: GuestError) -> SandboxError:
    """Give our error for a refusal of the guest; its sentence comes from inside, to be shown."""
    message = error.message.strip() or "The sandbox refused."
    if error.code == "not_found":
        return NotFound("There is no such file.")
    if error.code in ("exists", "not_empty"):
        return InvalidRequest(message, status=409)
    if error.code in ("permission", "read_only"):
        return Forbidden(message)
    if error.code == "no_space":
        return LimitExceeded(message, status=413)
    if error.code in ("failed", "unknown_op"):
        return Unavailable(message)
    return InvalidRequest(message, status=400)
