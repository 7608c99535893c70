"""``…/uploads``: list; upload as a raw body or as a form; read, delete."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import quote

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from ..conversations.uploads import IncomingUpload
from ..errors import InvalidRequest, LimitExceeded
from ..models import JsonValue, UploadRecord
from .base import endpoint
from .links import preview_link, upload_preview_url, upload_url
from .receiving import ReceivingHandler, parse_content_digest, require_digest
from .sending import SendingHandler

_FORM_FILES = 20
_FORM_FIELDS = 40
_FORM_FRAME_BYTES = 64 * 1024  # boundaries and headers around the files


class UploadsHandler(ReceivingHandler):
    """The uploads of a conversation."""

    receives = ("POST",)

    def initialize(self, **kwargs: Any) -> None:
        """Begin without files."""
        super().initialize(**kwargs)
        self._files: list[IncomingUpload] = []
        self._current: IncomingUpload | None = None
        self._parser: PushMultipartParser | None = None
        self._fields = 0
        self._whole = hashlib.sha256()
        self._promised: bytes | None = None

    @endpoint
    async def get(self, conversation_id: str) -> None:
        """List them, sorted by name."""
        record = await self.find(conversation_id)
        rows = await self.services.uploads.list(record.conversation_id)
        self.answer({"uploads": [self.to_json(row) for row in rows]})

    @endpoint
    async def post(self, conversation_id: str) -> None:
        """Take a form (``multipart/form-data``) with 1 to 20 files: all are kept, or none is."""
        if await self.refused():
            return
        try:
            assert self._parser is not None
            try:
                self._parser.close()
            except MultipartError as exc:
                raise InvalidRequest("The form ends too early.", status=400) from exc
            if not self._files:
                raise InvalidRequest("The form has no file.")
            require_digest(self._promised, self._whole.hexdigest())
            for file in self._files:
                await file.finish()
            kept = [await file.keep() for file in self._files]
        finally:
            await self.drop()
        status = 200 if all(replaced for _, replaced in kept) else 201
        self.answer({"uploads": [self.to_json(row) for row, _ in kept]}, status)

    async def begin(self, conversation_id: str = "", **_: str) -> None:
        """Find the conversation; make the parser."""
        await self.find(conversation_id)
        limit = _FORM_FILES * self.services.limits.upload_bytes + _FORM_FRAME_BYTES
        self.require_room(limit)
        self._promised = parse_content_digest(self.request.headers.get("Content-Digest"))
        kind, options = parse_options_header(self.request.headers.get("Content-Type", ""))
        boundary = options.get("boundary", "")
        if kind != "multipart/form-data" or not 0 < len(boundary) <= 200:
            raise InvalidRequest(
                "The body must be multipart/form-data; PUT …/uploads/{name} takes a raw file.",
                status=415,
            )
        try:
            self._parser = PushMultipartParser(boundary, max_segment_count=_FORM_FIELDS)
        except MultipartError as exc:
            raise InvalidRequest("The form has no usable boundary.", status=400) from exc

    async def take(self, chunk: bytes) -> None:
        """Hand the files' bytes on as the parser finds them."""
        assert self._parser is not None
        if self._promised is not None:
            self._whole.update(chunk)
        try:
            for event in self._parser.parse(chunk):
                if isinstance(event, MultipartSegment):
                    await self._begin_field(event)
                elif event is None:
                    self._current = None
                elif self._current is not None:
                    await self._current.write(bytes(event))
                else:
                    self._fields += len(event)
                    if self._fields > _FORM_FRAME_BYTES:
                        raise InvalidRequest("The form's fields are too long.", status=413)
        except MultipartError as exc:
            raise InvalidRequest("The form cannot be read.", status=400) from exc

    async def drop(self) -> None:
        """Let go of all files."""
        files, self._files = self._files, []
        for file in files:
            await file.close()

    async def _begin_field(self, segment: MultipartSegment) -> None:
        if segment.filename is None:
            return  # a field of the form that is no file
        if len(self._files) >= _FORM_FILES:
            raise LimitExceeded(f"A form may have {_FORM_FILES} files.", status=413)
        if any(file.name == segment.filename for file in self._files):
            raise InvalidRequest("Two files of the form have the same name.")
        conversation_id = self.path_kwargs["conversation_id"]
        self._current = await self.services.uploads.receive(conversation_id, segment.filename)
        self._files.append(self._current)

    def to_json(self, row: UploadRecord) -> dict[str, JsonValue]:
        """Give the model of an upload."""
        return upload_json(self.base_url, row)


class UploadHandler(ReceivingHandler, SendingHandler):
    """One upload."""

    receives = ("PUT",)

    def initialize(self, **kwargs: Any) -> None:
        """Begin without a file."""
        super().initialize(**kwargs)
        self._file: IncomingUpload | None = None
        self._promised: bytes | None = None

    @endpoint
    async def put(self, conversation_id: str, name: str) -> None:
        """Take the body as the file of this name: 201, or 200 when it replaced another."""
        if await self.refused():
            return
        assert self._file is not None
        try:
            require_digest(self._promised, await self._file.finish())
            row, replaced = await self._file.keep()
        finally:
            await self.drop()
        if not replaced:
            self.set_header("Location", quote(self.request.path, safe="/%"))
        self.answer(upload_json(self.base_url, row), 200 if replaced else 201)

    @endpoint
    async def get(self, conversation_id: str, name: str) -> None:
        """Send it back."""
        await self._send(conversation_id, name)

    @endpoint
    async def head(self, conversation_id: str, name: str) -> None:
        """Give the headers of ``get``."""
        await self._send(conversation_id, name)

    async def _send(self, conversation_id: str, name: str) -> None:
        self.require_same_site()
        await self.find(conversation_id)
        async with self.services.uploads.reading(conversation_id, name) as (row, reader):
            await self.send_file(
                reader,
                name=row.name,
                media_type=row.media_type,
                sha256=row.sha256,
                size_bytes=row.size_bytes,
            )

    @endpoint
    async def delete(self, conversation_id: str, name: str) -> None:
        """Delete it, in the sandbox too."""
        await self.find(conversation_id)
        await self.services.uploads.delete(conversation_id, name)
        self.set_status(204)
        self.finish()

    async def begin(self, conversation_id: str = "", name: str = "", **_: str) -> None:
        """Find the conversation; open the file."""
        await self.find(conversation_id)
        self.require_room(self.services.limits.upload_bytes)
        self._promised = parse_content_digest(self.request.headers.get("Content-Digest"))
        self._file = await self.services.uploads.receive(conversation_id, name)

    async def take(self, chunk: bytes) -> None:
        """Store a piece."""
        assert self._file is not None
        await self._file.write(chunk)

    async def drop(self) -> None:
        """Let go of the file."""
        file, self._file = self._file, None
        if file is not None:
            await file.close()


def upload_json(base_url: str, row: UploadRecord) -> dict[str, JsonValue]:
    """Give the model of an upload."""
    place = (base_url, row.conversation_id, row.name)
    return {
        "id": row.upload_id,
        "name": row.name,
        "size_bytes": row.size_bytes,
        "media_type": row.media_type,
        "preview": row.preview,
        "sha256": row.sha256,
        "created_at": row.created_at.isoformat(),
        "url": upload_url(*place),
        "preview_url": preview_link(row.preview, upload_preview_url(*place)),
    }
