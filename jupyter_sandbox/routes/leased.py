"""``/sandbox/preview/leased/{token}/``: the document in a shell's frame.

Its origin is opaque, so it comes without cookies: the token in its path is what lets it in, for the
one file of its lease. The rules: whoever is logged in must be the lease's owner; outside a frame it
is never shown (another tab is led to the shell, whose headers hold it); no answer sets a cookie, no
line of the log has the token.
"""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import urlsplit

from jupyter_server.utils import url_path_join

from ..errors import NotFound
from ..previews.clipboard_guard import guarded, guarded_size
from ..previews.file_previews import PreviewedFile
from ..previews.pages import pdf_page
from ..stores.file_store import FileReader
from .base import endpoint
from .preview_headers import (
    SANDBOX_LINKS,
    SANDBOX_NOTHING,
    SANDBOX_SCRIPTS,
    document_headers,
    viewer_headers,
)
from .previews import PageHandler

_ENDED = "This preview has ended. Reload the page to see it again."
_FRAMES = ("iframe", "frame")
_LOOK_BYTES = 64 * 1024


class LeasedFileHandler(PageHandler):
    """A previewed file."""

    public = True  # its token is the key
    ends_with_client = True
    _track_activity = False

    @endpoint
    async def get(self, token: str, part: str) -> None:
        """Give the document that the frame shows."""
        try:
            file = await self._find(token)
            if part != "view":
                raise NotFound(_ENDED)
        except NotFound:
            if self.current_user is None:
                self.answer_error(401, "unauthenticated", _ENDED)
                return
            raise NotFound(_ENDED) from None
        if not self._is_in_frame():
            self.set_header("Cache-Control", "no-store")
            self.redirect(file.shell_url, status=302)
            return
        async with self.services.files.reading(file.stored) as reader:
            await self._send(file, reader, self.request.path)

    def require_access(self) -> None:
        """Decide for the one whom the lease was opened for: a frame says nothing of its user."""
        if self.current_user is None:
            token = str(self.path_kwargs.get("token"))
            try:
                self.caller = self.services.previews.leases.find(token).target.caller
            except NotFound:
                return  # the method answers that
        super().require_access()

    async def _find(self, token: str) -> PreviewedFile:
        """Give the file; ``NotFound`` also when its conversation is gone."""
        lease = self.services.previews.leases.find(token)
        if self.current_user is None:
            # The shell's own load has the cookie; who has logged out is not let in again.
            if self.request.headers.get("Sec-Fetch-Site") == "same-origin":
                raise NotFound(_ENDED)
        elif self.owner != lease.owner:
            raise NotFound(_ENDED)
        await self.services.conversations.find(lease.owner, lease.conversation_id)
        return lease.target

    def _is_in_frame(self) -> bool:
        """Say whether the answer goes into a frame of the shell.

        Browsers say so on https and on loopback; elsewhere the shell is known as the referrer.
        """
        headers = self.request.headers
        destination = headers.get("Sec-Fetch-Dest")
        if destination is not None:
            return destination in _FRAMES
        referrer = urlsplit(headers.get("Referer", ""))
        shells = url_path_join(self.base_url, "sandbox/preview/")
        return referrer.netloc == self.request.host and referrer.path.startswith(shells)

    async def _send(self, file: PreviewedFile, reader: FileReader, path: str) -> None:
        previews, theme = self.services.previews, self.theme()
        match file.kind:
            case "pdf":
                nonce = secrets.token_urlsafe(16)
                self.answer_page(pdf_page(file.name, theme, nonce), viewer_headers(nonce))
            case "html" if self.runs_scripts():
                home = path.removesuffix("view")
                headers = document_headers(SANDBOX_SCRIPTS, self.request.host, home)
                await self._stream_page(file, reader, headers)
            case "html":
                page = await previews.cleaned_html(file, reader.pieces)
                if page is None:
                    raise NotFound("This page cannot be shown; download it instead.")
                self.answer_page(page, document_headers(SANDBOX_NOTHING))
            case "markdown":
                page = await previews.markdown(file, reader.pieces, theme)
                self.answer_page(page, document_headers(SANDBOX_LINKS))
            case _:
                page = await previews.text(file, reader.pieces, theme)
                self.answer_page(page, document_headers(SANDBOX_NOTHING))

    async def _stream_page(
        self, file: PreviewedFile, reader: FileReader, headers: dict[str, str]
    ) -> None:
        """Send a page that runs scripts, with a line before them that guards the clipboard."""
        head = await _head(file, reader)
        self.file_headers = headers
        size = guarded_size(file.size_bytes, head)
        await self.send_pieces(guarded(reader.pieces(0, file.size_bytes)), size, _html_type(head))

    def set_cookie(self, *args: Any, **kwargs: Any) -> None:
        """Set none: a frame without cookies would get a new login each time."""

    def set_secure_cookie(self, *args: Any, **kwargs: Any) -> None:
        """Set none."""

    def _log(self) -> None:
        self._hide_token()
        super()._log()

    def _request_summary(self) -> str:
        self._hide_token()
        return super()._request_summary()

    def _hide_token(self) -> None:
        token = self.path_kwargs.get("token")
        if token:
            self.request.uri = str(self.request.uri).replace(token, "[token]")
            self.request.path = self.request.path.replace(token, "[token]")


async def _head(file: PreviewedFile, reader: FileReader) -> bytes:
    look = bytearray()
    async for piece in reader.pieces(0, min(file.size_bytes, _LOOK_BYTES)):
        look += piece
    return bytes(look)


def _html_type(look: bytes) -> str:
    """Give the type, saying UTF-8 where the page is and may not say so itself."""
    try:
        look[:-3].decode("utf-8")  # the last character may be cut
    except UnicodeDecodeError as exc:
        if exc.end < len(look) - 6:
            return "text/html"
    return "text/html; charset=utf-8"
