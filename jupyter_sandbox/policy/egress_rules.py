"""What sandboxes may reach outside, as data: hosts with their ports, networks, caps.

Made by ``app`` from an administrator's settings and the clients' own configuration, carried to the
egress process as JSON over its control pipe. The rule: nothing here comes from a sandbox.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

HTTPS_PORT = 443
HTTP_PORT = 80


@dataclass(frozen=True)
class HostRule:
    """A host that may be reached, by its canonical name.

    Attributes
    ----------
    tunnel_ports : frozenset of int
        For CONNECT with TLS inside.
    fetch_ports : frozenset of int
        For GET and HEAD over plain http, as package archives with signed indexes use it.
    """

    host: str
    tunnel_ports: frozenset[int] = frozenset()
    fetch_ports: frozenset[int] = frozenset()


@dataclass(frozen=True)
class EgressCaps:
    """How much of everything; sizes in bytes, times in seconds, "total" of all conversations.

    Attributes
    ----------
    connections : int
        Of one conversation at once; further ones wait.
    requests_per_second : int
        Of one conversation, on average; twice as many may come at once, further ones wait. A
        refused one counts as five.
    head_seconds : float
        Until a request's head, and a tunnel's first TLS message, must be whole.
    idle_seconds : float
        Without a byte in either direction.
    tunnel_seconds : float
        The whole life of a connection.
    up_bytes : int
        From the sandbox, over one connection.
    """

    connections: int = 64
    connections_total: int = 1024
    requests_per_second: int = 200
    head_seconds: float = 10.0
    connect_seconds: float = 10.0
    idle_seconds: float = 120.0
    tunnel_seconds: float = 1800.0
    up_bytes: int = 32 * 1024**2
    up_bytes_per_day: int = 200 * 1024**2
    down_bytes_per_day: int = 10 * 1024**3
    up_bytes_per_day_total: int = 4 * 1024**3
    down_bytes_per_day_total: int = 200 * 1024**3


@dataclass(frozen=True)
class EgressRules:
    """All of it.

    Attributes
    ----------
    hosts : tuple of HostRule
        Exact names; none listed: nothing is allowed.
    allow_cidrs : tuple of str
        Networks of internal mirrors: addresses that are not public and may be connected to all the
        same, when a listed name resolves to them.
    deny_cidrs : tuple of str
        Networks that are refused besides those that always are; they win over ``allow_cidrs``.
    upstream : str
        URL of the site's own proxy (``http://[user:password@]host:port``), "" for none. It then
        resolves the names.
    """

    hosts: tuple[HostRule, ...] = ()
    allow_cidrs: tuple[str, ...] = ()
    deny_cidrs: tuple[str, ...] = ()
    upstream: str = field(default="", repr=False)  # may hold a password
    caps: EgressCaps = EgressCaps()

    def to_json(self) -> dict[str, object]:
        """Give what ``from_json`` reads."""
        return {
            "hosts": [[r.host, sorted(r.tunnel_ports), sorted(r.fetch_ports)] for r in self.hosts],
            "allow_cidrs": list(self.allow_cidrs),
            "deny_cidrs": list(self.deny_cidrs),
            "upstream": self.upstream,
            "caps": asdict(self.caps),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EgressRules:
        """Read what ``to_json`` gave."""
        caps = {f.name: data["caps"][f.name] for f in fields(EgressCaps)}
        return cls(
            hosts=tuple(
                HostRule(host, frozenset(tunnel), frozenset(fetch))
                for host, tunnel, fetch in data["hosts"]
            ),
            allow_cidrs=tuple(data["allow_cidrs"]),
            deny_cidrs=tuple(data["deny_cidrs"]),
            upstream=data["upstream"],
            caps=EgressCaps(**caps),
        )


@dataclass(frozen=True)
class Denial:
    """A refusal, as it is told to the model.

    Attributes
    ----------
    at : float
        On the monotonic clock of this machine, in seconds.
    text : str
        The one text: host, reason, what is allowed, that a retry will not help. Printable ASCII.
    """

    at: float
    host: str
    port: int
    reason: str
    text: str
