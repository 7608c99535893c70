r"""What is known of files in a sandbox: frozen, checked data; all of it claims of the sandbox.

Paths are as the guest shows them: a byte that is not UTF-8 is ``\xNN``, and asking for the path so
finds the file. Each ``from_answer`` raises ``Unavailable`` for an answer that cannot be right.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Self, cast

from .answers import MOST, Answer, malformed

Kind = Literal["file", "directory", "link", "fifo", "socket", "device"]
Encoding = Literal["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "latin-1", "binary"]
Newline = Literal["lf", "crlf", "mixed", "none"]

_KINDS = frozenset(("file", "directory", "link", "fifo", "socket", "device"))
_ENCODINGS = frozenset(("utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "latin-1", "binary"))
_NEWLINES = frozenset(("lf", "crlf", "mixed", "none"))
_SURROGATE = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True)
class FileStat:
    """What a path is. ``size_bytes`` of a directory says nothing; ``mode`` is permission bits."""

    path: str
    kind: Kind
    size_bytes: int
    mode: int
    modified_at: datetime
    link_target: str | None = None

    @classmethod
    def from_answer(cls, answer: Answer) -> Self:
        """Read the answer to ``stat``."""
        return cls(
            path=answer.text("path"),
            kind=cast(Kind, answer.choice("kind", _KINDS)),
            size_bytes=answer.whole("size"),
            mode=answer.whole("mode", 0, 0o7777),
            modified_at=answer.moment("modified_at"),
            link_target=answer.text("link_target") if answer.has("link_target") else None,
        )


@dataclass(frozen=True)
class Entry:
    """One entry of a directory; ``path`` is relative to the directory that was listed.

    ``size`` is bytes, for a directory the number of its direct entries (None: not known).
    """

    path: str
    kind: Kind
    size: int | None
    modified_at: datetime

    @classmethod
    def from_answer(cls, answer: Answer) -> Self:
        """Read one item of the answer to ``list``."""
        return cls(
            path=answer.text("path"),
            kind=cast(Kind, answer.choice("kind", _KINDS)),
            size=answer.maybe_whole("size"),
            modified_at=answer.moment("modified_at"),
        )


@dataclass(frozen=True)
class Listing:
    """A directory as a tree in order, a directory before what is in it.

    ``hidden``, ``skipped``, ``more`` are numbers of entries that are not shown; unless ``complete``
    they are too low, because counting took too long.
    """

    entries: tuple[Entry, ...]
    hidden: int
    skipped: int
    more: int
    complete: bool

    @classmethod
    def from_answer(cls, answer: Answer, max_entries: int) -> Self:
        """Read the answer to ``list``."""
        omitted = answer.inner("omitted")
        items = answer.items("entries", max_entries)
        return cls(
            entries=tuple(Entry.from_answer(Answer(item)) for item in items),
            hidden=omitted.whole("hidden"),
            skipped=omitted.whole("skipped"),
            more=omitted.whole("more"),
            complete=answer.flag("complete"),
        )


@dataclass(frozen=True)
class FileBytes:
    """A range of a file; ``size_bytes`` is of the whole file."""

    data: bytes = field(repr=False)
    size_bytes: int


@dataclass(frozen=True)
class LinesView:
    """Some lines of a file.

    Attributes
    ----------
    data : bytes
        The lines as they are on the disk, with their ends (and the byte order mark).
    first, last : int
        1-based; ``last`` is ``first - 1`` when there is no line.
    total_lines : int or None
        None: the file is too large to count.
    truncated, next_line, cut_line
        Not all lines that were asked for are here; read on at ``next_line`` (None: there is no
        further line); the only line here is not whole.
    head : bytes
        Of a binary file the first 512 bytes; a binary file has no lines.
    """

    data: bytes = field(repr=False)
    first: int
    last: int
    total_lines: int | None
    size_bytes: int
    encoding: Encoding
    newline: Newline
    ends_with_newline: bool
    truncated: bool
    next_line: int | None
    cut_line: bool
    head: bytes = field(repr=False, default=b"")

    @classmethod
    def from_answer(cls, answer: Answer, data: bytes) -> Self:
        """Read the answer to ``view``."""
        return cls(
            data=data,
            first=answer.whole("first", 1),
            last=answer.whole("last"),
            total_lines=answer.maybe_whole("total_lines"),
            size_bytes=answer.whole("size"),
            encoding=cast(Encoding, answer.choice("encoding", _ENCODINGS)),
            newline=cast(Newline, answer.choice("newline", _NEWLINES)),
            ends_with_newline=answer.flag("ends_with_newline"),
            truncated=answer.flag("truncated"),
            next_line=answer.maybe_whole("next_line", 1),
            cut_line=answer.flag("cut_line"),
            head=_base64(answer, "head"),
        )

    @property
    def is_binary(self) -> bool:
        """Whether the file is no text."""
        return self.encoding == "binary"

    @property
    def text(self) -> str:
        r"""The lines decoded, without byte order mark; what cannot be decoded is ``\xNN``."""
        return decode(self.data, self.encoding, at_start=self.first == 1)


@dataclass(frozen=True)
class WriteResult:
    """A file that was written; ``path`` is where it is, links resolved."""

    path: str
    size_bytes: int
    created: bool

    @classmethod
    def from_answer(cls, answer: Answer) -> Self:
        """Read the answer to ``write``."""
        return cls(answer.text("path"), answer.whole("size"), answer.flag("created"))


@dataclass(frozen=True)
class Edit:
    """A text that was replaced.

    ``first_line`` to ``last_line`` is the new text. ``snippet`` is the file around it, from line
    ``snippet_first_line`` on; ``snippet_cut``: a line in it, or the new text, is not whole.
    """

    path: str
    first_line: int
    last_line: int
    total_lines: int
    encoding: Encoding
    snippet: bytes = field(repr=False)
    snippet_first_line: int
    snippet_cut: bool

    @classmethod
    def from_answer(cls, answer: Answer, snippet: bytes) -> Self:
        """Read the answer to ``replace``."""
        return cls(
            path=answer.text("path"),
            first_line=answer.whole("first_line", 1),
            last_line=answer.whole("last_line", 1),
            total_lines=answer.whole("total_lines"),
            encoding=cast(Encoding, answer.choice("encoding", _ENCODINGS)),
            snippet=snippet,
            snippet_first_line=answer.whole("snippet_first_line", 1),
            snippet_cut=answer.flag("snippet_cut"),
        )

    @property
    def snippet_text(self) -> str:
        """The snippet decoded."""
        return decode(self.snippet, self.encoding)


@dataclass(frozen=True)
class Exported:
    """A file that was read out. ``size_bytes`` and ``sha256`` are the host's own count."""

    size_bytes: int
    sha256: str
    modified_at: datetime
    mode: int


