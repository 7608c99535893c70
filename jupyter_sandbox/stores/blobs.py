"""Where sealed files lie: an interface and its first form, a directory of the server's own.

It knows names and bytes, no keys and no records. All methods block; the vault calls them in its
threads. ``DirectoryBlobs`` keeps ``{root}/{area}/{name}``, 0600 in 0700 directories. The rule:
every name on the disk is chosen by the host, never by a sandbox or a user; a blob is there whole
(written as ``NAME.part``, synchronised, renamed) or not at all; and whoever writes one holds a lock
on it until its record is written down, so that a sweep of strays, also of another process, can
tell the work under way from what a crash has left.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import shutil
from pathlib import Path
from typing import Protocol

_NAME = re.compile(r"[0-9a-f][0-9a-f-]{10,35}")
_PART = ".part"
_FLUSH_BYTES = 4 * 1024 * 1024
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)


class BlobWriter(Protocol):
    """A new blob on its way. Closed without ``commit``, it leaves nothing."""

    def write(self, data: bytes | memoryview) -> None:
        """Add bytes."""
        ...

    def read_at(self, first: int, size: int) -> bytes:
        """Give back what was written; fewer bytes at the end."""
        ...

    def commit(self) -> tuple[int, ...]:
        """Keep it for good; give the ``state`` that its readers will see."""
        ...

    def close(self) -> None:
        """Let go of it. Twice is once."""
        ...


class BlobReader(Protocol):
    """An open blob; removing or replacing it disturbs no reader."""

    size_bytes: int
    state: tuple[int, ...]
    """Changes with every change of the stored bytes."""

    def read_at(self, first: int, size: int) -> bytes:
        """Give bytes; fewer at the end."""
        ...

    def close(self) -> None:
        """Let go of it. Twice is once."""
        ...


class Stray(Protocol):
    """A blob that nobody writes (any more), locked until ``close``."""

    def remove(self) -> None:
        """Remove it."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class BlobStore(Protocol):
    """Keeps blobs in areas, one area a conversation. Raises ``OSError``."""

    def create(self, area: str, name: str) -> BlobWriter:
        """Begin a new blob."""
        ...

    def open(self, area: str, name: str) -> BlobReader:
        """Open one; ``FileNotFoundError``."""
        ...

    def remove(self, area: str, name: str) -> None:
        """Remove one. A missing one is fine."""
        ...

    def remove_area(self, area: str) -> None:
        """Remove an area with all that is in it. A missing one is fine."""
        ...

    def remove_empty_area(self, area: str) -> None:
        """Remove an area if nothing is in it."""
        ...

    def areas(self) -> list[str]:
        """Give all areas."""
        ...

    def names(self, area: str) -> list[str]:
        """Give the blobs of an area; first remove what dead writers have left of theirs."""
        ...

    def claim_stray(self, area: str, name: str) -> Stray | None:
        """Lock a blob; None if it is gone or somebody works on it."""
        ...


class DirectoryBlobs:
    """Files in a directory.

    Parameters
    ----------
    root : Path
        Made with mode 0700 when the first blob comes.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def __repr__(self) -> str:
        return f"<DirectoryBlobs {self._root}>"

    def create(self, area: str, name: str) -> BlobWriter:
        """Begin a new file."""
        target = self._path(area, name)
        part = target.with_name(name + _PART)
        for directory in (self._root, target.parent):
            directory.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            fd = os.open(part, flags, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if os.fstat(fd).st_nlink:
                    return _FileWriter(fd, part, target)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # a sweep was faster than our lock: once more

    def open(self, area: str, name: str) -> BlobReader:
        """Open a file."""
        path = self._path(area, name)
        return _FileReader(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))

    def remove(self, area: str, name: str) -> None:
        """Remove a file."""
        self._path(area, name).unlink(missing_ok=True)

    def remove_area(self, area: str) -> None:
        """Remove a directory."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._root / _checked(area))

    def remove_empty_area(self, area: str) -> None:
        """Remove a directory if nothing is in it."""
        with contextlib.suppress(OSError):
            (self._root / _checked(area)).rmdir()

    def areas(self) -> list[str]:
        """Give all directories that can be areas."""
        return self._listed(self._root)

    def names(self, area: str) -> list[str]:
        """Give the files; first remove those of dead writers."""
        directory = self._root / _checked(area)
        for part in directory.glob(f"*{_PART}"):
            stray = _lock(part)
            if stray is not None:
                stray.remove()
                stray.close()
        return self._listed(directory)

    def claim_stray(self, area: str, name: str) -> Stray | None:
        """Lock a file."""
        return _lock(self._path(area, name))

    def _listed(self, directory: Path) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(name for name in os.listdir(directory) if _NAME.fullmatch(name))
        return []

    def _path(self, area: str, name: str) -> Path:
        return self._root / _checked(area) / _checked(name)


class _FileWriter:
    """A locked file that has its name when it is whole."""

    def __init__(self, fd: int, part: Path, target: Path) -> None:
        self._fd = fd
        self._part: Path | None = part
        self._target = target
        self._size_bytes = 0
        self._flushed_bytes = 0

    def __repr__(self) -> str:
        return f"<_FileWriter {self._target.name}>"

    def write(self, data: bytes | memoryview) -> None:
        self._size_bytes += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        if self._size_bytes - self._flushed_bytes >= _FLUSH_BYTES:
            _begin_flush(self._fd, self._flushed_bytes, self._size_bytes - self._flushed_bytes)
            self._flushed_bytes = self._size_bytes

    def read_at(self, first: int, size: int) -> bytes:
        return _read_at(self._fd, first, size)

    def commit(self) -> tuple[int, ...]:
        assert self._part is not None
        os.fsync(self._fd)
        os.rename(self._part, self._target)
        self._part = None
        _sync_directory(self._target.parent)
        return _state(self._fd)

    def close(self) -> None:
        if self._fd < 0:
            return
        if self._part is not None:
            self._part.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = -1


class _FileReader:
    """An open file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size_bytes = os.fstat(fd).st_size
        self.state = _state(fd)

    def __repr__(self) -> str:
        return f"<_FileReader {self.size_bytes} bytes>"

    def read_at(self, first: int, size: int) -> bytes:
        return _read_at(self._fd, first, size)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _LockedFile:
    """A file that we, and nobody who writes it, have the lock of."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path

    def __repr__(self) -> str:
        return f"<_LockedFile {self._path.name}>"

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._fd)


def _state(fd: int) -> tuple[int, ...]:
    status = os.fstat(fd)
    # ctime: whoever changes the bytes can set every other time back.
    return (status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)


def _begin_flush(fd: int, first: int, size: int) -> None:
    """Let the disk begin with what was written: the ``fsync`` at the end has less to wait for.

    Source: man 2 sync_file_range; a hint, so its failure is none.
    """
    if _sync_file_range is not None:
        _sync_file_range(fd, ctypes.c_int64(first), ctypes.c_int64(size), 2)


def _lock(path: Path) -> _LockedFile | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return _LockedFile(fd, path)


def _read_at(fd: int, first: int, size: int) -> bytes:
    data = os.pread(fd, size, first)
    if len(data) == size or not data:
        return data
    pieces = [data]  # one read gives at most 2 GiB, and may be interrupted
    got = len(data)
    while got < size and (data := os.pread(fd, size - got, first + got)):
        pieces.append(data)
        got += len(data)
    return b"".join(pieces)


def _checked(name: str) -> str:
    """Give a name of ours; anything else is a bug, and never a path."""
    if not _NAME.fullmatch(name):
        raise ValueError("not a name that the host chose")
    return name


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
