"""Whether other users of this host can read the command lines of what runs in sandboxes.

A sandbox's processes are the host's (but for gVisor's), and ``/proc`` shows their arguments to
everybody unless it is mounted with ``hidepid``. Source:
https://docs.kernel.org/filesystems/proc.html#mount-options
"""

from __future__ import annotations

import contextlib
from pathlib import Path

WARNING = (
    "other users of this host can read the command lines of what runs in sandboxes; where there "
    "are any, mount /proc with hidepid=invisible"
)
_SHOWN = ("0", "off")


def are_command_lines_shown(mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Say whether they can; also when ``/proc`` is mounted in a way that cannot be read."""
    shown = True
    with contextlib.suppress(OSError):
        for line in mounts.read_text().splitlines():
            _, place, _, options, *_ = line.split()
            if place == "/proc":  # the last one is on top
                hides = [
                    o.partition("=")[2] for o in options.split(",") if o.startswith("hidepid=")
                ]
                shown = not hides or hides[-1] in _SHOWN
    return shown
