"""Puts a conversation's files in place in its sandbox: uploads always, shared outputs in a new one.

It asks the records what there should be and the vault for the bytes. The rule: the store is the
truth and the sandbox a cache, so every step compares with the records again after it; a file that
cannot be had spoils no sandbox, it is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import AsyncIterator

from ..errors import LimitExceeded, NotFound, SandboxError, Unavailable
from ..fair_turns import in_thread
from ..models import ShareRecord, StoredFile, UploadRecord
from ..policy.memory import decide_plaintext
from ..sandbox.link import GuestError
from ..sandbox.sandbox import Sandbox
from ..sandbox.sandboxes import Sandboxes
from ..stores.database import Database
from ..stores.file_store import FileStore
from ..stores.upload_records import UploadRecords

_TRIES = 20


class Placing:
    """Knows how files get into sandboxes; one for all conversations of this process."""

    def __init__(
        self,
        sandboxes: Sandboxes,
        database: Database,
        uploads: UploadRecords,
        files: FileStore,
        log: logging.Logger,
    ) -> None:
        self._sandboxes = sandboxes
        self._dirs = sandboxes.settings.plaintext
        self._database = database
        self._uploads = uploads
        self._files = files
        self._log = log
        self._promised_bytes = 0  # of files that are being placed
        # Guards the placing of one conversation's uploads: two versions of a name in order.
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<Placing {self._dirs!r}>"

    async def create(self, conversation_id: str, sandbox_id: str) -> tuple[Sandbox, list[str]]:
        """Make a sandbox with the conversation's files; on failure nothing is left.

        Returns
        -------
        (sandbox, lost)
            ``lost`` has half a sentence for each file that could not be put in place.
        """
        placing = asyncio.ensure_future(self._prepare(conversation_id, sandbox_id))
        try:
            sandbox = await self._sandboxes.create(sandbox_id, conversation_id)
        except BaseException:
            placing.cancel()
            await asyncio.wait([placing])
            await asyncio.to_thread(self._dirs.remove, sandbox_id)
            raise
        try:
            lost, shares = await placing
            for share in shares:
                lost += await self._put_back(sandbox, share)
        except BaseException:
            placing.cancel()
            await asyncio.wait([placing])
            await asyncio.shield(sandbox.detach())
            await asyncio.shield(self._sandboxes.remove(sandbox_id))
            raise
        return sandbox, lost

    async def fill(self, conversation_id: str, sandbox: Sandbox, has_files: bool) -> list[str]:
        """Put the conversation's files into a sandbox that was nobody's; give what was lost.

        Its way out is the conversation's from here on. ``has_files`` is false if it had none when
        the sandbox became its own.
        """
        if not has_files:
            await self._sandboxes.assign(sandbox, conversation_id)
            return []
        opening = asyncio.ensure_future(self._sandboxes.assign(sandbox, conversation_id))
        try:
            lost = await self.place_all(conversation_id, sandbox.sandbox_id)
            for share in newest(await self._database.shares(conversation_id)):
                lost += await self._put_back(sandbox, share)
            await opening
        finally:
            opening.cancel()
        return lost

    async def place_all(self, conversation_id: str, sandbox_id: str) -> list[str]:
        """Make a sandbox's uploads those of the records; give what could not be put in place."""
        async with self._lock(conversation_id):
            rows = await self._uploads.all(conversation_id)
            await asyncio.to_thread(self._dirs.drop_unfinished, sandbox_id)
            there = await asyncio.to_thread(self._dirs.names, sandbox_id)
            named = {row.name for row in rows}
            for name in there:
                if name not in named:
                    self._dirs.drop(sandbox_id, name)
            lost = []
            for row in rows:
                try:
                    await self._place(conversation_id, sandbox_id, row.name)
                except SandboxError as exc:
                    lost.append(self._lost(conversation_id, f"the upload {row.name}", exc))
            return lost

    async def place(self, conversation_id: str, name: str) -> None:
        """Put an upload that has changed, or is gone, in place if there is a sandbox.

        Raises
        ------
        Unavailable
            It is stored, but could not be put into the sandbox.
        LimitExceeded
            413: likewise, because uploads of its owner take too much memory.
        """
        record = await self._database.conversation(conversation_id)
        if record is None or not record.sandbox_id:
            return
        if not await asyncio.to_thread(self._dirs.uploads(record.sandbox_id).is_dir):
            return  # it ended, or begins: then it gets all there is
        async with self._lock(conversation_id):
            await self._place(conversation_id, record.sandbox_id, name)

    async def _prepare(
        self, conversation_id: str, sandbox_id: str
    ) -> tuple[list[str], list[ShareRecord]]:
        await asyncio.to_thread(self._dirs.make, sandbox_id)
        lost = await self.place_all(conversation_id, sandbox_id)
        return lost, newest(await self._database.shares(conversation_id))

    async def _place(self, conversation_id: str, sandbox_id: str, name: str) -> None:
        """Make one name what its record says; the lock is held."""
        row: UploadRecord | None = None
        for _ in range(_TRIES):
            row = await self._uploads.get(conversation_id, name)
            if row is None:
                self._dirs.drop(sandbox_id, name)
            elif self._dirs.has(sandbox_id, name, row.size_bytes, row.created_at):
                return
            else:
                with contextlib.suppress(NotFound):  # replaced a moment ago: look again
                    async with self._room_for(conversation_id, row.size_bytes):
                        pieces = self._pieces(row.stored)
                        await self._dirs.place(sandbox_id, name, pieces, row.created_at)
            if await self._uploads.get(conversation_id, name) == row and (
                row is None or self._dirs.has(sandbox_id, name, row.size_bytes, row.created_at)
            ):
                return
        raise Unavailable("the upload is stored, but its bytes are not there" if row else "busy")

    @contextlib.asynccontextmanager
    async def _room_for(self, conversation_id: str, size_bytes: int) -> AsyncIterator[None]:
        """Keep room for a file that is placed in the body.

        ``LimitExceeded`` (413) if the uploads of its owner would take too much memory.
        """
        self._promised_bytes += size_bytes
        try:
            whole, free = await asyncio.to_thread(self._dirs.room)
            free -= self._promised_bytes - size_bytes
            if free - size_bytes < whole // 2:  # else nobody's take too much
                ids = await self._uploads.sandboxes_of_owner(conversation_id)
                own = await in_thread(lambda: sum(map(self._dirs.size_bytes, ids)))
                decision = decide_plaintext(own, size_bytes, free)
                if not decision:
                    raise LimitExceeded(
                        f"The file is stored, but not in the sandbox: {decision.reason}.",
                        status=413,
                    )
            yield
        finally:
            self._promised_bytes -= size_bytes

    async def _put_back(self, sandbox: Sandbox, share: ShareRecord) -> list[str]:
        path = f"{self._sandboxes.settings.outputs_path}/{share.path}"
        try:
            await sandbox.files.write(path, self._pieces(share.stored), overwrite=True)
        except (SandboxError, GuestError) as exc:
            return [self._lost(share.conversation_id, f"the shared file {share.path}", exc)]
        return []

    async def _pieces(self, file: StoredFile) -> AsyncIterator[bytes]:
        async with self._files.reading(file) as reader:
            async for piece in reader.pieces():
                yield piece

    def _lost(self, conversation_id: str, what: str, error: Exception) -> str:
        detail = error.detail if isinstance(error, SandboxError) else ""
        # The name is the user's: it goes to them, not to the log.
        self._log.error(
            "conversation %s: a file is not in its sandbox: %s %s", conversation_id, error, detail
        )
        return f"{what} ({error})"

    def _lock(self, conversation_id: str) -> asyncio.Lock:
        lock = self._locks.get(conversation_id)
        if lock is None:
            lock = self._locks[conversation_id] = asyncio.Lock()
        return lock


def newest(shares: list[ShareRecord]) -> list[ShareRecord]:
    """Give the newest version of each path, sorted by path."""
    by_path: dict[str, ShareRecord] = {}
    for share in shares:
        if share.path not in by_path or by_path[share.path].version < share.version:
            by_path[share.path] = share
    return [by_path[path] for path in sorted(by_path)]
