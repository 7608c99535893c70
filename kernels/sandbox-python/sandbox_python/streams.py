"""``sys.stdout`` and ``sys.stderr`` of the kernel, and what others write to descriptors 1 and 2.

ipykernel's ``OutStream`` collects without bound and sends one message of any size a flush; here
each write goes to the bounded output of its execution at once. The rule: no path past ``Outputs``:
a forked child writes to the captured descriptor, and its parent reads that.
"""

# mypy: disallow-untyped-calls=False
# (ipykernel's own functions have no annotations)

from __future__ import annotations

import os
import select
import sys
import threading
import time
from typing import Any, ClassVar, Optional

from ipykernel.iostream import OutStream

from .cell_output import PIECE_BYTES, Outputs, encode, slices

_DRAIN_BYTES = 4 * 1024 * 1024
_DRAIN_SECONDS = 0.5
_FLUSH_SECONDS = 1.0


class CellStream(OutStream):
    """One of the two streams; both share ``outputs``, which the application sets before."""

    outputs: ClassVar[Outputs]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._fd_lock = threading.Lock()  # guards the read end: who reads also writes on, in order
        super().__init__(*args, **kwargs)

    def fileno(self) -> int:
        """Give the captured descriptor, so that a child's ``stdout=sys.stdout`` is seen as well."""
        fd: Optional[int] = getattr(self, "_original_stdstream_fd", None)
        return int(super().fileno()) if fd is None else fd

    def write(self, string: str) -> int:
        """Write text; never waits for whoever reads the messages."""
        if not isinstance(string, str):
            raise TypeError(f"write() argument must be str, not {type(string)}")
        if self.pub_thread is None:
            raise ValueError("I/O operation on closed file")
        if os.getpid() != self._master_pid:
            return self._write_in_child(string)
        header = self.parent_header
        if len(string) <= PIECE_BYTES:
            self.outputs.write(header, self.name, encode(string))
        else:
            for part in slices(string):
                self.outputs.write(header, self.name, encode(part))
        if not self._flush_pending:
            self._schedule_flush()
        return len(string)

    def flush(self) -> None:
        """Send what was written, and wait until it is sent: the next line may end the process."""
        pub = self.pub_thread
        if pub is None or not self._is_master_process() or not self.outputs.flush():
            return
        if pub.thread.is_alive() and pub.thread is not threading.current_thread():
            sent = threading.Event()
            pub.schedule(sent.set)
            sent.wait(_FLUSH_SECONDS)

    def flush_before_display(self) -> None:
        """Send what was written even if that makes many messages: a display follows it."""
        self.outputs.flush(force=True)

    def _flush(self) -> None:  # called by OutStream's timer, on its thread
        self._flush_pending = False
        self.outputs.flush(force=True)

    def rearm(self) -> None:
        """Forget that a flush is due: an interrupt may have come before it was asked for."""
        self._flush_pending = False

    def _write_in_child(self, string: str) -> int:
        fd = getattr(self, "_original_stdstream_fd", 1 if self.name == "stdout" else 2)
        for part in slices(string):
            data = encode(part)
            while data:
                data = data[os.write(fd, data) :]
        return len(string)

    # What is written to the descriptor itself

    def _watch_pipe_fd(self) -> None:
        if self._fid is None:
            return
        os.set_blocking(self._fid, False)
        poll = select.poll()
        poll.register(self._fid, select.POLLIN)
        try:
            while self._should_watch:
                poll.poll()
                with self._fd_lock:
                    if not self._read_some():
                        return
        except Exception:
            self._exc = sys.exc_info()

    def drain(self) -> None:
        """Take over what lies in the pipe: what was written before is passed on when this ends."""
        if self._fid is None or not self._should_watch:
            return
        deadline = time.monotonic() + _DRAIN_SECONDS
        poll = select.poll()
        poll.register(self._fid, select.POLLIN)
        for _ in range(_DRAIN_BYTES // PIECE_BYTES):
            with self._fd_lock:
                if not poll.poll(0) or not self._read_some():
                    return
            if time.monotonic() > deadline:
                return

    def _read_some(self) -> bool:
        """Pass on one piece; False when the pipe has ended."""
        fid = self._fid
        if fid is None:
            return False
        try:
            data = os.read(fid, PIECE_BYTES)
        except BlockingIOError:
            return True
        if not data or not self._should_watch:
            return False
        self.outputs.write(self.parent_header, self.name, data)
        self._schedule_flush()
        return True
