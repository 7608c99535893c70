"""Listens for one sandbox and reads for a server that must not: a process of its own.

A script, run by its path: standard library only, imports nothing of ours. It binds the socket at
the path that it is given and hands each connection on: as one end of a pair of sockets, over the
socket that is its standard input; bytes go both ways between the pair's other end and the sandbox.
Descriptors that a sandbox passes end here: what their last close waits for keeps one thread of this
process waiting, and with it one connection. The rules: this process may be killed at any moment
(which ends such a close), holds 64 KiB a direction at most, reads nothing while nobody takes what
it has read, and ends with its server.

Whatever hands on sandboxes' connections can take its place: one from another machine too.
Arguments: path, backlog.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading

_PIECE_BYTES = 64 * 1024
_MAX_CONNECTIONS = 300  # of one sandbox, more than a server holds; others wait in the backlog
_STACK_BYTES = 256 * 1024
_READY = b"+"


def main(path: str, backlog: int) -> None:
    """Serve until the server is gone."""
    threading.stack_size(_STACK_BYTES)
    control = socket.socket(fileno=os.dup(0))
    control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # few are on their way at once
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o666)
    listener.listen(backlog)
    control.sendall(_READY)
    threading.Thread(target=_end_with, args=(control,), daemon=True).start()
    free = threading.Semaphore(_MAX_CONNECTIONS)
    while True:
        free.acquire()
        guest, _ = listener.accept()
        threading.Thread(target=_serve, args=(control, guest, free), daemon=True).start()


def _end_with(control: socket.socket) -> None:
    """End this process when the server's end of the control socket is closed."""
    with contextlib.suppress(OSError):
        control.recv(1)
    os._exit(0)


def _serve(control: socket.socket, guest: socket.socket, free: threading.Semaphore) -> None:
    """Hand a connection on and carry its bytes until both sides have ended.

    All that is the sandbox's is closed here, never by the thread that accepts.
    """
    try:
        ours, theirs = socket.socketpair()
        with guest, ours:
            with theirs:
                socket.send_fds(control, [_READY], [theirs.fileno()])
            back = threading.Thread(target=_carry, args=(guest, ours), daemon=True)
            back.start()
            _carry(ours, guest)
            _await_close(ours)
            for each in (guest, ours):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            back.join()
    finally:
        free.release()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    """Carry one direction to its end, and tell the sink; a sink that is gone ends the source."""
    buffer = memoryview(bytearray(_PIECE_BYTES))
    try:
        while size := source.recv_into(buffer):
            sink.sendall(buffer[:size])
    except OSError:
        with contextlib.suppress(OSError):
            source.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _await_close(sock: socket.socket) -> None:
    """Wait until the server has closed its end, of which it may have ended only one direction."""
    poll = select.poll()
    poll.register(sock, 0)
    poll.poll()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
