"""Where the package clients of this machine get packages from, for tests that install some.

Their hosts are in no file of the project: the clients are asked. Where a machine reaches them
through a mirror at an address that is not public, tests allow that address, as its administrator
would.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket

from jupyter_sandbox.policy.egress_rules import HostRule
from jupyter_sandbox.proxies.client_hosts import find_preset_rules

PRESETS = ("pypi", "npm", "debian")


def registry_rules(*presets: str) -> list[HostRule]:
    """Give the hosts of presets as the product finds them."""
    return asyncio.run(find_preset_rules(presets or PRESETS, logging.getLogger("test")))


def mirror_networks(rules: list[HostRule]) -> list[str]:
    """Give a network for each address of these hosts that is not public."""
    found: dict[str, None] = {}
    for rule in rules:
        try:
            answers = socket.getaddrinfo(rule.host, 443, type=socket.SOCK_STREAM)
        except OSError:
            continue
        for *_, address in answers:
            ip = ipaddress.ip_address(address[0])
            if not ip.is_global:
                found[f"{ip}/{ip.max_prefixlen}"] = None
    return list(found)
