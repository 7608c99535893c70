"""Fresh shells that carry working directory and exported variables from one command to the next.

A *spare* shell waits ready: it was started with the state that the last command left, and blocks
until it is given a command. So a command costs no fork and exec of its own. When a shell ends by
itself it saves its state (``$PWD`` and ``export -p``); the next spare starts with it. A shell that
is killed saves nothing: the state stays as it was before.

The rule: what a shell saves is only ever read by another shell of the same sandbox.
"""

from __future__ import annotations

import fcntl
import os
import select
import shlex
import signal
import threading
from collections import deque
from typing import Deque, List, Mapping, Optional

from ..orphans import Orphans
from ..spawn import Spawner
from ..trees import MARK, Tree
from . import exported
from .keepers import Keeper

_STATE_FD, _GO_FD, _COMMAND_FD = 7, 8, 9
_PIPE_BYTES = 256 * 1024
_SPARES = 2
_MAX_STATE_BYTES = 4 * 1024 * 1024

# One line, so that bash counts the command's lines from 1 in its messages. The command comes in a
# file (read at one go), the permission to start in a pipe. The last words run at the shell's end.
_SOURCE = " . /dev/fd/7; exec 7<&-;"
_SCRIPT = (
    " __sandbox_save() { builtin local s=$?;"
    ' { builtin printf \'%%s\\0\' "$PWD"; builtin export -p; } 2>/dev/null >|"$__sandbox_state";'
    " return $s; };"
    " __sandbox_state=%s; builtin export %s;"
    " builtin trap __sandbox_save EXIT;"
    " builtin read -r -u 8 __sandbox_command || { builtin trap - EXIT; exit 0; };"
    " IFS= builtin read -r -d '' -u 9 __sandbox_command; exec 8<&- 9<&-;"
    ' builtin eval "$__sandbox_command"'
)


