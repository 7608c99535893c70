"""Which files have a preview, and what kind of view shows it (the table of SPEC.md 4).

The rule: what is inert wherever it stands (a picture, a film) is shown by the page itself; a
document goes into a frame with an origin of its own. Sizes above which a browser would suffer are
refused here.
"""

from __future__ import annotations

from typing import Literal

from .decision import ALLOWED, Decision

View = Literal["image", "video", "audio", "frame"]

_VIEWS: dict[str, View] = {
    "image": "image",
    "svg": "image",  # in <img> nothing of it runs or loads
    "video": "video",
    "audio": "audio",
    "pdf": "frame",
    "html": "frame",
    "markdown": "frame",
    "text": "frame",
}
_MEGABYTE = 1_000_000
_MOST_BYTES = {
    "image": 50 * _MEGABYTE,
    "svg": 10 * _MEGABYTE,
    "pdf": 200 * _MEGABYTE,
    "html": 25 * _MEGABYTE,
}


def decide_preview(kind: str, size_bytes: int) -> Decision:
    """Decide whether a file can be previewed; the reason is a sentence for its user."""
    if kind not in _VIEWS:
        return Decision(False, "There is no preview of files of this type.")
    most = _MOST_BYTES.get(kind)
    if most is not None and size_bytes > most:
        return Decision(
            False, f"The file is too large for a preview (at most {most // _MEGABYTE} MB)."
        )
    return ALLOWED


def view_of(kind: str) -> View:
    """Give how a file of a kind that has a preview is shown."""
    return _VIEWS[kind]
