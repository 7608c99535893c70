"""Whether the host's memory runs short, from what its kernel says, and who may take more. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from .decision import ALLOWED, Decision

_PLAINTEXT_PER_FREE = 4
_MIB = 1024**2
_LEAST_LOW_BYTES = 512 * 1024**2
_LOW_PART = 20  # of the whole


class Level(enum.StrEnum):
    """How much memory there is."""

    ENOUGH = "enough"
    SHORT = "short"
    CRITICAL = "critical"


@dataclass(frozen=True)
class Memory:
    """A reading.

    Attributes
    ----------
    available_bytes : int
        What new programs could take without swapping (``MemAvailable``).
    stalled_percent : float or None
        Of the last ten seconds, in how many all tasks waited for memory at once (pressure stall
        information, ``full avg10``); None where the kernel does not tell.
    """

    total_bytes: int
    available_bytes: int
    stalled_percent: float | None = None


def level_of(memory: Memory, low_bytes: int, stalled_percent: float) -> Level:
    """Give the level of a reading.

    Parameters
    ----------
    low_bytes : int
        Less is short, less than half of it critical. 0: 5 % of the memory, at least 512 MiB.
    stalled_percent : float
        More is short, however much is available; 0: not looked at.
    """
    low = low_bytes or max(_LEAST_LOW_BYTES, memory.total_bytes // _LOW_PART)
    if memory.available_bytes * 2 < low:
        return Level.CRITICAL
    if memory.available_bytes < low:
        return Level.SHORT
    stalled = memory.stalled_percent or 0.0
    return Level.SHORT if stalled_percent and stalled > stalled_percent else Level.ENOUGH


def decide_plaintext(own_bytes: int, size_bytes: int, free_bytes: int) -> Decision:
    """Decide whether one more upload of an owner may lie in plain in memory.

    An owner may have four times as much as is left free with it: a single one gets four fifths of
    the file system, two get four ninths each, and however much they take, some is left for others.

    Parameters
    ----------
    own_bytes : int
        That the owner has there, in all sandboxes.
    free_bytes : int
        Of the file system.
    """
    if own_bytes + size_bytes <= _PLAINTEXT_PER_FREE * (free_bytes - size_bytes):
        return ALLOWED
    return Decision(
        False,
        f"uploads in this user's sandboxes take {own_bytes / _MIB:,.0f} MiB of the server's memory "
        "already; end a sandbox that is not needed, or delete uploads",
    )
