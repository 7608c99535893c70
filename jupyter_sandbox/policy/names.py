"""Which names a file may have in the store and in a download.

The rule (SPEC.md 4): no separators, no control characters, at most 255 bytes, Unicode allowed.
"""

from __future__ import annotations

import unicodedata

from .decision import ALLOWED, Decision

MAX_NAME_BYTES = 255


def decide_file_name(name: str) -> Decision:
    """Decide whether ``name`` can be the name of a file, without any directory."""
    if name == "":
        return Decision(False, "the name is empty")
    if name in (".", ".."):
        return Decision(False, f"`{name}` is a directory, not a name")
    if len(name) > MAX_NAME_BYTES:  # first: a request may have millions
        return Decision(
            False, f"the name has {len(name):,} characters; {MAX_NAME_BYTES} bytes are allowed"
        )
    for character in name:
        if character in "/\\":
            return Decision(False, f"the name has a separator (`{character}`)")
        kind = unicodedata.category(character)
        if kind == "Cs":
            return Decision(False, "the name is not valid Unicode")
        # Zl and Zp break lines as control characters do.
        if kind in ("Cc", "Zl", "Zp"):
            return Decision(False, f"the name has a control character (U+{ord(character):04X})")
    size = len(name.encode("utf-8"))
    if size > MAX_NAME_BYTES:
        return Decision(False, f"the name has {size} bytes; {MAX_NAME_BYTES} are allowed")
    return ALLOWED
