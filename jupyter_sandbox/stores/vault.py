"""The vault: the one ``FileStore``. It seals files on their way in and opens them on their way out.

It knows keys, blobs and the sealed form; what files there are is for the database. The rule: a byte
leaves only after the whole file was found to be right, once for each state of its blob, and each
chunk is authenticated again when it is delivered.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Self

from ..errors import LimitExceeded
from ..models import FileIdentity, StoredFile
from .blobs import BlobReader, BlobStore, BlobWriter
from .conversation_keys import ConversationKeys
from .disk_threads import DiskThreads
from .room import Room
from .vault_format import (
    CHUNK_BYTES,
    FOOTER_BYTES,
    HEADER_BYTES,
    SEALED_CHUNK_BYTES,
    Opening,
    Sealing,
    chunk_count,
    damaged,
    sealed_size,
)

_WRITE_BYTES = 512 * 1024
_READ_CHUNKS = 16  # a MiB a step
_HEAD_BYTES = 8192
_MOST_VERIFIED = 4096


class Vault:
    """Encrypted files.

    Parameters
    ----------
    blobs : BlobStore
        Where the sealed files lie.
    keys : ConversationKeys
    threads : DiskThreads
        Closed with the vault.
    unversioned : mapping of str to int
        The shared files that were sealed without their version, by file id, and which it is.
    room : Room
        Asked before more is kept.
    """

    def __init__(
        self,
        blobs: BlobStore,
        keys: ConversationKeys,
        threads: DiskThreads,
        unversioned: Mapping[str, int],
        room: Room,
    ) -> None:
        self.blobs = blobs
        self._keys = keys
        self._threads = threads
        self._unversioned = unversioned
        self._room = room
        self._verified: OrderedDict[str, tuple[int, ...]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Vault {self.blobs!r}>"

    @property
    def keys(self) -> ConversationKeys:
        """The keys of conversations, which seal their rows in the database, too."""
        return self._keys

    def sink(self, identity: FileIdentity, max_bytes: int) -> VaultSink:
        """Give what takes a new file of at most ``max_bytes``."""
        kept = self._remember
        return VaultSink(
            identity, max_bytes, self.blobs, self._keys, self._threads, kept, self._room
        )

    @contextlib.asynccontextmanager
    async def reading(self, file: StoredFile) -> AsyncIterator[VaultReader]:
        """Open a file, and make sure that all of it is right."""
        identity = file.identity
        key = await self._keys.get(identity.conversation_id)
        blob = await self._threads.run(
            lambda: self.blobs.open(identity.conversation_id, identity.file_id)
        )
        try:
            opening = await self._threads.run(
                lambda: _open(blob, file, key, self._may_be_unversioned)
            )
            if self._verified.get(identity.file_id) != blob.state:
                await _verify(blob.read_at, opening, file, self._threads)
                self._remember(identity.file_id, blob.state)
            reader = VaultReader(blob, opening, file.size_bytes, self._threads)
            try:
                yield reader
            finally:
                await reader.settle()
        finally:
            blob.close()

    async def remove(self, conversation_id: str, file_id: str) -> None:
        """Remove one file."""
        await self._threads.run(lambda: self.blobs.remove(conversation_id, file_id))
        self._verified.pop(file_id, None)

    async def remove_conversation(self, conversation_id: str) -> bool:
        """Destroy a conversation's key, which is what deletes its files; then remove them.

        False: a copy of the key is left until ``erase_keys`` succeeds.
        """
        is_erased = await self._keys.destroy(conversation_id)
        await self._threads.run(lambda: self.blobs.remove_area(conversation_id))
        return is_erased

    async def erase_keys(self) -> bool:
        """Remove what is left of deleted keys; False: it is to be tried again."""
        return await self._keys.erase()

    async def sweep(self, kept: Callable[[str], Awaitable[set[str] | None]]) -> int:
        """Remove what crashes have left; give how many files that were. For the server's start.

        Parameters
        ----------
        kept : callable
            Gives the ids of a conversation's recorded files, or None if there is no such
            conversation.
        """
        removed = 0
        for area in await self._threads.run(self.blobs.areas):
            names = await self._threads.run(partial(self.blobs.names, area))
            known = await kept(area)
            for name in names:
                if known is None or name not in known:
                    removed += await self._remove_stray(area, name, kept)
            if known is None:  # its server died after the record: of the key too nothing may stay
                await self._keys.destroy(area)
                await self._threads.run(partial(self.blobs.remove_empty_area, area))
        return removed

    async def close(self) -> None:
        """End the threads."""
        self._threads.close()

    def _may_be_unversioned(self, identity: FileIdentity) -> bool:
        return identity.kind == "upload" or (
            self._unversioned.get(identity.file_id) == identity.version
        )

    def _remember(self, file_id: str, state: tuple[int, ...]) -> None:
        """Note that this state of a blob was found to be right."""
        self._verified[file_id] = state
        if len(self._verified) > _MOST_VERIFIED:
            self._verified.popitem(last=False)

    async def _remove_stray(
        self, area: str, name: str, kept: Callable[[str], Awaitable[set[str] | None]]
    ) -> bool:
        stray = await self._threads.run(lambda: self.blobs.claim_stray(area, name))
        if stray is None:
            return False
        try:
            known = await kept(area)  # its writer may have let go a moment ago
            if known is not None and name in known:
                return False
            await self._threads.run(stray.remove)
            return True
        finally:
            stray.close()


class VaultReader:
    """An open file, known to be right."""

    def __init__(
        self, blob: BlobReader, opening: Opening, size_bytes: int, threads: DiskThreads
    ) -> None:
        self._blob = blob
        self._opening = opening
        self._size_bytes = size_bytes
        self._threads = threads
        self._steps: set[asyncio.Task[bytes]] = set()

    def __repr__(self) -> str:
        return f"<VaultReader {self._size_bytes} bytes>"

    async def pieces(self, first: int = 0, size: int = -1) -> AsyncGenerator[bytes]:
        """Give bytes in pieces, the next one being opened while the caller has one."""
        end = self._size_bytes if size < 0 else min(self._size_bytes, first + size)
        if first >= end:
            return
        chunk, last = first // CHUNK_BYTES, (end - 1) // CHUNK_BYTES
        scratch = bytearray()  # used again by every step; one runs at a time
        ahead = self._begin(chunk, last, scratch)
        while True:
            data = await ahead
            start = chunk * CHUNK_BYTES
            chunk += _READ_CHUNKS
            if chunk <= last:
                ahead = self._begin(chunk, last, scratch)
            low, high = max(first - start, 0), end - start
            yield data if low == 0 and high >= len(data) else data[low:high]
            if chunk > last:
                return

    async def settle(self) -> None:
        """Wait for the threads that still read: the blob must not be closed under them."""
        for step in self._steps:
            step.cancel()
        if self._steps:
            await asyncio.wait(self._steps)

    def _begin(self, chunk: int, last: int, scratch: bytearray) -> asyncio.Task[bytes]:
        step = asyncio.create_task(self._step(chunk, last, scratch))
        self._steps.add(step)
        step.add_done_callback(self._ended)
        return step

    def _ended(self, step: asyncio.Task[bytes]) -> None:
        self._steps.discard(step)
        if not step.cancelled():
            step.exception()  # whoever asks for the piece gets it; nobody need

    async def _step(self, chunk: int, last: int, scratch: bytearray) -> bytes:
        count = min(_READ_CHUNKS, last - chunk + 1)
        return await self._threads.run(
            lambda: bytes(_chunks(self._blob.read_at, self._opening, chunk, count, scratch))
        )


class VaultSink:
    """A file on its way in: hashed, sealed and written in threads, a batch behind its writer."""

    def __init__(
        self,
        identity: FileIdentity,
        max_bytes: int,
        blobs: BlobStore,
        keys: ConversationKeys,
        threads: DiskThreads,
        kept: Callable[[str, tuple[int, ...]], None],
        room: Room,
    ) -> None:
        self.size_bytes = 0
        self.head = b""
        self._identity = identity
        self._max_bytes = max_bytes
        self._blobs = blobs
        self._keys = keys
        self._threads = threads
        self._kept = kept
        self._room = room
        self._key = b""
        self._sealing: Sealing | None = None
        self._blob: BlobWriter | None = None
        self._digest = hashlib.sha256()
        self._waiting = bytearray()
        self._under_way: asyncio.Future[None] | None = None
        self._sha256 = ""
        self._written_bytes = HEADER_BYTES  # of whole chunks: so much was read back

    def __repr__(self) -> str:
        return f"<VaultSink {self._identity.file_id} {self.size_bytes} bytes>"

    async def __aenter__(self) -> Self:
        self._room.require()
        self._key = await self._keys.get_or_make(self._identity.conversation_id)
        self._sealing = Sealing(self._identity, self._key)
        try:
            await self._threads.run(self._begin)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._under_way is not None:
            await asyncio.wait([self._under_way])
            if not self._under_way.cancelled():
                self._under_way.exception()
        await self._close()

    async def write(self, data: bytes) -> None:
        """Add bytes; waits while the batch before is still being written."""
        self._room.require()
        self.size_bytes += len(data)
        if self.size_bytes > self._max_bytes:
            raise LimitExceeded(f"The file is larger than {self._max_bytes:,} bytes.", status=413)
        if len(self.head) < _HEAD_BYTES:
            self.head += data[: _HEAD_BYTES - len(self.head)]
        self._waiting += data
        if len(self._waiting) >= _WRITE_BYTES:
            await self._settle()
            batch, self._waiting = self._waiting, bytearray()
            self._under_way = asyncio.ensure_future(self._threads.run(lambda: self._seal(batch)))

    async def finish(self) -> str:
        """Write the rest; read all back and compare its hash."""
        if not self._sha256:
            await self._settle()
            await self._threads.run(self._seal_rest)
            assert self._blob is not None
            sha256 = self._digest.hexdigest()
            file = StoredFile(self._identity, self.size_bytes, sha256)
            await self._threads.run(partial(self._check_rest, file))
            self._sha256 = sha256
        return self._sha256

    async def commit(self) -> str:
        """Put the file in its place."""
        sha256 = await self.finish()
        assert self._blob is not None
        self._kept(self._identity.file_id, await self._threads.run(self._blob.commit))
        return sha256

    def _begin(self) -> None:  # keeps the blob: it must not get lost if we are cancelled meanwhile
        assert self._sealing is not None
        self._blob = self._blobs.create(self._identity.conversation_id, self._identity.file_id)
        self._blob.write(self._sealing.header)

    def _seal(self, batch: bytearray) -> None:
        """Hash, seal and write a batch; read back what was written."""
        assert self._sealing is not None
        assert self._blob is not None
        self._digest.update(batch)
        sealed = self._sealing.update(batch)
        self._blob.write(sealed)
        written = self._blob.read_at(self._written_bytes, len(sealed))
        if len(written) != len(sealed):
            raise damaged("it is shorter than what was written")
        self._sealing.check((self._written_bytes - HEADER_BYTES) // SEALED_CHUNK_BYTES, written)
        self._written_bytes += len(sealed)

    def _seal_rest(self) -> None:
        assert self._sealing is not None
        assert self._blob is not None
        self._seal(self._waiting)
        self._waiting = bytearray()
        self._blob.write(self._sealing.finish(self.size_bytes, self._digest.digest()))

    def _check_rest(self, file: StoredFile) -> None:
        """Open the file as a reader will: header, footer, and the last chunk."""
        assert self._blob is not None
        opening = _open(self._blob, file, self._key)
        _chunks(self._blob.read_at, opening, chunk_count(file.size_bytes) - 1, 1, bytearray())

    async def _settle(self) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            try:
                await asyncio.shield(under_way)
            except asyncio.CancelledError:
                self._under_way = under_way  # `__aexit__` waits for it
                raise

    async def _close(self) -> None:
        blob, self._blob = self._blob, None
        if blob is not None:
            await self._threads.run(blob.close)


def _open(
    blob: BlobReader | BlobWriter,
    file: StoredFile,
    key: bytes,
    unversioned: Callable[[FileIdentity], bool] = lambda identity: False,
) -> Opening:
    """Check that it is this file and has all its bytes; the chunks are not looked at yet."""
    size = sealed_size(file.size_bytes)
    if getattr(blob, "size_bytes", size) != size:
        raise damaged(f"{file.identity.file_id}: it is shorter or longer than it was")
    footer = blob.read_at(size - FOOTER_BYTES, FOOTER_BYTES)
    return Opening(file, key, blob.read_at(0, HEADER_BYTES), footer, unversioned)


def _chunks(
    read_at: Callable[[int, int], bytes],
    opening: Opening,
    chunk: int,
    count: int,
    scratch: bytearray,
) -> memoryview:
    first = HEADER_BYTES + chunk * SEALED_CHUNK_BYTES
    size = opening.sealed_bytes(chunk, count)
    sealed = read_at(first, size)
    if len(sealed) != size:
        raise damaged("it became shorter")
    return opening.chunks(chunk, sealed, scratch)


async def _verify(
    read_at: Callable[[int, int], bytes], opening: Opening, file: StoredFile, threads: DiskThreads
) -> None:
    """Open every chunk and compare the hash of all; ``Unavailable`` if anything is not right."""
    digest = hashlib.sha256()
    scratch = bytearray()

    def step(chunk: int, count: int) -> None:
        digest.update(_chunks(read_at, opening, chunk, count, scratch))

    chunks = chunk_count(file.size_bytes)
    many = _READ_CHUNKS * 4
    for chunk in range(0, chunks, many):
        await threads.run(partial(step, chunk, min(many, chunks - chunk)))
    if digest.hexdigest() != file.sha256:
        raise damaged(f"{file.identity.file_id}: the hash is another")
