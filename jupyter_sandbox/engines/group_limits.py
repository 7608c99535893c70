"""Limits that control groups put on a process, as the kernel says them now. Only reads.

Version 1 and 2. The group of the process itself is looked at: engines write their limits there.
Knows no engine. Sources: those of ``cgroups``.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED_BYTES = 2**60  # version 1 says "none" as the largest number that fits


@dataclass(frozen=True)
class GroupLimit:
    """One limit: where it stands, and its number (None: the file says that there is none)."""

    file: str
    value: float | None


def read_group_limits(pid: int, proc: Path = Path("/proc")) -> dict[str, GroupLimit]:
    """Give what can be read of ``memory``, ``swap`` (beyond memory), ``processors``, ``processes``.

    A limit whose controller or file is not there is missing.
    """
    groups = _groups(pid, proc)
    found: dict[str, GroupLimit | None] = {
        "processes": _number(groups, "pids", "pids.max", "pids.max"),
        "memory": _number(groups, "memory", "memory.limit_in_bytes", "memory.max"),
        "swap": _swap(groups),
        "processors": _processors(groups),
    }
    return {name: limit for name, limit in found.items() if limit is not None}


@dataclass(frozen=True)
class GroupEvents:
    """How often a group's limits have been met since it was made."""

    memory_kills: int = 0
    processes_refused: int = 0


def read_group_events(pid: int, proc: Path = Path("/proc")) -> GroupEvents:
    """Give what the groups of a process have counted; 0 where nobody counts."""
    groups = _groups(pid, proc)
    version, memory = groups.get("memory") or groups.get("", (0, Path()))
    kills = memory / ("memory.oom_control" if version == 1 else "memory.events")
    _, pids = groups.get("pids") or groups.get("", (0, Path()))
    return GroupEvents(_count(kills, "oom_kill"), _count(pids / "pids.events", "max"))


def read_group_cpu_seconds(pid: int, proc: Path = Path("/proc")) -> float | None:
    """Give the processor time of the group of a process; None where it has none of its own."""
    groups = _groups(pid, proc)
    version, directory = groups.get("cpuacct") or groups.get("", (0, Path()))
    if not version or directory in _own_directories(proc):
        return None
    if version == 1:
        text = _read(directory / "cpuacct.usage")
        return int(text) / 1e9 if text.isdigit() else None
    microseconds = _count(directory / "cpu.stat", "usage_usec")
    return microseconds / 1e6 if microseconds else None


def read_group_memory_bytes(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Give the memory that the group of a process takes; None where it has none of its own."""
    groups = _groups(pid, proc)
    version, directory = groups.get("memory") or groups.get("", (0, Path()))
    if not version or directory in _own_directories(proc):
        return None
    name = "memory.usage_in_bytes" if version == 1 else "memory.current"
    text = _read(directory / name)
    return int(text) if text.isdigit() else None


def read_own_group_processes(pid: int, proc: Path = Path("/proc")) -> list[int]:
    """Give the numbers of all processes in a group of a process that this one is not in."""
    groups = _groups(pid, proc)
    _, directory = groups.get("pids") or groups.get("", (0, Path()))
    return [] if directory in _own_directories(proc) else read_group_processes(pid, proc)


def _own_directories(proc: Path) -> set[Path]:
    return {path for _, path in _groups(os.getpid(), proc).values()}


def read_group_processes(pid: int, proc: Path = Path("/proc")) -> list[int]:
    """Give the numbers of all processes in the group of a process; that one at least."""
    groups = _groups(pid, proc)
    _, directory = groups.get("pids") or groups.get("", (0, Path()))
    found = [int(line) for line in _read(directory / "cgroup.procs").split() if line.isdigit()]
    return found or [pid]


def _count(path: Path, key: str) -> int:
    for line in _read(path).splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0


def _groups(pid: int, proc: Path) -> dict[str, tuple[int, Path]]:
    """Give (version, directory) by controller; "" is the one hierarchy of version 2."""
    names: dict[str, str] = {}
    for line in _read(proc / str(pid) / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        names |= dict.fromkeys(controllers.split(","), path)
    found = {}
    for line in _read(proc / "self" / "mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if len(fields) < 5 or len(rest) < 3 or rest[0] not in ("cgroup", "cgroup2"):
            continue
        here = [""] if rest[0] == "cgroup2" else rest[2].split(",")
        for name in here:
            if name not in names:
                continue
            with contextlib.suppress(ValueError):  # a mount that does not show the group
                inside = Path(names[name]).relative_to(fields[3])
                found[name] = (1 if name else 2, Path(fields[4]) / inside)
    return found


def _number(
    groups: dict[str, tuple[int, Path]], controller: str, file_1: str, file_2: str
) -> GroupLimit | None:
    version, directory = groups.get(controller) or groups.get("", (0, Path()))
    file = file_1 if version == 1 else file_2
    text = _read(directory / file) if version else ""
    if not text:
        return None
    value = None if text == "max" or int(text) > _UNLIMITED_BYTES else int(text)
    return GroupLimit(f"control group: {file}", value)


def _swap(groups: dict[str, tuple[int, Path]]) -> GroupLimit | None:
    swap = _number(groups, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
    memory = _number(groups, "memory", "memory.limit_in_bytes", "memory.max")
    if swap is None or swap.value is None or "memsw" not in swap.file:
        return swap
    if memory is None or memory.value is None:
        return None
    return GroupLimit(swap.file, swap.value - memory.value)  # version 1 counts both together


def _processors(groups: dict[str, tuple[int, Path]]) -> GroupLimit | None:
    version, directory = groups.get("cpu") or groups.get("", (0, Path()))
    if version == 1:
        quota, period = (
            _read(directory / "cpu.cfs_quota_us"),
            _read(directory / "cpu.cfs_period_us"),
        )
        file = "cpu.cfs_quota_us"
    else:
        quota, _, period = _read(directory / "cpu.max").partition(" ") if version else ("", "", "")
        file = "cpu.max"
    if not quota or not period:
        return None
    unlimited = quota in ("max", "-1")
    return GroupLimit(f"control group: {file}", None if unlimited else int(quota) / int(period))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
