"""A host user of its own for each sandbox that root starts, so that none runs as host root.

The numbers belong to no account. A claim is a symbolic link ``{directory}/{uid}`` whose target
names the sandbox: making one is atomic for all servers of this host, and a reboot, which ends all
sandboxes, forgets them where ``/run`` is a tmpfs.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from ..errors import Unavailable

DEFAULT_BASE = 2_000_000
COUNT = 65_536


def claim(directory: Path, sandbox_id: str, base: int = DEFAULT_BASE) -> int:
    """Give a uid that no other living sandbox has; again the same for the same sandbox.

    Parameters
    ----------
    directory : Path
        Of the claims; one per host, only root can write in it.
    base : int
        The first of ``COUNT`` numbers.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    first = zlib.crc32(sandbox_id.encode()) % COUNT
    for step in range(COUNT):
        uid = base + (first + step) % COUNT
        try:
            os.symlink(sandbox_id, directory / str(uid))
        except FileExistsError:
            if _owner(directory, uid) == sandbox_id:
                return uid
            continue
        return uid
    raise Unavailable("no free user number for a further sandbox", status=503)


def release(directory: Path, sandbox_id: str, uid: int) -> None:
    """Give a uid back. Twice is once; a claim of another sandbox is left alone."""
    if _owner(directory, uid) == sandbox_id:
        (directory / str(uid)).unlink(missing_ok=True)


def release_any(directory: Path, sandbox_id: str) -> None:
    """Give back what a sandbox has claimed, for one whose number was not written down."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in names:
        if name.isdigit():
            release(directory, sandbox_id, int(name))


def _owner(directory: Path, uid: int) -> str:
    try:
        return os.readlink(directory / str(uid))
    except OSError:
        return ""
