"""Dial home: keep a few idle streams ready to every host socket, for ever.

The directory is mounted read-only and holds one socket per server process that drives this sandbox.
A host that is gone is dialled again with growing pauses (at most a second); a new one is noticed
within a quarter of a second.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any, Callable, Dict

from . import protocol
from .streams import Stream, StreamClosed
from .threads import start_thread

_TICK_SECONDS = 0.25
_MAX_PAUSE_SECONDS = 1.0


class Dialer:
    """Keeps idle streams and hands each that is opened to ``serve`` in its own thread.

    Parameters
    ----------
    directory : str
        Where the hosts' sockets are.
    hello : dict
        First frame of each stream.
    serve : callable
        Takes the stream and the name of the target; returns when the stream has ended.
    """

    def __init__(
        self, directory: str, hello: Dict[str, Any], serve: Callable[[Stream, str], None]
    ) -> None:
        self._directory = directory
        self._hello = hello
        self._serve = serve
        self._changed = threading.Condition()
        self._idle: Dict[str, int] = {}  # guarded by _changed, as are the next two
        self._streams = 0
        self._retry_at: Dict[str, float] = {}
        self._pause: Dict[str, float] = {}

    def run(self) -> None:
        """Dial for ever."""
        while True:
            names = self._host_names()
            dialled = False
            for name in names:
                while self._wants(name):
                    if not self._dial(name):
                        break
                    dialled = True
            if not dialled:
                with self._changed:
                    if not any(self._wants_locked(name) for name in names):
                        self._changed.wait(_TICK_SECONDS)
                        continue
                time.sleep(0.01)

    def _host_names(self) -> "list[str]":
        try:
            return sorted(n for n in os.listdir(self._directory) if n.endswith(".sock"))[:16]
        except OSError:
            return []

    def _wants(self, name: str) -> bool:
        with self._changed:
            return self._wants_locked(name)

    def _wants_locked(self, name: str) -> bool:
        return (
            self._idle.get(name, 0) < protocol.IDLE_STREAMS
            and self._streams < protocol.MAX_STREAMS
            and self._retry_at.get(name, 0.0) <= time.monotonic()
        )

    def _dial(self, name: str) -> bool:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream = Stream(sock)
        try:
            sock.settimeout(5.0)
            sock.connect(os.path.join(self._directory, name))
            sock.settimeout(None)
            stream.send(self._hello)
        except OSError:
            sock.close()
            with self._changed:
                pause = self._pause.get(name, 0.02)
                self._retry_at[name] = time.monotonic() + pause
                self._pause[name] = min(_MAX_PAUSE_SECONDS, pause * 2)
            return False
        with self._changed:
            self._idle[name] = self._idle.get(name, 0) + 1
            self._streams += 1
        try:
            start_thread(self._hold, name, stream)
        except OSError:  # user code has all processes there may be; this does not last
            stream.close()
            with self._changed:
                self._idle[name] -= 1
                self._streams -= 1
                self._retry_at[name] = time.monotonic() + _MAX_PAUSE_SECONDS
            return False
        return True

    def _hold(self, name: str, stream: Stream) -> None:
        """Wait until the host names a target, then serve it."""
        target = None
        try:
            body = stream.receive().body
            target = body.get("open")
        except StreamClosed:
            pass
        with self._changed:
            self._idle[name] -= 1
            if target is None:  # the host went away, or had idle streams enough: do not hurry
                pause = self._pause.get(name, 0.02)
                self._retry_at[name] = time.monotonic() + pause
                self._pause[name] = min(_MAX_PAUSE_SECONDS, pause * 2)
            else:
                self._pause.pop(name, None)
            self._changed.notify()
        try:
            if isinstance(target, str):
                self._serve(stream, target)
        except StreamClosed:
            pass
        finally:
            stream.close()
            with self._changed:
                self._streams -= 1
                self._changed.notify()
