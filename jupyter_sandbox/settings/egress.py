"""Settings of administrators as traits, and the frozen data that the layers get from them.

Sizes are in bytes, times in seconds. Set them as ``c.SandboxLimits.command_seconds = 60`` in
``jupyter_server_config.py`` or as ``--SandboxLimits.command_seconds=60``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

from traitlets import Bool, Float, Int, List, TraitError, Unicode, validate
from traitlets.config import Configurable

from .engines.base import Resources
from .models import Limits
from .policy.egress_lists import require_network, require_upstream, to_host_rule, to_merged
from .policy.egress_names import to_canonical_host
from .policy.egress_presets import PRESETS
from .policy.egress_rules import EgressCaps, EgressRules, HostRule

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
    calls_per_minute = Int(
        6000,
        help="Calls of tools that one user may begin in a minute on average, on each server; more "
        "get 429 with `Retry-After`. 0: any number. Less keeps a run-away assistant from its "
        "neighbours; who has waited may make a whole minute's worth at once.",
    ).tag(config=True)
    conversations_per_hour = Int(
        600,
        help="Conversations that one user may make in an hour on average, on each server; more get "
        "429 with `Retry-After`. 0: any number. Each may have a sandbox.",
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

    @validate("calls_per_minute", "conversations_per_hour")
    def _not_negative(self, proposal: Any) -> Any:
        if proposal.value < 0:
            raise TraitError(f"SandboxLimits.{proposal.trait.name} must not be negative")
        return proposal.value

    @validate("output_bytes")
    def _enough_output(self, proposal: Any) -> Any:
        if not 4096 <= proposal.value <= 16 * _MIB:
            raise TraitError("SandboxLimits.output_bytes must be 4096 to 16777216")
        return proposal.value

    def to_limits(self) -> Limits:
        """Give them as data."""
        return Limits(**{name: getattr(self, name) for name in self.trait_names(config=True)})


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
        help="Free space of the host's disk, in bytes, below which all sandboxes that write on it "
        "are paused until there is more. 0 (the default): 5 % of the disk, at least 2 GiB. More "
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
        if proposal.value < least:
            raise TraitError(f"SandboxResources.{proposal.trait.name} must be at least {least}")
        return proposal.value

    def to_resources(self) -> Resources:
        """Give them as data."""
        names = (each.name for each in fields(Resources))
        return Resources(**{name: getattr(self, name) for name in names})


class SandboxEgress(Configurable):
    """What sandboxes may reach outside, through the egress proxy."""

    presets = List(
        Unicode(),
        list(PRESETS),
        help="Groups of hosts that may be reached. `pypi`, `npm` and `debian` are what this host's "
        "pip, npm and apt are configured for; `ubuntu`, `go`, `maven`, `github` are fixed. Each is "
        "a way for data to leave, too.",
    ).tag(config=True)
    allow_hosts = List(
        Unicode(),
        help="Further hosts, exactly: `host` or `host:port` for https, `http://host` for GET and "
        "HEAD over plain http. Whoever can store something there can take data out.",
    ).tag(config=True)
    deny_hosts = List(
        Unicode(), help="Hosts to leave out of the presets and of `allow_hosts`."
    ).tag(config=True)
    allow_cidrs = List(
        Unicode(),
        help="Networks such as `10.1.0.0/16` whose addresses may be connected to although they "
        "are not public, when a listed host resolves to them: for mirrors inside a company.",
    ).tag(config=True)
    deny_cidrs = List(
        Unicode(),
        help="Networks that are never connected to, besides all that are not public. They win "
        "over `allow_cidrs`.",
    ).tag(config=True)
    upstream_proxy = Unicode(
        help="The site's own proxy, `http://[user:password@]host:port`, when servers reach the "
        "internet only through one. It resolves the names, so addresses are its to check."
    ).tag(config=True)
    connections = Int(64, help="Connections of one conversation at once; further ones wait.").tag(
        config=True
    )
    connections_total = Int(
        1024, help="Connections of all conversations at once; further ones wait."
    ).tag(config=True)
    requests_per_second = Int(
        200,
        help="Requests of one conversation in a second, on average; further ones wait. A "
        "refused one counts as five.",
    ).tag(config=True)
    connect_seconds = Float(
        10.0, help="How long a host may take to accept a connection, in seconds."
    ).tag(config=True)
    idle_seconds = Float(
        120.0, help="A connection without a byte for so long is closed, in seconds."
    ).tag(config=True)
    tunnel_seconds = Float(
        1800.0, help="Longest life of a connection, in seconds. It bounds the longest download."
    ).tag(config=True)
    up_bytes = Int(
        32 * _MIB,
        help="Bytes that one connection may send. It is the main brake on data that leaves; "
        "downloads need little of it.",
    ).tag(config=True)
    up_bytes_per_day = Int(
        200 * _MIB, help="Bytes that one conversation may send within a day."
    ).tag(config=True)
    down_bytes_per_day = Int(
        10 * _GIB, help="Bytes that one conversation may receive within a day."
    ).tag(config=True)
    up_bytes_per_day_total = Int(
        4 * _GIB, help="Bytes that all conversations may send within a day."
    ).tag(config=True)
    down_bytes_per_day_total = Int(
        200 * _GIB, help="Bytes that all conversations may receive within a day."
    ).tag(config=True)

    @validate("presets")
    def _known_presets(self, proposal: Any) -> Any:
        unknown = [name for name in proposal.value if name not in PRESETS]
        if unknown:
            raise TraitError(
                f"SandboxEgress.presets: {unknown[0]!r} is none of {', '.join(PRESETS)}"
            )
        return proposal.value

    @validate("allow_hosts")
    def _hosts(self, proposal: Any) -> Any:
        return require_each(proposal, to_host_rule)

    @validate("deny_hosts")
    def _names(self, proposal: Any) -> Any:
        return require_each(proposal, to_canonical_host)

    @validate("allow_cidrs", "deny_cidrs")
    def _networks(self, proposal: Any) -> Any:
        return require_each(proposal, require_network)

    @validate("upstream_proxy")
    def _upstream(self, proposal: Any) -> Any:
        try:
            return require_upstream(proposal.value)
        except ValueError as exc:
            raise TraitError(f"SandboxEgress.upstream_proxy: {exc}") from None

    @validate(
        "connections",
        "connections_total",
        "requests_per_second",
        "connect_seconds",
        "idle_seconds",
        "tunnel_seconds",
        "up_bytes",
        "up_bytes_per_day",
        "down_bytes_per_day",
        "up_bytes_per_day_total",
        "down_bytes_per_day_total",
    )
    def _positive(self, proposal: Any) -> Any:
        return require_positive(proposal)

    @property
    def is_on(self) -> bool:
        """Whether any host is allowed."""
        return bool(self.presets or self.allow_hosts)

    def to_rules(self, of_presets: Iterable[HostRule]) -> EgressRules:
        """Give them as data.

        Parameters
        ----------
        of_presets : iterable of HostRule
            The hosts of `presets`, found by ``proxies.client_hosts``.
        """
        caps = {f.name: getattr(self, f.name) for f in fields(EgressCaps) if self.has_trait(f.name)}
        own = [to_host_rule(entry) for entry in self.allow_hosts]
        return EgressRules(
            hosts=to_merged([*own, *of_presets], self.deny_hosts),
            allow_cidrs=tuple(self.allow_cidrs),
            deny_cidrs=tuple(self.deny_cidrs),
            upstream=self.upstream_proxy,
            caps=EgressCaps(**caps),
        )


def require_each(proposal: Any, check: Callable[[str], object]) -> Any:
    """Refuse a list with an entry that ``check`` raises ValueError for, naming the setting."""
    for entry in proposal.value:
        try:
            check(entry)
        except ValueError as exc:
            owner = type(proposal.owner).__name__
            raise TraitError(f"{owner}.{proposal.trait.name}: {exc}") from None
    return proposal.value


class SandboxPreviews(Configurable):
    """How files are shown in a browser."""

    html_scripts = Bool(
        True,
        help="Run the scripts of HTML files in their preview, which has an origin of its own and "
        "loads nothing. False: the page is cleaned of all that runs or connects first; then "
        "browsers other than Chromium make no WebRTC or early connection either.",
    ).tag(config=True)


def require_positive(proposal: Any) -> Any:
    """Refuse zero and less at start-up, naming the setting."""
    if proposal.value <= 0:
        owner = type(proposal.owner).__name__
        raise TraitError(f"{owner}.{proposal.trait.name} must be more than 0")
    return proposal.value
