"""The folder ``outputs``: the newest version of each shared file, where it was shared from.

Read-only but for deleting: what the user has is what was shared, never a changed copy under the
same name; and deleting is how somebody makes room when the conversation's capacity is used up. The
sandbox's own file, if there is one, is left alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime

from ...errors import Forbidden, NotFound
from ...models import ShareRecord
from ..shared_files import SharedFiles
from .area import Area, Node, Parts, Reader


class OutputsArea(Area):
    """The shared files of one conversation."""

    def __init__(self, conversation_id: str, created_at: datetime, shared: SharedFiles) -> None:
        super().__init__("outputs")
        self._conversation_id = conversation_id
        self._created_at = created_at
        self._shared = shared

    async def look(self, parts: Parts) -> Node | None:
        """Give the folder, one in it, or a shared file."""
        if not parts:
            return Node(self.name, True, False, self._created_at, self._created_at)
        below: list[ShareRecord] = []
        for share in await self._shared.newest(self._conversation_id):
            names = tuple(share.path.split("/"))
            if names == parts:
                return self._node(share)
            if names[: len(parts)] == parts:
                below.append(share)
        return self._folder(parts, below) if below else None

    async def entries(self, parts: Parts) -> list[Node]:
        """Give files and folders, in the order of their names."""
        depth = len(parts)
        files: dict[str, Node] = {}
        folders: dict[str, list[ShareRecord]] = {}
        for share in await self._shared.newest(self._conversation_id):
            names = tuple(share.path.split("/"))
            if names[:depth] != parts or len(names) == depth:
                continue
            if len(names) == depth + 1:
                files[names[depth]] = self._node(share)
            else:
                folders.setdefault(names[depth], []).append(share)
        # A path may have become a folder's since it was shared: the file has the name.
        nodes = {name: self._folder((*parts, name), below) for name, below in folders.items()}
        return [node for _, node in sorted({**nodes, **files}.items())]

    @contextlib.asynccontextmanager
    async def reading(self, parts: Parts) -> AsyncIterator[tuple[Node, Reader]]:
        """Open the newest version."""
        async with self._shared.reading(self._conversation_id, "/".join(parts)) as (share, reader):
            yield self._node(share), reader

    async def remove(self, parts: Parts) -> None:
        """Delete all versions of a shared file, or of all files in a folder."""
        if not parts:
            raise Forbidden("The folder outputs cannot be deleted.")
        if not await self._shared.remove(self._conversation_id, "/".join(parts)):
            raise NotFound("There is no such file.")

    def _folder(self, parts: Parts, below: list[ShareRecord]) -> Node:
        moments = [share.created_at for share in below]
        return Node(self.path(parts), True, False, min(moments), max(moments))

    def _node(self, share: ShareRecord) -> Node:
        return Node(
            path=self.path(tuple(share.path.split("/"))),
            is_folder=False,
            is_writable=False,
            created_at=share.created_at,
            modified_at=share.created_at,
            size_bytes=share.size_bytes,
            media_type=share.media_type,
            sha256=share.sha256,
        )
