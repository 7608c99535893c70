"""Interrupts a cell whose time is over while no server is there to do it.

The server interrupts first and ends what does not react; this comes later, so that it acts only
where nobody does. One thread, made with the first cell that is given a time.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Optional

LATER_SECONDS = 10.0  # than the server: it interrupts, waits 5 s and ends the kernel


class Deadline:
    """Of the cell that runs now; they run one after the other."""

    def __init__(self, later_seconds: float = LATER_SECONDS) -> None:
        self._later_seconds = later_seconds
        self._changed = threading.Condition()  # guards all of the following
        self._at: Optional[float] = None
        self._wakes_at: Optional[float] = None  # the thread; None: when it is told to
        self._thread: Optional[threading.Thread] = None
        self.has_passed = False

    def begin(self, seconds: float) -> None:
        """Interrupt this process some time after ``seconds``, unless ``end`` comes first."""
        with self._changed:
            self._at = time.monotonic() + seconds + self._later_seconds
            self.has_passed = False
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deadline", daemon=True)
                self._thread.start()
            elif self._wakes_at is None or self._wakes_at > self._at:
                self._changed.notify()

    def end(self) -> bool:
        """Interrupt no more; say whether the cell was interrupted."""
        with self._changed:
            self._at = None
            has_passed, self.has_passed = self.has_passed, False
            return has_passed

    def _run(self) -> None:
        with self._changed:
            while True:
                # It wakes for a cell that ended long ago at most once: cells need not tell it.
                rest = None if self._at is None else self._at - time.monotonic()
                if rest is not None and rest <= 0:
                    self._at, self.has_passed = None, True
                    os.kill(os.getpid(), signal.SIGINT)
                    continue
                self._wakes_at = self._at
                self._changed.wait(rest)
