"""Fresh shells that carry working directory and exported variables from one command to the next.

A *spare* shell waits ready: it was started with the state that the last command left, and blocks
until it is given a command. So a command costs no fork and exec of its own. When a shell ends by
itself it saves its state (``$PWD`` and ``export -p``); the next spare sources it. A shell that is
killed saves nothing: the state stays as it was before.

The rule: what a shell saves is only ever read by another shell of the same sandbox.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import threading
from collections import deque
from typing import Deque, Dict, Mapping

from ..spawn import Child, Spawner
from ..trees import MARK, Tree

_STATE_FD, _GO_FD, _COMMAND_FD = 7, 8, 9
_PIPE_BYTES = 256 * 1024
_SPARES = 2
_MAX_STATE_BYTES = 4 * 1024 * 1024

# One line, so that bash counts the command's lines from 1 in its messages. The command comes in a
# file (read at one go), the permission to start in a pipe. The last words run at the shell's end.
_SCRIPT = (
    "__sandbox_save() { builtin local s=$?;"
    ' { builtin printf \'%s\\0\' "$PWD"; builtin export -p; } 2>/dev/null >|"$__sandbox_state";'
    " return $s; };"
    " . /dev/fd/7; exec 7<&-; __sandbox_state=%(state)s; builtin export %(mark)s;"
    " builtin read -r -u 8 __sandbox_command || exit 0;"
    " IFS= builtin read -r -d '' -u 9 __sandbox_command; exec 8<&- 9<&-;"
    " builtin trap __sandbox_save EXIT;"
    ' builtin eval "$__sandbox_command"'
)


class Shell:
    """One bash process that waits for its command, or runs it.

    Attributes
    ----------
    output_fd : int
        Its stdout and stderr; ours to read and close.
    """

    def __init__(
        self, child: Child, tree: Tree, output_fd: int, go_fd: int, command_fd: int
    ) -> None:
        self.child = child
        self.tree = tree
        self.output_fd = output_fd
        self.state_path = ""
        self.generation = 0
        self._go_fd = go_fd
        self._command_fd = command_fd

    def run(self, command: str) -> None:
        """Give it its command."""
        data = command.encode("utf-8", "surrogateescape")
        offset = 0
        while offset < len(data):
            offset += os.pwrite(self._command_fd, data[offset:], offset)
        os.close(self._command_fd)
        try:
            os.write(self._go_fd, b"\n")
        except BrokenPipeError:
            pass  # it was killed while it waited; the reader sees its end
        os.close(self._go_fd)

    def discard(self) -> None:
        """End a shell that was never used."""
        os.close(self._command_fd)
        os.close(self._go_fd)
        os.close(self.output_fd)
        self.child.forget()


class Shells:
    """Makes shells and remembers the state that the last command left.

    Parameters
    ----------
    directory : str
        For the files in which shells save their state.
    env : mapping
        Exported variables of the first shell.
    cwd : str
        Its working directory.
    """

    def __init__(self, spawner: Spawner, directory: str, env: Mapping[str, str], cwd: str) -> None:
        self._spawner = spawner
        self._directory = directory
        self._path = env.get("PATH", "/usr/bin:/bin")
        self._lock = threading.Lock()  # guards the fields below; never held while a shell starts
        self._state = _initial_state(env)
        self._cwd = cwd
        self._generation = 0
        self._count = 0
        self._spares: Deque[Shell] = deque()
        self._wanted = threading.Event()
        self._wanted.set()
        threading.Thread(target=self._keep_spare, name="spare", daemon=True).start()

    @property
    def cwd(self) -> str:
        """Directory that the next command starts in."""
        with self._lock:
            return self._cwd

    def take(self) -> Shell:
        """Give a shell that waits for its command: the spare one, or a new one."""
        with self._lock:
            spares, self._spares = self._spares, deque()
            found = None
            while spares and found is None:
                spare = spares.popleft()
                if spare.child.alive and spare.generation == self._generation:
                    found = spare
                    self._spares, spares = spares, deque()
                else:
                    spare.discard()
        return found or self._start()

    def refill(self) -> None:
        """Have a spare made; called when a command has ended, so that it delays none."""
        self._wanted.set()

    def save(self, shell: Shell, keep: bool) -> None:
        """Take over (or only remove) the state that a shell saved at its end, if it did."""
        try:
            fd = os.open(shell.state_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return
        try:
            data = os.read(fd, _MAX_STATE_BYTES)
        finally:
            os.close(fd)
            os.unlink(shell.state_path)
        cwd, separator, state = data.partition(b"\0")
        if not keep or not separator or len(data) == _MAX_STATE_BYTES:
            return
        state = _without_mark(state)
        with self._lock:
            new_cwd = os.fsdecode(cwd) or self._cwd
            if state != self._state or new_cwd != self._cwd:
                self._state, self._cwd = state, new_cwd
                self._generation += 1

    def _keep_spare(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            while self._lacks_spare():
                try:
                    made = self._start()
                except OSError:
                    break  # out of processes or memory: `take` will say so to whoever asks
                with self._lock:
                    self._spares.append(made)

    def _lacks_spare(self) -> bool:
        """Drop spares with an old state; say whether there are too few."""
        with self._lock:
            for spare in list(self._spares):
                if spare.generation != self._generation or not spare.child.alive:
                    self._spares.remove(spare)
                    spare.discard()
            return len(self._spares) < _SPARES

    def _start(self) -> Shell:
        with self._lock:
            self._count += 1
            mark = "%d-%d" % (os.getpid(), self._count)
            state, cwd, generation = self._state, self._cwd, self._generation
        state_path = os.path.join(self._directory, "state-" + mark)
        script = _SCRIPT.replace("%(state)s", shlex.quote(state_path)).replace(
            "%(mark)s", "%s=%s" % (MARK, mark)
        )
        env: Dict[str, str] = {"PATH": self._path, MARK: mark}
        output_read, output_write = os.pipe()
        try:
            fcntl.fcntl(output_read, 1031, _PIPE_BYTES)  # F_SETPIPE_SZ: fewer wake-ups in a flood
        except OSError:
            pass
        go_read, go_write = os.pipe()
        state_fd, command_fd = _memory_file(state), _memory_file(b"")
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        fds = {
            0: null,
            1: output_write,
            2: output_write,
            _STATE_FD: state_fd,
            _GO_FD: go_read,
            _COMMAND_FD: command_fd,
        }
        try:
            child = self._spawner.spawn(
                ["/bin/bash", "--noprofile", "--norc", "-c", script, "bash"],
                env,
                cwd,
                fds,
                {"kind": "command"},
            )
        except OSError:
            for fd in (output_read, go_write, command_fd):
                os.close(fd)
            raise
        finally:
            for fd in (null, output_write, state_fd, go_read):
                os.close(fd)
        shell = Shell(child, Tree(child.pid, mark), output_read, go_write, command_fd)
        shell.state_path = state_path
        shell.generation = generation
        return shell


def _initial_state(env: Mapping[str, str]) -> bytes:
    lines = [
        "declare -x %s=%s" % (name, shlex.quote(value))
        for name, value in sorted(env.items())
        if name.isidentifier() and name not in ("PWD", "OLDPWD", "SHLVL", "_", MARK)
    ]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


def _without_mark(state: bytes) -> bytes:
    """Drop the variables that belong to one shell only."""
    own = (b"declare -x %s=" % MARK.encode(), b"export %s=" % MARK.encode())
    return b"".join(line for line in state.splitlines(True) if not line.startswith(own))


def _memory_file(data: bytes) -> int:
    fd = os.memfd_create("sandbox", os.MFD_CLOEXEC)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
