"""Previews of uploads and shared files: who may look at what, and the documents that are made.

It is given a reader and knows neither stores' keys nor requests. The rule: of a text at most
``TEXT_BYTES`` are read and shown, and every text has a view, if only that of its bytes.
"""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from ..fair_turns import in_thread
from ..models import Caller, StoredFile
from .leases import Leases
from .pages import markdown_page, text_page
from .rendering import Renderer

TEXT_BYTES = 1_000_000
HIGHLIGHT_BYTES = 400_000
PAGE_BYTES = 5_000_000
"""Of an HTML file that is cleaned."""

Pieces = Callable[[int, int], AsyncIterator[bytes]]
"""Gives so many bytes of a file from a place on."""


@dataclass(frozen=True)
class PreviewedFile:
    """What a lease lets in to.

    ``caller`` is for whom it was opened, ``shell_url`` the page that the preview belongs in.
    """

    caller: Caller
    kind: str
    name: str
    size_bytes: int
    stored: StoredFile
    shell_url: str


class FilePreviews:
    """The previews of one server process.

    Attributes
    ----------
    html_scripts : bool
        Whether scripts of HTML files run (where they reach nothing).
    """

    def __init__(
        self,
        html_scripts: bool,
        renderer: Renderer,
    ) -> None:
        self.html_scripts = html_scripts
        self.leases: Leases[PreviewedFile] = Leases()
        self._renderer = renderer

    def __repr__(self) -> str:
        return f"<FilePreviews {self.leases!r}>"

    async def text(self, file: PreviewedFile, pieces: Pieces, theme: str) -> str:
        """Give the page of a text with line numbers, in colours if that is quick."""
        text, notices = await _beginning(file, pieces)
        spans = None
        if len(text) <= HIGHLIGHT_BYTES:
            spans = await self._renderer.render("text", file.name, text)
        return await in_thread(text_page, file.name, text, spans, notices, theme)

    async def markdown(self, file: PreviewedFile, pieces: Pieces, theme: str) -> str:
        """Give the page of a Markdown text; its source if it cannot be rendered."""
        text, notices = await _beginning(file, pieces)
        body = await self._renderer.render("markdown", file.name, text)
        if body is None:
            notices.append("This Markdown cannot be rendered; its source is shown.")
            return await in_thread(text_page, file.name, text, None, notices, theme)
        return markdown_page(file.name, body, notices, theme)

    async def cleaned_html(self, file: PreviewedFile, pieces: Pieces) -> str | None:
        """Give an HTML file without anything that runs or loads; None if it cannot be cleaned."""
        if file.size_bytes > PAGE_BYTES:
            return None
        text = await _decoded(pieces, file.size_bytes, whole=True)
        return await self._renderer.render("html", file.name, text)


def text_of(data: bytes, whole: bool) -> str:
    """Give bytes as text, as ``policy.media`` knows it: UTF-16 with its mark, UTF-8, or Latin-1.

    Parameters
    ----------
    whole : bool
        False: they are a beginning, and may end within a character.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = codecs.getincrementaldecoder("utf-16")("replace").decode(data, whole)
    else:
        try:
            text = codecs.getincrementaldecoder("utf-8-sig")().decode(data, whole)
        except UnicodeDecodeError:
            text = data.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


async def _beginning(file: PreviewedFile, pieces: Pieces) -> tuple[str, list[str]]:
    """Give the text of a file as far as it is shown, and what is to be said about the rest."""
    whole = file.size_bytes <= TEXT_BYTES
    text = await _decoded(pieces, min(file.size_bytes, TEXT_BYTES), whole)
    if whole:
        return text, []
    return text, [
        f"The first {TEXT_BYTES // 1_000_000} MB of {file.size_bytes / 1e6:,.1f} MB are shown; "
        "the download has all."
    ]


async def _decoded(pieces: Pieces, size: int, whole: bool) -> str:
    data = bytearray()
    async for piece in pieces(0, size):
        data += piece
    return await in_thread(text_of, bytes(data), whole)
