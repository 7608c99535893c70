"""Whose an orphan is, where the kernel has no subreapers (gVisor, as of 2022).

Elsewhere a process that loses its parent passes to its command's keeper. Here it passes to PID 1,
and may have left its session and its environment. What it cannot leave is a resource limit: each
command and kernel gets a *stamp*, a value of ``RLIMIT_RSS``, which limits nothing (Linux since
2.4.30, gVisor always), is inherited by whatever is started, may be lowered but never raised, and is
shown in ``/proc/PID/stat``. Stamps fall from one command to the next, so that none can be made to
look like an earlier command's; one that is nobody's was lowered on purpose, and its process belongs
to every command during which it began.

The rule: where the kernel has subreapers there is no ``Orphans``, and nothing here costs anything.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections import OrderedDict

from .trees import read_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

    from .trees import Process

_PR_GET_CHILD_SUBREAPER = 37
_HIGHEST = 2**62
_NO_LIMIT = 2**63  # RLIM_INFINITY, or the highest positive number, is above
_MOST_REMEMBERED = 20_000


def find_orphans() -> Optional[Orphans]:
    """Give what knows orphans by their stamps; None where subreapers make it needless."""
    found = ctypes.c_int()
    answer = ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(found), 0, 0, 0)
    return None if answer == 0 else Orphans()


class Orphans:
    """The stamps of one server's commands and kernels (``keeper.put_stamp`` puts them on)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self._last = _HIGHEST
        self._begun: OrderedDict[int, int] = OrderedDict()  # stamps
        self._keepers: OrderedDict[int, int] = OrderedDict()  # pid -> started

    def new_stamp(self) -> int:
        """Give a stamp that is lower than all before, also those of a server before this one."""
        with self._lock:
            self._last = min(self._last - 1, _HIGHEST - time.monotonic_ns())
            return self._last

    def begin(self, stamp: int) -> None:
        """Note that what has this stamp runs code of the user's from now on."""
        with self._lock:
            _remember(self._begun, stamp, 0)

    def know_keeper(self, pid: int) -> None:
        """Note that this is a keeper: a child of PID 1, too, with the stamp of its command."""
        process = read_process(pid)
        if process is not None:
            with self._lock:
                _remember(self._keepers, pid, process.started)

    def belongs(self, process: Process, stamp: int, since: int) -> bool:
        """Say whether a child of PID 1 belongs to the command with this stamp.

        Parameters
        ----------
        since : int
            When the command's shell was started (clock ticks).
        """
        found = process.rss_limit
        if found >= _NO_LIMIT or found > stamp:  # of none, or of an earlier one
            return False
        with self._lock:
            if self._keepers.get(process.pid) == process.started:
                return False
            return found == stamp or (found not in self._begun and process.started >= since)


def _remember(table: OrderedDict[int, int], key: int, value: int) -> None:
    table[key] = value
    if len(table) > _MOST_REMEMBERED:
        table.popitem(last=False)
