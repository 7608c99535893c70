"""One lock per path: whoever reads a file in order to replace it holds its path's lock.

It guards against other writers of this service, of any stream. It need not guard readers (files
are replaced at once) and cannot guard against the sandbox's own processes.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Dict, Iterator


class _Lock:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0


class PathLocks:
    """A table of locks that holds no more of them than are in use."""

    def __init__(self) -> None:
        self._guard = threading.Lock()  # of the table and the counts; held for moments
        self._table: Dict[bytes, _Lock] = {}

    def __repr__(self) -> str:
        return "<PathLocks %d in use>" % len(self._table)

    def __len__(self) -> int:
        return len(self._table)

    @contextlib.contextmanager
    def hold(self, path: bytes) -> Iterator[None]:
        """Wait for the lock of a real path, then hold it."""
        with self._guard:
            entry = self._table.setdefault(path, _Lock())
            entry.users += 1
        try:
            with entry.lock:
                yield
        finally:
            with self._guard:
                entry.users -= 1
                if not entry.users:
                    del self._table[path]


PATH_LOCKS = PathLocks()
