"""The pipe between the Jupyter server and the egress process: JSON lines, both ways.

Downwards: ``rules`` (once, first, with the memory of the day's bytes), ``open``, ``close`` and
``ping``, each but the first with a number that ``done`` answers. Upwards: ``done``, ``denial``,
``log``. The rule: a server that does not read costs denials and log lines, never memory; the end of
the pipe is the end of the process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

MAX_LINE_BYTES = 1024 * 1024
_MAX_WAITING_BYTES = 512 * 1024


def to_line(message: Mapping[str, object]) -> bytes:
    """Give a message as its line."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def from_line(line: bytes) -> dict[str, Any]:
    """Read a line; an empty message for what is none."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


class Reports:
    """The way up. Never waits."""

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport
        self._dropped = 0

    def __repr__(self) -> str:
        return f"<Reports dropped={self._dropped}>"

    def must_say(self, message: Mapping[str, object]) -> None:
        """Say what somebody waits for."""
        self._transport.write(to_line(message))

    def may_say(self, message: Mapping[str, object]) -> None:
        """Say it unless too much waits already; then how much was left out is said later."""
        if self._transport.get_write_buffer_size() > _MAX_WAITING_BYTES:
            self._dropped += 1
            return
        if self._dropped:
            self.must_say({"is": "log", "line": {"dropped": self._dropped}})
            self._dropped = 0
        self.must_say(message)
