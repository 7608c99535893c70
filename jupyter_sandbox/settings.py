"""Settings of administrators as traits, and the frozen data that the layers get from them.

Sizes are in bytes, times in seconds. Set them as ``c.SandboxLimits.command_seconds = 60`` in
``jupyter_server_config.py`` or as ``--SandboxLimits.command_seconds=60``.
"""

from __future__ import annotations

from typing import Any

from traitlets import Float, Int, TraitError, validate
from traitlets.config import Configurable

from .engines.base import Resources
from .models import Limits

_MIB = 1024**2
_GIB = 1024**3


class SandboxLimits(Configurable):
    """What one call may take and give."""

    command_seconds = Float(
        600.0,
        help="Longest time of a command or cell, in seconds. More lets long jobs finish in one "
        "call; a stuck one holds its sandbox longer.",
    ).tag(config=True)
    output_bytes = Int(
        1_048_576,
        help="Output of one command or cell that is shown, in bytes; the whole is kept in a file "
        "inside. More costs the model's context.",
    ).tag(config=True)
    view_bytes = Int(16_000, help="Text that one `view` shows, in bytes.").tag(config=True)
    share_files = Int(20, help="Files that one `share_files` may name.").tag(config=True)
    share_bytes = Int(
        4 * _GIB, help="Largest file that can be shared, in bytes; it is copied to the host's disk."
    ).tag(config=True)
    capacity_bytes = Int(
        5 * _GIB, help="Uploads and shared files of one conversation together, in bytes."
    ).tag(config=True)
    write_bytes = Int(
        8 * _MIB, help="Longest text that `create_file` and `str_replace` take, in bytes."
    ).tag(config=True)
    upload_bytes = Int(
        25_000_000, help="Largest file that can be uploaded, in bytes; more is refused with 413."
    ).tag(config=True)
    calls_at_once = Int(
        64, help="Calls of one conversation that may run at the same time; more get 429."
    ).tag(config=True)

    @validate(
        "command_seconds",
        "output_bytes",
        "view_bytes",
        "share_files",
        "share_bytes",
        "capacity_bytes",
        "write_bytes",
        "upload_bytes",
        "calls_at_once",
    )
    def _positive(self, proposal: Any) -> Any:
        return require_positive(proposal)

    @validate("output_bytes")
    def _enough_output(self, proposal: Any) -> Any:
        if not 4096 <= proposal.value <= 16 * _MIB:
            raise TraitError("SandboxLimits.output_bytes must be 4096 to 16777216")
        return proposal.value

    def to_limits(self) -> Limits:
        """Give them as data."""
        return Limits(**{name: getattr(self, name) for name in self.trait_names(config=True)})


class SandboxResources(Configurable):
    """What one sandbox may use of the machine; the kernel enforces it."""

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

    @validate(
        "memory_bytes", "cpus", "processes", "open_files", "file_bytes", "shm_bytes", "tmp_bytes"
    )
    def _positive(self, proposal: Any) -> Any:
        return require_positive(proposal)

    def to_resources(self) -> Resources:
        """Give them as data."""
        return Resources(**{name: getattr(self, name) for name in self.trait_names(config=True)})


def require_positive(proposal: Any) -> Any:
    """Refuse zero and less at start-up, naming the setting."""
    if proposal.value <= 0:
        owner = type(proposal.owner).__name__
        raise TraitError(f"{owner}.{proposal.trait.name} must be more than 0")
    return proposal.value
