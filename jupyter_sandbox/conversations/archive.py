"""All shared files of a conversation as one zip, made while it is sent.

It knows the store and the zip library, which reads its files by iterating in a thread; the files
come from the loop. The rule: memory stays flat, entries are plain files with the paths that were
shared, and every file is found to be right before the first byte leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

from zipstream import ZIP_STORED, ZipStream

from ..fair_turns import in_thread
from ..models import ShareRecord
from ..stores.file_store import FileStore


class Archive:
    """A zip of these files, not compressed: its size is known before it is made.

    Parameters
    ----------
    shares : list of ShareRecord
        One for each path.
    """

    def __init__(self, files: FileStore, shares: list[ShareRecord]) -> None:
        self._files = files
        self._shares = shares
        self._loop = asyncio.get_running_loop()
        self._current: AsyncGenerator[bytes] | None = None
        self._zip = ZipStream(compress_type=ZIP_STORED, sized=True)
        for share in shares:
            self._zip.add(self._contents(share), share.path, size=share.size_bytes)
        self.size_bytes = len(self._zip)

    def __repr__(self) -> str:
        return f"<Archive of {len(self._shares)} files>"

    async def check(self) -> None:
        """Raise ``Unavailable`` if a file is not right."""
        for share in self._shares:
            async with self._files.reading(share.stored):
                pass

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Give the zip; the thread makes a piece when one is asked for. Close it when done."""
        pieces = iter(self._zip)
        try:
            while True:
                step = asyncio.ensure_future(in_thread(next, pieces, None))
                try:
                    piece = await asyncio.shield(step)
                except asyncio.CancelledError:
                    await asyncio.wait([step])
                    raise
                if piece is None:
                    return
                yield piece
        finally:
            if self._current is not None:
                await self._current.aclose()

    def _contents(self, share: ShareRecord) -> Iterator[bytes]:
        """Give a file's bytes, in the thread of the zip; the loop opens and closes the file."""
        self._current = self._read(share)
        while True:
            step = asyncio.run_coroutine_threadsafe(_next(self._current), self._loop)
            piece = step.result()
            if piece is None:
                return
            yield piece

    async def _read(self, share: ShareRecord) -> AsyncGenerator[bytes]:
        async with self._files.reading(share.stored) as reader:
            async for piece in reader.pieces():
                yield piece


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)
