"""Listening sockets that sandboxes connect to: bytes come over them, and nothing else.

A process may pass descriptors over a unix socket. Whoever reads and does not ask for them closes
them, and that last close is the reader's work: seconds for a deleted file of many extents, as long
as the sender likes for a TCP socket with ``SO_LINGER``. So where the kernel can, the sender is
refused (``SO_PASSRIGHTS``, Linux 6.16). Elsewhere a process of its own reads (``courier.py``): one
for each socket, so that a sandbox keeps nobody but itself waiting.
The rule: no process that serves more than one sandbox reads what a sandbox has sent with rights.
Source: https://man7.org/linux/man-pages/man7/unix.7.html (SCM_RIGHTS), commit 77cbe1a6d873 of Linux
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import functools
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from ..models import JsonValue

SO_PASSRIGHTS = 83  # asm-generic/socket.h; Python does not name it
_COURIER = Path(__file__).with_name("courier.py")
_START_SECONDS = 20.0
_MODE = 0o666  # the sandbox's user is another; a directory above is only ours to enter
_MAX_PATH_BYTES = 107
_READY = b"+"


class GuestListener:
    """Listens for one sandbox at one path until it is closed.

    Made by ``listen``. A courier that has ended is started again by the next ``accept``.
    """

    def __init__(self, path: Path, backlog: int) -> None:
        self._path = path
        self._backlog = backlog
        self._socket: socket.socket | None = None  # listening, or the way to the courier
        self._courier: subprocess.Popen[bytes] | None = None
        self._inode = 0

    def __repr__(self) -> str:
        how = "" if self._courier is None else f" by courier {self._courier.pid}"
        return f"<GuestListener {self._path}{how}>"

    @property
    def is_in_place(self) -> bool:
        """Whether the socket of this listener still lies at its path."""
        with contextlib.suppress(OSError):
            return self._socket is not None and os.lstat(self._path).st_ino == self._inode
        return False

    async def accept(self) -> socket.socket:
        """Give the next connection, not blocking; OSError when there can be none now."""
        if self._socket is None:
            await self._open()
        assert self._socket is not None
        if self._courier is None:
            return (await asyncio.get_running_loop().sock_accept(self._socket))[0]
        try:
            return await _receive(self._socket)
        except EOFError:
            await self._let_go()
            raise OSError(errno.ECONNABORTED, "the courier has ended") from None

    async def close(self) -> None:
        """Stop listening and remove the socket; connections of a courier end. Twice is once."""
        if self._socket is not None and self.is_in_place:
            with contextlib.suppress(OSError):
                self._path.unlink()
        await self._let_go()

    async def _open(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()  # of a process that is gone
        if refuses_descriptors():
            self._socket = bind(self._path, self._backlog)
        else:
            await self._start_courier()
        self._inode = os.lstat(self._path).st_ino

    async def _start_courier(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            try:
                self._courier = _spawn(theirs, self._path, self._backlog)
            except BaseException:
                ours.close()
                raise
        self._socket = ours
        try:
            async with asyncio.timeout(_START_SECONDS):
                ready = await asyncio.get_running_loop().sock_recv(ours, 1)
        except BaseException as exc:
            await self._let_go()
            if isinstance(exc, TimeoutError):
                raise OSError(errno.ETIMEDOUT, "the courier does not start") from None
            raise
        if ready != _READY:
            await self._let_go()
            raise OSError(errno.ECHILD, "the courier did not start")

    async def _let_go(self) -> None:
        sock, self._socket = self._socket, None
        courier, self._courier = self._courier, None
        if sock is not None:
            sock.close()
        if courier is not None:
            courier.send_signal(signal.SIGKILL)  # ends a close that waits, too
            # A close that nothing can end keeps a killed process for a while.
            with contextlib.suppress(RuntimeError):  # no more threads: it is reaped some time
                threading.Thread(target=courier.wait, name="jsbx-courier", daemon=True).start()


def _spawn(control: socket.socket, path: Path, backlog: int) -> subprocess.Popen[bytes]:
    """Start a courier; nothing of the server's environment goes along: it may hold keys."""
    return subprocess.Popen(
        (sys.executable, "-I", "-S", str(_COURIER), str(path), str(backlog)),
        stdin=control.fileno(),
        stdout=subprocess.DEVNULL,
        cwd="/",
        env={},
    )


async def listen(path: Path, backlog: int) -> GuestListener:
    """Listen at a path, with mode 0666; what lies there already is replaced.

    Raises
    ------
    OSError
        The path cannot be used, or the courier does not start.
    """
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise OSError(errno.ENAMETOOLONG, "the path is too long for a unix socket")
    listener = GuestListener(path, backlog)
    await listener._open()
    return listener


def bind(path: Path, backlog: int) -> socket.socket:
    """Give a socket, not blocking, that listens and refuses descriptors from its first moment.

    What it accepts inherits that, also what connected before it was accepted.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
        sock.bind(str(path))
        os.chmod(path, _MODE)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


@functools.cache
def refuses_descriptors() -> bool:
    """Say whether this kernel refuses descriptors to sockets that ask for it: it is tried.

    On an abstract socket that the kernel names, with a connection that nobody has accepted yet.
    """
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as guest,
        open(os.devnull, "rb") as nothing,
    ):
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [nothing.fileno()]))]
        try:
            listener.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
            listener.bind("")
            listener.listen(1)
            guest.connect(listener.getsockname())
            guest.sendmsg([b"x"], passed)
        except OSError as exc:
            return exc.errno == errno.EPERM
    return False


def describe() -> dict[str, JsonValue]:
    """Say for health reports who reads what sandboxes send here, and why."""
    if refuses_descriptors():
        text = "the server reads them; the kernel refuses descriptors that a sandbox passes"
        return {"read_by": "server", "text": text}
    text = (
        "a process for each socket (courier) reads them: this kernel cannot refuse descriptors "
        "that a sandbox passes (Linux 6.16 can)"
    )
    return {"read_by": "couriers", "text": text}


async def _receive(control: socket.socket) -> socket.socket:
    """Take a connection from the courier, which is ours; EOFError when it has ended."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        except BlockingIOError:
            pass
        except ConnectionError as exc:
            raise EOFError from exc
        else:
            if not data:
                raise EOFError
            if descriptors:
                connection = socket.socket(fileno=descriptors[0])
                connection.setblocking(False)
                return connection
            continue
        await _wait_readable(loop, control)


async def _wait_readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, _set, ready)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
