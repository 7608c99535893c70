"""Connect a stream to a socket inside: raw bytes both ways, half-close and back-pressure too."""

from __future__ import annotations

import contextlib
import socket
from typing import Tuple, Union

from . import protocol
from .streams import Stream
from .threads import start_thread

_PIECE_BYTES = 64 * 1024
_CONNECT_SECONDS = 10.0


def serve_socket(stream: Stream, target: str) -> None:
    """Answer the opening and splice until both directions have ended."""
    try:
        inner = _connect(target)
    except (OSError, ValueError) as exc:
        code = "bad_request" if isinstance(exc, ValueError) else "unreachable"
        stream.send({"error": {"code": code, "message": str(exc)}})
        return
    stream.send({"opened": target})
    first = stream.take_rest()
    try:
        if first:
            inner.sendall(first)
        back = start_thread(_copy, inner, stream.socket)
        _copy(stream.socket, inner)
        back.join()
    except OSError:
        pass
    finally:
        inner.close()


def _connect(target: str) -> socket.socket:
    family, address = _parse(target)
    inner = socket.socket(family, socket.SOCK_STREAM)
    try:
        inner.settimeout(_CONNECT_SECONDS)
        inner.connect(address)
        inner.settimeout(None)
        if family != socket.AF_UNIX:
            inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        inner.close()
        raise
    return inner


def _parse(target: str) -> Tuple[int, Union[str, Tuple[str, int]]]:
    if target.startswith(protocol.UNIX):
        path = target[len(protocol.UNIX) :]
        if not path.startswith("/"):
            raise ValueError("a unix target needs an absolute path")
        return socket.AF_UNIX, path
    host, _, port = target[len(protocol.TCP) :].rpartition(":")
    if host not in ("127.0.0.1", "[::1]") or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("a tcp target is 127.0.0.1:PORT or [::1]:PORT")
    family = socket.AF_INET6 if host == "[::1]" else socket.AF_INET
    return family, (host.strip("[]"), int(port))


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while True:
            data = source.recv(_PIECE_BYTES)
            if not data:
                break
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
