"""One stream to the host, blocking, used by one reading thread and any number of writing ones."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import Any, Dict

from .frames import Frame, FrameDecoder, FrameError, encode

_READ_BYTES = 256 * 1024


class StreamClosed(ConnectionError):
    """The host closed the stream, or broke the framing."""


class Stream:
    """Frames over a connected socket.

    ``receive`` is called by one thread; ``send`` by any, a lock keeps their frames apart. Both
    block: the host that does not read stops whoever sends.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._decoder = FrameDecoder()
        self._send_lock = threading.Lock()

    def send(self, body: Dict[str, Any], payload: bytes = b"") -> None:
        """Send one frame; raise ``StreamClosed`` when the host is gone."""
        data = encode(body, payload)
        try:
            with self._send_lock:
                self.socket.sendall(data)
        except OSError as exc:
            raise StreamClosed(str(exc)) from None

    def try_send(self, data: bytes) -> bool:
        """Send whole frames if that needs no waiting; say whether they were sent.

        Parameters
        ----------
        data : bytes
            Of ``encode``, at most 48 KiB: as much always fits where a writable socket has room.
        """
        if not self._send_lock.acquire(blocking=False):
            return False
        try:
            poll = select.poll()
            poll.register(self.socket, select.POLLOUT)
            if not poll.poll(0):
                return False
            self.socket.sendall(data)
        except OSError as exc:
            raise StreamClosed(str(exc)) from None
        finally:
            self._send_lock.release()
        return True

    @property
    def has_more(self) -> bool:
        """Whether bytes of a further frame have been read already."""
        return self._decoder.waiting_bytes > 0

    def receive(self) -> Frame:
        """Give the next frame; raise ``StreamClosed`` at the end."""
        try:
            while True:
                frame: "Frame | None" = self._decoder.next_frame()
                if frame is not None:
                    return frame
                data = self.socket.recv(_READ_BYTES)
                if not data:
                    raise StreamClosed("end of stream")
                self._decoder.push(data)
        except (OSError, FrameError) as exc:
            raise StreamClosed(str(exc)) from None

    def take_rest(self) -> bytes:
        """Give the bytes after the last frame, for a stream that goes on raw."""
        return self._decoder.take_rest()

    def close(self) -> None:
        """Close the socket; a thread that waits in ``receive`` wakes up."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