class Shell:
    """One bash process that waits for its command, or runs it, or has ended.

    Attributes
    ----------
    output_fd : int
        Its stdout and stderr; ours to read and close.
    exit_code : int or None
        As ``Popen.returncode``: negative for a signal; None while it runs.
    is_clean : bool
        Whether it has ended and nothing that it started is left.
    ended : Event
        For threads that wait for its end; who reads ``fileno`` sets it by ``take_end``.
    """

    def __init__(
        self,
        keeper: Keeper,
        mark: str,
        output_fd: int,
        go_fd: int,
        command_fd: int,
        orphans: Optional[Orphans] = None,
        stamp: int = 0,
    ) -> None:
        self.keeper = keeper
        self.pid = 0
        self.tree = Tree(0, mark)
        self.output_fd = output_fd
        self.state_path = ""
        self.generation = 0
        self.exit_code: Optional[int] = None
        self.is_clean = False
        self.ended = threading.Event()
        self._mark = mark
        self._orphans = orphans
        self._stamp = stamp
        self._go_fd = go_fd
        self._command_fd = command_fd

    @property
    def alive(self) -> bool:
        """Whether its end has not been taken."""
        return self.exit_code is None

    def fileno(self) -> int:
        """Give a descriptor that becomes readable when it has ended."""
        return self.keeper.fileno()

    def await_start(self) -> None:
        """Wait until bash has been started; ``OSError`` if it could not be."""
        self.pid = self.keeper.started()
        self.tree = Tree(self.pid, self._mark, self.keeper.pid, self._orphans, self._stamp)

    def has_ended(self) -> bool:
        """Say whether ``take_end`` would not wait."""
        poll = select.poll()  # `select` knows no descriptor above 1023
        poll.register(self.keeper, select.POLLIN)
        return bool(poll.poll(0))

    def take_end(self) -> None:
        """Learn how it ended; waits for it."""
        try:
            self.exit_code, self.is_clean = self.keeper.ended()
            if self._orphans is not None:  # what is left has not passed to the keeper
                self.is_clean = self.is_clean and not self.tree.members()
        except OSError:
            self.tree.end(grace_seconds=0.0)
            self.exit_code = -signal.SIGKILL
        self.ended.set()

    def run(self, command: str) -> bool:
        """Give it its command; False if it was killed while it waited, so that it runs nothing."""
        if self._orphans is not None:
            self._orphans.begin(self._stamp)
        data = command.encode("utf-8", "surrogateescape")
        offset = 0
        while offset < len(data):
            offset += os.pwrite(self._command_fd, data[offset:], offset)
        try:
            os.write(self._go_fd, b"\n")
        except BrokenPipeError:
            return False
        os.close(self._command_fd)
        os.close(self._go_fd)
        return True

    def discard(self) -> None:
        """Let a shell end that was never used; its keeper's answers are still to be read."""
        for fd in (self._command_fd, self._go_fd, self.output_fd):
            os.close(fd)
        try:
            os.unlink(self.state_path)  # one that was killed has saved its state
        except OSError:
            pass


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
    orphans : Orphans, optional
        Where the kernel has no subreapers.
    """

    def __init__(
        self,
        spawner: Spawner,
        directory: str,
        env: Mapping[str, str],
        cwd: str,
        orphans: Optional[Orphans] = None,
    ) -> None:
        self._spawner = spawner
        self._orphans = orphans
        self._directory = directory
        self._path = env.get("PATH", "/usr/bin:/bin")
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._lock = threading.Lock()  # guards the fields below; never held while a shell starts
        without_mark = {name: value for name, value in env.items() if name != MARK}
        self._state = exported.to_text(without_mark, cwd)
        self._state_env = exported.to_environment(self._state)
        self._state_fd = _memory_file(self._state)  # each shell opens it anew
        self._cwd = cwd
        self._generation = 0
        self._count = 0
        self._spares: Deque[Shell] = deque()
        self._wanted = threading.Event()
        self._wanted.set()
        threading.Thread(target=self._keep_spares, name="spare", daemon=True).start()

    @property
    def cwd(self) -> str:
        """Directory that the next command starts in."""
        with self._lock:
            return self._cwd

    def take(self) -> Shell:
        """Give a shell that waits for its command: a spare one, or a new one.

        Raises
        ------
        OSError
            There are too many processes, or no memory.
        """
        while True:
            with self._lock:
                spare = self._spares.popleft() if self._spares else None
                is_current = spare is not None and spare.generation == self._generation
            if spare is None:
                break
            if is_current:
                try:
                    spare.await_start()
                    if not spare.has_ended():
                        return spare
                except OSError:
                    pass
            self.retire(spare)
        shell = self._start()
        try:
            shell.await_start()
        except OSError:
            self.retire(shell)
            raise
        return shell

    def give_back(self, shell: Shell) -> None:
        """Have the keeper of a shell that has ended start the next spare one."""
        if shell.is_clean and self._lacks_spare():
            try:
                made = self._start(shell.keeper)
            except OSError:
                shell.keeper.close()
            else:
                with self._lock:
                    self._spares.append(made)
        else:
            shell.keeper.close()
        if self._lacks_spare():
            self._wanted.set()

    def save(self, shell: Shell, keep: bool) -> None:
        """Take over (or only remove) the state that a shell saved at its end, if it did."""
        try:
            fd = os.open(shell.state_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return
        try:
            data = os.read(fd, min(os.fstat(fd).st_size, _MAX_STATE_BYTES))
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
                os.close(self._state_fd)
                self._state, self._cwd = state, new_cwd
                self._state_env = exported.to_environment(state)
                self._state_fd = _memory_file(state)
                self._generation += 1

    def _keep_spares(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            keepers = self._drop_old_spares()
            while self._lacks_spare():
                try:
                    made = self._start(keepers.pop() if keepers else None)
                except OSError:
                    break  # out of processes or memory: `take` will say so to whoever asks
                with self._lock:
                    self._spares.append(made)
            for keeper in keepers:
                keeper.close()

    def _drop_old_spares(self) -> List[Keeper]:
        """Let spares with an old state end; give their keepers."""
        with self._lock:
            old = [spare for spare in self._spares if spare.generation != self._generation]
            for spare in old:
                self._spares.remove(spare)
        keepers: List[Keeper] = []
        for spare in old:
            spare.discard()
            try:
                spare.await_start()
                spare.take_end()
            except OSError:
                pass
            if spare.is_clean:
                keepers.append(spare.keeper)
            else:
                spare.keeper.close()
        return keepers

    def retire(self, spare: Shell) -> None:
        """Do without a shell that was never used, and without its keeper."""
        spare.discard()
        spare.keeper.close()

    def _lacks_spare(self) -> bool:
        with self._lock:
            current = sum(spare.generation == self._generation for spare in self._spares)
            return current < _SPARES

    def _start(self, keeper: Optional[Keeper] = None) -> Shell:
        """Ask a keeper (or a new one) for a shell; who takes it awaits its start."""
        if keeper is None:
            keeper = Keeper(*self._spawner.fork_keeper())
            if self._orphans is not None:
                self._orphans.know_keeper(keeper.pid)
        with self._lock:
            self._count += 1
            mark = "%d-%d" % (os.getpid(), self._count)
            state_fd, state_env = os.dup(self._state_fd), self._state_env
            cwd, generation = self._cwd, self._generation
        stamp = 0 if self._orphans is None else self._orphans.new_stamp()
        theirs, ours = [state_fd], []
        state_path = os.path.join(self._directory, "state-" + mark)
        env = {"PATH": self._path} if state_env is None else dict(state_env)
        env[MARK] = mark
        script = (_SOURCE if state_env is None else "exec 7<&-;") + _SCRIPT % (
            shlex.quote(state_path),
            "%s=%s" % (MARK, mark),
        )
        try:
            output_fd, output_write = os.pipe()
            ours.append(output_fd)
            theirs.append(output_write)
            _enlarge(output_fd)
            os.set_blocking(output_fd, False)
            go_read, go_fd = os.pipe()
            ours.append(go_fd)
            theirs.append(go_read)
            command_fd = os.memfd_create("command", os.MFD_CLOEXEC)
            ours.append(command_fd)
            keeper.ask(
                ["/bin/bash", "--noprofile", "--norc", "-c", script, "bash"],
                env,
                cwd,
                {
                    0: self._null,
                    1: output_write,
                    2: output_write,
                    _STATE_FD: state_fd,
                    _GO_FD: go_read,
                    _COMMAND_FD: command_fd,
                },
                stamp,
            )
        except OSError:
            keeper.close()
            for fd in ours:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        shell = Shell(keeper, mark, output_fd, go_fd, command_fd, self._orphans, stamp)
        shell.state_path = state_path
        shell.generation = generation
        return shell


def _enlarge(pipe_fd: int) -> None:
    """Make a pipe hold more: fewer wakings in a flood."""
    try:
        fcntl.fcntl(pipe_fd, 1031, _PIPE_BYTES)  # F_SETPIPE_SZ
    except OSError:
        pass  # this user has many large pipes already


def _without_mark(state: bytes) -> bytes:
    """Drop the variables that belong to one shell only."""
    own = (b"declare -x %s=" % MARK.encode(), b"export %s=" % MARK.encode())
    return b"".join(line for line in state.splitlines(True) if not line.startswith(own))


def _memory_file(data: bytes) -> int:
    fd = os.memfd_create("sandbox", os.MFD_CLOEXEC)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
