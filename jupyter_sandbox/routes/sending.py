"""How a stored file is sent: whole or a part, never cached, never run.

The rule: nothing is written before the store has said that the file is right; an error after that
ends the connection, so that no client takes a part for the whole.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from tornado.iostream import StreamClosedError

from .. import metrics
from ..errors import Forbidden
from ..stores.file_store import FileReader
from .base import SandboxHandler
from .disposition import attachment
from .ranges import Unsatisfiable, has_already, may_resume, parse_range

POLICY = "sandbox; default-src 'none'; frame-ancestors 'none'; form-action 'none'; base-uri 'none'"

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, no-store",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class SendingHandler(SandboxHandler):
    """Base of the handlers that send files."""

    file_headers: Mapping[str, str] = _HEADERS

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        """Give a part of the path; what is not UTF-8 has lone surrogates and names no file."""
        return value.decode("utf-8", "surrogateescape")

    def require_same_site(self) -> None:
        """Refuse what another site's page asks for with the user's cookie; any look-up is later."""
        site = self.request.headers.get("Sec-Fetch-Site", "none")
        if site not in ("same-origin", "none") and not self.token_authenticated:
            raise Forbidden("Files are not given to pages of other sites.")

    async def send_file(
        self, reader: FileReader, *, name: str, media_type: str, sha256: str, size_bytes: int
    ) -> None:
        """Send a file, or what the request asks of it, as something to save."""
        etag = f'"{sha256}"'
        headers = self.request.headers
        self.set_header("ETag", etag)
        self.set_header("Accept-Ranges", "bytes")
        self.name_download(name)
        if has_already(headers.get("If-None-Match"), etag):
            self._private()
            self.set_status(304)
            await self.end(media_type)
            return
        part = None
        if self.request.method == "GET" and may_resume(headers.get("If-Range"), etag):
            try:
                part = parse_range(headers.get("Range"), size_bytes)
            except Unsatisfiable:
                self.clear_header("Content-Disposition")
                self.set_header("Content-Range", f"bytes */{size_bytes}")
                self.answer_error(416, "bad_range", f"The file has {size_bytes:,} bytes.")
                return
        first, size = (0, size_bytes) if part is None else (part.first, part.size)
        if part is not None:
            self.set_status(206)
            self.set_header("Content-Range", f"bytes {first}-{first + size - 1}/{size_bytes}")
        await self.send_pieces(reader.pieces(first, size), size, media_type)

    def name_download(self, name: str) -> None:
        """Say under which name a browser saves it."""
        self.set_header("Content-Disposition", attachment(name))

    async def send_pieces(
        self, pieces: AsyncGenerator[bytes], size_bytes: int, media_type: str
    ) -> None:
        """Send so many bytes; for HEAD the headers only."""
        self._private()
        self.set_header("Content-Length", str(size_bytes))
        sent = 0
        if self.request.method != "HEAD":
            try:
                async for piece in pieces:
                    self.set_header("Content-Type", media_type)
                    self.write(piece)
                    sent += len(piece)
                    metrics.DOWNLOADED_BYTES.inc(len(piece))
                    await self.flush()
            except StreamClosedError:
                return  # the client has gone
            except Exception:
                if not self._headers_written:
                    self._clear_for_error()
                    raise
                self.log.exception("a download broke off")
                self._cut()
                return
            finally:
                await pieces.aclose()
                conversation_id = str(self.path_kwargs.get("conversation_id", ""))
                self.services.audit.note("download", self.owner, conversation_id, bytes=sent)
        await self.end(media_type)

    async def end(self, media_type: str) -> None:
        """Finish with another type than JSON."""
        await super(SandboxHandler, self).finish(set_content_type=media_type)

    def _private(self) -> None:
        for header, value in self.file_headers.items():
            self.set_header(header, value)

    def _clear_for_error(self) -> None:
        for header in ("Content-Length", "Content-Disposition", "Content-Range", "ETag"):
            self.clear_header(header)

    def _cut(self) -> None:
        stream = getattr(self.request.connection, "stream", None)
        if stream is not None:
            stream.close()
