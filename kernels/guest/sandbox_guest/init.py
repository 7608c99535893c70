"""PID 1: start processes, reap them, tell the server of their end.

The rule: this process parses nothing that comes from the host or from user code, so nothing can
make it fail. The server (dialling, kernels, files) is its child; when that dies it is started
again and finds the kernels it had started. Requests come as one packet each over a socketpair, with
the file descriptors of the new process. The way out (see ``forwarder``) listens here and is another
child, made for the first connection: until then it costs a socket.

Commands are started by *keepers* (see ``keeper``), which are forked here: a fork of this process
costs as much as a whole shell, so it is not done for each. Every process started here, a keeper
too, is a *subreaper*: what it starts in turn stays below it however often it
forks and whatever session it makes, until it ends. So a command's tree can always be found.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import marshal
import os
import select
import signal
import socket
import sys
import time

from . import keeper, protocol

TYPE_CHECKING = False
if TYPE_CHECKING:  # this process is forked: what it does not import is not copied
    from typing import Any, Callable, Dict, List, Set

MAX_PACKET = 160 * 1024
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_CHILD_OOM_SCORE = b"900"  # user processes are killed for memory before the guest
_FORWARDER_PAUSE_SECONDS = 0.2  # between two, when something inside keeps killing them

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
    listener : socket, optional
        Where programs inside ask for the way out.
    forward : callable, optional
        Runs the forwarder in a forked child, given the listener; returns when it is idle.
    """

    def __init__(
        self,
        serve: Callable[[socket.socket], None],
        listener: socket.socket | None = None,
        forward: Callable[[socket.socket], None] | None = None,
    ) -> None:
        self._serve = serve
        self._listener = listener
        self._forward = forward
        self._forwarder_pid = 0
        self._forwarder_at = 0.0
        self._server_pid = 0
        self._socket: socket.socket = None  # type: ignore[assignment]
        self._managed: Dict[int, Dict[str, Any]] = {}  # pid -> tag, of those still running
        self._keepers: Set[int] = set()
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
            pause = None
            if self._listener is not None and not self._forwarder_pid:
                pause = self._forwarder_at + _FORWARDER_PAUSE_SECONDS - time.monotonic()
                if pause <= 0:
                    watched.append(self._listener)
                    pause = None
            readable, _, _ = select.select(watched, [], [], pause)
            if wake_read in readable:
                _drain(wake_read)
                self._reap()
            if self._socket in readable:
                self._request()
            if self._listener in readable:
                self._start_forwarder()
        self._kill_all()

    def _end(self, *_: Any) -> None:
        self._ending = True

    def _start_forwarder(self) -> None:
        assert self._listener is not None
        assert self._forward is not None
        self._forwarder_at = time.monotonic()
        try:
            pid = os.fork()
        except OSError:
            return  # too many processes: the connection waits
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_DFL)
                _libc.prctl(_PR_SET_NAME, b"way-out", 0, 0, 0)  # what `ps` and `top` show
                os.setsid()
                self._socket.close()
                self._forward(self._listener)
            finally:
                os._exit(0)
        self._forwarder_pid = pid

    def _start_server(self) -> None:
        now = time.monotonic()
        self._server_starts = [t for t in self._server_starts if now - t < 10] + [now]
        if len(self._server_starts) > 5:
            time.sleep(1)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_PACKET)
        pid = self._fork_server()
        if pid == 0:
            code = 1
            try:
                ours.close()
                if self._listener is not None:
                    self._listener.close()
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
        for p in self._keepers:  # nobody reads any more what their commands write
            for below in _descendants(p):
                _kill(below)
        self._tell({"kept": kept})

    def _fork_server(self) -> int:
        """Fork; where user code has taken all processes there may be, end it first."""
        while True:
            try:
                return os.fork()
            except OSError:
                for keeper_pid in self._keepers:
                    for below in _descendants(keeper_pid):
                        _kill(below)
                time.sleep(0.05)
                self._forget_dead()

    def _forget_dead(self) -> None:
        """Reap what has ended while there is no server to tell it to."""
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._keepers.discard(pid)
            self._managed.pop(pid, None)

    def _tell(self, packet: Dict[str, Any]) -> None:
        try:
            self._socket.send(marshal.dumps(packet))
        except OSError:  # the server is gone; SIGCHLD follows
            pass

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if os.WIFSTOPPED(status):  # one of ours would be silent and still hold its streams
                if pid in (self._server_pid, self._forwarder_pid) or pid in self._keepers:
                    _kill(pid, signal.SIGCONT)
            elif pid == self._server_pid:
                if not self._ending:
                    self._start_server()
            elif pid == self._forwarder_pid:
                self._forwarder_pid = 0
            elif pid in self._keepers:
                self._keepers.remove(pid)
            elif self._managed.pop(pid, None) is not None:
                self._tell({"exited": pid, "code": keeper.exit_code(status)})

    def _request(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, MAX_PACKET, 16)
        except OSError:
            return
        if not data:
            time.sleep(0.01)  # closed: SIGCHLD follows
            return
        try:
            request = marshal.loads(data)
            fork = self._fork_keeper if request.get("keeper") else self._spawn
            pid = fork(request, fds)
        except (OSError, ValueError, KeyError, EOFError, TypeError) as exc:
            self._tell({"failed": str(exc)})
        else:
            if not request.get("keeper"):
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

    def _fork_keeper(self, request: Dict[str, Any], fds: List[int]) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                _leave()
                keeper.keep(socket.socket(fileno=fds[0]))
            finally:
                os._exit(0)
        self._keepers.add(pid)
        return pid

    def _kill_all(self) -> None:
        """End all that is below: as PID 1 the kernel does it when we exit, else we do it here."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in _descendants(os.getpid()):
                _kill(pid, number)
            deadline = time.monotonic() + (1.0 if number == signal.SIGTERM else 5.0)
            while time.monotonic() < deadline:
                try:
                    if os.waitpid(-1, os.WNOHANG)[0] == 0:
                        time.sleep(0.01)
                except ChildProcessError:
                    return
                if number == signal.SIGKILL:
                    for pid in _descendants(os.getpid()):
                        _kill(pid)


def listen(port: int = protocol.EGRESS_PORT) -> socket.socket | None:
    """Give the listening socket; None where it cannot be had (another program has the port)."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except OSError:
        listener.close()
        return None
    return listener


