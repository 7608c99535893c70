"""What a cell's messages come to: text, images, an error, each bounded. Pure but for ``emit``.

The kernel bounds its text itself; this is the guarantee. Text is kept up to the limit and some
slack for notices, tracebacks and values, then a notice ends it. Of what a cell displays, raster
images are kept (their first bytes must say what they are) and plain text; HTML, SVG and scripts are
left to those who render them safely.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Callable
from typing import Any

from sandbox_guest.output import notice

from ..models import Emit, Image

MAX_IMAGE_BYTES = 8 * 1024 * 1024
MAX_IMAGES = 20
MAX_RECEIVED_BYTES = 16 * 1024 * 1024
_SLACK_BYTES = 128 * 1024
_MAX_ERROR = 2000

_MAGIC: dict[str, Callable[[bytes], bool]] = {
    "image/png": lambda data: data.startswith(b"\x89PNG\r\n\x1a\n"),
    "image/jpeg": lambda data: data.startswith(b"\xff\xd8\xff"),
    "image/webp": lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP",
    "image/gif": lambda data: data[:6] in (b"GIF87a", b"GIF89a"),
}
_TEXT_TYPES = ("text/plain", "text/markdown", "text/latex")


class CellResult:
    """Collects the output of one execution.

    Parameters
    ----------
    limit_bytes : int
        Of text.
    emit : callable
        Is given each piece of text that is kept, at once.
    """

    def __init__(self, limit_bytes: int, emit: Emit) -> None:
        self._limit = limit_bytes
        self._emit = emit
        self._pieces: list[str] = []
        self._left = limit_bytes + _SLACK_BYTES
        self._received_left = limit_bytes + MAX_RECEIVED_BYTES
        self.truncated = False
        self.images: list[Image] = []
        self.error: str | None = None

    @property
    def text(self) -> str:
        """All text that was kept."""
        return "".join(self._pieces)

    def add(self, msg_type: str, content: dict[str, Any], size: int) -> None:
        """Take an output message; whatever it holds, nothing is raised."""
        self._received_left -= size
        if self._received_left < 0:
            self._truncate()
            return
        if msg_type == "stream":
            self.add_text(content.get("text"))
        elif msg_type in ("display_data", "execute_result", "update_display_data"):
            self._add_bundle(content.get("data"))
        elif msg_type == "error":
            self._add_error(content)

    def add_text(self, text: object) -> None:
        """Take text of the cell."""
        if not isinstance(text, str) or not text or self.truncated:
            return
        data = text.encode("utf-8", "backslashreplace")  # lone surrogates cannot travel further
        if len(data) > self._left:
            self._keep(data[: self._left].decode("utf-8", "ignore"))
            self._truncate()
        else:
            self._left -= len(data)
            self._keep(text if text.isascii() else data.decode("utf-8"))

    def add_line(self, text: str) -> None:
        """Take text that stands on lines of its own."""
        last = self._pieces[-1] if self._pieces else "\n"
        self.add_text(("" if last.endswith("\n") else "\n") + text.rstrip("\n") + "\n")

    def _keep(self, text: str) -> None:
        if text:
            self._pieces.append(text)
            with contextlib.suppress(Exception):  # who listens is not our reader's trouble
                self._emit(text)

    def _truncate(self) -> None:
        if not self.truncated:
            self.truncated = True
            self._keep(f"\n{notice(self._limit)}\n")

    def _add_bundle(self, data: object) -> None:
        if not isinstance(data, dict):
            return
        for media_type in _MAGIC:
            if media_type in data:
                problem = self._add_image(media_type, data[media_type])
                if not problem:
                    return
                self.add_line(f"[{media_type} not shown: {problem}]")
                break
        for media_type in _TEXT_TYPES:
            text = data.get(media_type)
            if isinstance(text, str):
                self.add_line(text)
                return

    def _add_image(self, media_type: str, value: object) -> str:
        """Keep an image; say why not if it cannot be."""
        if len(self.images) >= MAX_IMAGES:
            return f"only {MAX_IMAGES} images of a cell are"
        if not isinstance(value, str):
            return "it is malformed"
        if len(value) > MAX_IMAGE_BYTES * 3 // 2:
            return "it is larger than 8 MiB"
        try:
            image = base64.b64decode("".join(value.split()), validate=True)
        except (binascii.Error, ValueError):
            return "it is malformed"
        if len(image) > MAX_IMAGE_BYTES:
            return "it is larger than 8 MiB"
        if not _MAGIC[media_type](image):
            return "its contents are of another type"
        self.images.append(Image(media_type, image))
        return ""

    def _add_error(self, content: dict[str, Any]) -> None:
        self.error = error_line(content)
        traceback = content.get("traceback")
        lines = traceback if isinstance(traceback, list) else []
        text = "\n".join(line for line in lines if isinstance(line, str))
        self.add_line(text or self.error)


def error_line(content: dict[str, Any]) -> str:
    """Give ``"NameError: name 'x' is not defined"`` of an error message or reply."""
    name, value = content.get("ename"), content.get("evalue")
    parts = [part for part in (name, value) if isinstance(part, str) and part]
    line = ": ".join(parts)[:_MAX_ERROR] or "unknown error"
    return line.encode("utf-8", "backslashreplace").decode("utf-8")
