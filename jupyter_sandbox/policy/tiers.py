"""How strong the wall around a sandbox is, and what an administrator can do about a weak limit.

Pure: decides from what an engine has read back. The order of the tiers: a kernel of its own, an
ordinary user of the host's kernel, root of the host's kernel. Every year has bugs of the kernel
that a container reaches; what an attacker is after one differs by tier.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from ..models import Enforced, Strength


class Tier(enum.StrEnum):
    """What a sandbox is to the host's kernel, strongest first."""

    OWN_KERNEL = "own_kernel"
    ORDINARY_USER = "ordinary_user"
    ROOT = "root"
    NOT_ISOLATED = "not_isolated"


_TEXTS = {
    Tier.OWN_KERNEL: "strongest: a kernel of its own stands between sandboxes and the host",
    Tier.ORDINARY_USER: (
        "middle: sandboxes are an ordinary user of the host's kernel. Stronger: docker with "
        "DockerEngine.oci_runtime='runsc' (gVisor)"
    ),
    Tier.ROOT: (
        "weakest: root in a sandbox is root of the host's kernel, held by capabilities and a list "
        "of system calls. Stronger: a rootless service or userns-remap, or "
        "DockerEngine.oci_runtime='runsc' (gVisor)"
    ),
    Tier.NOT_ISOLATED: "none: nothing isolates this; for tests only",
}

_GROUPS = (
    "run the server as root or delegate control groups to its user (systemd: Delegate=yes), "
    "or use Docker"
)
_SERVICE = "let the service (Docker, Podman) or the host's kernel enforce it"
_ADVICE = {
    "memory": _GROUPS,
    "swap": "switch swap accounting on (kernel parameter swapaccount=1), or swap off",
    "processors": _GROUPS,
    "processes": _GROUPS,
    "disk": (
        "keep the sandboxes' files on a file system of their own; the kernel limits them for "
        "bubblewrap as root, and for Docker on XFS with project quotas"
    ),
    "file_size": _SERVICE,
    "open_files": _SERVICE,
    "system_calls": "use a kernel and a service with seccomp (Docker 20.10.10 or newer)",
    "capabilities": _SERVICE,
    "user": "use a rootless service or userns-remap, or gVisor",
    "network": "do not use this engine: a sandbox must have no network of its own",
    "kernel": "for hostile code use gVisor: DockerEngine.oci_runtime='runsc'",
}


def tier_of(limits: Sequence[Enforced]) -> Tier:
    """Give the tier of the sandbox whose limits these are."""
    by_name = {each.limit: each.strength for each in limits}
    if by_name.get("kernel") is Strength.ENFORCED:
        return Tier.OWN_KERNEL
    if by_name.get("user") is Strength.ENFORCED:
        return Tier.ORDINARY_USER
    if by_name.get("kernel") is Strength.WEAKER:
        return Tier.ROOT
    return Tier.NOT_ISOLATED


def describe(tier: Tier) -> str:
    """Give the tier in words, with what would be stronger."""
    return _TEXTS[tier]


def advice(enforced: Enforced) -> str:
    """Give what to do about a limit; "" when it holds."""
    return "" if enforced.strength is Strength.ENFORCED else _ADVICE.get(enforced.limit, "")
