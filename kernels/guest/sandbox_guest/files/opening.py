"""Open a regular file for reading without ever waiting, and read exactly what was asked for.

The rule: what is not a regular file is refused before it is opened (opening a FIFO wakes its
writer, opening a device may do anything) and, should it have been swapped meanwhile, after it: the
open does not block. Files are read with ``pread``, never mapped: a mapped file that another process
cuts short would end the guest with SIGBUS.
"""

from __future__ import annotations

import contextlib
import os
from typing import Iterator, Optional, Tuple

from ..protocol import CHUNK_BYTES
from .paths import require_file, shown

READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_EARLIEST, _LATEST = -62_135_596_800.0, 253_402_300_799.0  # the years 1 to 9999


@contextlib.contextmanager
def opened(
    path: bytes, extra_flags: int = 0, dir_fd: Optional[int] = None
) -> Iterator[Tuple[int, os.stat_result]]:
    """Lend the descriptor and status of a regular file.

    Raises
    ------
    FileError
        ``is_a_directory`` or ``not_a_file``.
    OSError
        Of the operating system.
    """
    follow = not extra_flags & os.O_NOFOLLOW
    require_file(os.stat(path, dir_fd=dir_fd, follow_symlinks=follow), shown(path))
    fd = os.open(path, READ_FLAGS | extra_flags, dir_fd=dir_fd)
    try:
        found = os.fstat(fd)
        require_file(found, shown(path))
        yield fd, found
    finally:
        os.close(fd)


def read_at(fd: int, offset: int, count: int) -> bytes:
    """Give ``count`` bytes from ``offset``; fewer only at the end of the file."""
    data = os.pread(fd, count, offset)
    if len(data) == count or not data:
        return data
    pieces = [data]
    got = len(data)
    while got < count:
        data = os.pread(fd, count - got, offset + got)
        if not data:
            break
        pieces.append(data)
        got += len(data)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def pieces_of(fd: int, offset: int = 0) -> Iterator[bytes]:
    """Give a file from ``offset`` in pieces of ``CHUNK_BYTES`` (the last may be shorter)."""
    while True:
        data = read_at(fd, offset, CHUNK_BYTES)
        if data:
            yield data
        if len(data) < CHUNK_BYTES:
            return
        offset += len(data)


def modified_at(found: os.stat_result) -> float:
    """Give the time of the last change in seconds since 1970, within the years 1 to 9999."""
    return min(max(found.st_mtime, _EARLIEST), _LATEST)


def same_content(one: os.stat_result, other: os.stat_result) -> bool:
    """Say whether two looks at a file saw the same, as far as its status tells."""
    return (one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns) == (
        other.st_dev,
        other.st_ino,
        other.st_size,
        other.st_mtime_ns,
    )
