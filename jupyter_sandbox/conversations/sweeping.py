"""What a server does once after its start: remove what crashes have left of files.

Stored files without a record, files half written, and the plaintext of sandboxes that are gone. The
rule: work under way, also of other servers on the same data, is left alone; nobody waits for it.
"""

from __future__ import annotations

import asyncio
import logging

from ..errors import SandboxError
from ..stores.database import Database
from ..stores.upload_records import UploadRecords
from ..stores.vault import Vault
from .placing import Placing


class Sweeping:
    """The sweep, in the background."""

    def __init__(
        self,
        database: Database,
        uploads: UploadRecords,
        vault: Vault,
        placing: Placing,
        log: logging.Logger,
    ) -> None:
        self._database = database
        self._uploads = uploads
        self._vault = vault
        self._placing = placing
        self._log = log
        self._task = asyncio.ensure_future(self._sweep())

    def __repr__(self) -> str:
        return f"<Sweeping {'done' if self._task.done() else 'under way'}>"

    async def wait(self) -> None:
        """Wait for its end."""
        await asyncio.wait([self._task])

    async def close(self) -> None:
        """Stop it. Twice is once."""
        self._task.cancel()
        await self.wait()

    async def _sweep(self) -> None:
        try:
            removed = await self._vault.sweep(self._kept)
            if removed:
                self._log.info("vault: %d files without a record removed", removed)
            await self._placing.sweep()
        except SandboxError as exc:
            self._log.warning("sweep of files: %s %s", exc, exc.detail)

    async def _kept(self, conversation_id: str) -> set[str] | None:
        if await self._database.conversation(conversation_id) is None:
            return None
        ids = {row.upload_id for row in await self._uploads.all(conversation_id)}
        return ids | {row.stored_name for row in await self._database.shares(conversation_id)}
