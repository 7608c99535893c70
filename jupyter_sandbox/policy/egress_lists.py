"""The lists that administrators write, read strictly: hosts, networks, the site's proxy.

Pure. The rule: exact hosts only. A wildcard would admit names that anybody can rent (buckets,
pages, functions), so there is none; what is unclear is refused with a sentence, at the server's
start.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_network
from urllib.parse import urlsplit

from .egress_names import NameRefused, to_canonical_host, to_port
from .egress_rules import HTTP_PORT, HTTPS_PORT, HostRule

_ENTRY = re.compile(r"(?:(https?)://)?([^/:@\s]+)(?::(\d+))?/?")


def to_host_rule(entry: str) -> HostRule:
    """Read ``host``, ``host:port``, ``https://host[:port]`` or ``http://host[:port]``.

    Without ``http://`` it is https. ``http://`` admits GET and HEAD only.

    Raises
    ------
    ValueError
        It is none of these; the text says why.
    """
    match = _ENTRY.fullmatch(entry.strip())
    if match is None or "*" in entry:
        raise ValueError(
            f"{entry!r} is not a host: write host, host:port, or http://host for plain http; "
            "no paths and no wildcards"
        )
    try:
        host = to_canonical_host(match[2])
        port = to_port(match[3]) if match[3] else None
    except NameRefused as exc:
        raise ValueError(f"{entry!r} cannot be allowed: {exc}") from None
    return _rule(host, port, match[1] == "http")


def to_client_rule(url: str) -> HostRule | None:
    """Read a URL of a client's own configuration; None for what is not on the network.

    Raises
    ------
    ValueError
        It names an address, or no host. Its text has no credentials.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            return None
        host, port = to_canonical_host(parts.hostname or ""), parts.port
    except NameRefused as exc:
        raise ValueError(f"{parts.hostname!r} cannot be allowed: {exc}") from None
    except ValueError:
        raise ValueError("a URL cannot be read") from None
    return _rule(host, port, parts.scheme == "http")


def to_merged(rules: Iterable[HostRule], denied: Iterable[str] = ()) -> tuple[HostRule, ...]:
    """Give one rule a host, in the order of their first naming, without the denied hosts."""
    found: dict[str, HostRule] = {}
    for rule in rules:
        known = found.get(rule.host, HostRule(rule.host))
        found[rule.host] = HostRule(
            rule.host,
            known.tunnel_ports | rule.tunnel_ports,
            known.fetch_ports | rule.fetch_ports,
        )
    for host in denied:
        found.pop(to_canonical_host(host), None)
    return tuple(found.values())


def require_network(text: str) -> str:
    """Give a network in its usual spelling.

    Raises
    ------
    ValueError
        It is none, has host bits, or is so wide that it admits everything.
    """
    try:
        network = ip_network(text)
    except ValueError as exc:
        raise ValueError(f"{text!r} is not a network such as 10.1.0.0/16: {exc}") from None
    if network.prefixlen < (8 if network.version == 4 else 16):
        raise ValueError(f"{text!r} is too wide: name the networks of the mirrors")
    return str(network)


def require_upstream(url: str) -> str:
    """Give the URL of a site's proxy, or "".

    Raises
    ------
    ValueError
        It is not ``http://[user:password@]host:port``; the text has no credentials.
    """
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        wrong = parts.scheme != "http" or not parts.hostname or parts.port is None
        wrong = wrong or parts.path not in ("", "/") or bool(parts.query or parts.fragment)
    except ValueError:
        wrong = True
    if wrong or not url.isascii() or not url.isprintable():
        raise ValueError("it must be http://host:port or http://user:password@host:port")
    return url


def _rule(host: str, port: int | None, is_plain: bool) -> HostRule:
    if is_plain:
        return HostRule(host, fetch_ports=frozenset({port or HTTP_PORT}))
    return HostRule(host, tunnel_ports=frozenset({port or HTTPS_PORT}))
