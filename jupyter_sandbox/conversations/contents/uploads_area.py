"""The folder ``uploads``: what the user gave to the conversation, one level deep.

It is the store's uploads under another interface; their rules (limit, names, atomic replacement,
the sandbox's copy) are those of ``Uploads``.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime

from ...errors import Forbidden, InvalidRequest, NotFound
from ...models import UploadRecord
from ..uploads import Uploads
from .area import Area, Incoming, Node, Parts, Reader


class UploadsArea(Area):
    """The uploads of one conversation."""

    def __init__(self, conversation_id: str, created_at: datetime, uploads: Uploads) -> None:
        super().__init__("uploads")
        self._conversation_id = conversation_id
        self._created_at = created_at
        self._uploads = uploads

    async def look(self, parts: Parts) -> Node | None:
        """Give the folder, or the upload of a name."""
        if not parts:
            return Node(self.name, True, True, self._created_at, self._created_at)
        if len(parts) > 1:
            return None
        try:
            return self._node(await self._uploads.find(self._conversation_id, parts[0]))
        except NotFound:
            return None

    async def entries(self, parts: Parts) -> list[Node]:
        """Give all uploads."""
        return [self._node(row) for row in await self._uploads.list(self._conversation_id)]

    @contextlib.asynccontextmanager
    async def reading(self, parts: Parts) -> AsyncIterator[tuple[Node, Reader]]:
        """Open an upload."""
        if len(parts) != 1:
            raise NotFound("There is no such file.")
        async with self._uploads.reading(self._conversation_id, parts[0]) as (row, reader):
            yield self._node(row), reader

    async def begin(self, parts: Parts) -> Incoming:
        """Begin an upload."""
        return await self._uploads.receive(self._conversation_id, self._one(parts))

    async def remove(self, parts: Parts) -> None:
        """Delete an upload, in the sandbox too."""
        if not parts:
            raise Forbidden("The folder uploads cannot be deleted.")
        await self._uploads.delete(self._conversation_id, self._one(parts))

    async def rename(self, parts: Parts, to: Parts) -> None:
        """Give an upload another name."""
        if not parts:
            raise Forbidden("The folder uploads cannot be renamed.")
        await self._uploads.rename(self._conversation_id, self._one(parts), self._one(to))

    def _one(self, parts: Parts) -> str:
        if len(parts) != 1:
            raise InvalidRequest("There can be no folders in uploads.", status=400)
        return parts[0]

    def _node(self, row: UploadRecord) -> Node:
        return Node(
            path=self.path((row.name,)),
            is_folder=False,
            is_writable=True,
            created_at=row.created_at,
            modified_at=row.created_at,
            size_bytes=row.size_bytes,
            media_type=row.media_type,
            sha256=row.sha256,
        )
