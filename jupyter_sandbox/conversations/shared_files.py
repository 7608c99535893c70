"""What a conversation has shared: the newest versions, their bytes, and their removal.

It knows whose files they are no more than ``find`` has decided. The rule of a removal:
records first, in one step, then the bytes; what a crash leaves between is for the sweep.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from ..errors import NotFound, Unavailable
from ..models import ShareRecord
from ..stores.database import Database
from ..stores.file_store import FileReader, FileStore
from ..stores.share_records import ShareRecords
from .placing import newest


class SharedFiles:
    """The shared files of all conversations.

    Parameters
    ----------
    changed : callable
        Is told the id of a conversation whose files take another size now.
    """

    def __init__(
        self,
        database: Database,
        records: ShareRecords,
        files: FileStore,
        changed: Callable[[str], None],
    ) -> None:
        self._database = database
        self._records = records
        self._files = files
        self._changed = changed

    def __repr__(self) -> str:
        return f"<SharedFiles {self._files!r}>"

    async def newest(self, conversation_id: str) -> list[ShareRecord]:
        """Give the newest version of each path, sorted by path."""
        return newest(await self._database.shares(conversation_id))

    @contextlib.asynccontextmanager
    async def reading(
        self, conversation_id: str, path: str
    ) -> AsyncIterator[tuple[ShareRecord, FileReader]]:
        """Open the newest version of a path; ``NotFound`` if it was not shared."""
        share = await self._database.share(conversation_id, path)
        if share is None:
            raise NotFound("There is no such file.")
        async with self._files.reading(share.stored) as reader:
            yield share, reader

    async def remove(self, conversation_id: str, path: str) -> int:
        """Remove all versions of a path and of all paths below it; give how many there were."""
        removed = await self._records.remove(conversation_id, path)
        self._changed(conversation_id)
        for share in removed:
            with contextlib.suppress(Unavailable):
                await self._files.remove(conversation_id, share.stored_name)
        return len(removed)
