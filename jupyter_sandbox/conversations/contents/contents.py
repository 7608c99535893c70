"""The contents service of all conversations: makes a manager for one, and lets go at the stop."""

from __future__ import annotations

import asyncio
import logging
import weakref

from ...errors import NotFound
from ...models import ConversationRecord, Limits
from ...policy.names import decide_file_name
from ...previews.rendering import Renderer
from ..conversations import Conversations
from ..shared_files import SharedFiles
from ..uploads import Uploads
from .area import Area
from .chunked import ChunkedFiles
from .manager import SandboxContentsManager
from .outputs_area import OutputsArea
from .uploads_area import UploadsArea
from .workspace_area import WorkspaceArea


class Contents:
    """What gives each conversation its contents manager.

    Parameters
    ----------
    workspace_path : str
        Of the workspace inside; "" hides it.
    trust_outputs : bool
        Whether outputs that are stored in notebooks are given as they are.
    renderer : Renderer
        Reads and writes notebooks.
    """

    def __init__(
        self,
        conversations: Conversations,
        uploads: Uploads,
        shared: SharedFiles,
        limits: Limits,
        workspace_path: str,
        trust_outputs: bool,
        renderer: Renderer,
        log: logging.Logger,
    ) -> None:
        self._conversations = conversations
        self._uploads = uploads
        self._shared = shared
        self._limits = limits
        self._workspace_path = workspace_path
        self._trust_outputs = trust_outputs
        self._renderer = renderer
        self._log = log
        self._chunked = ChunkedFiles()
        self._naming: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<Contents {self._chunked!r}>"

    def of(self, record: ConversationRecord) -> SandboxContentsManager:
        """Give the manager of a conversation whose owner was checked."""
        lock = self._naming.get(record.conversation_id)
        if lock is None:
            lock = self._naming[record.conversation_id] = asyncio.Lock()
        return SandboxContentsManager(
            record.conversation_id,
            record.owner,
            record.created_at,
            self._areas(record),
            chunked=self._chunked,
            naming=lock,
            limit_bytes=self._limits.upload_bytes,
            trust_outputs=self._trust_outputs,
            renderer=self._renderer,
            log=self._log,
        )

    def area(self, record: ConversationRecord, path: str) -> tuple[Area, tuple[str, ...]]:
        """Give the area of a file's path, and the path in it; ``NotFound`` if none can be."""
        name, *parts = path.strip("/").split("/")
        area = self._areas(record).get(name)
        if area is None or not parts or not all(decide_file_name(part) for part in parts):
            raise NotFound("There is no such file.")
        return area, tuple(parts)

    async def close(self) -> None:
        """Let go of files that wait for their next chunk. Twice is once."""
        await self._chunked.close()

    def _areas(self, record: ConversationRecord) -> dict[str, Area]:
        conversation_id, created_at = record.conversation_id, record.created_at
        areas: list[Area] = [
            UploadsArea(conversation_id, created_at, self._uploads),
            OutputsArea(conversation_id, created_at, self._shared),
        ]
        if self._workspace_path:
            live = self._conversations.live(conversation_id)
            limit = self._limits.upload_bytes
            areas.append(WorkspaceArea(live, created_at, self._workspace_path, limit))
        return {area.name: area for area in areas}
