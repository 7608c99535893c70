"""Processes of the host, named so that a number used again is never taken for the old process.

A process is its pid *and* its start time (field 22 of ``/proc/PID/stat``). Nothing here knows
sandboxes. The rule: a signal goes through a pidfd whose start time was checked after it was opened.
Source: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_ROUNDS = 20


@dataclass(frozen=True)
class ProcessId:
    """One process. ``started`` is in clock ticks after boot."""

    pid: int
    started: int


@dataclass(frozen=True)
class _Stat:
    state: str
    parent: int
    started: int
    cpu_ticks: int = 0  # its own and of the children it has waited for


def identify(pid: int) -> ProcessId | None:
    """Give the process that has this number now, zombies too; None when there is none."""
    stat = _read_stat(pid)
    return None if stat is None else ProcessId(pid, stat.started)


def state_of(process: ProcessId) -> str:
    """Give the state letter of ``/proc/PID/stat``, or "" when the process is gone."""
    stat = _read_stat(process.pid)
    return stat.state if stat is not None and stat.started == process.started else ""


def is_alive(process: ProcessId) -> bool:
    """Say whether it runs (or is stopped); a zombie does not."""
    return state_of(process) not in ("", "Z", "X", "x")


def name_of(pid: int) -> str:
    """Give the command name (at most 15 bytes), or "" when the process is gone."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().rstrip(b"\n").decode("utf-8", "replace")
    except OSError:
        return ""


def signal_kill(process: ProcessId) -> None:
    """Send KILL. A missing process is fine."""
    with _pidfd(process) as fd:
        if fd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)


def wait(process: ProcessId, timeout_seconds: float) -> bool:
    """Wait until it has exited (a zombie has); say whether it did in time."""
    with _pidfd(process) as fd:
        return fd is None or _exited(fd, timeout_seconds)


def tree(root: ProcessId) -> list[int]:
    """Give the pids of a process and all its descendants, parents first; [] when it is gone."""
    if state_of(root) == "":
        return []
    children: dict[int, list[int]] = {}
    for pid in _pids():
        stat = _read_stat(pid)
        if stat is not None:
            children.setdefault(stat.parent, []).append(pid)
    found = [root.pid]
    for pid in found:  # grows while it is read
        found.extend(children.get(pid, ()))
    return found


def cpu_seconds(pids: Iterable[int]) -> float | None:
    """Give the processor time of processes, with that of children they waited for; None for none.

    Of a process with all its descendants the sum never falls, whoever of them ends: its time counts
    with the one that waited for it (unless that one ignores the ends of its children).
    """
    stats = [stat for pid in pids if (stat := _read_stat(pid)) is not None]
    return sum(stat.cpu_ticks for stat in stats) / os.sysconf("SC_CLK_TCK") if stats else None


def memory_bytes(pids: Iterable[int]) -> int:
    """Give the resident memory of processes; what they share counts for each."""
    pages = 0
    for pid in pids:
        with contextlib.suppress(OSError, IndexError, ValueError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def kill_tree(root: ProcessId) -> None:
    """Send KILL to all descendants of a process, then to itself."""
    for process in filter(None, map(identify, reversed(tree(root)))):
        signal_kill(process)


def stop_tree(root: ProcessId) -> bool:
    """Stop a process and all its descendants; say whether all of them stand.

    Descendants that are born meanwhile are found in the next round; a stopped one bears none.
    """
    for _ in range(_ROUNDS):
        running = [pid for pid in tree(root) if _state(pid) not in ("T", "t", "Z", "X", "")]
        if not running:
            return True
        for pid in running:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGSTOP)
        time.sleep(0.001)  # a stop takes effect when the process is next scheduled
    return False


def continue_tree(root: ProcessId) -> None:
    """Let a process and all its descendants go on, the leaves first."""
    for pid in reversed(tree(root)):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGCONT)


def find_by_environment(marker: str) -> list[ProcessId]:
    """Give the processes of ours whose environment has the line ``marker`` ("NAME=value")."""
    wanted = os.fsencode(marker)
    found = []
    for pid in _pids():
        process = identify(pid)
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            if process is not None and wanted in file.read().split(b"\0"):
                found.append(process)
    return found


def environment_of(process: ProcessId) -> dict[str, str]:
    """Give the environment a process of ours was started with; {} when it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{process.pid}/environ", "rb") as file:
        lines = [os.fsdecode(line).partition("=") for line in file.read().split(b"\0")]
        if state_of(process) != "":
            return {name: value for name, _, value in lines if name}
    return {}


def users() -> frozenset[int]:
    """Give the numbers of all users that have a process."""
    found = set()
    for pid in _pids():
        with contextlib.suppress(OSError):
            found.add(os.stat(f"/proc/{pid}").st_uid)
    return frozenset(found)


@contextlib.contextmanager
def _pidfd(process: ProcessId) -> Iterator[int | None]:
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield fd if state_of(process) != "" else None
    finally:
        os.close(fd)


def _exited(fd: int, timeout_seconds: float) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(timeout_seconds * 1000))


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _state(pid: int) -> str:
    stat = _read_stat(pid)
    return stat.state if stat is not None else ""


def _read_stat(pid: int) -> _Stat | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    # The name in parentheses may hold anything, parentheses too: count from the last one.
    fields = text[text.rindex(b")") + 2 :].split()
    cpu_ticks = sum(map(int, fields[11:15]))
    return _Stat(fields[0].decode("ascii"), int(fields[1]), int(fields[19]), cpu_ticks)
