"""``export``: the bytes of a regular file beneath a root, with no link anywhere on the way.

Every directory from the root on is opened by its name in the one before, never following a link, so
a swap on the way cannot lead out. The file is hashed while it is sent; whether it changed meanwhile
is known at the end, and then the answer is ``changed`` and what was sent is worth nothing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat as stat_module
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ..protocol import CHUNK_BYTES
from .opening import modified_at, opened, read_at, same_content
from .paths import existing, to_path
from .problems import FileError
from .requests import Request

# Whatever has the name, a link too, and nothing of it is opened. Not O_DIRECTORY: with it gVisor
# (of 2022) follows a link in spite of O_NOFOLLOW.
_DIRECTORY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LARGEST = 2**63 - 1


def export(request: Request) -> Tuple[Dict[str, Any], bytes]:
    """Send all pieces of a file but the last; give what it is with the last piece."""
    asked = request.text("path")
    root, names = _beneath(to_path(request.text("root")), existing(asked), asked)
    limit = request.whole("max_bytes", 0, _LARGEST)
    with _parent(root, names, asked) as (parent, name):
        _refuse_link(name, parent, asked)
        with _opened_here(name, parent, asked) as (fd, before):
            return _send(request, fd, before, limit, asked)


def _send(
    request: Request, fd: int, before: os.stat_result, limit: int, asked: str
) -> Tuple[Dict[str, Any], bytes]:
    if before.st_size > limit:
        raise _too_large(asked, limit, before.st_size)
    digest = hashlib.sha256()
    size = 0
    held: Optional[bytes] = None
    while True:
        piece = read_at(fd, size, min(CHUNK_BYTES, limit - size + 1))
        if not piece:
            break
        size += len(piece)
        if size > limit:
            raise _too_large(asked, limit, size)
        digest.update(piece)
        if held is not None:
            request.send({"chunk": True, "more": True}, held)
        held = piece
        if size > before.st_size:
            break  # it grows
    if size != before.st_size or not same_content(before, os.fstat(fd)):
        raise FileError("changed", "%s changed while it was read" % asked)
    answer = {
        "size": size,
        "sha256": digest.hexdigest(),
        "modified_at": modified_at(before),
        "mode": before.st_mode & 0o7777,
    }
    return answer, held or b""


def _beneath(root: bytes, path: bytes, asked: str) -> Tuple[bytes, List[bytes]]:
    """Give the root and the names that lead from it to the file."""
    root, path = os.path.normpath(root), os.path.normpath(path)
    inside = root.rstrip(b"/") + b"/"
    if path == root:
        raise FileError("is_a_directory", "%s is a directory" % asked)
    if not path.startswith(inside):
        raise FileError("outside", "%s is not in the directory that files are taken from" % asked)
    return root, path[len(inside) :].split(b"/")


@contextlib.contextmanager
def _parent(root: bytes, names: List[bytes], asked: str) -> Iterator[Tuple[int, bytes]]:
    """Lend the directory the file is in, opened name by name; give it with the file's name."""
    parent = _open_directory(root, None, asked)
    try:
        for name in names[:-1]:
            inner = _open_directory(name, parent, asked)
            os.close(parent)
            parent = inner
        yield parent, names[-1]
    finally:
        os.close(parent)


def _open_directory(name: bytes, parent: Optional[int], asked: str) -> int:
    found = os.open(name, _DIRECTORY, dir_fd=parent)
    mode = os.fstat(found).st_mode
    if stat_module.S_ISDIR(mode):
        return found
    os.close(found)
    if stat_module.S_ISLNK(mode):
        raise _link(asked)
    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def _refuse_link(name: bytes, parent: int, asked: str) -> None:
    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if stat_module.S_ISLNK(found.st_mode):
        raise _link(asked)


@contextlib.contextmanager
def _opened_here(name: bytes, parent: int, asked: str) -> Iterator[Tuple[int, os.stat_result]]:
    with contextlib.ExitStack() as stack:
        try:
            lent = stack.enter_context(opened(name, os.O_NOFOLLOW, parent))
        except OSError as exc:
            if exc.errno == errno.ELOOP:  # swapped for a link since we looked
                raise _link(asked) from None
            raise
        yield lent


def _link(asked: str) -> FileError:
    return FileError("link", "%s is a link or is reached through one" % asked)


def _too_large(asked: str, limit: int, size: int) -> FileError:
    return FileError(
        "too_large", "%s is larger than %d bytes" % (asked, limit), size=size, max_bytes=limit
    )