def _become(request: Dict[str, Any], fds: List[int], error_fd: int) -> None:
    """In the child: take the session, descriptors, directory and program that were asked for."""
    _leave()
    keeper.put_stamp(request["stamp"])
    for number in _IGNORED:  # handlers end with exec, ignored signals would stay ignored
        signal.signal(number, signal.SIG_DFL)
    targets: List[int] = request["fds"]
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100) for fd in [error_fd, *fds]]
    for fd, target in zip(high[1:], targets, strict=False):
        os.dup2(fd, target, inheritable=True)
    os.closerange(max(targets) + 1, high[0])
    os.closerange(high[0] + 1, 4096)
    os.umask(0o022)
    for directory in (request["cwd"], "/workspace", "/"):
        try:
            os.chdir(directory)
            break
        except OSError:
            continue
    argv = request["argv"]
    os.execvpe(argv[0], argv, request["env"])


def _leave() -> None:
    """In the child: stop being PID 1; a session of its own, parent of its orphans."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    become_subreaper()
    _raise_oom_score()


def _raise_oom_score() -> None:
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(fd, _CHILD_OOM_SCORE)
        os.close(fd)
    except OSError:
        pass


def _kill(pid: int, number: int = signal.SIGKILL) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        pass


def _descendants(root: int) -> List[int]:
    from .trees import snapshot

    table = snapshot()
    below: List[int] = []
    frontier: List[int] = [root]
    while frontier:
        parent = frontier.pop()
        for pid, process in table.items():
            if process.ppid == parent and pid not in below and pid != root:
                below.append(pid)
                frontier.append(pid)
    return below


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass
