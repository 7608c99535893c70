"""A limit for what a container's TCP and UDP sockets hold, where the kernel does not count it.

Control groups of version 2 count them as memory. With version 1 they have a limit of their own,
which runc stopped setting (1.0.0-rc94): a server that is root on the service's host writes it. It
holds a millisecond after the container has begun. Source:
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html#kernel-memory-extension
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup/memory")
_FILE = "memory.kmem.tcp.limit_in_bytes"


def can_limit_sockets(mount: Path = _MOUNT) -> bool:
    """Say whether ``limit_sockets`` works here."""
    return os.access(mount / _FILE, os.F_OK) and os.access(mount, os.W_OK)


def limit_sockets(container_id: str, most_bytes: int, mount: Path = _MOUNT) -> None:
    """Limit the container that has just been started, if it has such a group."""
    # As the two drivers of Docker call it: cgroupfs and systemd.
    for group in (f"docker/{container_id}", f"system.slice/docker-{container_id}.scope"):
        with contextlib.suppress(OSError):
            fd = os.open(mount / group / _FILE, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, str(most_bytes).encode())
            finally:
                os.close(fd)
