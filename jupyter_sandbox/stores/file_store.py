"""What keeps the bytes of uploads and shared files, as tools and downloads see it.

The rule: a file is there whole or not at all, and what comes out is what went in, or an error
before the first byte. ``vault.Vault`` is the one that there is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol, Self

from ..models import FileIdentity, StoredFile


class FileSink(Protocol):
    """Takes one file. Used as ``async with``; left without ``commit``, nothing is kept.

    Write the file's record down before you leave the block: until then nobody takes the file for
    one without a record and removes it.
    """

    size_bytes: int
    head: bytes
    """The first bytes (8 KiB), which tell what kind of file it is."""

    async def __aenter__(self) -> Self:
        """Begin."""
        ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Forget what was not committed."""
        ...

    async def write(self, data: bytes) -> None:
        """Add bytes. ``LimitExceeded`` (413) beyond the limit, ``Unavailable`` when it fails."""
        ...

    async def finish(self) -> str:
        """Write all and read it back; give the SHA-256 in hexadecimal. Nothing is kept yet."""
        ...

    async def commit(self) -> str:
        """Finish if need be, keep the file for good; give the SHA-256 in hexadecimal."""
        ...


class FileReader(Protocol):
    """One stored file, known to be whole and right."""

    def pieces(self, first: int = 0, size: int = -1) -> AsyncGenerator[bytes]:
        """Give ``size`` bytes from ``first`` on (-1: to the end) in pieces of at most a MiB."""
        ...


class FileStore(Protocol):
    """Keeps files by their identity. All methods may raise ``Unavailable``."""

    def sink(self, identity: FileIdentity, max_bytes: int) -> FileSink:
        """Give what takes a new file of at most ``max_bytes``; an id is used once."""
        ...

    def reading(self, file: StoredFile) -> AbstractAsyncContextManager[FileReader]:
        """Open a file: ``NotFound`` if it is gone; replacing or removing it disturbs no reader."""
        ...

    async def remove(self, conversation_id: str, file_id: str) -> None:
        """Remove one file. A missing one is fine."""
        ...

    async def remove_conversation(self, conversation_id: str) -> bool:
        """Remove all files of a conversation, and what is needed to read them. Twice is once.

        False: something that is needed to read them is left for a while; the store goes on trying.
        """
        ...

    async def close(self) -> None:
        """End the threads, after the work under way. Twice is once."""
        ...
