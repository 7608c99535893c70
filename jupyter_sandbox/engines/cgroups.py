"""Limits that the kernel enforces on a whole sandbox: control groups, versions 1 and 2.

``find_cgroups`` says which controllers can be used here; ``Cgroups.create`` makes the groups of
one sandbox; ``SandboxGroups`` is what a record on disk remembers of them. Knows no engine. The
rule: a controller that is offered is enforced, or ``OSError`` is raised; no limit is on paper only.
Sources: https://docs.kernel.org/admin-guide/cgroup-v2.html and
https://docs.kernel.org/admin-guide/cgroup-v1/index.html
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .base import Resources

CONTROLLERS = ("memory", "pids", "cpu", "freezer")
_PERIOD_MICROSECONDS = 100_000


@dataclass(frozen=True)
class Group:
    """One directory in one hierarchy; with version 2 several controllers share it."""

    version: int
    path: Path


@dataclass(frozen=True)
class SandboxGroups:
    """The groups of one sandbox, by controller. Without any, each method does nothing."""

    groups: Mapping[str, Group] = field(default_factory=dict)

    def to_json(self) -> dict[str, list[str | int]]:
        """Give what ``from_json`` takes."""
        return {name: [g.version, str(g.path)] for name, g in self.groups.items()}

    @classmethod
    def from_json(cls, shape: Mapping[str, list[str | int]]) -> SandboxGroups:
        """Read what ``to_json`` gave."""
        return cls({n: Group(int(v), Path(str(p))) for n, (v, p) in shape.items()})

    def add(self, pid: int) -> None:
        """Put a process and all its future children in. ``OSError`` when the kernel refuses."""
        for path in self._paths():
            _write(path / "cgroup.procs", str(pid))

    @property
    def can_freeze(self) -> bool:
        """Whether ``freeze`` works here."""
        return "freezer" in self.groups

    def freeze(self, timeout_seconds: float) -> bool:
        """Stop all processes; say whether they stand."""
        self._set_frozen(True)
        deadline = time.monotonic() + timeout_seconds
        while not self.is_frozen():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True

    def thaw(self) -> None:
        """Let all processes go on."""
        with contextlib.suppress(FileNotFoundError):
            self._set_frozen(False)

    def is_frozen(self) -> bool:
        """Say whether all processes stand."""
        group = self.groups.get("freezer")
        if group is None:
            return False
        if group.version == 1:
            return _read(group.path / "freezer.state") == "FROZEN"
        return _count(_read(group.path / "cgroup.events"), "frozen") == 1

    def out_of_memory_kills(self) -> int:
        """Give how many processes the kernel has killed for memory."""
        group = self.groups.get("memory")
        if group is None:
            return 0
        name = "memory.oom_control" if group.version == 1 else "memory.events"
        return _count(_read(group.path / name), "oom_kill")

    def remove(self, timeout_seconds: float) -> None:
        """Remove the directories. Missing ones are fine; ``OSError`` while processes are in."""
        deadline = time.monotonic() + timeout_seconds
        for path in self._paths():
            while True:
                try:
                    path.rmdir()
                except FileNotFoundError:
                    pass
                except OSError as exc:  # the last process is still on its way out
                    if exc.errno == errno.EBUSY and time.monotonic() < deadline:
                        time.sleep(0.002)
                        continue
                    raise
                break

    def _paths(self) -> list[Path]:
        return list(dict.fromkeys(group.path for group in self.groups.values()))

    def _set_frozen(self, frozen: bool) -> None:
        group = self.groups.get("freezer")
        if group is None:
            return
        if group.version == 1:
            _write(group.path / "freezer.state", "FROZEN" if frozen else "THAWED")
        else:
            _write(group.path / "cgroup.freeze", "1" if frozen else "0")


@dataclass(frozen=True)
class Cgroups:
    """Where groups can be made: per controller the directory that holds those of all sandboxes."""

    parents: Mapping[str, Group] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[str, ...]:
        """The controllers that cannot be used here."""
        return tuple(name for name in CONTROLLERS if name not in self.parents)

    def groups_of(self, sandbox_id: str) -> SandboxGroups:
        """Give the groups of a sandbox; nothing is made."""
        return SandboxGroups(
            {n: Group(g.version, g.path / sandbox_id) for n, g in self.parents.items()}
        )

    def create(self, sandbox_id: str, resources: Resources) -> SandboxGroups:
        """Make the groups with their limits. ``OSError`` when the kernel refuses one."""
        made = self.groups_of(sandbox_id)
        for group in made.groups.values():
            group.path.mkdir(parents=True, exist_ok=True)
        for name, group in made.groups.items():
            for file, value in _limits(name, group.version, resources):
                optional = file.startswith("?")
                path = group.path / file.lstrip("?")
                if not optional or path.exists():
                    _write(path, value)
        return made


def find_cgroups(
    parent: str = "jupyter-sandbox", proc: Path = Path("/proc/self"), root: bool | None = None
) -> Cgroups:
    """Find the controllers that this process may use, and make the directory for our groups.

    Parameters
    ----------
    parent : str
        Name of that directory.
    proc : Path
        Where ``mountinfo`` and ``cgroup`` of this process are read.
    root : bool, optional
        Whether this process is root; by default it is looked up.
    """
    parents: dict[str, Group] = {}
    unified: Path | None = None
    for kind, mount, options in _cgroup_mounts(proc):
        if kind == "cgroup2":
            unified = unified or mount
            continue
        for name in set(CONTROLLERS) & set(options):
            directory = mount / parent
            if _usable(directory):
                parents[name] = Group(1, directory)
    if unified is not None and len(parents) < len(CONTROLLERS):
        is_root = os.geteuid() == 0 if root is None else root
        base = unified if is_root else _delegated(unified, proc)
        if base is not None:
            for name in _version_2_controllers(base, parent):
                parents.setdefault(name, Group(2, base / parent))
    return Cgroups(parents)


def _delegated(mount: Path, proc: Path) -> Path | None:
    """Give the highest group above ours that this user may manage (systemd's ``Delegate=``)."""
    own = ""
    for line in _read(proc / "cgroup").splitlines():
        if line.startswith("0::"):
            own = line[3:]
    found = None
    directory = mount / own.lstrip("/")
    for candidate in directory.parents:
        if not candidate.is_relative_to(mount) or not os.access(candidate, os.W_OK):
            break
        if os.access(candidate / "cgroup.procs", os.W_OK):
            found = candidate
    return found


def _version_2_controllers(base: Path, parent: str) -> list[str]:
    """Make ``base/parent`` and give the controllers that groups in it have."""
    wanted = ("memory", "pids", "cpu")
    for name in wanted:
        _enable(base, name)
    directory = base / parent
    if not _usable(directory):
        return []
    for name in wanted:
        _enable(directory, name)
    enabled = _read(directory / "cgroup.subtree_control").split()
    found = [name for name in wanted if name in enabled]
    if (directory / "cgroup.freeze").exists():
        found.append("freezer")
    return found


def _enable(directory: Path, name: str) -> None:
    # Refused where processes are in the group itself ("no internal processes"), as in a container.
    if name not in _read(directory / "cgroup.subtree_control").split():
        with contextlib.suppress(OSError):
            _write(directory / "cgroup.subtree_control", f"+{name}")


def _usable(directory: Path) -> bool:
    try:
        directory.mkdir(exist_ok=True)
    except OSError:
        return False
    return os.access(directory, os.W_OK)


def _cgroup_mounts(proc: Path) -> list[tuple[str, Path, list[str]]]:
    """Give (type, mount point, super options) of the hierarchies that are mounted."""
    found = []
    for line in _read(proc / "mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if len(fields) > 4 and len(rest) > 2 and rest[0] in ("cgroup", "cgroup2"):
            found.append((rest[0], Path(fields[4]), rest[2].split(",")))
    return found


def _cpu_quota(resources: Resources) -> int:
    return max(1000, int(resources.cpus * _PERIOD_MICROSECONDS))


def _limits(controller: str, version: int, resources: Resources) -> list[tuple[str, str]]:
    """Give (file, value) in the order they are written.

    "?" marks a file that not every kernel has: where swap is not accounted there is none to limit.
    """
    memory, processes = str(resources.memory_bytes), str(resources.processes)
    quota, period = str(_cpu_quota(resources)), str(_PERIOD_MICROSECONDS)
    by_controller = {
        # Version 1 counts memory and swap together and wants the smaller limit first.
        ("memory", 1): [
            ("memory.limit_in_bytes", memory),
            ("?memory.memsw.limit_in_bytes", memory),
            # Buffers of TCP and UDP; version 2 counts them as memory.
            ("?memory.kmem.tcp.limit_in_bytes", str(resources.socket_bytes)),
        ],
        ("memory", 2): [("memory.max", memory), ("?memory.swap.max", "0")],
        ("pids", 1): [("pids.max", processes)],
        ("pids", 2): [("pids.max", processes)],
        ("cpu", 1): [("cpu.cfs_period_us", period), ("cpu.cfs_quota_us", quota)],
        ("cpu", 2): [("cpu.max", f"{quota} {period}")],
    }
    return by_controller.get((controller, version), [])


def _count(text: str, key: str) -> int:
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _write(path: Path, value: str) -> None:
    # One write(2): the kernel takes a value whole. The file is never created (a typo must fail).
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
