"""What is removed now and then of files: stored ones without a record, and what is half written.

The rule: work under way, also of other servers on the same data, is left alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import metrics
from ..stores.database import Database
from ..stores.unfinished import remove_unfinished
from ..stores.upload_records import UploadRecords
from ..stores.vault import Vault


class Sweeping:
    """Knows what is to stay.

    Parameters
    ----------
    unfinished : mapping
        By directory the names of what is made there beside its name, and may be left so.
    """

    def __init__(
        self,
        database: Database,
        uploads: UploadRecords,
        vault: Vault,
        log: logging.Logger,
        unfinished: Mapping[Path, Sequence[str]] | None = None,
    ) -> None:
        self._database = database
        self._uploads = uploads
        self._vault = vault
        self._log = log
        self._unfinished = dict(unfinished or {})

    def __repr__(self) -> str:
        return f"<Sweeping {self._vault!r}>"

    async def sweep(self) -> None:
        """Do it once."""
        for directory, names in self._unfinished.items():
            try:
                left = await asyncio.to_thread(remove_unfinished, directory, *names)
            except OSError as exc:
                self._log.warning("sweep of %s: %s", directory, exc)
            else:
                if left:
                    metrics.count_reaped("file", left)
                    self._log.info("reaped: %d unfinished files in %s", left, directory)
        removed = await self._vault.sweep(self._kept)
        if removed:
            metrics.count_reaped("file", removed)
            self._log.info("reaped: %d files of the vault without a record", removed)

    async def _kept(self, conversation_id: str) -> set[str] | None:
        if await self._database.conversation(conversation_id) is None:
            return None
        ids = {row.upload_id for row in await self._uploads.all(conversation_id)}
        return ids | {row.stored_name for row in await self._database.shares(conversation_id)}
