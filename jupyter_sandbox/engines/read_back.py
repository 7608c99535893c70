"""What holds a running sandbox, asked of the kernel by the number of its PID 1. Only reads.

For every engine whose sandboxes are processes of this host. Knows no engine. The rule: what cannot
be read is not claimed. Source: https://man7.org/linux/man-pages/man5/proc.5.html
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..models import LIMITS, Enforced, Strength
from .group_limits import GroupLimit, read_group_limits

_UNITS = {"memory": " bytes", "swap": " bytes"}


def read_back(pid: int, *, own_process_limit: bool = False) -> list[Enforced]:
    """Give what holds a process, of all that can be seen from outside it.

    Parameters
    ----------
    pid : int
        PID 1 of the sandbox as this host numbers it.
    own_process_limit : bool
        Whether its resource limit for processes is the sandbox's own, not the user's usual one.
    """
    groups = read_group_limits(pid)
    limits = _resource_limits(pid)
    status = _status(pid)
    found = [
        _memory(groups, limits),
        _swap(groups),
        _of_group("processors", groups),
        _processes(groups, limits if own_process_limit else {}),
        _of_process("file_size", limits, "Max file size"),
        _of_process("open_files", limits, "Max open files"),
        _network(pid),
    ]
    return found + _rights(status) if status else found


def in_order(found: Iterable[Enforced]) -> tuple[Enforced, ...]:
    """Give one answer for each of ``LIMITS``: the first found, or that nobody knows of any."""
    by_name: dict[str, Enforced] = {}
    for each in found:
        by_name.setdefault(each.limit, each)
    return tuple(by_name.get(name) or not_enforced(name, "nothing is known") for name in LIMITS)


def not_enforced(limit: str, why: str, read: bool = False) -> Enforced:
    """Give the answer for a limit that nothing holds."""
    return Enforced(limit, Strength.NOT_ENFORCED, why, read_back=read)


def watched(where: str) -> Enforced:
    """Give the answer for a disk that no kernel limits, but ``sandbox.disk_guard`` watches."""
    how = f"{where}; it is measured while it grows and stopped when it is over"
    return Enforced("disk", Strength.WEAKER, how)


def _of_group(name: str, groups: Mapping[str, GroupLimit]) -> Enforced:
    limit = groups.get(name)
    if limit is None:
        return not_enforced(name, "no control group", read=True)
    if limit.value is None:
        return not_enforced(name, f"{limit.file} has no limit", read=True)
    value = f"{limit.value:g}" if name == "processors" else f"{limit.value:.0f}"
    return Enforced(name, Strength.ENFORCED, limit.file, value + _UNITS.get(name, ""), True)


def _memory(groups: Mapping[str, GroupLimit], limits: Mapping[str, str]) -> Enforced:
    by_group = _of_group("memory", groups)
    data = limits.get("Max data size", "unlimited")
    if by_group.strength is Strength.ENFORCED or data == "unlimited":
        return by_group
    why = "resource limit of each process, not of all together"
    return Enforced("memory", Strength.WEAKER, why, f"{data} bytes", True)


def _swap(groups: Mapping[str, GroupLimit]) -> Enforced:
    if len(_lines("/proc/swaps")) <= 1:
        return Enforced("swap", Strength.ENFORCED, "this host has no swap", "0 bytes", True)
    return _of_group("swap", groups)


def _processes(groups: Mapping[str, GroupLimit], limits: Mapping[str, str]) -> Enforced:
    by_group = _of_group("processes", groups)
    count = limits.get("Max processes", "unlimited")
    if by_group.strength is Strength.ENFORCED or count == "unlimited":
        return by_group
    return Enforced("processes", Strength.ENFORCED, "resource limit of its user", count, True)


def _of_process(name: str, limits: Mapping[str, str], key: str) -> Enforced:
    value = limits.get(key, "")
    if value in ("", "unlimited"):
        return not_enforced(name, "no resource limit", read=bool(value))
    unit = " bytes" if name == "file_size" else ""
    return Enforced(name, Strength.ENFORCED, "resource limit", value + unit, True)


def _rights(status: Mapping[str, str]) -> list[Enforced]:
    filtered = status.get("Seccomp") == "2"
    system_calls = (
        Enforced("system_calls", Strength.ENFORCED, "seccomp filter", "", True)
        if filtered
        else not_enforced("system_calls", "no seccomp filter", read=True)
    )
    can_gain = status.get("NoNewPrivs") != "1"
    bounding = status.get("CapBnd", "").lstrip("0") or "0"
    capabilities = Enforced(
        "capabilities",
        Strength.WEAKER if can_gain else Strength.ENFORCED,
        "bounding set" + ("; programs can gain rights" if can_gain else "; no new privileges"),
        f"0x{bounding}",
        True,
    )
    uid = int(status["Uid"].split()[0])
    user = (
        Enforced("user", Strength.WEAKER, "root inside is root of the host's kernel", "0", True)
        if uid == 0
        else Enforced("user", Strength.ENFORCED, "an ordinary user of the host", str(uid), True)
    )
    return [system_calls, capabilities, user]


def _network(pid: int) -> Enforced:
    own = f"/proc/{pid}/net"
    if not os.access(f"{own}/dev", os.R_OK):
        return Enforced("network", Strength.ENFORCED, "a namespace without an interface was asked")
    routes = [line.split()[0] for line in _lines(f"{own}/route")[1:]]
    addresses = [line.split()[-1] for line in _lines(f"{own}/if_inet6")]
    others = sorted({name for name in (*routes, *addresses) if name != "lo"})
    if others:
        return not_enforced("network", f"there is a way out by {', '.join(others)}", read=True)
    return Enforced("network", Strength.ENFORCED, "a namespace of its own, loopback only", "", True)


def _resource_limits(pid: int) -> dict[str, str]:
    """Give the hard limits by the kernel's names."""
    return {
        line[:26].strip(): line[26:].split()[1]
        for line in _lines(f"/proc/{pid}/limits")[1:]
        if len(line[26:].split()) > 1
    }


def _status(pid: int) -> dict[str, str]:
    pairs = (line.partition(":") for line in _lines(f"/proc/{pid}/status"))
    return {key: value.strip() for key, _, value in pairs}


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
