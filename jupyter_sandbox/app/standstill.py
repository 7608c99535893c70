"""A thread that sees when the server's loop stands still: for whom, and that SIGTERM ends it.

Whatever a sandbox can make the kernel do in the loop's thread keeps everybody waiting. What is
known of that kind is kept out (``proxies.guest_sockets``); this is for the rest. When the loop has
stood in one call on a sandbox's socket for some seconds, that sandbox is quarantined: it is ended
as soon as the loop goes on, and the next server does not adopt it. The rules: this thread waits for
nothing but the time; a loop that is merely busy quarantines nobody.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from ..sandbox.homes import Homes

_TICK_SECONDS = 0.5
_STANDS_SECONDS = 5.0
_END_SECONDS = 10.0  # that the loop may stand, all in all, after SIGTERM
_LONGEST_END_SECONDS = 60.0  # that the whole end may take; systemd kills after 90
_MAX_FRAMES = 8
_STATUS = Path("/proc/self/status")


class Standstill:
    """The watch over the loop that starts it."""

    def __init__(self, homes: Homes, log: logging.Logger) -> None:
        self._homes = homes
        self._log = log
        self._closed = threading.Event()
        self._asked_at = 0.0
        self._has_answered = True
        self._frame: FrameType | None = None  # the innermost, when the loop was last looked at
        self._frame_at = 0.0
        self._frame_place = 0
        self._is_said = False
        self._ending_at = 0.0  # when SIGTERM came
        self._stood_seconds = 0.0  # since SIGTERM
        self._previous: Any = None

    def __repr__(self) -> str:
        return f"<Standstill {'ending' if self._ending_at else 'watching'}>"

    def start(self) -> None:
        """Begin, on the loop to be watched. Once."""
        is_main = threading.current_thread() is threading.main_thread()
        self._previous = signal.getsignal(signal.SIGTERM)
        if is_main and callable(self._previous):  # else it ends the process by itself
            signal.signal(signal.SIGTERM, self._on_sigterm)
        thread = threading.Thread(
            target=self._watch,
            args=(asyncio.get_running_loop(), threading.get_ident()),
            name="jsbx-standstill",
            daemon=True,
        )
        thread.start()

    def close(self) -> None:
        """Stop watching the loop: nothing of a sandbox is read any more. Twice is once."""
        self._closed.set()
        if signal.getsignal(signal.SIGTERM) == self._on_sigterm:
            signal.signal(signal.SIGTERM, self._previous)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._ending_at = self._ending_at or time.monotonic()
        self._previous(number, frame)

    def _answer(self) -> None:
        self._has_answered = True

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        while not self._closed.wait(_TICK_SECONDS):
            self._end_if_late()
            if not self._has_answered and loop.is_running():
                self._look(thread)
                continue
            self._frame, self._is_said = None, False
            self._asked_at, self._has_answered = time.monotonic(), False
            try:
                loop.call_soon_threadsafe(self._answer)
            except RuntimeError:  # it is closed
                break
        while self._ending_at:  # what the process waits for at its end may be a sandbox's, too
            time.sleep(_TICK_SECONDS)
            self._end_if_late()

    def _end_if_late(self) -> None:
        is_late = time.monotonic() - self._ending_at > _LONGEST_END_SECONDS
        if self._ending_at and (is_late or self._stood_seconds >= _END_SECONDS):
            self._log.critical("the server does not end after SIGTERM: it is ended at once")
            os._exit(128 + signal.SIGTERM)

    def _look(self, thread: int) -> None:
        """Look at a loop that has not answered since ``_asked_at``."""
        now = time.monotonic()
        if self._ending_at or _is_pending(signal.SIGTERM):
            self._ending_at = self._ending_at or now
            self._stood_seconds += _TICK_SECONDS
        frame = sys._current_frames().get(thread)
        if frame is None:
            return
        # It is held, so that no later frame can be taken for it.
        if frame is not self._frame or frame.f_lasti != self._frame_place:
            self._frame, self._frame_place, self._frame_at = frame, frame.f_lasti, now
        elif now - self._frame_at >= _STANDS_SECONDS and not self._is_said:
            self._is_said = True
            self._say(frame, now - self._asked_at)

    def _say(self, frame: FrameType, seconds: float) -> None:
        place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
        sandbox = next((name for path in _unix_paths(frame) if (name := self._homes.at(path))), "")
        if not sandbox:
            self._log.error("the server stands still for %.0f s in %s", seconds, place)
            return
        self._log.error(
            "the server stands still for %.0f s in %s, for sandbox %s: it is quarantined",
            *(seconds, place, sandbox),
        )
        why = "it had kept the server from answering anybody, and was ended for that"
        try:
            self._homes.quarantine(sandbox, why)
        except OSError as exc:
            self._log.error("sandbox %s: cannot be quarantined: %s", sandbox, exc)


def _unix_paths(frame: FrameType | None) -> Iterator[str]:
    """Give the paths of the sockets that the innermost calls are about, innermost first."""
    for _ in range(_MAX_FRAMES):
        if frame is None:
            return
        for value in list(frame.f_locals.values()):
            extra = getattr(value, "_extra", None)  # of a transport, also of one that closes
            name = extra.get("sockname") if isinstance(extra, dict) else None
            if name is None and isinstance(value, socket.socket):
                try:
                    name = value.getsockname()
                except OSError:
                    continue
            if isinstance(name, str) and name:
                yield name
        frame = frame.f_back


def _is_pending(number: signal.Signals) -> bool:
    """Say whether a signal waits for a thread that stands where no signal reaches it."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return False
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("ShdPnd:", "SigPnd:"))]
    return any(mask & (1 << (number - 1)) for mask in masks)
