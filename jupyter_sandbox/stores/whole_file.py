"""A small text file that is replaced as a whole: a reader sees the old or the new one."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from .unfinished import making_file


def replace_text(path: Path, text: str, *, keeps_access: bool = False) -> None:
    """Replace the file, or make it (0600, in a directory of 0700). Blocks; raises ``OSError``.

    Parameters
    ----------
    keeps_access : bool
        Whether who may read and write it stays as it is, and a link stays one: for files that an
        administrator may have made.
    """
    if keeps_access:
        path = Path(os.path.realpath(path))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with making_file(path) as (fd, part):
        if keeps_access:
            _give_access_of(path, fd)
        with open(fd, "w", encoding="utf-8", errors="surrogateescape", closefd=False) as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        os.replace(part, path)


def make_text(path: Path, text: str) -> None:
    """Make the file (0600) if there is none: of many makers one does. Blocks; raises ``OSError``.

    What it holds is what whoever was first has written, whole.
    """
    with making_file(path) as (fd, part):
        with open(fd, "w", encoding="utf-8", closefd=False) as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        with contextlib.suppress(FileExistsError):
            os.link(part, path)


def _give_access_of(path: Path, fd: int) -> None:
    # Whose owner or group cannot be kept stays 0600: the mode would speak of others.
    with contextlib.suppress(FileNotFoundError, PermissionError):
        before = os.stat(path)
        if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(fd, before.st_uid, before.st_gid)
        os.fchmod(fd, stat.S_IMODE(before.st_mode))
