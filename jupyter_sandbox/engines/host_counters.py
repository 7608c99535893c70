"""Kernel objects that the kernel counts for a user or for the whole host, not for a sandbox.

How many of them one sandbox may take, and what this host cannot bound. Reads ``/proc`` only.
Sources: https://docs.kernel.org/admin-guide/sysctl/kernel.html (pty),
https://docs.kernel.org/filesystems/devpts.html, and the manual pages inotify(7), epoll(7),
getrlimit(2), proc_sys_user(5).
"""

from __future__ import annotations

from pathlib import Path

from .base import Resources

TERMINALS = 64
"""Of one sandbox. The host has kernel.pty.max (4,096) for all."""

PENDING_SIGNALS = 1024
"""Timers and queued signals (RLIMIT_SIGPENDING). Counted for the user, who usually has 95,000."""

MESSAGE_QUEUE_BYTES = 409_600
"""Of POSIX message queues (RLIMIT_MSGQUEUE). Counted for the user, who usually has 819,200."""

DEVPTS_OPTIONS = f"newinstance,ptmxmode=0666,mode=0620,nosuid,noexec,max={TERMINALS}"
"""Of the file system with a sandbox's terminals: none of another, and no more than these."""

_SHARE = 4  # a sandbox gets at most a quarter of what its host user has
_EPOLL_WATCH_BYTES = 200  # what the kernel takes for one, and counts to the control group
_PROC = Path("/proc")


def inotify_limits(proc: Path = _PROC) -> dict[str, int]:
    """Give, by the names of ``/proc/sys/user``, how much of its user's inotify a sandbox may take.

    Those where this kernel says what the user has.
    """
    found = {}
    for name in ("instances", "watches"):
        has = _number(proc / "sys/fs/inotify" / f"max_user_{name}")
        if has is not None:
            found[f"max_inotify_{name}"] = max(1, has // _SHARE)
    return found


def files_warning(resources: Resources, proc: Path = _PROC) -> tuple[str, ...]:
    """Give a sentence if one sandbox could open all files that this host has for all."""
    most = _number(proc / "sys/fs/file-max")
    of_one = resources.processes * resources.open_files
    if most is None or most > of_one:
        return ()
    return (
        f"one sandbox can open all files of this host, {most} for all but root: set fs.file-max to "
        f"more than {of_one}",
    )


def warnings(
    user: str, resources: Resources, *, bounds_inotify: bool, proc: Path = _PROC
) -> tuple[str, ...]:
    """Give a sentence for each number of a host user's that one sandbox could use up for others.

    Parameters
    ----------
    user : str
        Whom sandboxes are for the host's kernel, as in "all sandboxes and …".
    resources : Resources
        What one sandbox may take: the kernel counts these objects as its memory too, so that a
        number that needs more of it cannot be used up.
    bounds_inotify : bool
        Whether sandboxes are kept to ``inotify_limits``.
    """
    found = []
    memory_bytes = resources.memory_bytes
    instances = _number(proc / "sys/fs/inotify/max_user_instances")
    if not bounds_inotify and instances is not None:
        found.append(
            f"all sandboxes and {user} share {instances} inotify instances: raise "
            "fs.inotify.max_user_instances, or one sandbox can take them all"
        )
    watches = _number(proc / "sys/fs/epoll/max_user_watches")
    if watches is not None and watches * _EPOLL_WATCH_BYTES < memory_bytes:
        found.append(
            f"all sandboxes and {user} share {watches} epoll watches: set "
            f"fs.epoll.max_user_watches to more than {memory_bytes // _EPOLL_WATCH_BYTES}, or one "
            "sandbox can take them all"
        )
    return tuple(found)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
