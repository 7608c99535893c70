"""A listener on loopback that nobody may reach: it writes down whoever does.

TCP connections count even if nothing is sent, and so do datagrams (STUN). It answers HTTP and lets
every origin read, so that what leaks leaks whole.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass, field

_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/javascript\r\nContent-Length: 16\r\n"
    b"Access-Control-Allow-Origin: *\r\nConnection: close\r\n\r\n"
    b"window.leaked=1;"
)
_QUIET_SECONDS = 0.7


@dataclass
class Canary:
    """What has reached it.

    Attributes
    ----------
    port : int
        Of TCP and UDP, on 127.0.0.1. In the tests' browser the host ``canary.test`` is there too.
    requests : list of str
        The first line of each HTTP request (a WebSocket's handshake is one).
    connections, datagrams : int
        Also those that sent nothing.
    """

    port: int = 0
    requests: list[str] = field(default_factory=list)
    connections: int = 0
    datagrams: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def named_url(self) -> str:
        """The same under a name, so that a look-up leads to it too."""
        return f"http://canary.test:{self.port}"

    def assert_silent(self) -> None:
        """Fail if anything has come, or comes within a moment."""
        deadline = time.monotonic() + _QUIET_SECONDS
        while time.monotonic() < deadline and not (self.connections or self.datagrams):
            time.sleep(0.02)
        assert (self.requests, self.connections, self.datagrams) == ([], 0, 0)

    def wait_for_request(self, seconds: float = 10.0) -> str:
        """Give the first request; for tests that show that the canary can be reached."""
        deadline = time.monotonic() + seconds
        while not self.requests and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.requests, "nothing has reached the canary"
        return self.requests[0]


@contextlib.contextmanager
def listening_canary():
    """Listen while the block runs."""
    canary = Canary()
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen(64)
        canary.port = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", canary.port))
        threads = [
            threading.Thread(target=_take_connections, args=(tcp, canary)),
            threading.Thread(target=_take_datagrams, args=(udp, canary)),
        ]
        for thread in threads:
            thread.start()
        try:
            yield canary
        finally:
            tcp.shutdown(socket.SHUT_RDWR)
            udp.sendto(b"", ("127.0.0.1", canary.port))  # wakes the thread
            for thread in threads:
                thread.join(10)


def _take_connections(listener: socket.socket, canary: Canary) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            canary.connections += 1
            threading.Thread(target=_answer, args=(connection, canary)).start()


def _answer(connection: socket.socket, canary: Canary) -> None:
    with connection, contextlib.suppress(OSError):
        connection.settimeout(5)
        head = b""
        while b"\r\n\r\n" not in head and len(head) < 65536:
            piece = connection.recv(4096)
            if not piece:
                break
            head += piece
        if head:
            canary.requests.append(head.split(b"\r\n", 1)[0].decode("latin-1"))
            connection.sendall(_ANSWER)


def _take_datagrams(receiver: socket.socket, canary: Canary) -> None:
    while receiver.recv(4096):
        canary.datagrams += 1
