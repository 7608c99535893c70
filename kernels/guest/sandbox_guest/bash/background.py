"""Output of background processes after their command has returned.

They hold the command's pipe; if nobody read it they would stop, if it were closed they would die.
One thread reads all such pipes and appends to files, each at most ``_MAX_BYTES``; the rest is
dropped.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from typing import Callable, Dict, Optional, Tuple

from ..threads import Started, start_thread

_MAX_BYTES = 16 * 1024 * 1024
_READ_BYTES = 64 * 1024


class BackgroundOutput:
    """Reads the pipes that background processes hold."""

    def __init__(self) -> None:
        self._files: Dict[int, Tuple[int, int]] = {}  # pipe -> (file or -1, bytes left)
        self._lock = threading.Lock()  # guards _files and _thread
        self._poll = select.epoll()
        self._thread: Optional[Started] = None

    def take(self, pipe_fd: int, new_file: Callable[[], str]) -> Optional[str]:
        """Read a pipe from now on; give the file that its output goes to (None: it is dropped)."""
        path: Optional[str] = None
        file_fd = -1
        try:
            path = new_file()
            file_fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError:
            path = None
        with self._lock:
            self._files[pipe_fd] = (file_fd, _MAX_BYTES)
            if self._thread is None:
                self._thread = start_thread(self._run)
        self._poll.register(pipe_fd, select.EPOLLIN)
        return path

    def _run(self) -> None:
        while True:
            for fd, _ in self._poll.poll():
                self._read(fd)

    def _read(self, fd: int) -> None:
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        with self._lock:
            file_fd, left = self._files[fd]
            if not data:
                self._poll.unregister(fd)
                os.close(fd)
                if file_fd >= 0:
                    os.close(file_fd)
                del self._files[fd]
                return
            self._files[fd] = (file_fd, max(0, left - len(data)))
        if file_fd >= 0 and left > 0:
            with contextlib.suppress(OSError):
                os.write(file_fd, data[:left])
