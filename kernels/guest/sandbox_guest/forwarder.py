"""The way out: what connects to 127.0.0.1:3128 inside is spliced with the host's egress proxy.

A process of its own, forked by ``init`` for the first connection; it ends when none has come for a
while. One thread, one piece of memory per direction: who does not read stops whoever sends.

The rule: it understands nothing of what passes and decides nothing; the proxy does. Where no proxy
answers it says so at once, so that no client waits for a time-out.
"""

from __future__ import annotations

import os
import select
import socket
import time
from typing import Dict, List, Optional

from . import protocol

MAX_CONNECTIONS = 64  # more wait in the listener's queue
_PIECE_BYTES = 64 * 1024
_MAX_SOCKETS = 16
_NOTICE_BYTES = 2000
_TICK_SECONDS = 5.0
_HALF_CLOSED_SECONDS = 60.0  # one side has ended, the other is silent
_IDLE_SECONDS = 60.0  # without any connection

NO_PROXY = (
    "The way out of this sandbox does not answer right now: nothing outside can be reached. "
    "Try once more in a minute; if that does not help either, tell the user."
)


class Direction:
    """Bytes from one socket to the other; at most one piece is held."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.held = b""
        self.ended = False  # the source's end was read
        self.passed_on = False  # ... and told to the sink

    def read(self) -> None:
        """Take a piece and pass it on; to be called when nothing is held. Raises ``OSError``."""
        try:
            self.held = self.source.recv(_PIECE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        self.ended = not self.held
        self.write()

    def write(self) -> None:
        """Pass on what is held, as much as fits; then the end, if it has come."""
        if self.held:
            try:
                self.held = self.held[self.sink.send(self.held) :]
            except (BlockingIOError, InterruptedError):
                return
        if self.ended and not self.held and not self.passed_on:
            self.passed_on = True
            self.sink.shutdown(socket.SHUT_WR)


class Connection:
    """A client and its stream to the proxy."""

    def __init__(self, client: socket.socket, proxy: socket.socket) -> None:
        self.sockets = (client, proxy)
        out, back = Direction(client, proxy), Direction(proxy, client)
        self._from = {client.fileno(): out, proxy.fileno(): back}
        self._into = {client.fileno(): back, proxy.fileno(): out}
        self._gone = {client.fileno(): False, proxy.fileno(): False}
        self.moved_at = time.monotonic()

    def interest(self, fd: int) -> Optional[int]:
        """Give the events to wait for; None: the socket is not to be watched at all.

        A socket whose peer is gone is always ready: it must not be watched while there is nothing
        to do with it.
        """
        events = 0
        if not self._from[fd].ended and not self._from[fd].held:
            events |= select.EPOLLIN
        if self._into[fd].held:
            events |= select.EPOLLOUT
        if events or (self._from[fd].ended and not self._gone[fd]):
            return events
        return None

    def handle(self, fd: int, events: int) -> bool:
        """Move bytes; say whether the connection lives on."""
        self.moved_at = time.monotonic()
        try:
            if events & select.EPOLLOUT:
                self._into[fd].write()
            source = self._from[fd]
            if events & (select.EPOLLIN | select.EPOLLHUP) and not (source.ended or source.held):
                source.read()
            if source.ended and events & (select.EPOLLHUP | select.EPOLLERR):
                self._gone[fd] = True
        except OSError:
            return False
        return not self._is_over()

    def is_stale(self, now: float) -> bool:
        """Say whether one side has ended and the other has been silent for long."""
        half_closed = any(direction.ended for direction in self._from.values())
        return half_closed and now - self.moved_at > _HALF_CLOSED_SECONDS

    def _is_over(self) -> bool:
        if all(direction.passed_on for direction in self._from.values()):
            return True
        # Somebody closed altogether: once the other has what it sent, nothing can follow.
        return any(gone and self._from[fd].passed_on for fd, gone in self._gone.items())


class Refusal:
    """A client that is told why there is no way out."""

    def __init__(self, client: socket.socket, status: str, text: str) -> None:
        self.sockets = (client,)
        self._client = client
        self._answer = _response(status, text)
        self._since = time.monotonic()

    def interest(self, fd: int) -> Optional[int]:
        """Wait for the request, then for the end: an answer to no question would be ignored."""
        return select.EPOLLIN

    def handle(self, fd: int, events: int) -> bool:
        """Answer the first bytes and drop the others: closing early would reset the answer."""
        try:
            if not self._client.recv(_PIECE_BYTES):
                return False
            if self._answer:
                self._client.send(self._answer)  # a few hundred bytes always fit
                self._answer = b""
                self._client.shutdown(socket.SHUT_WR)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            return False
        return True

    def is_stale(self, now: float) -> bool:
        """Say whether the client has had its time."""
        return now - self._since > _TICK_SECONDS


class Forwarder:
    """The loop over all connections.

    Parameters
    ----------
    listener : socket
        Listening; shared with ``init``, which takes over when this process has ended.
    directory : str
        Where the sockets of the host's proxies are.
    """

    def __init__(self, listener: socket.socket, directory: str) -> None:
        self._listener = listener
        self._directory = directory
        self._poll = select.epoll()
        self._owners: Dict[int, "Connection | Refusal"] = {}
        self._watched: Dict[int, int] = {}
        self._connections: List["Connection | Refusal"] = []

    def run(self) -> None:
        """Forward until there has been nothing to do for a while."""
        self._listener.setblocking(False)
        used_at = time.monotonic()
        while True:
            self._watch(
                self._listener.fileno(),
                select.EPOLLIN if len(self._connections) < MAX_CONNECTIONS else None,
            )
            ready = self._poll.poll(_TICK_SECONDS)
            now = time.monotonic()
            for fd, events in ready:
                if fd == self._listener.fileno():
                    self._accept()
                elif fd in self._owners:  # else it was closed just now
                    self._handle(fd, events)
            for connection in [c for c in self._connections if c.is_stale(now)]:
                self._close(connection)
            if self._connections or ready:
                used_at = now
            elif now - used_at > _IDLE_SECONDS:
                return

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        client.setblocking(False)
        connection = self._connect(client)
        self._connections.append(connection)
        for sock in connection.sockets:
            self._owners[sock.fileno()] = connection
            self._watch(sock.fileno(), connection.interest(sock.fileno()))

    def _connect(self, client: socket.socket) -> "Connection | Refusal":
        for name in self._socket_names():
            proxy = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            proxy.setblocking(False)
            try:
                proxy.connect(os.path.join(self._directory, name))
            except OSError:  # of a server that is gone, or is overrun
                proxy.close()
                continue
            try:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                pass
            return Connection(client, proxy)
        notice = self._notice()
        if notice:
            return Refusal(client, "403 No network in this sandbox", notice)
        return Refusal(client, "502 The way out does not answer", NO_PROXY)

    def _socket_names(self) -> List[str]:
        try:
            return sorted(n for n in os.listdir(self._directory) if n.endswith(".sock"))[
                :_MAX_SOCKETS
            ]
        except OSError:
            return []

    def _notice(self) -> str:
        """Give what the host has to say on why there is no proxy, "" for nothing."""
        try:
            with open(os.path.join(self._directory, protocol.EGRESS_OFF), encoding="utf-8") as file:
                return file.read(_NOTICE_BYTES).strip()
        except (OSError, ValueError):
            return ""

    def _handle(self, fd: int, events: int) -> None:
        connection = self._owners[fd]
        if not connection.handle(fd, events):
            self._close(connection)
            return
        for sock in connection.sockets:
            self._watch(sock.fileno(), connection.interest(sock.fileno()))

    def _watch(self, fd: int, events: Optional[int]) -> None:
        known = self._watched.get(fd)
        if events == known:
            return
        if events is None:
            self._poll.unregister(fd)
            del self._watched[fd]
        else:
            (self._poll.register if known is None else self._poll.modify)(fd, events)
            self._watched[fd] = events

    def _close(self, connection: "Connection | Refusal") -> None:
        for sock in connection.sockets:
            self._watch(sock.fileno(), None)
            del self._owners[sock.fileno()]
            sock.close()
        self._connections.remove(connection)


def _response(status: str, text: str) -> bytes:
    """Give a whole HTTP answer; the status line has the reason too, as pip and apt show that."""
    body = (" ".join(text.split()) + "\n").encode("utf-8")
    head = (
        "HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
        "X-Deny-Reason: no_way_out\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return (head % (status, len(body))).encode("ascii") + body
