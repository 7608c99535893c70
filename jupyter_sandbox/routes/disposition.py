"""The ``Content-Disposition`` of a download: any name in one line that every client understands.

Source: https://www.rfc-editor.org/rfc/rfc6266#section-4.3, rfc8187, and
reference/security.md 6.2 (tested on hostile names).
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote

_MOST_CHARACTERS = 150
_PLAIN = re.compile(r"[^A-Za-z0-9._ ()-]")


def attachment(name: str) -> str:
    """Give the header's value for a file that is saved under ``name``."""
    shown = safe_name(name)
    plain = unicodedata.normalize("NFKD", shown).encode("ascii", "ignore").decode()
    plain = _PLAIN.sub("_", plain).strip(". ") or "download"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(shown, safe='')}"


def safe_name(name: str) -> str:
    """Give a name without what misleads: control characters, bidi marks, separators, outer dots."""
    kept = "".join(
        "_" if character in "/\\" else character
        for character in name
        if unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
    ).strip(". ")
    if len(kept) > _MOST_CHARACTERS:
        stem, dot, extension = kept.rpartition(".")
        tail = f"{dot}{extension}" if stem and len(extension) <= 16 else ""
        kept = kept[: _MOST_CHARACTERS - len(tail)] + tail
    return kept or "download"
