"""What is removed now and then of stored files: those without a record, and those half written.

The rule: work under way, also of other servers on the same data, is left alone.
"""

from __future__ import annotations

import logging

from .. import metrics
from ..stores.database import Database
from ..stores.upload_records import UploadRecords
from ..stores.vault import Vault


class Sweeping:
    """Knows what is to stay."""

    def __init__(
        self, database: Database, uploads: UploadRecords, vault: Vault, log: logging.Logger
    ) -> None:
        self._database = database
        self._uploads = uploads
        self._vault = vault
        self._log = log

    def __repr__(self) -> str:
        return f"<Sweeping {self._vault!r}>"

    async def sweep(self) -> None:
        """Do it once."""
        removed = await self._vault.sweep(self._kept)
        if removed:
            metrics.count_reaped("file", removed)
            self._log.info("reaped: %d files of the vault without a record", removed)

    async def _kept(self, conversation_id: str) -> set[str] | None:
        if await self._database.conversation(conversation_id) is None:
            return None
        ids = {row.upload_id for row in await self._uploads.all(conversation_id)}
        return ids | {row.stored_name for row in await self._database.shares(conversation_id)}
