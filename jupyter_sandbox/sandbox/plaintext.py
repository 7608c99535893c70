"""Where uploads lie in plain while a sandbox lives: directories in memory, mounted read-only.

It knows paths and bytes, no records and no keys. The rule: plaintext never touches a disk unless an
administrator says so, a file has its name only when it is whole, and all of it goes with the
sandbox. For each sandbox::

    {parent}/{sandbox_id[:12]}/uploads/    mounted at the uploads path; files 0444
    {parent}/{sandbox_id[:12]}/incoming/   never mounted; files on their way
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import stat
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

from ..errors import Unavailable
from ..fair_turns import in_thread
from ..stores.unfinished import making_file, remove_unfinished
from .homes import make_home, mark_of

SHARED_MEMORY = Path("/dev/shm")

_INCOMING = "upload"

# linux/magic.h
_TMPFS = 0x01021994
_RAMFS = 0x858458F6


class PlaintextDirs:
    """The directories of all sandboxes of this installation.

    Parameters
    ----------
    parent : Path
        Where they lie; made with mode 0700 when it is not there.
    mark : str
        Name of the file by which this installation knows its directories; "" where all are its own.
    """

    def __init__(self, parent: Path, mark: str = "") -> None:
        self._parent = parent
        self._mark = mark

    def __repr__(self) -> str:
        return f"<PlaintextDirs {self._parent}>"

    def uploads(self, sandbox_id: str) -> Path:
        """Give the directory that is mounted."""
        return self._home(sandbox_id) / "uploads"

    def make(self, sandbox_id: str) -> None:
        """Make the directories of a sandbox. Twice is once."""
        home = self._home(sandbox_id)
        self._make_parent()
        while True:
            try:
                make_home(home, self._mark)  # the parent keeps other users out
                break
            except FileNotFoundError:  # the last sandbox took the parent with it just now
                self._make_parent()
        for directory, mode in ((home / "uploads", 0o755), (home / "incoming", 0o700)):
            directory.mkdir(mode=mode, exist_ok=True)
            os.chmod(directory, mode)

    def remove(self, sandbox_id: str) -> None:
        """Remove all plaintext of a sandbox. Twice is once."""
        home = self._home(sandbox_id)
        for directory in (home / "incoming", home / "uploads"):
            shutil.rmtree(directory, ignore_errors=True)
        with contextlib.suppress(OSError):  # other things of the sandbox lie there too
            if self._mark and os.listdir(home) == [self._mark]:
                (home / self._mark).unlink()
            home.rmdir()
            self._parent.rmdir()

    def sandboxes(self) -> list[str]:
        """Give the first 12 characters of the ids of all that have plaintext."""
        with contextlib.suppress(FileNotFoundError):
            return [
                name
                for name in os.listdir(self._parent)
                if len(name) == 12
                and (self._parent / name / "uploads").is_dir()
                and (self._parent / name / self._mark).exists()
            ]
        return []

    def names(self, sandbox_id: str) -> list[str]:
        """Give the names of the files in place."""
        with contextlib.suppress(FileNotFoundError):
            return os.listdir(self.uploads(sandbox_id))
        return []

    def size_bytes(self, sandbox_id: str) -> int:
        """Give what the files of a sandbox take, with those on their way. Blocks."""
        size = 0
        for directory in ("uploads", "incoming"):
            with contextlib.suppress(FileNotFoundError):
                for name in os.listdir(self._home(sandbox_id) / directory):
                    with contextlib.suppress(FileNotFoundError):
                        size += os.lstat(self._home(sandbox_id) / directory / name).st_size
        return size

    def room(self) -> tuple[int, int]:
        """Give the size of the file system and what is free of it, in bytes. Blocks."""
        try:
            found = os.statvfs(self._parent)
        except FileNotFoundError:
            found = os.statvfs(self._parent.parent)
        return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize

    def has(self, sandbox_id: str, name: str, size_bytes: int, moment: datetime) -> bool:
        """Say whether this very version is in place: its time is that of its record."""
        try:
            status = os.lstat(self._file(sandbox_id, name))
        except FileNotFoundError:
            return False
        return (status.st_size, status.st_mtime_ns) == (size_bytes, _nanoseconds(moment))

    def drop(self, sandbox_id: str, name: str) -> None:
        """Remove one file. A missing one is fine."""
        self._file(sandbox_id, name).unlink(missing_ok=True)

    async def place(
        self, sandbox_id: str, name: str, pieces: AsyncIterator[bytes], moment: datetime
    ) -> None:
        """Put a file in place, or in the place of the one before, all at once.

        Raises
        ------
        Unavailable
            There is no room in memory, or the sandbox is gone.
        """
        target = self._file(sandbox_id, name)
        try:
            with making_file(self._home(sandbox_id) / "incoming" / _INCOMING) as (fd, part):
                async for piece in pieces:
                    writing = asyncio.ensure_future(in_thread(_write, fd, piece))
                    try:
                        await asyncio.shield(writing)
                    finally:
                        await asyncio.wait([writing])  # the descriptor is in use until then
                os.fchmod(fd, 0o444)
                time = _nanoseconds(moment)
                os.utime(fd, ns=(time, time))
                os.rename(part, target)
        except OSError as exc:
            raise Unavailable(
                "the file cannot be put into the sandbox: there is no room in memory for it, or "
                "the sandbox has just ended",
                detail=repr(exc),
            ) from exc

    def drop_unfinished(self, sandbox_id: str) -> None:
        """Remove what a server that died was about to place."""
        with contextlib.suppress(OSError):
            remove_unfinished(self._home(sandbox_id) / "incoming", _INCOMING)

    def _home(self, sandbox_id: str) -> Path:
        return self._parent / sandbox_id[:12]

    def _make_parent(self) -> None:
        self._parent.mkdir(mode=0o700, exist_ok=True)
        status = os.lstat(self._parent)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise Unavailable(
                "the directory for plaintext belongs to another user",
                status=503,
                detail=str(self._parent),
            )
        if status.st_mode & 0o077:
            raise Unavailable(
                "the directory for plaintext is open to other users of this machine: chmod 700",
                status=503,
                detail=str(self._parent),
            )

    def _file(self, sandbox_id: str, name: str) -> Path:
        if "/" in name or name in ("", ".", ".."):
            raise ValueError("not the name of a file")
        return self.uploads(sandbox_id) / name


def choose_plaintext_dirs(
    runtime_dir: Path, server_id: str, allow_disk: bool
) -> tuple[PlaintextDirs, str]:
    """Give where plaintext may lie, and a sentence on it for the log.

    Memory: the runtime directory if it is in memory, else ``/dev/shm``.

    Raises
    ------
    Unavailable
        503: neither is in memory, and ``allow_disk`` is false.
    """
    mark = mark_of(server_id)
    if is_in_memory(runtime_dir):
        return PlaintextDirs(runtime_dir, mark), f"in memory, in {runtime_dir}"
    if is_in_memory(SHARED_MEMORY) and os.access(SHARED_MEMORY, os.W_OK | os.X_OK):
        parent = SHARED_MEMORY / f"jsbx-{server_id}"
        return PlaintextDirs(parent), f"in memory, in {SHARED_MEMORY} ({runtime_dir} is on a disk)"
    if allow_disk:
        return PlaintextDirs(runtime_dir, mark), f"ON THE DISK, in {runtime_dir}, as it was allowed"
    raise Unavailable(
        "there is no place in memory for uploads of running sandboxes: set SandboxApp.runtime_dir "
        "to a directory on a tmpfs, or SandboxApp.allow_plaintext_on_disk",
        status=503,
        detail=f"{runtime_dir} and {SHARED_MEMORY} are no tmpfs",
    )


def is_in_memory(directory: Path) -> bool:
    """Say whether a directory lies on tmpfs or ramfs."""
    buffer = ctypes.create_string_buffer(512)  # struct statfs begins with the type, a word
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(directory), buffer) != 0:
        return False
    kind = ctypes.c_ulong.from_buffer(buffer).value & 0xFFFFFFFF
    return kind in (_TMPFS, _RAMFS)


def swap_is_on() -> bool:
    """Say whether memory may be written to a disk by the kernel."""
    with contextlib.suppress(OSError):
        return len(Path("/proc/swaps").read_text().splitlines()) > 1
    return False


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1000
