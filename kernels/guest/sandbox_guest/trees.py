"""Which processes belong to a command, and how to end them all.

A command's processes are those below its shell, those of its session and those that carry its mark
in their environment. Its parent (a kernel: itself) is a subreaper (see ``keeper``): nothing that it
started can leave the tree, by whatever forks and sessions. Where the kernel has no subreapers,
``orphans`` knows what has left.
"""

from __future__ import annotations

import os
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Set

    from .orphans import Orphans

MARK = "SANDBOX_COMMAND"


class Process:
    """A row of /proc/PID/stat. ``started`` (clock ticks) tells a reused number from the old one."""

    __slots__ = (
        "cpu_ticks",
        "group",
        "name",
        "pid",
        "ppid",
        "rss_limit",
        "session",
        "started",
        "state",
    )

    def __init__(
        self,
        pid: int,
        ppid: int,
        group: int,
        session: int,
        state: str,
        started: int,
        cpu_ticks: int,
        rss_limit: int,
        name: str,
    ) -> None:
        self.pid = pid
        self.ppid = ppid
        self.group = group
        self.session = session
        self.state = state
        self.started = started
        self.cpu_ticks = cpu_ticks
        self.rss_limit = rss_limit
        self.name = name


def snapshot() -> Dict[int, Process]:
    """Give all processes of this PID namespace."""
    table = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            process = read_process(int(entry))
            if process is not None:
                table[process.pid] = process
    return table


def read_process(pid: int) -> "Process | None":
    """Give one process, or None when it is gone."""
    try:
        fd = os.open("/proc/%d/stat" % pid, os.O_RDONLY)
        try:
            data = os.read(fd, 1024)
        finally:
            os.close(fd)
    except OSError:
        return None
    _left, _, rest = data.partition(b"(")
    name, _, rest = rest.rpartition(b")")
    fields = rest.split()
    try:
        return Process(
            pid,
            int(fields[1]),
            int(fields[2]),
            int(fields[3]),
            fields[0].decode(),
            int(fields[19]),
            int(fields[11]) + int(fields[12]),
            int(fields[22]),
            name.decode("utf-8", "replace"),
        )
    except (IndexError, ValueError):
        return None


class Tree:
    """The processes of one command.

    Parameters
    ----------
    root : int
        Process id of its shell, which leads a session of its own.
    mark : str
        Value of the variable ``MARK`` in the environment that the shell was started with.
    keeper : int
        Process id of its parent, whose children are all of this command (0: it has none). The
        keeper is no member.
    orphans : Orphans, optional
        Knows them, where the kernel has no subreapers.
    stamp : int
        The command's, for ``orphans``.
    """

    def __init__(
        self,
        root: int,
        mark: str,
        keeper: int = 0,
        orphans: Optional[Orphans] = None,
        stamp: int = 0,
    ) -> None:
        self.root = root
        self._keeper = keeper
        self._orphans = orphans
        self._stamp = stamp
        self._since = 0
        if orphans is not None and root > 0:
            process = read_process(root)
            self._since = process.started if process is not None else 0
        self._mark = ("\0%s=%s\0" % (MARK, mark)).encode()
        self._seen: Dict[int, int] = {}  # pid -> started

    def members(self) -> List[Process]:
        """Give the living processes of the command, its shell included."""
        table = snapshot()
        own = os.getpid()
        inside: Set[int] = set()
        for pid, process in table.items():
            if pid in (own, 1) or process.state in "ZX":
                continue
            if (
                pid == self.root
                or process.session == self.root
                or (process.ppid == self._keeper and self._keeper > 0)
                or self._seen.get(pid) == process.started
                or (process.ppid == 1 and self._is_stamped(process))
                or self._is_marked(pid)
            ):
                inside.add(pid)
        grew = True
        while grew:
            grew = False
            for pid, process in table.items():
                if pid not in inside and process.ppid in inside and process.state not in "ZX":
                    inside.add(pid)
                    grew = True
        for pid in inside:
            self._seen[pid] = table[pid].started
        return [table[pid] for pid in sorted(inside)]

    def signal(self, number: int) -> int:
        """Send a signal to all of them; give how many there were.

        First to the shell's group at one go: many that compute leave us little time to look for
        each (under gVisor, seconds).
        """
        # Without a keeper the root itself holds its orphans: it must not end before they are known.
        shell = read_process(self.root) if self._keeper > 0 and self.root > 0 else None
        group = self.root if shell is not None and shell.group == self.root else 0
        if group:
            _send(-group, number)
        members = self.members()
        for process in members:
            if process.group != group:
                _send(process.pid, number)
        return len(members)

    def end(self, grace_seconds: float = 2.0) -> int:
        """TERM, a grace, then KILL until none is left (bounded); give how many there were."""
        count = self.signal(signal.SIGTERM)
        self._await_end(grace_seconds)
        for _ in range(100):
            members = self.members()
            if not members:
                break
            for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped ones fork no more
                for process in members:
                    _send(process.pid, number)
            self._await_end(0.05)
        return count

    def _await_end(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        pause = 0.002
        while time.monotonic() < deadline and self.members():
            time.sleep(pause)
            pause = min(0.05, pause * 2)

    def _is_stamped(self, process: Process) -> bool:
        return self._orphans is not None and self._orphans.belongs(
            process, self._stamp, self._since
        )

    def _is_marked(self, pid: int) -> bool:
        for _ in range(3):
            environment = _environment(pid)
            if environment != b"\0\0":
                break
            time.sleep(0.001)  # empty: perhaps it is just becoming another program
        return self._mark in environment


def _environment(pid: int) -> bytes:
    """Give a process's environment between NULs; one that cannot be read is b"-"."""
    try:
        fd = os.open("/proc/%d/environ" % pid, os.O_RDONLY)
        try:
            return b"\0" + os.read(fd, 256 * 1024) + b"\0"
        finally:
            os.close(fd)
    except OSError:
        return b"-"


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        pass
