"""PID 1: start processes, reap them, tell the server of their end.

The rule: this process parses nothing that comes from the host or from user code, so nothing can
make it fail. The server (dialling, kernels, files) is its child; when that dies it is started
again and finds the kernels it had started. Requests come as one packet each over a socketpair, with
the file descriptors of the new process.

Every process it starts is a *subreaper*: what it starts in turn stays below it however often it
forks and whatever session it makes, until it ends. So a command's tree can always be found.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import json
import os
import select
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # this process is forked for every command: what it does not import is not copied
    from typing import Any, Callable, Dict, List

MAX_PACKET = 160 * 1024
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_PDEATHSIG = 1
_CHILD_OOM_SCORE = b"900"  # user processes are killed for memory before the guest

_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP)

_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Make orphans among this process's descendants its children (Linux 3.4)."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Init:
    """The loop of PID 1.

    Parameters
    ----------
    serve : callable
        Runs the server in a forked child, given its end of the socketpair.
    """

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._server_pid = 0
        self._socket: socket.socket = None  # type: ignore[assignment]
        self._managed: Dict[int, Dict[str, Any]] = {}  # pid -> tag, of those still running
        self._ending = False
        self._server_starts: List[float] = []

    def run(self) -> None:
        """Serve until SIGTERM; then end everything below and return."""
        wake_read, wake_write = os.pipe()
        for fd in (wake_read, wake_write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        become_subreaper()
        gc.freeze()  # fewer pages to copy in the children
        self._start_server()
        while not self._ending:
            watched: List[Any] = [wake_read, self._socket]
            readable, _, _ = select.select(watched, [], [])
            if wake_read in readable:
                _drain(wake_read)
                self._reap()
            if self._socket in readable:
                self._request()
        self._kill_all()

    def _end(self, *_: Any) -> None:
        self._ending = True

    def _start_server(self) -> None:
        now = time.monotonic()
        self._server_starts = [t for t in self._server_starts if now - t < 10] + [now]
        if len(self._server_starts) > 5:
            time.sleep(1)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_PACKET)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                ours.close()
                signal.set_wakeup_fd(-1)
                for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_DFL)
                _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                self._serve(theirs)
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        theirs.close()
        if self._socket is not None:
            self._socket.close()
        self._socket = ours
        self._server_pid = pid
        kept = [{"pid": p, "tag": tag} for p, tag in self._managed.items() if tag.get("keep")]
        for p, tag in list(self._managed.items()):
            if not tag.get("keep"):  # a command whose output nobody reads any more
                _kill(p)
        self._tell({"kept": kept})

    def _tell(self, packet: Dict[str, Any]) -> None:
        try:
            self._socket.send(json.dumps(packet).encode())
        except OSError:  # the server is gone; SIGCHLD follows
            pass

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._server_pid:
                if not self._ending:
                    self._start_server()
            elif self._managed.pop(pid, None) is not None:
                self._tell({"exited": pid, "code": _exit_code(status)})

    def _request(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, MAX_PACKET, 16)
        except OSError:
            return
        if not data:
            time.sleep(0.01)  # closed: SIGCHLD follows
            return
        try:
            request = json.loads(data)
            pid = self._spawn(request, fds)
        except (OSError, ValueError, KeyError) as exc:
            self._tell({"failed": str(exc)})
        else:
            self._managed[pid] = request.get("tag") or {}
            self._tell({"spawned": pid})
        finally:
            for fd in fds:
                os.close(fd)

    def _spawn(self, request: Dict[str, Any], fds: List[int]) -> int:
        error_read, error_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                _become(request, fds, error_write)
            except BaseException as exc:
                os.write(error_write, str(exc).encode("utf-8", "replace")[:2000])
            finally:
                os._exit(127)
        os.close(error_write)
        try:
            message = os.read(error_read, 2000)
        finally:
            os.close(error_read)
        if message:
            os.waitpid(pid, 0)
            raise OSError(message.decode("utf-8", "replace"))
        return pid

    def _kill_all(self) -> None:
        """End all that is below: as PID 1 the kernel does it when we exit, else we do it here."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in _children():
                _kill(pid, number)
            deadline = time.monotonic() + (1.0 if number == signal.SIGTERM else 5.0)
            while time.monotonic() < deadline:
                try:
                    if os.waitpid(-1, os.WNOHANG)[0] == 0:
                        time.sleep(0.01)
                except ChildProcessError:
                    return
                if number == signal.SIGKILL:
                    for pid in _children():
                        _kill(pid)


def _become(request: Dict[str, Any], fds: List[int], error_fd: int) -> None:
    """In the child: take the session, descriptors, directory and program that were asked for."""
    signal.set_wakeup_fd(-1)
    for number in _IGNORED:  # handlers end with exec, ignored signals would stay ignored
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    become_subreaper()
    targets: List[int] = request["fds"]
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100) for fd in [error_fd, *fds]]
    for fd, target in zip(high[1:], targets, strict=False):
        os.dup2(fd, target, inheritable=True)
    os.closerange(max(targets) + 1, high[0])
    os.closerange(high[0] + 1, 4096)
    _raise_oom_score()
    os.umask(0o022)
    for directory in (request["cwd"], "/workspace", "/"):
        try:
            os.chdir(directory)
            break
        except OSError:
            continue
    argv = request["argv"]
    os.execvpe(argv[0], argv, request["env"])


def _raise_oom_score() -> None:
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(fd, _CHILD_OOM_SCORE)
        os.close(fd)
    except OSError:
        pass


def _exit_code(status: int) -> int:
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _kill(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def _children() -> List[int]:
    from .trees import snapshot

    table = snapshot()
    me = os.getpid()
    below: List[int] = []
    frontier: List[int] = [me]
    while frontier:
        parent = frontier.pop()
        for pid, process in table.items():
            if process.ppid == parent and pid not in below and pid != me:
                below.append(pid)
                frontier.append(pid)
    return below


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass
