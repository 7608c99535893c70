"""The file of a SQLite database while it is open: whether it is still at its place.

SQLite goes on with a file that was deleted or moved and says nothing; what it writes is lost with
the last connection. So its place is looked at before each piece of work. A deleted file is written
anew from what is open; one that somebody put there is used in its place. The rule: a file that is
at its place is never overwritten. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from pathlib import Path

import sqlalchemy as sa

from ..errors import Unavailable

_LOG = logging.getLogger(__name__)
_NOT_FILES = (None, "", ":memory:")


class DatabaseFile:
    """The file of ``database`` of a URL; one in memory is always at its place."""

    def __init__(self, database: str | None) -> None:
        given = "" if database in _NOT_FILES else str(database)
        self._uri = given if given.startswith("file:") else ""
        self._path = Path(given) if given and not self._uri else None
        self._identity: tuple[int, int] | None = None

    def __repr__(self) -> str:
        return f"<DatabaseFile {self._path} {self._identity}>"

    @property
    def is_absolute(self) -> bool:
        """Whether its place does not depend on a process's working directory."""
        if self._path is not None:
            return self._path.is_absolute()
        return not self._uri or self._uri.startswith(("file:/", "file::memory:"))

    def note(self) -> None:
        """Remember which file is at its place now: the one that was connected to."""
        self._identity = self._look()

    def has_changed(self) -> bool:
        """Say whether another file, or none, is at its place."""
        return self._path is not None and self._look() != self._identity

    def require(self) -> None:
        """Raise ``Unavailable`` if there is none: an empty one would be made."""
        if self._path is not None and self._look() is None:
            raise Unavailable("the sandbox database's file is gone", detail=str(self._path))

    def free_bytes(self) -> int | None:
        """Give the room on its disk; None if it has none or that cannot be seen."""
        if self._path is None:
            return None
        with contextlib.suppress(OSError):
            found = os.statvfs(self._path.parent)
            return found.f_bavail * found.f_frsize
        return None

    def save(self, connection: sa.Connection) -> Path | None:
        """Write what an open connection sees to a file beside its place, if that is empty.

        Raises
        ------
        Unavailable
            It cannot be written; the connection still has everything.
        """
        if self._path is None or self._look() is not None:
            return None
        saved = self._path.with_name(f".{self._path.name}.saved.{os.getpid()}")
        source = connection.connection.driver_connection
        assert isinstance(source, sqlite3.Connection)
        try:
            saved.unlink(missing_ok=True)
            os.close(os.open(saved, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            with contextlib.closing(sqlite3.connect(saved)) as target:
                source.backup(target)
        except (OSError, sqlite3.Error) as exc:
            with contextlib.suppress(OSError):
                saved.unlink(missing_ok=True)
            raise Unavailable(
                "the sandbox database's file was deleted and cannot be written anew",
                detail=repr(exc),
            ) from exc
        return saved

    def put_back(self, saved: Path) -> None:
        """Put a saved file at its place, unless another server was first."""
        assert self._path is not None
        for ending in (
            "-wal",
            "-shm",
        ):  # of the deleted file: SQLite would take them for this one's
            self._path.with_name(f"{self._path.name}{ending}").unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError):
            os.link(saved, self._path)
            _LOG.error("the sandbox database's file was deleted: written anew, nothing is lost")
        saved.unlink(missing_ok=True)

    def _look(self) -> tuple[int, int] | None:
        if self._path is None:
            return None
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino
