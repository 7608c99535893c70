"""What to say of bubblewrap on this host: what holds a sandbox, what nobody enforces, why not."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path

from ..models import Enforced, Strength
from . import host_counters
from .base import Resources
from .private_files import HOME
from .read_back import in_order, read_back, watched

_UNENFORCED = {
    "memory": "memory is limited for each process only, not for a sandbox as a whole",
    "cpu": "processor time is not limited",
    "pids": "the number of processes is limited by a resource limit, not by a control group",
    "freezer": "a sandbox is paused by signals, which its processes can notice",
}

# A switch of the kernel, the value that forbids user namespaces, and how to say so.
_SWITCHES = (
    ("user/max_user_namespaces", "0", "user.max_user_namespaces is 0"),
    ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone is 0"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor forbids user namespaces (kernel.apparmor_restrict_unprivileged_userns is 1)",
    ),
)


def warnings(missing: Collection[str], is_root: bool, has_bounds: bool) -> tuple[str, ...]:
    """Give a sentence for each controller that no control group offers, and what else is shared.

    Parameters
    ----------
    has_bounds : bool
        Whether terminals (and an ordinary user's inotify) are bounded.
    """
    found = [_UNENFORCED[name] for name in missing]
    if found and not is_root:
        found.append("delegate control groups to this user (systemd: Delegate=yes) for full limits")
    if "memory" in missing:
        found.append(
            "buffers of TCP and UDP are not limited: one sandbox can take the share of memory that "
            "the host has for all of them (net.ipv4.tcp_mem)"
        )
    if not has_bounds:
        found.append("one sandbox can take all terminals of this host (kernel.pty.max)")
    if not is_root:  # else each has a user of its own
        found += host_counters.warnings("your user", Resources(), bounds_inotify=has_bounds)
    return (*found, *host_counters.files_warning(Resources()))


def enforcement(pid: int, own_process_limit: bool) -> tuple[Enforced, ...]:
    """Give what holds the sandbox whose PID 1 has this number."""
    return in_order(
        [
            Enforced("kernel", Strength.WEAKER, "the host's kernel is shared", "namespaces"),
            _disk(pid),
            *read_back(pid, own_process_limit=own_process_limit),
        ]
    )


def why_not(switches: Path = Path("/proc/sys")) -> str:
    """Give the usual reason why namespaces cannot be made, as far as the kernel tells."""
    for name, forbidding, sentence in _SWITCHES:
        with contextlib.suppress(OSError):
            if (switches / name).read_text().strip() == forbidding:
                return sentence
    return "the system refuses new namespaces, as most containers do; the log has its answer"


def _disk(pid: int) -> Enforced:
    """Give what its home is mounted from: a loop device ends where its image does."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            device, place, source = before.split()[2], before.split()[4], after.split()[1]
            if place == HOME and source.startswith("/dev/loop"):
                sectors = int(Path(f"/sys/dev/block/{device}/size").read_text())
                how = "a file system of its own in a loop device"
                return Enforced("disk", Strength.ENFORCED, how, f"{sectors * 512} bytes", True)
    return watched("its files grow in the engine's data directory")
