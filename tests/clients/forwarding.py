"""A forwarder on loopback that adds a token to each request, for a client that cannot send one.

Everything else goes through as it came, ``Host`` and ``Origin`` too: the server judges them.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

_READ_BYTES = 64 * 1024


@contextlib.contextmanager
def adding_token(port: int, token: str) -> Iterator[int]:
    """Forward to a port of loopback while the block runs; give the port to ask instead."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, port, token), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, port: int, token: str) -> None:
    with contextlib.suppress(OSError):  # it is closed
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, port, token), daemon=True).start()


def _serve(client: socket.socket, port: int, token: str) -> None:
    with client, socket.create_connection(("127.0.0.1", port)) as server:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = client.recv(_READ_BYTES)
            if not piece:
                return
            head += piece
        head, _, body = head.partition(b"\r\n\r\n")
        fields = [
            line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")
        ]
        # one request a connection: the next one's head must be found too
        fields += [b"Connection: close", b"Authorization: token " + token.encode()]
        server.sendall(b"\r\n".join(fields) + b"\r\n\r\n" + body)
        threading.Thread(target=_pump, args=(client, server), daemon=True).start()
        _pump(server, client)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(_READ_BYTES):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
