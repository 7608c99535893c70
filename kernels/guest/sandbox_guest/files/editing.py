"""``replace``: change the one occurrence of a text in a file, or nothing.

Old and new text are taken in the file's own encoding and line endings; every other byte, the byte
order mark, the tabs, the mode and the owner stay. The file is searched in pieces and copied by the
kernel, so memory stays flat. Two edits of one file at once happen one after the other; an edit by
somebody else meanwhile is noticed (``changed``).
"""

from __future__ import annotations

import os
from typing import Any, Dict, Iterator, Tuple

from .atomic import Staged
from .locks import PATH_LOCKS
from .nearest import nearest
from .opening import opened, read_at, same_content
from .paths import existing, real, shown
from .problems import FileError, bad_request
from .requests import Request
from .search import Match, Matches, Needle, find_all
from .snippet import snippet_around
from .text import TextKind, TextScan, scan

MAX_TEXT_BYTES = 16 * 1024 * 1024
MAX_FILE_BYTES = 1024**3
_NEWLINE_LOOK_BYTES = 64 * 1024


def replace(request: Request) -> Tuple[Dict[str, Any], bytes]:
    """Replace the one occurrence of a text."""
    asked = request.text("path")
    old, new = _texts(request)
    path = existing(asked)
    target, _ = real(path)
    with PATH_LOCKS.hold(target), opened(target) as (fd, before):
        if before.st_size > MAX_FILE_BYTES:
            raise FileError("too_large", "%s is larger than 1 GiB" % asked, size=before.st_size)
        file = scan(fd, seconds=float("inf"))
        old = _without_mark(old, file.kind)
        codec, matches = _search(fd, file, old)
        if not matches.count:
            why = nearest(fd, file, old)
            facts = {"nearest": why} if why else {}
            raise FileError("no_match", "the old text is not in %s" % asked, **facts)
        if matches.count > 1:
            raise FileError(
                "many_matches",
                "the old text is in %s %d times" % (asked, matches.count),
                count=matches.count,
                lines=[match.line for match in matches.listed],
            )
        match = matches.listed[0]
        data = _encode(fd, file, match, _without_mark(new, file.kind), codec)
        with Staged(target, before) as staged:
            copied = staged.copy(fd, 0, match.start)
            staged.write(data)
            copied += staged.copy(fd, match.end, file.size - match.end)
            unchanged = copied == file.size - (match.end - match.start)
            if not (unchanged and same_content(before, os.stat(target))):
                raise FileError("changed", "%s changed meanwhile; nothing was replaced" % asked)
            answer, snippet = snippet_around(staged.fd, file.kind, match, len(data))
            answer["total_lines"] = _total_lines(staged.fd, file, match, data)
            staged.commit(overwrite=True)
    answer.update(path=shown(target), encoding=file.kind.encoding)
    return answer, snippet


def _texts(request: Request) -> Tuple[str, str]:
    old_bytes = request.whole("old_bytes", 0, MAX_TEXT_BYTES)
    data = request.content(MAX_TEXT_BYTES)
    if not 0 < old_bytes <= len(data):
        raise bad_request("the old text must not be empty")
    try:
        return data[:old_bytes].decode("utf-8"), data[old_bytes:].decode("utf-8")
    except UnicodeDecodeError:
        raise bad_request("old and new text must be UTF-8") from None


def _without_mark(text: str, kind: TextKind) -> str:
    """Take away a byte order mark that was copied with the text, unless it is all there is."""
    if kind.bom_bytes and text.startswith("\ufeff") and len(text) > 1:
        return text[1:]
    return text


def _search(fd: int, file: TextScan, old: str) -> Tuple[str, Matches]:
    """Look for the text in each encoding that fits; give the codec that found it."""
    unified = old
    if file.newline in ("lf", "crlf", "mixed"):
        unified = old.replace("\r\n", "\n")
    if file.newline == "crlf":
        unified = unified.replace("\n", "\r\n")
    matches = Matches(0, ())
    codec = file.kind.codec
    for codec in _codecs(file.kind, old):
        try:
            needle = Needle(unified, file.kind, codec, any_newline=file.newline == "mixed")
        except UnicodeEncodeError:
            continue
        matches = find_all(fd, file.kind, needle)
        if matches.count:
            break
    return codec, matches


def _codecs(kind: TextKind, old: str) -> Iterator[str]:
    """Give the codecs to try. What is not UTF-8 as a whole may still be so in the place meant."""
    if kind.encoding == "binary":
        yield "utf-8"
        return
    yield kind.codec
    if kind.encoding == "latin-1" and not old.isascii():
        yield "utf-8"


def _encode(fd: int, file: TextScan, match: Match, new: str, codec: str) -> bytes:
    style = file.newline
    if style == "mixed":
        style = _style_at(fd, file, match, codec)
    if style != "none":
        new = new.replace("\r\n", "\n")
    if style == "crlf":
        new = new.replace("\n", "\r\n")
    try:
        return new.encode(codec)
    except UnicodeEncodeError as exc:
        raise FileError(
            "not_encodable",
            "the file is %s, which has no character %r" % (file.kind.encoding, new[exc.start]),
            encoding=file.kind.encoding,
            character=new[exc.start],
        ) from None


def _style_at(fd: int, file: TextScan, match: Match, codec: str) -> str:
    """Give the line ending in use where a file of mixed line endings is edited."""
    data = match.text
    if not file.kind.count_lines(data):
        data = file.kind.whole_characters(read_at(fd, match.start, _NEWLINE_LOOK_BYTES))
    end = file.kind.after_line(data, 1)
    if end < 0:
        return "lf"
    return "crlf" if data[:end].endswith("\r\n".encode(codec)) else "lf"


def _total_lines(fd: int, file: TextScan, match: Match, data: bytes) -> int:
    """Give the number of lines of the new file."""
    kind = file.kind
    size = file.size - (match.end - match.start) + len(data)
    ends = file.newlines - kind.count_lines(match.text) + kind.count_lines(data)
    open_end = read_at(fd, max(0, size - kind.width), kind.width) != kind.newline
    return ends + (1 if size > kind.bom_bytes and open_end else 0)
