"""Which addresses may be connected to, whatever name led there.

Python's ``ipaddress.is_global`` is not asked: it calls NAT64, 6to4 of loopback, v4-compatible and
other addresses global. The rule: of IPv6 only global unicast (2000::/3) without its special blocks,
of IPv4 what is in no special block.
Source: https://www.iana.org/assignments/iana-ipv4-special-registry and …-ipv6-special-registry
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from .decision import ALLOWED, Decision

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Clouds give credentials to whoever asks there: no setting of ours opens them.
_METADATA = (
    "169.254.169.254/32",  # almost all
    "169.254.170.2/32",  # AWS ECS
    "169.254.170.23/32",  # AWS EKS
    "168.63.129.16/32",  # Azure; looks public
    "100.100.100.200/32",  # Alibaba
    "192.0.0.192/32",  # Oracle
    "fd00:ec2::254/128",  # AWS
    "fd20:ce::254/128",  # Google
)
_FORBIDDEN_V4 = {
    "0.0.0.0/8": "this-network",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "carrier-grade NAT",
    "127.0.0.0/8": "loopback",
    "169.254.0.0/16": "link-local",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "special-purpose",
    "192.0.2.0/24": "documentation",
    "192.31.196.0/24": "special-purpose",
    "192.52.193.0/24": "special-purpose",
    "192.88.99.0/24": "6to4 relay",
    "192.168.0.0/16": "private",
    "192.175.48.0/24": "special-purpose",
    "198.18.0.0/15": "benchmarking",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
}
# Before the rest of what is not global unicast, because their names say more; those that carry an
# IPv4 address are refused whatever that is.
_FORBIDDEN_V6 = {
    "::/128": "unspecified",
    "::1/128": "loopback",
    "::ffff:0:0/96": "IPv4-mapped",
    "::ffff:0:0:0/96": "IPv4-translated",
    "::/96": "IPv4-compatible",
    "64:ff9b::/96": "NAT64",
    "64:ff9b:1::/48": "NAT64",
    "fc00::/7": "private",
    "fe80::/10": "link-local",
    "fec0::/10": "site-local",
    "ff00::/8": "multicast",
    "2001::/32": "Teredo",
    "2001::/23": "special-purpose",
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4",
    "2620:4f:8000::/48": "special-purpose",
    "3fff::/20": "documentation",
}
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# The lower half of an ISATAP address is [02]00:5efe:IPv4 (RFC 5214).
_ISATAP_MASK, _ISATAP = 0xFDFFFFFF, 0x00005EFE

_metadata = [ip_network(text) for text in _METADATA]
_forbidden: dict[int, list[tuple[Network, str]]] = {
    version: [(ip_network(text), kind) for text, kind in table.items()]
    for version, table in ((4, _FORBIDDEN_V4), (6, _FORBIDDEN_V6))
}


class AddressPolicy:
    """The decision on addresses.

    Parameters
    ----------
    allow_cidrs, deny_cidrs : iterable of str
        An administrator's (see `EgressRules`).
    """

    def __init__(self, allow_cidrs: Iterable[str] = (), deny_cidrs: Iterable[str] = ()) -> None:
        self._allowed = [ip_network(text) for text in allow_cidrs]
        self._denied = [ip_network(text) for text in deny_cidrs]

    def __repr__(self) -> str:
        return f"<AddressPolicy allow={len(self._allowed)} deny={len(self._denied)}>"

    def decide_address(self, text: str) -> Decision:
        """Decide on one address, as ``getaddrinfo`` or ``getpeername`` gives it."""
        try:
            address = ip_address(text)
        except ValueError:
            return Decision(False, "it resolves to something that is no address")
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            return Decision(False, "it resolves to an address of one link only")
        if _any_has(_metadata, address):
            return Decision(False, "it resolves to a metadata service of a cloud")
        if _any_has(self._denied, address):
            return Decision(False, "it resolves to an address that this site refuses")
        kind = kind_of_forbidden(address)
        if kind and not self.is_admitted(text):
            return Decision(False, f"it resolves to an address that is not public ({kind})")
        return ALLOWED

    def decide_answer(self, addresses: Iterable[str]) -> Decision:
        """Decide on all that a name resolves to: one bad address spoils the answer."""
        some = False
        for text in addresses:
            some = True
            decision = self.decide_address(text)
            if not decision:
                return decision
        return ALLOWED if some else Decision(False, "it resolves to no address")

    def is_admitted(self, text: str) -> bool:
        """Say whether an administrator admits an address that is not public, or is this host's."""
        address = ip_address(text)
        if _carries_v4(address):
            return False  # an allowed 10.0.0.0/8 is no ::ffff:10.0.0.1
        return _any_has(self._allowed, address)


def kind_of_forbidden(address: Address) -> str:
    """Give what kind of address it is that is never public; "" for a public one."""
    for network, kind in _forbidden[address.version]:
        if address in network:
            return kind
    if isinstance(address, IPv6Address):
        if address not in _GLOBAL_UNICAST:
            return "reserved"
        if (int(address) >> 32) & _ISATAP_MASK == _ISATAP:
            return "ISATAP"
    return ""


def _carries_v4(address: Address) -> bool:
    """Say whether an IPv6 address stands for an IPv4 one."""
    kinds = ("IPv4-mapped", "IPv4-translated", "IPv4-compatible", "NAT64", "6to4", "Teredo")
    return address.version == 6 and kind_of_forbidden(address) in (*kinds, "ISATAP")


def _any_has(networks: Iterable[Network], address: Address) -> bool:
    return any(address in network for network in networks)
