"""What sandboxes may reach outside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from traitlets import Float, Int, List, TraitError, Unicode, validate
from traitlets.config import Configurable

from ..policy.egress_lists import require_network, require_upstream, to_host_rule, to_merged
from ..policy.egress_names import to_canonical_host
from ..policy.egress_presets import PRESETS
from ..policy.egress_rules import EgressCaps, EgressRules, HostRule
from .checks import require_each, require_positive

_MIB = 1024**2
_GIB = 1024**3


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
