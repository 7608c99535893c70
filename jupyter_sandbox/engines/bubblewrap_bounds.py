"""What bounds, for an ordinary user's sandbox, what the kernel counts for that user or the host.

bubblewrap has no option for it, and afterwards nobody may change it but root: so bubblewrap runs in
a user and a mount namespace around its own, in which a devpts of a bounded size lies over that of
the host, and in which the user's share of inotify is bounded. Pure but for ``/proc/sys``. Source:
https://man7.org/linux/man-pages/man5/proc_sys_user.5.html
"""

from __future__ import annotations

from pathlib import Path

from .host_counters import DEVPTS_OPTIONS, inotify_limits

TERMINALS_PLACE = Path("/dev/pts")
TOOLS = ("unshare", "mount", "sh")


def own_bounds_command() -> list[str]:
    """Give the words to put before bubblewrap's: they become bubblewrap, with the same number."""
    steps = [f"mount -t devpts -o {DEVPTS_OPTIONS} none {TERMINALS_PLACE}"]
    steps += [f"echo {most} > /proc/sys/user/{name}" for name, most in inotify_limits().items()]
    script = " && ".join([*steps, 'exec "$@"'])
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "--propagation", "private"]
    return [*unshare, "--", "sh", "-c", script, "bounds"]
