"""What root mounts for one bubblewrap alone, in a mount namespace of its own.

Only for servers that run as root: each of their sandboxes has a user of its own, and that user
cannot pass through a directory such as ``/root``. Root binds what lies behind it into a tmpfs that
exists only in bubblewrap's mount namespace, and mounts the sandbox's disk image there, and a devpts
of a bounded size, for which bubblewrap has no option (for an ordinary user: ``bubblewrap_bounds``).
The rule: no permission on the host is changed for this, and no mount is ever in the host's own
namespace, so that none can be left there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .disk_images import MOUNT_OPTIONS
from .host_counters import DEVPTS_OPTIONS
from .host_python import minimal_trees

# mount -a reads the table and does all mounts in one process.
_SCRIPT = 'mount -a -T "$1" && shift && exec "$@"'
# -h: the links in an image lead to the host's programs, which stay root's.
_DISK_SCRIPT = 'mount -a -T "$1" && chown -hR "$2:$2" "$3" && shift 3 && exec "$@"'


@dataclass(frozen=True)
class StagedDisk:
    """An image, the path below which the sandbox's files are named, and whose they become."""

    image: Path
    path: Path
    owner: int


@dataclass(frozen=True)
class Stage:
    """Which directories are bound where. Without any and without terminals nothing is done.

    Attributes
    ----------
    directory : Path
        An empty directory that every user can pass through; the tmpfs is mounted on it.
    binds : mapping
        Source to its place below ``directory``.
    disk : StagedDisk, optional
        Mounted below ``directory`` too.
    bounds_terminals : bool
        Whether a devpts of a bounded size is mounted there as well.
    """

    directory: Path
    binds: dict[Path, Path] = field(default_factory=dict)
    disk: StagedDisk | None = None
    bounds_terminals: bool = False

    @property
    def terminals(self) -> Path | None:
        """Where the devpts is, if there is one."""
        return self.directory / "pts" if self.bounds_terminals else None

    def relocate(self, path: Path) -> Path:
        """Give where the sandbox's user finds ``path``."""
        if self.disk is not None and path.is_relative_to(self.disk.path):
            return self._disk_place / path.relative_to(self.disk.path)
        for source, place in self.binds.items():
            if path.is_relative_to(source):
                return place / path.relative_to(source)
        return path

    def table(self) -> str:
        """Give the mounts in the format of fstab(5)."""
        lines = [f"none {_escape(self.directory)} tmpfs mode=0711,size=64k 0 0"]
        for source, place in self.binds.items():
            lines.append(f"{_escape(source)} {_escape(place)} none bind,X-mount.mkdir=0711 0 0")
        if self.disk is not None:
            image, mounted = _escape(self.disk.image), _escape(self._disk_place)
            lines.append(f"{image} {mounted} ext4 {MOUNT_OPTIONS},X-mount.mkdir=0711 0 0")
        if self.terminals is not None:
            options = f"{DEVPTS_OPTIONS},X-mount.mkdir=0755"
            lines.append(f"none {_escape(self.terminals)} devpts {options} 0 0")
        return "\n".join(lines) + "\n"

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to mount."""
        return bool(self.binds) or self.disk is not None or self.bounds_terminals

    def command(self, table: Path) -> list[str]:
        """Give the words to put before a command that needs the stage ([] when none does)."""
        if not self.is_needed:
            return []
        unshare = ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c"]
        if self.disk is None:
            return [*unshare, _SCRIPT, "stage", str(table)]
        owner, place = str(self.disk.owner), str(self._disk_place)
        return [*unshare, _DISK_SCRIPT, "stage", str(table), owner, place]

    @property
    def _disk_place(self) -> Path:
        return self.directory / "disk"


def plan_stage(
    directory: Path,
    sources: Iterable[Path],
    disk: StagedDisk | None = None,
    *,
    bounds_terminals: bool = False,
) -> Stage:
    """Give the stage for the disk and those ``sources`` that others than root cannot reach."""
    hidden = minimal_trees([path for path in sources if not is_reachable(path)])
    binds = {path: directory / str(i) for i, path in enumerate(hidden)}
    return Stage(directory, binds, disk, bounds_terminals)


def is_reachable(path: Path) -> bool:
    """Say whether every user may pass through all directories above ``path``."""
    return all(os.stat(parent).st_mode & stat.S_IXOTH for parent in path.parents)


def _escape(path: Path) -> str:
    text = str(path).replace("\\", "\\134")
    return text.replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