@dataclass(frozen=True)
class Usage:
    """Bytes on the disk and files below some paths; ``complete`` false: there are more."""

    size_bytes: int
    files: int
    complete: bool
    largest: tuple[tuple[str, int], ...] = ()

    @classmethod
    def from_answer(cls, answer: Answer, top: int) -> Self:
        """Read the answer to ``usage``."""
        items = [Answer(item) for item in answer.items("largest", top)]
        return cls(
            size_bytes=answer.whole("bytes", 0, MOST),
            files=answer.whole("files"),
            complete=answer.flag("complete"),
            largest=tuple((item.text("path"), item.whole("bytes")) for item in items),
        )


@dataclass(frozen=True)
class Room:
    """Full file systems as (path, bytes, whether it is files that do not fit), largest directories.

    ``largest`` is (path, bytes), or (path, entries) where files do not fit.
    """

    full: tuple[tuple[str, int, bool], ...]
    largest: tuple[tuple[str, int], ...]

    @classmethod
    def from_answer(cls, answer: Answer) -> Self:
        """Read the answer to ``room``."""
        full = [Answer(item) for item in answer.items("full", 20)]
        largest = [Answer(item) for item in answer.items("largest", 5)]
        return cls(
            full=tuple(
                (item.text("path"), item.whole("bytes"), item.flag("entries")) for item in full
            ),
            largest=tuple((item.text("path"), item.whole("size")) for item in largest),
        )


def decode(data: bytes, encoding: Encoding, at_start: bool = False) -> str:
    r"""Give the text of a file's bytes.

    Parameters
    ----------
    at_start : bool
        The bytes are the beginning of the file: a byte order mark is left out.
    """
    codec = "utf-8" if encoding in ("utf-8-sig", "binary") else encoding
    if codec == "utf-8":
        text = data.decode("utf-8", "surrogateescape")
        text = _SURROGATE.sub(lambda m: f"\\x{ord(m.group()) - 0xDC00:02x}", text)
    else:
        text = data.decode(codec, "replace")
    if at_start and encoding in ("utf-8-sig", "utf-16-le", "utf-16-be"):
        text = text.removeprefix("\ufeff")
    return text.replace("\0", "\\x00")


def _base64(answer: Answer, name: str) -> bytes:
    if not answer.has(name):
        return b""
    try:
        return base64.b64decode(answer.text(name, 4096), validate=True)
    except (binascii.Error, ValueError):
        raise malformed(name) from None
