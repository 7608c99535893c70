"""Where on this host a container's writable layer lies, and what is in it.

Takes what the service says of the container. With overlay2 the layer is a directory that only root
may look into; a server that is not root, or a service elsewhere, gives no place.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .disk_use import DiskUse, deleted_use, tree_use
from .docker_enforcement import is_visible
from .group_limits import read_group_processes


@dataclass(frozen=True)
class Place:
    """Of a container on this host.

    Attributes
    ----------
    pid : int
        Its PID 1 as this host numbers it; 0: out of sight.
    layer : Path or None
        Its writable layer.
    root : Path or None
        The file system that its processes, or the kernel that runs for them, have files open in.
    """

    pid: int
    layer: Path | None
    root: Path | None


def find_place(found: dict[str, Any]) -> Place:
    """Read it from what ``inspect`` says."""
    pid = int(found["State"]["Pid"])
    driver = found.get("GraphDriver") or {}
    data = driver.get("Data") or {}
    upper, merged = str(data.get("UpperDir") or ""), str(data.get("MergedDir") or "")
    layer = Path(upper) if upper and os.access(upper, os.R_OK | os.X_OK) else None
    root = Path(merged) if layer is not None and merged else None
    return Place(pid if is_visible(pid, found["Id"]) else 0, layer, root)


def measure(place: Place) -> DiskUse | None:
    """Give what is in the layer, deleted files that are open too; None where nobody can look."""
    if place.layer is None:
        return None
    tree = tree_use(place.layer, as_owner=False)
    if not place.pid or place.root is None:
        return tree
    try:
        device = os.stat(place.root).st_dev
    except OSError:
        return tree
    deleted = deleted_use(read_group_processes(place.pid), device)
    return DiskUse(tree.size_bytes + deleted.size_bytes, tree.entries + deleted.entries)


def has_project_quota(root: str, mountinfo: str) -> bool:
    """Say whether a directory lies on an XFS that was mounted with project quotas.

    Only there does overlay2 take ``StorageOpt``'s size; elsewhere it refuses to make a container.
    Source: https://docs.docker.com/reference/cli/docker/container/run/#storage-opt
    """
    best = ("", "", "")
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if len(fields) < 5 or len(rest) < 3:
            continue
        inside = root == fields[4] or root.startswith(fields[4].rstrip("/") + "/")
        if inside and len(fields[4]) >= len(best[0]):
            best = (fields[4], rest[0], rest[2])
    return best[1] == "xfs" and bool({"prjquota", "pquota"} & set(best[2].split(",")))
