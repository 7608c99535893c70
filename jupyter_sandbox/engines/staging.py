"""Host directories that a sandbox's user cannot reach, made reachable for bubblewrap alone.

Only for servers that run as root: each of their sandboxes has a user of its own, and that user
cannot pass through a directory such as ``/root``. Root binds what lies behind it into a tmpfs that
exists only in bubblewrap's mount namespace; the host's own file system stays as it is. The rule: no
permission on the host is changed for this.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .host_python import minimal_trees

# mount -a reads the table and does all mounts in one process.
_SCRIPT = 'mount -a -T "$1" && shift && exec "$@"'


@dataclass(frozen=True)
class Stage:
    """Which directories are bound where. Without any, nothing has to be done.

    Attributes
    ----------
    directory : Path
        An empty directory that every user can pass through; the tmpfs is mounted on it.
    binds : mapping
        Source to its place below ``directory``.
    """

    directory: Path
    binds: dict[Path, Path] = field(default_factory=dict)

    def relocate(self, path: Path) -> Path:
        """Give where the sandbox's user finds ``path``."""
        for source, place in self.binds.items():
            if path.is_relative_to(source):
                return place / path.relative_to(source)
        return path

    def table(self) -> str:
        """Give the mounts in the format of fstab(5)."""
        lines = [f"none {_escape(self.directory)} tmpfs mode=0711,size=64k 0 0"]
        for source, place in self.binds.items():
            lines.append(f"{_escape(source)} {_escape(place)} none bind,X-mount.mkdir=0711 0 0")
        return "\n".join(lines) + "\n"

    def command(self, table: Path) -> list[str]:
        """Give the words to put before a command that needs the stage ([] when none does)."""
        if not self.binds:
            return []
        unshare = ["unshare", "--mount", "--propagation", "private", "--"]
        return [*unshare, "sh", "-c", _SCRIPT, "stage", str(table)]


def plan_stage(directory: Path, sources: Iterable[Path]) -> Stage:
    """Give the stage for those ``sources`` that others than root cannot reach."""
    hidden = minimal_trees([path for path in sources if not is_reachable(path)])
    return Stage(directory, {path: directory / str(i) for i, path in enumerate(hidden)})


def is_reachable(path: Path) -> bool:
    """Say whether every user may pass through all directories above ``path``."""
    return all(os.stat(parent).st_mode & stat.S_IXOTH for parent in path.parents)


def _escape(path: Path) -> str:
    text = str(path).replace("\\", "\\134")
    return text.replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
