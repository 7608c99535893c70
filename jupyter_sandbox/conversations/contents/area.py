"""What a top-level folder of the drive is: an interface, and the refusals that most share.

An area knows names below itself, never whose files they are. The rule: a path is names that the
host has found well-formed, so no area ever sees ``..``, a separator or a control character.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ...errors import Forbidden, InvalidRequest

Parts = tuple[str, ...]
"""The names of a path below an area; ``()`` is the area itself."""


@dataclass(frozen=True)
class Node:
    """A file or a folder.

    ``path`` is the whole path, without a slash at its ends. ``sha256`` is None where it is not
    known without reading the file, ``size_bytes`` and ``media_type`` for a folder.
    """

    path: str
    is_folder: bool
    is_writable: bool
    created_at: datetime
    modified_at: datetime
    size_bytes: int | None = None
    media_type: str | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """The last name of the path."""
        return self.path.rpartition("/")[2]


class Reader(Protocol):
    """The bytes of one file that was opened."""

    def pieces(self, first: int = 0, size: int = -1) -> AsyncGenerator[bytes]:
        """Give ``size`` bytes from ``first`` on (-1: to the end) in pieces."""
        ...


class Incoming(Protocol):
    """A file on its way in. Closed without ``keep``, nothing of it stays."""

    async def write(self, data: bytes) -> None:
        """Add bytes; ``LimitExceeded`` (413) beyond the limit."""
        ...

    async def keep(self) -> object:
        """Put it in its place, all at once for those who read it."""
        ...

    async def close(self) -> None:
        """Let go of it. Twice is once."""
        ...


class Area:
    """A top-level folder. What a subclass does not have is refused, with the reason.

    Parameters
    ----------
    name : str
        Of the folder.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    async def look(self, parts: Parts) -> Node | None:
        """Give what a path is; None if there is nothing. Starts no sandbox."""
        raise NotImplementedError

    async def entries(self, parts: Parts) -> list[Node]:
        """Give what is in a folder that ``look`` has found, sorted. Starts no sandbox."""
        raise NotImplementedError

    def reading(self, parts: Parts) -> AbstractAsyncContextManager[tuple[Node, Reader]]:
        """Open a file; ``NotFound`` if there is none."""
        raise NotImplementedError

    async def begin(self, parts: Parts) -> Incoming:
        """Begin to take a file, which may replace one; the caller closes what it gets."""
        raise Forbidden(f"The folder {self.name} is read-only.")

    async def make_folder(self, parts: Parts) -> None:
        """Make a folder; one that is there is well."""
        raise InvalidRequest(f"There can be no folders in {self.name}.", status=400)

    async def remove(self, parts: Parts) -> None:
        """Remove a file or a folder; ``NotFound`` if there is none."""
        raise Forbidden(f"The folder {self.name} is read-only.")

    async def rename(self, parts: Parts, to: Parts) -> None:
        """Give another name; ``InvalidRequest`` (409) if it is taken."""
        raise Forbidden(f"Files in {self.name} cannot be renamed.")

    def path(self, parts: Parts) -> str:
        """Give the whole path."""
        return "/".join((self.name, *parts))
