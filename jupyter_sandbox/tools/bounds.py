"""The host's own bound of what a tool shows, whatever a sandbox claims to have cut already.

The rule: cut at a UTF-8 border; the beginning and, larger, the end are kept; the notice of SPEC.md
stands at the very end. A status line is added after this, and so is never cut.
"""

from __future__ import annotations

from sandbox_guest.output import notice

SLACK_BYTES = 4096
"""What the notices of the sandbox may add to an output that it cut itself."""

VIEW_NOTICE = "... output truncated ..."


def bound(text: str, limit_bytes: int) -> tuple[str, bool]:
    """Give the text, cut if it is beyond the limit and the slack, and whether it was cut."""
    if len(text) * 4 <= limit_bytes:
        return text, False
    data = text.encode("utf-8", "replace")
    if len(data) <= limit_bytes + SLACK_BYTES:
        return text, False
    head = cut_head(data, limit_bytes // 4)
    tail = cut_tail(data, limit_bytes - limit_bytes // 4)
    omitted = len(data) - len(head) - len(tail)
    shown = (head.decode("utf-8"), tail.decode("utf-8").rstrip("\n"))
    between = f"[... {omitted:,} bytes not shown ...]"
    return f"{shown[0]}\n{between}\n{shown[1]}\n{notice(limit_bytes)}", True


def cut_head(data: bytes, size: int) -> bytes:
    """Give at most the first ``size`` bytes of UTF-8, whole characters only."""
    if len(data) <= size:
        return data
    while size > 0 and data[size] & 0xC0 == 0x80:
        size -= 1
    return data[:size]


def cut_tail(data: bytes, size: int) -> bytes:
    """Give at most the last ``size`` bytes of UTF-8, whole characters only."""
    start = max(0, len(data) - size)
    while start < len(data) and data[start] & 0xC0 == 0x80:
        start += 1
    return data[start:]
