"""Bytes from one socket to another, both ways, until one end, an idle time or a cap.

Knows no HTTP and no TLS. The rule: one buffer a direction; nothing is read while the other side
does not take what was read (so nothing grows), and both sockets are the caller's to close.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

from .budgets import Meter

_BUFFER_BYTES = (16 * 1024, 64 * 1024)  # up, down
_TURNS = 4  # pieces of one flow before another flow has its turn
_HALF_CLOSED_SECONDS = 10.0
UP, DOWN = 0, 1


class SpliceEnded(Exception):
    """A splice that was cut; the text is the reason, a clause."""


async def splice(
    client: socket.socket,
    upstream: socket.socket,
    meter: Meter,
    idle_seconds: float,
    total_seconds: float,
    one_way: bool = False,
) -> None:
    """Carry bytes both ways until both directions have ended.

    ``one_way``: only down; what the client sends is read no more, so its end is not noticed.
    After one direction has ended the other has ten seconds: a client that waits for an answer to
    its end gets it, and half-open tunnels do not stay.

    Raises
    ------
    SpliceEnded
        Idle for too long, or the whole took too long.
    CapReached
        Too many bytes.
    OSError
        A side broke.
    """
    started = time.monotonic()
    flows = {asyncio.ensure_future(carry(upstream, client, meter, DOWN))}
    if not one_way:
        flows.add(asyncio.ensure_future(carry(client, upstream, meter, UP)))
    all_flows = len(flows)
    try:
        while len(flows) == all_flows:
            now = time.monotonic()
            idle_left = meter.active_at + idle_seconds - now
            left = min(idle_left, started + total_seconds - now)
            if left <= 0:
                why = "idle for too long" if idle_left <= 0 else "open for too long"
                raise SpliceEnded(f"the connection was {why}")
            flows = await _wait(flows, left)
        if flows:
            await _wait(flows, _HALF_CLOSED_SECONDS)
    finally:
        await _cancel(flows)  # their readers are off the loop before the sockets close


async def _wait(flows: set[asyncio.Task[None]], seconds: float) -> set[asyncio.Task[None]]:
    """Give the flows that still go on; raise what one ended with."""
    done, going = await asyncio.wait(flows, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    errors = [error for flow in done if (error := flow.exception()) is not None]
    if errors:
        await _cancel(going)
        raise errors[0]
    return going


async def _cancel(flows: set[asyncio.Task[None]]) -> None:
    for flow in flows:
        flow.cancel()
    await asyncio.gather(*flows, return_exceptions=True)


async def carry(source: socket.socket, sink: socket.socket, meter: Meter, direction: int) -> None:
    """Carry one direction to its end, and tell the sink that it has ended."""
    loop = asyncio.get_running_loop()
    buffer = memoryview(bytearray(_BUFFER_BYTES[direction]))
    turns = 0
    while size := await loop.sock_recv_into(source, buffer):
        meter.count(direction, size)
        await loop.sock_sendall(sink, buffer[:size])
        turns += 1
        if turns % _TURNS == 0:
            await asyncio.sleep(0)  # ready sockets never wait, so nobody else would have a turn
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
