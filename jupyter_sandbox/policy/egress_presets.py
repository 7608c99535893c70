"""Presets of hosts: which there are, and the hosts of those that no client's configuration has.

Pure data. The rule: hosts that packages and sources are taken from, never one whose purpose is to
take content in. Left out on purpose: api., gist. and uploads.github.com, and the bucket that Go's
toolchains are redirected to (a bucket's path can be anybody's).
"""

from __future__ import annotations

from .egress_lists import to_host_rule
from .egress_rules import HostRule

FROM_CLIENTS = ("pypi", "npm", "debian")
"""Read from pip, npm and apt of the host, so that a site's mirrors are meant."""

_LISTED = {
    "ubuntu": (
        "http://archive.ubuntu.com",
        "http://security.ubuntu.com",
        "http://ports.ubuntu.com",
        "archive.ubuntu.com",
        "security.ubuntu.com",
        "ports.ubuntu.com",
    ),
    "go": ("proxy.golang.org", "sum.golang.org"),
    "maven": ("repo.maven.apache.org", "repo1.maven.org"),
    "github": (
        "github.com",
        "codeload.github.com",
        "objects.githubusercontent.com",
        "release-assets.githubusercontent.com",
        "raw.githubusercontent.com",
    ),
}
PRESETS = (*FROM_CLIENTS, *_LISTED)


def listed_rules(preset: str) -> tuple[HostRule, ...]:
    """Give the hosts of a preset; none for one that a client's configuration names."""
    return tuple(to_host_rule(entry) for entry in _LISTED.get(preset, ()))
