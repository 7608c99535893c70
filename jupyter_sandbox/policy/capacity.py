"""Whether a conversation's files are within what it may keep (SPEC.md 3)."""

from __future__ import annotations

from .decision import ALLOWED, Decision

MOST_FILES = 20_000
"""Uploads and versions of shared files of a conversation: empty ones, too, take room."""

_GIB = 1024**3


def decide_capacity(used_bytes: int, capacity_bytes: int) -> Decision:
    """Decide whether uploads and shared files together fit; the reason is the whole message."""
    if used_bytes <= capacity_bytes:
        return ALLOWED
    return Decision(
        False,
        f"This conversation's attached files exceed the sandbox capacity "
        f"({_words(capacity_bytes)} combined). Archive or remove some files and try again.",
    )


def decide_count(files: int) -> Decision:
    """Decide whether one more may be added to so many; the reason is the whole message."""
    if files < MOST_FILES:
        return ALLOWED
    return Decision(
        False,
        f"This conversation has {files:,} files (uploads, and all versions of what was shared); "
        f"{MOST_FILES:,} is the most. Remove some files and try again.",
    )


def _words(size_bytes: int) -> str:
    if size_bytes >= _GIB:
        return f"{size_bytes / _GIB:g} GiB"
    return f"{size_bytes:,} bytes"
