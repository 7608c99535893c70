"""Which server processes on this host live: each holds a lock on a file of its own.

``{data_dir}/servers/{process_id}``. The system lets the lock go when the process ends, however
it ends, so the answer is right at once after a kill. The rule: a mark is locked before it has its
name, so that no living server ever looks dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from pathlib import Path

_DIRECTORY = "servers"


class ServerMarks:
    """The mark of this server, and a look at those of others.

    Parameters
    ----------
    data_dir : Path
        Of this installation; all its servers have the same.
    process_id : str
        Random, ``[0-9a-f]``; not a number of the system.
    """

    def __init__(self, data_dir: Path, process_id: str) -> None:
        self.process_id = process_id
        self._directory = data_dir / _DIRECTORY
        self._fd: int | None = None

    def __repr__(self) -> str:
        return f"<ServerMarks {self.process_id} {'set' if self._fd is not None else 'not set'}>"

    def set(self) -> None:
        """Mark this server as living. Twice is once."""
        if self._fd is not None:
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        unnamed = self._directory / f".{secrets.token_hex(8)}"
        fd = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.rename(unnamed, self._directory / self.process_id)
        except BaseException:
            os.close(fd)
            unnamed.unlink(missing_ok=True)
            raise
        self._fd = fd

    def is_alive(self, process_id: str) -> bool:
        """Say whether a server process of this host lives."""
        return process_id == self.process_id or self._is_locked(process_id)

    def dead(self) -> list[str]:
        """Give the servers that have left a mark and live no more."""
        with contextlib.suppress(FileNotFoundError):
            names = sorted(os.listdir(self._directory))
            return [name for name in names if name[0] != "." and not self.is_alive(name)]
        return []

    def forget(self, process_id: str) -> None:
        """Remove the mark of a dead server."""
        if not self.is_alive(process_id):
            (self._directory / process_id).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the mark of this server: it stops. Twice is once."""
        fd, self._fd = self._fd, None
        if fd is not None:
            (self._directory / self.process_id).unlink(missing_ok=True)
            os.close(fd)

    def _is_locked(self, name: str) -> bool:
        try:
            fd = os.open(self._directory / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False
