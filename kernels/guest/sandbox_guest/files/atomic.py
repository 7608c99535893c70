"""Make a file appear all at once: a temporary file beside it, then a rename.

A reader sees the old or the new file, never a part. An existing file's mode and, where the guest
may, owner are kept. Whoever does not commit leaves nothing behind. Not synchronised to the disk: a
sandbox does not outlive a power cut. A file with several names (hard links) gets only this one
renewed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from typing import Optional

from .opening import read_at

_NAME_BYTES = 255
_COPY_BYTES = 64 * 1024 * 1024
_READ_BYTES = 256 * 1024
_NO_RANGE_COPY = frozenset(
    (errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM)
)
_NO_HARD_LINKS = frozenset(
    (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EACCES)
)


class Staged:
    """A temporary file that becomes ``target`` when it is committed.

    Parameters
    ----------
    target : bytes
        Absolute, links resolved; its directory exists.
    like : os.stat_result or None
        Of the file that is replaced, whose mode and owner are kept.
    mode : int or None
        Of a new file; None is what the process's umask gives.
    """

    def __init__(
        self, target: bytes, like: Optional[os.stat_result] = None, mode: Optional[int] = None
    ) -> None:
        directory, name = os.path.split(target)
        ending = b"." + secrets.token_hex(4).encode() + b".tmp"
        self._target = target
        self._path = os.path.join(directory, b"." + name[: _NAME_BYTES - 1 - len(ending)] + ending)
        self._like = like
        self._mode = mode
        self._committed = False
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = os.open(self._path, flags, 0o666 if like is None and mode is None else 0o600)

    def __enter__(self) -> "Staged":
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self.fd)
        if not self._committed:
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def write(self, data: bytes) -> None:
        """Add bytes at the end."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]

    def copy(self, source: int, offset: int, count: int) -> int:
        """Add a range of another file at the end; give how many bytes there were."""
        left = count
        try:
            while left:
                copied = os.copy_file_range(source, self.fd, min(left, _COPY_BYTES), offset)
                if not copied:
                    break
                offset += copied
                left -= copied
        except AttributeError:  # not in this C library
            pass
        except OSError as exc:
            if exc.errno not in _NO_RANGE_COPY:
                raise
        while left:
            data = read_at(source, offset, min(left, _READ_BYTES))
            if not data:
                break
            self.write(data)
            offset += len(data)
            left -= len(data)
        return count - left

    def commit(self, overwrite: bool) -> None:
        """Put it in place. ``FileExistsError`` if something is there and may not be replaced."""
        like = self._like
        if like is not None:
            with contextlib.suppress(OSError):  # before the mode: it clears set-user-id
                os.fchown(self.fd, like.st_uid, like.st_gid)
            os.fchmod(self.fd, like.st_mode & 0o7777)
        elif self._mode is not None:
            os.fchmod(self.fd, self._mode)
        if overwrite or not self._link():
            os.rename(self._path, self._target)
        self._committed = True

    def _link(self) -> bool:
        """Give the file its name only if that is free; False where there are no hard links."""
        try:
            os.link(self._path, self._target, follow_symlinks=False)
        except FileExistsError:
            raise
        except OSError as exc:
            if exc.errno not in _NO_HARD_LINKS:
                raise
            if os.path.lexists(self._target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            return False
        os.unlink(self._path)
        return True
