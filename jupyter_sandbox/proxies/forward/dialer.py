"""A connection to an address that was vetted, and to nothing else.

The rule: all addresses of a name are decided on before one is connected to; then the peer that was
really reached is decided on again.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from ...policy.egress_addresses import AddressPolicy

Dial = Callable[[str, int], Awaitable[socket.socket]]
"""Connects to an address and a port; gives a non-blocking socket; raises OSError."""


class AddressRefused(Exception):
    """An address that is never connected to; the text is the reason, a clause."""


async def dial_tcp(address: str, port: int) -> socket.socket:
    """Connect over TCP."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock


async def dial_vetted(
    dial: Dial, policy: AddressPolicy, addresses: list[str], port: int, seconds: float
) -> socket.socket:
    """Connect to the first of the addresses that answers, if all of them may be connected to.

    Parameters
    ----------
    seconds : float
        For all; each has its share, so that a dead route does not use up the others' time.

    Raises
    ------
    AddressRefused
        One of them may not, or another peer was reached.
    OSError
        None answers.
    """
    decision = policy.decide_answer(addresses)
    if not decision:
        raise AddressRefused(decision.reason)
    for address in addresses:
        if is_own(address) and not policy.is_admitted(address):
            raise AddressRefused("it resolves to an address of this server")
    failure = OSError("no address")
    for address in addresses:
        try:
            async with asyncio.timeout(seconds / len(addresses)):
                sock = await dial(address, port)
        except TimeoutError:
            failure = OSError("no answer")
            continue
        except OSError as exc:
            failure = exc
            continue
        try:
            peer = str(sock.getpeername()[0])
        except OSError as exc:
            sock.close()
            failure = exc
            continue
        again = policy.decide_address(peer)
        if again and peer == address:
            return sock
        sock.close()
        raise AddressRefused(again.reason or "another address than the vetted one was reached")
    raise failure


def is_own(address: str) -> bool:
    """Say whether an address is one of this host's, public ones too.

    To reach such an address the kernel takes that same address as the source. Connecting a datagram
    socket sends nothing.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
            return bool(probe.getsockname()[0] == address)
        except OSError:
            return False  # no route there
