"""Threads of the server that start even when the sandbox may have no further process.

Threads count as processes: where user code has taken all that are allowed, none can be started, and
then neither could what ends that code. So a few wait in reserve, and are used only then. The rule:
``start_thread`` gives a started thread or raises ``OSError``; it never fails in another way.
"""

from __future__ import annotations

import errno
import queue
import threading
import traceback
from typing import Any, Callable, List, Tuple

RESERVED = 8

_jobs: "queue.Queue[Job]" = queue.Queue()
_lock = threading.Lock()  # guards _waiting
_waiting: List[int] = [0]  # reserved threads that have nothing to do


class Job:
    """Something that a reserved thread does; can be waited for as a thread can."""

    def __init__(self, target: Callable[..., None], args: Tuple[Any, ...]) -> None:
        self._target = target
        self._args = args
        self._done = threading.Event()

    def run(self) -> None:
        """Do it."""
        try:
            self._target(*self._args)
        finally:
            self._done.set()

    def join(self) -> None:
        """Wait for its end."""
        self._done.wait()


class Started:
    """A thread or a job in one; only its end can be waited for."""

    def __init__(self, waits: Callable[[], None]) -> None:
        self.join = waits


def reserve(count: int = RESERVED) -> None:
    """Start threads that wait for the time when no other can be started."""
    for number in range(count):
        threading.Thread(target=_wait, name="reserve-%d" % number, daemon=True).start()
        with _lock:
            _waiting[0] += 1


def start_thread(target: Callable[..., None], *args: Any) -> Started:
    """Run ``target`` in a thread.

    Raises
    ------
    OSError
        No thread can be started and none is left in reserve.
    """
    thread = threading.Thread(target=target, args=args, daemon=True)
    try:
        thread.start()
        return Started(thread.join)
    except RuntimeError:  # "can't start new thread"
        with _lock:
            if not _waiting[0]:
                raise OSError(errno.EAGAIN, "no further process is allowed") from None
            _waiting[0] -= 1
        job = Job(target, args)
        _jobs.put(job)
        return Started(job.join)


def _wait() -> None:
    while True:
        job = _jobs.get()
        try:
            job.run()
        except Exception:  # as with any thread: told on stderr, the others go on
            traceback.print_exc()
        finally:
            with _lock:
                _waiting[0] += 1
