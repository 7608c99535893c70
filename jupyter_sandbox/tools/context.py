"""What a tool gets to work with: ports, named by what the tools need of them.

Tools know no engine, no HTTP and no user. ``sandbox.sandbox.Sandbox`` and
``stores.database.Database`` fit these protocols; so do the fakes of tests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..models import Areas, Emit, Limits, Outcome, ShareRecord, StoreUsage
from ..sandbox.file_models import Edit, Exported, FileBytes, LinesView, Listing, WriteResult
from ..stores.file_store import FileStore


class FilesPort(Protocol):
    """Files of the sandbox. Raises ``sandbox.link.GuestError`` and ``Unavailable``."""

    async def view(
        self, path: str, first: int = 1, last: int = -1, max_bytes: int = 1024 * 1024
    ) -> LinesView:
        """Give lines of a text file."""
        ...

    async def list(
        self,
        path: str,
        *,
        depth: int = 1,
        max_entries: int = 1000,
        hidden: bool = False,
        skip: Sequence[str] = (),
    ) -> Listing:
        """Give a directory's entries."""
        ...

    async def read(self, path: str, offset: int = 0, max_bytes: int = 4 * 1024 * 1024) -> FileBytes:
        """Give bytes of a file."""
        ...

    async def write(self, path: str, data: bytes, overwrite: bool = False) -> WriteResult:
        """Write a whole file."""
        ...

    async def replace(self, path: str, old: str, new: str) -> Edit:
        """Change the one occurrence of a text."""
        ...

    async def export(
        self, path: str, root: str, max_bytes: int, sink: Callable[[bytes], Awaitable[None]]
    ) -> Exported:
        """Hand a regular file beneath ``root`` to ``sink``."""
        ...


class SandboxPort(Protocol):
    """The sandbox of the conversation, ready for use."""

    @property
    def files(self) -> FilesPort:
        """Its files."""
        ...

    async def run_bash(
        self, call_id: str, command: str, timeout_seconds: float, emit: Emit, limit_bytes: int
    ) -> Outcome:
        """Run a shell command; returns when the shell has ended or was ended."""
        ...

    async def run_python(
        self, call_id: str, code: str, timeout_seconds: float, emit: Emit, limit_bytes: int
    ) -> Outcome:
        """Run a cell in the conversation's kernel."""
        ...


class ShareRecords(Protocol):
    """Where shared files are written down."""

    async def next_version(self, conversation_id: str, path: str) -> int:
        """Return the version that the next share of a path has, unless another is faster."""
        ...

    async def add_share(self, share: ShareRecord) -> ShareRecord:
        """Record a version of a file; ``VersionTaken`` if there is this one already."""
        ...

    async def usage(self, conversation_id: str) -> StoreUsage:
        """Give what the conversation keeps."""
        ...


@dataclass(frozen=True)
class ToolContext:
    """Everything one call may touch.

    Attributes
    ----------
    emit : callable
        Takes output while it is produced.
    check_capacity : callable, optional
        Awaited before the tool runs; raises ``LimitExceeded`` when the conversation keeps more than
        it may. ``tools.capacity.Capacity`` makes one.
    """

    conversation_id: str
    call_id: str
    sandbox: SandboxPort = field(repr=False)
    limits: Limits
    shares: FileStore = field(repr=False)
    database: ShareRecords = field(repr=False)
    emit: Emit = field(repr=False)
    areas: Areas = field(default_factory=Areas)
    check_capacity: Callable[[], Awaitable[None]] | None = field(default=None, repr=False)
