"""Start one bubblewrap process and learn what became of it. Knows no sandbox and no record.

bubblewrap prepares everything and then waits at a gate, so that its PID 1 is known, recorded and
limited before any code of a sandbox runs. The rule: the gate opens for a byte only; if this server
dies before it is written, nothing ever runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from . import children, process_table
from .process_table import ProcessId

_STDERR_BYTES = 64 * 1024
_ROOT = "/"


class LaunchFailed(Exception):
    """bubblewrap or the command ended at once; the text is what they said (may hold host paths)."""


@dataclass(frozen=True)
class Launched:
    """A bubblewrap process whose PID 1 waits at the gate."""

    launcher: ProcessId
    init: ProcessId
    gate: int
    stderr: int

    def open_gate(self, timeout_seconds: float) -> None:
        """Let the command run; wait until bubblewrap has become the command.

        Raises
        ------
        LaunchFailed
            The command could not be executed, or ended at once.
        """
        os.write(self.gate, b"\n")
        deadline = time.monotonic() + timeout_seconds
        while process_table.name_of(self.init.pid) == "bwrap":
            if time.monotonic() > deadline:
                raise LaunchFailed("bubblewrap does not start the command")
            time.sleep(0.0003)
        if not process_table.is_alive(self.init):
            raise LaunchFailed(_said(self.stderr) or "the command ended at once")


@contextlib.contextmanager
def launch(
    prefix: Sequence[str],
    program: str,
    arguments: Sequence[str],
    command: Sequence[str],
    *,
    seccomp: bytes,
    texts: Mapping[str, str],
    environment: Mapping[str, str],
    timeout_seconds: float,
) -> Iterator[Launched]:
    """Start bubblewrap up to its gate.

    Parameters
    ----------
    prefix : sequence of str
        Words before bubblewrap's: what changes the user or the mounts it sees.
    arguments : sequence of str
        Travel through a file in memory, not the command line, which every user can read.
    seccomp : bytes
        Program of the kernel's filter that the command and all its children get.
    texts : mapping
        Files that exist inside only, read-only, by their path there. From descriptors: a file of
        the host would tell its path inside (``/proc/self/mountinfo``).
    environment : mapping
        Of bubblewrap itself, not of the command.

    Raises
    ------
    LaunchFailed
        bubblewrap ended before its gate, or did not come to it in time.
    """
    with contextlib.ExitStack() as fds:
        shown = {path: _memory_file(fds, "text", text.encode()) for path, text in texts.items()}
        # First: bubblewrap writes them into the root, which the arguments close in the end.
        files = [("--perms", "0644", "--ro-bind-data", str(fd), path) for path, fd in shown.items()]
        arguments = [*itertools.chain(*files), *arguments]
        passed = _memory_file(fds, "arguments", b"".join(a.encode() + b"\0" for a in arguments))
        filtering = _memory_file(fds, "seccomp", seccomp)
        stderr = _bounded_memory_file(fds)
        info_read, info_write = os.pipe()
        fds.callback(os.close, info_read)
        gate = _gate(fds)
        words = [*prefix, program, "--args", str(passed), "--info-fd", str(info_write)]
        words += ["--seccomp", str(filtering), "--block-fd", str(gate), "--", *command]
        try:
            child = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                cwd=_ROOT,  # the server's own directory stays free to be removed
                env=dict(environment),
                pass_fds=(passed, filtering, info_write, gate, *shown.values()),
                start_new_session=True,  # the terminal's signals are not for sandboxes
                umask=0o022,
            )
        except OSError as exc:
            raise LaunchFailed(f"{words[0]}: {exc}") from exc
        finally:
            os.close(info_write)
        launcher = children.adopt(child)
        init = _read_init(info_read, time.monotonic() + timeout_seconds)
        if init is None:
            process_table.kill_tree(launcher)
            process_table.wait(launcher, timeout_seconds)
            children.forget(launcher)
            raise LaunchFailed(_said(stderr) or "bubblewrap did not come to its gate in time")
        yield Launched(launcher, init, gate, stderr)


def _gate(fds: contextlib.ExitStack) -> int:
    """Give a pipe's one descriptor for both directions: held by its reader, it never ends."""
    read, write = os.pipe()
    try:
        gate = os.open(f"/proc/self/fd/{read}", os.O_RDWR | os.O_CLOEXEC)
    finally:
        os.close(read)
        os.close(write)
    fds.callback(os.close, gate)
    return gate


def _read_init(fd: int, deadline: float) -> ProcessId | None:
    text = b""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    while poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
        piece = os.read(fd, 4096)
        text += piece
        with contextlib.suppress(ValueError, KeyError):
            return process_table.identify(json.loads(text)["child-pid"])
        if not piece:
            break
    return None


def _memory_file(fds: contextlib.ExitStack, name: str, content: bytes) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    fds.callback(os.close, fd)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _bounded_memory_file(fds: contextlib.ExitStack) -> int:
    """Give a file for what is said on stderr. It stays the guest's stderr: it cannot grow."""
    fd = os.memfd_create("stderr", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fds.callback(os.close, fd)
    os.ftruncate(fd, _STDERR_BYTES)
    seals = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def _said(stderr: int) -> str:
    return os.pread(stderr, _STDERR_BYTES, 0).rstrip(b"\0\n").decode("utf-8", "replace")
