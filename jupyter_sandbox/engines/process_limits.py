"""Limits of single processes (setrlimit): what no control group does, or where there is none.

By the names that prlimit(1) uses. Children inherit them and cannot raise them.
Source: https://man7.org/linux/man-pages/man2/getrlimit.2.html
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Collection, Mapping

from .base import Resources
from .host_counters import MESSAGE_QUEUE_BYTES, PENDING_SIGNALS


def choose(resources: Resources, missing: Collection[str], is_root: bool) -> dict[str, int]:
    """Give the limits for a sandbox.

    Parameters
    ----------
    missing : collection of str
        Controllers that no control group offers here.
    is_root : bool
        Whether each sandbox has a host user of its own, whose processes can be counted.
    """
    limits = {
        "nofile": resources.open_files,
        "fsize": resources.file_bytes,
        "core": 0,
        "sigpending": PENDING_SIGNALS,
        "msgqueue": MESSAGE_QUEUE_BYTES,
    }
    if "memory" in missing:
        limits["data"] = resources.memory_bytes  # of each process, not of all together
    if "pids" in missing and (is_root or counts_per_namespace(os.uname().release)):
        limits["nproc"] = resources.processes
    return limits


def command(limits: Mapping[str, int]) -> list[str]:
    """Give the words to put before a command that shall have them.

    For a process that becomes another user's: to limit that one from outside, ``apply`` would need
    CAP_SYS_RESOURCE, which root in a container often has not.
    """
    bounded = {name: _at_most_ours(name, limit) for name, limit in limits.items()}
    return ["prlimit", *(f"--{name}={limit}:{limit}" for name, limit in bounded.items()), "--"]


def apply(pid: int, limits: Mapping[str, int]) -> None:
    """Limit a process of our own user that waits inside its user namespace.

    Not earlier: before the namespace is made, ``nproc``, ``sigpending`` and ``msgqueue`` would
    count what all processes of the user have.
    """
    for name, limit in limits.items():
        bounded = _at_most_ours(name, limit)
        resource.prlimit(pid, _kind(name), (bounded, bounded))


def counts_per_namespace(release: str) -> bool:
    """Say whether ``nproc`` inside a user namespace counts its processes only: since Linux 5.14."""
    with contextlib.suppress(ValueError, IndexError):
        major, minor = release.split("-")[0].split(".")[:2]
        return (int(major), int(minor)) >= (5, 14)
    return False


def _at_most_ours(name: str, limit: int) -> int:
    hard = resource.getrlimit(_kind(name))[1]
    return limit if hard == resource.RLIM_INFINITY else min(limit, hard)


def _kind(name: str) -> int:
    return int(getattr(resource, f"RLIMIT_{name.upper()}"))
