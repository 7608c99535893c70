"""Files and directories that are made under a temporary name, and what killed makers left of them.

A temporary name is ``.{name}.{16 hex digits}``, beside the name that it will have. The rule: a
maker holds a lock on what it makes until it has its name or is gone; so what has a temporary name
and no lock was left by a process that died, and can be removed while others work.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

_DIGITS = 16


@contextlib.contextmanager
def making_file(target: Path) -> Iterator[tuple[int, Path]]:
    """Lend a new file (0600) and its temporary path; what is not renamed then is removed. Blocks.

    Closes the descriptor. The caller writes, syncs, and renames or links the path to ``target``.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        path = _temporary(target)
        fd = os.open(path, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if not os.fstat(fd).st_nlink:
                continue  # somebody took it for a left one before we had the lock
            try:
                yield fd, path
            finally:
                path.unlink(missing_ok=True)
            return
        finally:
            os.close(fd)


@contextlib.contextmanager
def making_directory(target: Path) -> Iterator[Path]:
    """Lend a new directory (0700); what is not renamed then is removed. Blocks."""
    while True:
        path = _temporary(target)
        path.mkdir(mode=0o700)
        fd = _lock(path, wait=True)
        if fd is None:
            continue
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(fd)
        return


def remove_unfinished(directory: Path, *names: str) -> int:
    """Remove what dead processes have left; give how many that were. Blocks; raises ``OSError``.

    Parameters
    ----------
    names : str
        Patterns (``guest-*``) of the names that it would have had. Nothing else is touched: the
        directory may be one that other things lie in.
    """
    removed = 0
    for name in names:
        for path in directory.glob(f".{name}.{'[0-9a-f]' * _DIGITS}"):
            fd = None if path.is_symlink() else _lock(path)
            if fd is None:
                continue
            try:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
                removed += 1
            finally:
                os.close(fd)
    return removed


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(_DIGITS // 2)}")


def _lock(path: Path, wait: bool = False) -> int | None:
    """Give a descriptor with the lock; None if another has it, or it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None
