"""Where the bytes of shared files are kept on the host: an interface and its first form.

``ShareStore`` is what tools and downloads see; ``DirectoryShareStore`` keeps plain files in
``{root}/{conversation_id}/{stored_name}``, 0600 in 0700 directories. The rule: every name on the
disk is chosen by the host; a name that a sandbox or a user gave is never part of a path. A file is
there whole (written beside, synchronised, renamed) or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

from ..errors import LimitExceeded, NotFound, Unavailable
from ..models import ShareRecord

T = TypeVar("T")

_READ_BYTES = 1024 * 1024
_NAME = re.compile(r"[0-9a-f][0-9a-f-]{10,35}")


class ShareSink(Protocol):
    """Takes one file. Used as ``async with``; left without ``commit``, nothing is kept."""

    size_bytes: int

    async def __aenter__(self) -> Self:
        """Begin."""
        ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Forget what was not committed."""
        ...

    async def write(self, data: bytes) -> None:
        """Add bytes. ``LimitExceeded`` (413) beyond the limit, ``Unavailable`` when it fails."""
        ...

    async def commit(self) -> str:
        """Keep the file for good; give the SHA-256 of its bytes in hexadecimal."""
        ...


class ShareStore(Protocol):
    """Keeps shared files by the names in their records. All methods may raise ``Unavailable``."""

    def sink(self, conversation_id: str, stored_name: str, max_bytes: int) -> ShareSink:
        """Give what takes a new file of at most ``max_bytes``."""
        ...

    def open(self, share: ShareRecord, first: int = 0, size: int = -1) -> AsyncIterator[bytes]:
        """Give ``size`` bytes from ``first`` on (-1: all) in pieces; ``NotFound`` if it is gone."""
        ...

    async def remove(self, conversation_id: str, stored_name: str) -> None:
        """Remove one file. A missing one is fine."""
        ...

    async def remove_conversation(self, conversation_id: str) -> None:
        """Remove all files of a conversation. Twice is once."""
        ...

    async def close(self) -> None:
        """End the threads, after the work under way. Twice is once."""
        ...


class DirectoryShareStore:
    """Plain files in a directory that is the server's alone.

    Parameters
    ----------
    root : Path
        Made with mode 0700 when the first file comes.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._disk = _DiskThreads()

    def __repr__(self) -> str:
        return f"<DirectoryShareStore {self._root}>"

    def path_of(self, share: ShareRecord) -> Path:
        """Give the host path of a shared file: for administrators and demonstrations."""
        return self._path(share.conversation_id, share.stored_name)

    def sink(self, conversation_id: str, stored_name: str, max_bytes: int) -> ShareSink:
        """Give what takes a new file."""
        return _FileSink(self._path(conversation_id, stored_name), max_bytes, self._disk)

    async def open(
        self, share: ShareRecord, first: int = 0, size: int = -1
    ) -> AsyncIterator[bytes]:
        """Give a file's bytes in pieces of a MiB."""
        path = self.path_of(share)
        left = share.size_bytes - first if size < 0 else min(size, share.size_bytes - first)
        fd = await self._disk.run(lambda: _open_at(path, first))
        try:
            while left > 0:
                data = await self._disk.run(partial(os.read, fd, min(left, _READ_BYTES)))
                if not data:
                    raise Unavailable("the shared file is shorter in the store than it was")
                left -= len(data)
                yield data
        finally:
            os.close(fd)

    async def remove(self, conversation_id: str, stored_name: str) -> None:
        """Remove one file."""
        path = self._path(conversation_id, stored_name)
        await self._disk.run(lambda: path.unlink(missing_ok=True))

    async def remove_conversation(self, conversation_id: str) -> None:
        """Remove a conversation's directory."""
        directory = self._root / _checked(conversation_id)
        await self._disk.run(lambda: _remove_tree(directory))

    async def close(self) -> None:
        """End the threads."""
        self._disk.close()

    def _path(self, conversation_id: str, stored_name: str) -> Path:
        return self._root / _checked(conversation_id) / _checked(stored_name)


class _DiskThreads:
    """Runs disk work off the event loop.

    A cancelled caller waits for the step that is under way: nobody closes a descriptor or removes a
    directory that a thread is still working on.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="sandbox-shares")
        self._closed = False

    async def run(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise Unavailable("the store of shared files is closed", status=503)
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        try:
            return await asyncio.shield(future)
        except FileNotFoundError as exc:
            raise NotFound("there is no such shared file", detail=repr(exc)) from exc
        except OSError as exc:
            raise Unavailable("the store of shared files failed", detail=repr(exc)) from exc
        except asyncio.CancelledError:
            while not future.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({future})
            if not future.cancelled():
                future.exception()
            raise

    def close(self) -> None:
        self._closed = True
        self._executor.shutdown(wait=False)


class _FileSink:
    """A file on its way: written beside its target, hashed and counted as it comes."""

    def __init__(self, target: Path, max_bytes: int, disk: _DiskThreads) -> None:
        self._target = target
        self._part = target.with_name(target.name + ".part")
        self._max_bytes = max_bytes
        self._disk = disk
        self._digest = hashlib.sha256()
        self._fd = -1
        self.size_bytes = 0

    def __repr__(self) -> str:
        return f"<_FileSink {self._target.name} {self.size_bytes} bytes>"

    async def __aenter__(self) -> Self:
        def begin() -> None:  # the descriptor must not get lost if we are cancelled meanwhile
            self._fd = _create(self._part)

        try:
            await self._disk.run(begin)
        except BaseException:
            if self._fd >= 0:
                await self._disk.run(self._abandon)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._fd >= 0:
            await self._disk.run(self._abandon)

    async def write(self, data: bytes) -> None:
        """Add bytes."""
        self.size_bytes += len(data)
        if self.size_bytes > self._max_bytes:
            text = f"the file is larger than {self._max_bytes:,} bytes"
            raise LimitExceeded(text, status=413)
        await self._disk.run(lambda: self._write(data))

    async def commit(self) -> str:
        """Put the file in its place."""
        await self._disk.run(self._commit)
        return self._digest.hexdigest()

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def _commit(self) -> None:
        os.fsync(self._fd)
        os.close(self._fd)
        self._fd = -1
        os.rename(self._part, self._target)
        _sync_directory(self._target.parent)

    def _abandon(self) -> None:
        os.close(self._fd)
        self._fd = -1
        self._part.unlink(missing_ok=True)


def _checked(name: str) -> str:
    """Give a name of ours; anything else is a bug, and never a path."""
    if not _NAME.fullmatch(name):
        raise ValueError("not a name that the host chose")
    return name


def _create(path: Path) -> int:
    for directory in (path.parent.parent, path.parent):
        directory.mkdir(mode=0o700, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def _open_at(path: Path, first: int) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    os.lseek(fd, first, os.SEEK_SET)
    return fd


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove_tree(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)
