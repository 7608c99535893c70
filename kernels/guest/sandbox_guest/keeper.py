"""The parent of commands: a small process that starts one shell after another and tells their ends.

``init`` forks it; a shell then costs no fork of Python (``posix_spawn`` copies nothing) and its end
goes straight to whoever waits for it. It is a *subreaper*: what a command starts stays below it
however often it forks and whatever session it makes. When a command leaves processes behind it is
not used again; they pass to ``init``.

The rule: it holds nothing of a command but its process, and ends when the server closes its socket.
"""

from __future__ import annotations

import fcntl
import marshal
import os
import signal
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Tuple

MAX_PACKET = 64 * 1024
MAX_FDS = 16  # of a command, numbered 0 to 15; what is sent to us gets higher numbers

# What a command may send to its parent by mistake; KILL ends the keeper, and the command with it.
IGNORED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
)


def keep(sock: socket.socket) -> None:
    """Start commands and report, until the socket ends or a command leaves processes behind.

    A request is a packet ``{argv, env, cwd, fds, stamp}`` with as many descriptors; two packets
    answer it: ``{pid}`` or ``{failed}``, and after the former, at the end, ``{code, clean}``.
    """
    sock = _settle(sock)
    while True:
        data, fds, _, _ = socket.recv_fds(sock, MAX_PACKET, MAX_FDS)
        if not data:
            return
        try:
            pid = _spawn(marshal.loads(data), fds)
        except (OSError, ValueError, KeyError, EOFError, TypeError) as exc:
            _tell(sock, {"failed": getattr(exc, "strerror", None) or str(exc)})
            continue
        finally:
            for fd in fds:
                os.close(fd)
        _tell(sock, {"pid": pid})
        code, clean = _wait(pid)
        _tell(sock, {"code": code, "clean": clean})


def _settle(sock: socket.socket) -> socket.socket:
    """Leave nothing open that a command could inherit, and its numbers taken; give the socket."""
    fd = fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, MAX_FDS)
    sock.detach()
    os.closerange(3, fd)
    os.closerange(fd + 1, 4096)
    while os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) < MAX_FDS - 1:
        pass
    os.umask(0o022)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    return socket.socket(fileno=fd)


def _spawn(request: Dict[str, Any], fds: List[int]) -> int:
    for directory in (request["cwd"], "/workspace", "/"):
        try:
            os.chdir(directory)
            break
        except OSError:
            continue
    put_stamp(request["stamp"])
    argv, env = request["argv"], request["env"]
    targets = request["fds"]
    moves = [(os.POSIX_SPAWN_DUP2, fd, targets[at]) for at, fd in enumerate(fds)]
    # Closed by hand: `recv_fds` ignores its flags, so what it gives would be inherited.
    closes = [(os.POSIX_SPAWN_CLOSE, fd) for fd in fds]
    try:
        return os.posix_spawn(
            argv[0], argv, env, file_actions=[*moves, *closes], setsid=True, setsigdef=IGNORED
        )
    finally:
        os.chdir("/")  # it holds no directory busy


def _wait(shell: int) -> Tuple[int, bool]:
    """Reap until the shell has ended; give its exit code and whether nothing is left of it."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, 0 if code is None else os.WNOHANG)
        except ChildProcessError:
            return (-signal.SIGKILL if code is None else code), True
        if pid == 0:
            return (-signal.SIGKILL if code is None else code), False
        if pid == shell:
            code = exit_code(status)


def put_stamp(stamp: int) -> None:
    """Mark this process, and what it starts from now on, for ``orphans``. 0: nothing is done."""
    if stamp > 0:
        import resource  # here: PID 1 is forked, and what it does not import is not copied

        try:
            resource.setrlimit(resource.RLIMIT_RSS, (stamp, stamp))
        except (OSError, ValueError):  # somebody limited it before: orphans are not known then
            pass


def exit_code(status: int) -> int:
    """Give what ``Popen.returncode`` would be for a status of ``waitpid``."""
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _tell(sock: socket.socket, packet: Dict[str, Any]) -> None:
    try:
        sock.send(marshal.dumps(packet))
    except OSError:  # the server is gone; the next read says so
        pass
