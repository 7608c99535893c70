"""How a limit is told where the whole sandbox ends at it: gVisor's kernel is one process of the host."""

from __future__ import annotations

_WORDS = ("it ran out of memory", "its limit of memory or of processes")


def ended_at_a_limit(text: str) -> bool:
    """Say whether a result tells that its sandbox has ended, and at which limit."""
    begins = "exec failed: the sandbox ended while this ran: "
    return begins in text and any(word in text for word in _WORDS)
