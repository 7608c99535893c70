"""The one spelling of a host that everything is decided on and connected to.

A sandbox writes hosts in whatever way it likes; here each spelling becomes the canonical name or is
refused. The rule: lower case, at most one final dot (taken off), labels of letters, digits and
hyphens, two labels or more, and nothing that any resolver would take for an address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_MAX_NAME = 253
# What inet_aton takes as the last part of an address: 1, 0177, 0x7f.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_URL = re.compile(r"http://([^/?#\\@]*)(/[!-\"$-\[\]-~]*)?")  # printable, no space, `#` and `\`
_MAX_SHOWN = 80


class NameRefused(ValueError):
    """A spelling that names no host; the text is the reason, a clause."""


@dataclass(frozen=True)
class Target:
    """A canonical host and a port; ``path`` only of a URL."""

    host: str
    port: int
    path: str = ""


def to_canonical_host(text: str) -> str:
    """Give the canonical name; what it gives is its own canonical name.

    Raises
    ------
    NameRefused
        An address in any spelling, a name without a domain, or no name at all.
    """
    if not text.isascii() or not text.isprintable():
        raise NameRefused("the host name has characters that no host name has")
    name = text.lower().removesuffix(".")
    if not name or len(name) > _MAX_NAME:
        raise NameRefused("the host name is empty or too long")
    if "[" in name or "]" in name or ":" in name:
        raise NameRefused("addresses are not allowed, only host names")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        raise NameRefused("addresses are not allowed, only host names")
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise NameRefused("it is not a valid host name")
    if len(labels) < 2:
        raise NameRefused("the host name has no domain")
    return name


def to_port(text: str) -> int:
    """Give a port that is written as plain digits.

    Raises
    ------
    NameRefused
        It is not, or above 65535.
    """
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise NameRefused("the port is not a number from 1 to 65535")
    return int(text)


def to_tunnel_target(authority: str) -> Target:
    """Read what CONNECT names: ``host:port``, both there."""
    host, colon, port = authority.rpartition(":")
    if not colon:
        raise NameRefused("CONNECT needs host:port")
    return Target(to_canonical_host(host), to_port(port))


def to_fetch_target(url: str, default_port: int = 80) -> Target:
    """Read an absolute ``http://`` URL without user, password and fragment."""
    match = _URL.fullmatch(url)
    if match is None:
        raise NameRefused("only plain http:// URLs can be fetched, everything else by CONNECT")
    host, colon, port = match[1].partition(":")
    return Target(
        to_canonical_host(host), to_port(port) if colon else default_port, match[2] or "/"
    )


def shown(text: str) -> str:
    """Give a host as the sandbox wrote it, safe to show: printable ASCII, at most 80 characters."""
    cut = text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
    return "".join(c if c.isascii() and (c.isalnum() or c in "-._:[]%/@*") else "?" for c in cut)
