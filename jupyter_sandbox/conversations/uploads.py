"""What users give to a conversation: files under names, each whole or absent.

It knows whose files they are no more than ``find`` has decided. The rule: bytes first, then the
record, then the sandbox; whatever fails on the way leaves the file that was there before.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime

from .. import metrics
from ..errors import InvalidRequest, LimitExceeded, NotFound, Unavailable
from ..fair_turns import Turns, owner_here
from ..models import FileIdentity, JsonValue, Limits, UploadRecord
from ..policy.capacity import decide_capacity, decide_count
from ..policy.media import media_of
from ..policy.names import decide_file_name
from ..stores.database import Database
from ..stores.file_store import FileReader, FileSink, FileStore
from ..stores.upload_records import UploadRecords
from .journal import Journal
from .placing import Placing

_TRIES = 5
_AT_ONCE = 64  # of a conversation
_AT_ONCE_OF_ALL = 1024
_AT_ONCE_OF_OWNER = 128


class Uploads:
    """The uploads of all conversations.

    Parameters
    ----------
    changed : callable
        Is told the id of a conversation whose files take another size now.
    note : callable
        Is told what was uploaded and deleted (``AuditLog.note``).
    """

    def __init__(
        self,
        database: Database,
        records: UploadRecords,
        files: FileStore,
        placing: Placing,
        journal: Journal,
        limits: Limits,
        changed: Callable[[str], None],
        note: Callable[..., None] = lambda action, actor, conversation_id, **detail: None,
    ) -> None:
        self._database = database
        self._records = records
        self._files = files
        self._placing = placing
        self._journal = journal
        self._limits = limits
        self._changed = changed
        self._note = note
        self._receiving: dict[str, int] = {}
        self._places: Turns[None] = Turns(_AT_ONCE_OF_ALL, _AT_ONCE_OF_OWNER, 0)
        self._removing: set[asyncio.Future[None]] = set()

    def __repr__(self) -> str:
        return f"<Uploads receiving={sum(self._receiving.values())}>"

    async def list(self, conversation_id: str) -> list[UploadRecord]:
        """Give all, sorted by name."""
        return await self._records.all(conversation_id)

    async def close(self) -> None:
        """Wait for what is being removed. Twice is once."""
        if self._removing:
            await asyncio.wait(self._removing)

    async def receive(self, conversation_id: str, name: str) -> IncomingUpload:
        """Begin to take a file; the caller closes what it gets.

        Raises
        ------
        InvalidRequest
            No file may have this name.
        LimitExceeded
            The conversation's files exceed the capacity, or too many uploads are under way.
        """
        decision = decide_file_name(name)
        if not decision:
            raise InvalidRequest(f"Not uploaded: {decision.reason}.")
        usage = await self._database.usage(conversation_id)
        for decision in (
            decide_capacity(usage.total_bytes, self._limits.capacity_bytes),
            decide_count(usage.uploads + usage.shares),
        ):
            if not decision:
                raise LimitExceeded(decision.reason, status=413)
        if self._receiving.get(conversation_id, 0) >= _AT_ONCE:
            raise LimitExceeded(
                f"{_AT_ONCE} uploads to this conversation are under way; wait for one to end.",
                retry_after_seconds=1,
            )
        owner = owner_here()
        if not self._places.take(owner):
            raise LimitExceeded(
                "Too many uploads of this user, or of all, are under way; wait for one to end.",
                retry_after_seconds=1,
            )
        identity = FileIdentity(conversation_id, uuid.uuid4().hex, "upload", name)
        sink = self._files.sink(identity, self._limits.upload_bytes)
        self._receiving[conversation_id] = self._receiving.get(conversation_id, 0) + 1
        try:
            await sink.__aenter__()
        except BaseException:
            self._let_go(conversation_id, owner)
            raise
        return IncomingUpload(self, identity, owner, sink)

    async def delete(self, conversation_id: str, name: str) -> None:
        """Delete a file, in the sandbox too; ``NotFound`` if there is none."""
        row = await self.find(conversation_id, name)
        if not await self._records.delete(row):
            raise NotFound("There is no such file.")
        self._tell("deleted", row)
        self._note("upload_deleted", "", conversation_id, bytes=row.size_bytes)
        await self._files.remove(conversation_id, row.upload_id)
        self._changed(conversation_id)
        await self._placing.place(conversation_id, name)

    async def rename(self, conversation_id: str, name: str, to: str) -> UploadRecord:
        """Give a file another name: all at once, in the sandbox too.

        Its bytes are sealed under their name, so they are sealed anew.

        Raises
        ------
        InvalidRequest
            422: no file may have the name. 409: there is another file of this name.
        NotFound
            There is no such file, or it was replaced meanwhile.
        """
        decision = decide_file_name(to)
        if not decision:
            raise InvalidRequest(f"Not renamed: {decision.reason}.")
        async with self.reading(conversation_id, name) as (old, reader):
            identity = FileIdentity(conversation_id, uuid.uuid4().hex, "upload", to)
            async with self._files.sink(identity, old.size_bytes) as sink:
                async for piece in reader.pieces():
                    await sink.write(piece)
                sha256 = await sink.commit()
                media = media_of(to, sink.head)
                new = replace(
                    old,
                    upload_id=identity.file_id,
                    name=to,
                    sha256=sha256,
                    media_type=media.media_type,
                    preview=media.preview,
                )
                try:
                    if not await self._records.move(old, new):
                        raise NotFound("There is no such file.")
                except BaseException:
                    await asyncio.shield(self._files.remove(conversation_id, new.upload_id))
                    raise
        self._tell("renamed", new, {"from": name})
        self._remove_soon(old)
        await self._placing.place(conversation_id, to)
        await self._placing.place(conversation_id, name)
        return new

    @contextlib.asynccontextmanager
    async def reading(
        self, conversation_id: str, name: str
    ) -> AsyncIterator[tuple[UploadRecord, FileReader]]:
        """Open a file: the old one or the new one while it is replaced, never neither."""
        async with contextlib.AsyncExitStack() as stack:
            for attempt in range(_TRIES):
                row = await self.find(conversation_id, name)
                try:
                    reader = await stack.enter_async_context(self._files.reading(row.stored))
                except NotFound:
                    if attempt == _TRIES - 1:
                        raise
                    continue  # replaced between the record and the file
                yield row, reader
                return

    async def find(self, conversation_id: str, name: str) -> UploadRecord:
        """Give the record of a name; ``NotFound`` if there is none."""
        row = None
        if decide_file_name(name):
            row = await self._records.get(conversation_id, name)
        if row is None:
            raise NotFound("There is no such file.")
        return row

    async def _keep(self, identity: FileIdentity, sink: FileSink) -> tuple[UploadRecord, bool]:
        sha256 = await sink.commit()
        media = media_of(identity.name, sink.head)
        row = UploadRecord(
            upload_id=identity.file_id,
            conversation_id=identity.conversation_id,
            name=identity.name,
            size_bytes=sink.size_bytes,
            sha256=sha256,
            media_type=media.media_type,
            preview=media.preview,
            created_at=datetime.now(UTC),
        )
        try:
            previous = await self._records.put(row)
        except BaseException:
            await asyncio.shield(self._files.remove(row.conversation_id, row.upload_id))
            raise
        metrics.UPLOADED_BYTES.inc(row.size_bytes)
        self._note("upload", "", row.conversation_id, bytes=row.size_bytes)
        self._changed(row.conversation_id)
        self._tell("added" if previous is None else "replaced", row)
        if previous is not None:
            self._remove_soon(previous)
        await self._placing.place(row.conversation_id, row.name)
        return row, previous is not None

    def _tell(
        self, action: str, row: UploadRecord, more: dict[str, JsonValue] | None = None
    ) -> None:
        message: dict[str, JsonValue] = {
            "action": action,
            "name": row.name,
            "id": row.upload_id,
            "size_bytes": row.size_bytes,
            "media_type": row.media_type,
            "preview": row.preview,
            **(more or {}),
        }
        self._journal.add(row.conversation_id, "upload", message)

    def _remove_soon(self, row: UploadRecord) -> None:
        """Remove bytes that no record names any more; nobody waits, and a sweep finds the rest."""
        removing = asyncio.ensure_future(self._remove(row))
        self._removing.add(removing)
        removing.add_done_callback(self._removing.discard)

    async def _remove(self, row: UploadRecord) -> None:
        with contextlib.suppress(Unavailable):
            await self._files.remove(row.conversation_id, row.upload_id)

    def _let_go(self, conversation_id: str, owner: str) -> None:
        self._places.end(owner)
        self._receiving[conversation_id] -= 1
        if not self._receiving[conversation_id]:
            del self._receiving[conversation_id]


class IncomingUpload:
    """A file that is being uploaded. Closed without ``keep``, nothing of it stays."""

    def __init__(
        self, uploads: Uploads, identity: FileIdentity, owner: str, sink: FileSink
    ) -> None:
        self._uploads = uploads
        self._identity = identity
        self._owner = owner
        self._sink = sink
        self._closed = False
        self.name = identity.name

    def __repr__(self) -> str:
        return f"<IncomingUpload {self._identity.file_id} {self._sink.size_bytes} bytes>"

    async def write(self, data: bytes) -> None:
        """Add bytes; ``LimitExceeded`` (413) beyond the limit."""
        await self._sink.write(data)

    async def finish(self) -> str:
        """Write all and read it back; give the SHA-256 in hexadecimal."""
        return await self._sink.finish()

    async def keep(self) -> tuple[UploadRecord, bool]:
        """Keep it under its name; give its record and whether it replaced another file."""
        return await self._uploads._keep(self._identity, self._sink)

    async def close(self) -> None:
        """Let go of it. Twice is once."""
        if not self._closed:
            self._closed = True
            self._uploads._let_go(self._identity.conversation_id, self._owner)
            await self._sink.__aexit__(None, None, None)
