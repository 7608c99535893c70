"""What one sandbox may use of the machine."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from traitlets import Float, Int, validate
from traitlets.config import Configurable

from ..engines.base import Resources
from .checks import require_at_least, require_positive

_MIB = 1024**2
_GIB = 1024**3


class SandboxResources(Configurable):
    """What one sandbox may use of the machine; the kernel enforces it where it can."""

    memory_bytes = Int(2 * _GIB, help="Memory of a sandbox with its tmpfs files, in bytes.").tag(
        config=True
    )
    cpus = Float(2.0, help="Processor time, in cores; may be a fraction.").tag(config=True)
    processes = Int(512, help="Processes and threads at once.").tag(config=True)
    open_files = Int(8192, help="Open files of one process.").tag(config=True)
    file_bytes = Int(5 * _GIB, help="Size of one file, in bytes.").tag(config=True)
    shm_bytes = Int(256 * _MIB, help="Size of /dev/shm, in bytes; counts as memory.").tag(
        config=True
    )
    tmp_bytes = Int(_GIB, help="Size of /tmp, in bytes; counts as memory.").tag(config=True)

    disk_bytes = Int(
        10 * _GIB,
        help="What a sandbox may write on the host's disk and keep, in bytes, at least 16 MiB. "
        "Where the kernel enforces it, the sandbox reads ENOSPC; elsewhere it is watched, and may "
        "write somewhat more before it is stopped. Reserves nothing: the sum over all sandboxes "
        "may be more than the disk has.",
    ).tag(config=True)
    disk_entries = Int(
        500_000,
        help="Files and directories that a sandbox may have on the host's disk, at least 1000. A "
        "file system has a fixed number of them for everybody. Where the kernel enforces it, at "
        "most one for each 2 KiB of `disk_bytes`.",
    ).tag(config=True)

    host_free_bytes = Int(
        0,
        help="Free space, in bytes, of the host's disk that sandboxes write on, and of that of "
        "`data_dir`, below which all sandboxes are paused and nothing more is stored until there "
        "is more. 0 (the default): 5 % of the disk, at least 2 GiB, at most a quarter of it. More "
        "keeps more room for other programs.",
    ).tag(config=True)

    @validate(
        "memory_bytes", "cpus", "processes", "open_files", "file_bytes", "shm_bytes", "tmp_bytes"
    )
    def _positive(self, proposal: Any) -> Any:
        return require_positive(proposal)

    @validate("disk_bytes", "disk_entries", "host_free_bytes")
    def _at_least(self, proposal: Any) -> Any:
        least = {"disk_bytes": 16 * _MIB, "disk_entries": 1000}.get(proposal.trait.name, 0)
        return require_at_least(proposal, least)

    def to_resources(self) -> Resources:
        """Give them as data."""
        names = (each.name for each in fields(Resources))
        return Resources(**{name: getattr(self, name) for name in names})
