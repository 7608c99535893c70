"""Whether a request of a sandbox may go out, and the one text that says why not.

Pure: it resolves nothing and connects to nothing. The rule: what it decides on is the canonical
host that is resolved and connected to later, never the sandbox's spelling of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from .decision import Decision
from .egress_addresses import AddressPolicy
from .egress_names import NameRefused, Target, shown, to_fetch_target, to_tunnel_target
from .egress_rules import HTTP_PORT, HTTPS_PORT, EgressRules

NOT_LISTED = "the host is not on the list of allowed hosts"
METHODS = ("CONNECT", "GET", "HEAD")
_MAX_HOSTS_SHOWN = 24


@dataclass(frozen=True)
class EgressDecision(Decision):
    """A decision on one request.

    Attributes
    ----------
    target : Target or None
        Where it may go; None if it is refused.
    named : str
        ``host:port`` to show: canonical if there is such a name, else what was asked for.
    """

    target: Target | None = None
    named: str = ""


class EgressPolicy:
    """The decisions under one set of rules."""

    def __init__(self, rules: EgressRules) -> None:
        self._hosts = {rule.host: rule for rule in rules.hosts}
        self._allowed = allowed_text(rules)
        self.addresses = AddressPolicy(rules.allow_cidrs, rules.deny_cidrs)

    def __repr__(self) -> str:
        return f"<EgressPolicy hosts={len(self._hosts)} {self.addresses}>"

    def decide(self, method: str, target: str) -> EgressDecision:
        """Decide on a request line: CONNECT with ``host:port``, GET and HEAD with an http URL."""
        if method == "CONNECT":
            return self._decide_tunnel(target)
        if method in METHODS:
            return self._decide_fetch(target)
        return EgressDecision(
            False, "only CONNECT, GET and HEAD are allowed", named=shown(_host_of(target))
        )

    def refusal(self, named: str, reason: str) -> str:
        """Give the one text of a refusal: printable ASCII, one line."""
        return (
            f"Network access to {named or 'the host'} was refused: {reason}. "
            f"Allowed: {self._allowed}. A retry will not help."
        )

    def _decide_tunnel(self, authority: str) -> EgressDecision:
        try:
            target = to_tunnel_target(authority)
        except NameRefused as exc:
            return EgressDecision(False, str(exc), named=shown(authority))
        named = f"{target.host}:{target.port}"
        rule = self._hosts.get(target.host)
        if rule is None:
            return EgressDecision(False, NOT_LISTED, named=named)
        if target.port not in rule.tunnel_ports:
            return EgressDecision(False, _ports("CONNECT", rule.tunnel_ports), named=named)
        return EgressDecision(True, target=target, named=named)

    def _decide_fetch(self, url: str) -> EgressDecision:
        try:
            target = to_fetch_target(url, HTTP_PORT)
        except NameRefused as exc:
            return EgressDecision(False, str(exc), named=shown(_host_of(url)))
        named = f"{target.host}:{target.port}"
        rule = self._hosts.get(target.host)
        if rule is None:
            return EgressDecision(False, NOT_LISTED, named=named)
        if target.port not in rule.fetch_ports:
            return EgressDecision(False, _ports("plain http", rule.fetch_ports), named=named)
        return EgressDecision(True, target=target, named=named)


def allowed_text(rules: EgressRules) -> str:
    """Give all hosts that may be reached, in words: ``https to a, b; http to c``."""
    tunnels = [
        _with_port(rule.host, port, HTTPS_PORT)
        for rule in rules.hosts
        for port in sorted(rule.tunnel_ports)
    ]
    fetches = [
        _with_port(rule.host, port, HTTP_PORT)
        for rule in rules.hosts
        for port in sorted(rule.fetch_ports)
    ]
    parts = [f"https to {_some(tunnels)}"] if tunnels else []
    parts += [f"http to {_some(fetches)}"] if fetches else []
    return "; ".join(parts) or "nothing"


def _host_of(url: str) -> str:
    """Give the part of a refused URL to show: never a path or a query."""
    rest = url.partition("://")[2] or url
    for end in "/?#":
        rest = rest.partition(end)[0]
    return rest.rpartition("@")[2]


def _ports(way: str, ports: frozenset[int]) -> str:
    if not ports:
        other = "https" if way == "plain http" else "plain http"
        return f"this host is allowed over {other} only"
    return f"{way} is allowed to port {', '.join(map(str, sorted(ports)))} of this host only"


def _with_port(host: str, port: int, usual: int) -> str:
    return host if port == usual else f"{host}:{port}"


def _some(names: list[str]) -> str:
    kept = names[:_MAX_HOSTS_SHOWN]
    more = len(names) - len(kept)
    return ", ".join(kept) + (f" and {more} more" if more else "")
