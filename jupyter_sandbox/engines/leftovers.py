"""What crashes of servers can leave of local sandboxes between two steps, outside every record.

A sandbox is written down before anything of it is made and forgotten after the last of it is gone,
so its record leads to all the rest (``recorded.py``). Left over can be: a directory without a
record, a probe of ``check``, a template of a disk image on its way, and, where records were removed
by hand, process trees, control groups and user numbers. The rule: what is under way is locked or
young; what several installations share is removed only when it is of no use to any.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..errors import Unavailable
from . import process_table, recorded
from .cgroups import Cgroups
from .disk_images import TEMPLATE
from .process_table import ProcessId
from .records import Records

PROBE_SERVER = "0"
"""The installation that probes are recorded under."""

_OLD_SECONDS = 600.0


def unrecorded(records: Records, remove: Callable[[str], None]) -> Iterator[str]:
    """Remove directories without a record, and probes; ``remove`` is called under their lock."""
    for sandbox_id in records.ids():
        if _is_left(records, sandbox_id):
            with contextlib.suppress(Unavailable), records.lock(sandbox_id, 0):  # else: under way
                if _is_left(records, sandbox_id):
                    remove(sandbox_id)
                    records.remove(sandbox_id)
                    yield f"unrecorded {sandbox_id}"


def templates(directory: Path) -> Iterator[str]:
    """Remove templates that nobody makes any more."""
    for path in _listed(directory):
        if path.name.startswith(TEMPLATE) and _age_seconds(path) > _OLD_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
            yield path.name


def trees(records: Records, server_id: str) -> Iterator[str]:
    """End launchers of this installation whose sandbox has no record, with all they started."""
    marker = f"{recorded.SERVER_MARKER}={server_id}"
    for launcher in process_table.find_by_environment(marker):
        if not _is_outside(launcher):
            continue  # inside a sandbox everybody may call themselves anything
        sandbox_id = process_table.environment_of(launcher).get(recorded.MARKER, "")
        # In this order: it was written down before it was started.
        if process_table.is_alive(launcher) and not records.has(sandbox_id):
            process_table.kill_tree(launcher)
            yield f"process {launcher.pid}"


def groups(cgroups: Cgroups, records: Records) -> Iterator[str]:
    """Remove control groups that are old and empty; the kernel keeps those with processes."""
    for parent in sorted({group.path for group in cgroups.parents.values()}):
        for path in _listed(parent):
            if not path.is_dir() or records.has(path.name):
                continue
            if _age_seconds(path) > _OLD_SECONDS:
                with contextlib.suppress(OSError):
                    path.rmdir()
                    yield f"control group {path}"


def user_numbers(directory: Path) -> Iterator[str]:
    """Give back the numbers of users that have had no process for long."""
    claims = [path for path in _listed(directory) if _age_seconds(path) > _OLD_SECONDS]
    in_use = process_table.users() if claims else frozenset()
    for path in claims:
        if path.name.isdigit() and int(path.name) not in in_use:
            path.unlink(missing_ok=True)
            yield f"user number {path.name}"


def each(*parts: Iterable[str]) -> list[str]:
    """Do all of them; one that fails spoils no other."""
    found: list[str] = []
    for part in parts:
        with contextlib.suppress(OSError, Unavailable):
            found.extend(part)
    return found


def _is_left(records: Records, sandbox_id: str) -> bool:
    record = records.read(sandbox_id)
    if record is not None:
        return record.server_id == PROBE_SERVER
    return not records.has(sandbox_id)  # one that cannot be read is another version's


def _is_outside(process: ProcessId) -> bool:
    try:
        own = os.stat("/proc/self/ns/pid")
        return os.path.samestat(own, os.stat(f"/proc/{process.pid}/ns/pid"))
    except OSError:
        return False


def _listed(directory: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(directory.iterdir())
    return []


def _age_seconds(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return time.time() - os.lstat(path).st_mtime
    return 0.0
