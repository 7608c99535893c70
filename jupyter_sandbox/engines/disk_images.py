"""A file system of a fixed size in a file: what holds a sandbox's disk where the server is root.

The file is sparse: it takes what is written into it, and deleted files give their space back
(``discard``). It is mounted (``staging.py``) in the mount namespace of one sandbox only, through a
loop device that the kernel takes down with the last mount: however a sandbox or a server ends,
there is no mount and no loop device left to look for, only the file.

Making a file system takes 18 ms, so each kind is made once and kept in memory as the 0.3 MiB that
differ from zeros; a further one is a sparse file with those written. Source:
https://man7.org/linux/man-pages/man8/mke2fs.8.html
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .base import Resources

# nosuid, nodev: nothing in it is more than data. discard: deleted files give the host its space
# back. noinit_itable: the kernel shall not write zeros over 128 MiB of zeros in the background.
MOUNT_OPTIONS = "loop,nosuid,nodev,noatime,discard,noinit_itable,errors=remount-ro"

_INODE_BYTES = 256
_BYTES_PER_ENTRY = 2048  # more entries than that do not fit into a file system's groups
_PIECE_BYTES = 64 * 1024
_MAKE_SECONDS = 60.0
_TOOL = "mkfs.ext4"

TEMPLATE = "template-"
"""How directories begin in which templates are made."""


@dataclass(frozen=True)
class _Template:
    size_bytes: int
    pieces: tuple[tuple[int, bytes], ...]


class DiskImages:
    """Makes images; one object for all sandboxes of an engine.

    Parameters
    ----------
    directory : Path
        Where templates are made, for a moment; on the file system of the images.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._making = threading.Lock()  # guards the templates: each is made once
        self._templates: dict[Hashable, _Template] = {}

    def __repr__(self) -> str:
        return f"<DiskImages of {len(self._templates)} kinds>"

    @staticmethod
    def why_not() -> str:
        """Give what this host lacks for images ("" for nothing); whether mounts work is tried."""
        if shutil.which(_TOOL, path=_path()) is None:
            return f"{_TOOL} is not installed (package e2fsprogs)"
        if not os.path.exists("/dev/loop-control"):
            return "there are no loop devices"
        return ""

    def create(
        self, path: Path, resources: Resources, kind: Hashable, fill: Callable[[Path], object]
    ) -> None:
        """Write a new image.

        Parameters
        ----------
        kind : hashable
            Names what ``fill`` writes; the same kind is filled once.
        fill : callable
            Writes the first files into the directory that it is given.
        """
        key = (kind, resources.disk_bytes, resources.disk_entries)
        with self._making:
            template = self._templates.get(key)
            if template is None:
                template = self._templates[key] = self._make(resources, fill)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.truncate(fd, template.size_bytes)
            for offset, data in template.pieces:
                os.pwrite(fd, data, offset)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _room(self) -> Iterator[Path]:
        """Lend a directory for a moment, to one process at a time; what dead ones left goes."""
        lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in self._directory.glob(f"{TEMPLATE}*"):
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=self._directory, prefix=TEMPLATE) as temporary:
                yield Path(temporary)
        finally:
            os.close(lock)

    def _make(self, resources: Resources, fill: Callable[[Path], object]) -> _Template:
        entries = min(resources.disk_entries, resources.disk_bytes // _BYTES_PER_ENTRY)
        # What the file system needs for itself comes on top.
        size = resources.disk_bytes + entries * _INODE_BYTES + resources.disk_bytes // 4096 + 2**20
        size += -size % 4096
        with self._room() as temporary:
            content, image = temporary / "content", temporary / "image"
            content.mkdir()
            fill(content)
            with open(image, "wb") as file:
                file.truncate(size)
            command = [_TOOL, "-q", "-F", "-m", "0", "-b", "4096", "-N", str(entries)]
            # No journal: nothing in it outlives a crash of the host. No room to be made larger.
            command += ["-I", str(_INODE_BYTES), "-O", "^has_journal,^resize_inode"]
            command += ["-E", "lazy_itable_init=1,nodiscard", "-d", str(content), str(image)]
            _run(command)
            with open(image, "rb") as file:
                return _Template(size, tuple(_pieces(file.fileno(), size)))


def _run(command: list[str]) -> None:
    environment = {"PATH": _path(), "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=_MAKE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise OSError(errno.ETIMEDOUT, f"{command[0]} does not end") from exc
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise OSError(errno.EIO, f"{command[0]}: {said[-500:]}")


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def _pieces(fd: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Give what of a sparse file is not zeros."""
    at = 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole follows
            return
        end = os.lseek(fd, at, os.SEEK_HOLE)
        while at < end:
            data = os.pread(fd, min(_PIECE_BYTES, end - at), at)
            if data.strip(b"\0"):
                yield at, data
            at += len(data)


def used_bytes(path: Path) -> int:
    """Give what an image takes on the host's disk; 0 when there is none."""
    with contextlib.suppress(FileNotFoundError):
        return os.stat(path).st_blocks * 512
    return 0
