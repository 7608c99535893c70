r"""Paths as they travel and as the kernel takes them.

Inside the service a path is ``bytes``: names need not be UTF-8 and the locale must not matter. On
the wire it is text: ``shown`` writes a byte that is not UTF-8 as ``\xNN``; ``existing`` finds the
file again when it is asked for by the shown name (or by lone surrogates, as Python writes them).
"""

from __future__ import annotations

import os
import re
import stat as stat_module
from typing import Tuple

from ..output import decode
from .problems import FileError, bad_request

WORKSPACE = b"/workspace"
_PATH_BYTES = 4095  # what the kernel takes

_SHOWN_BYTE = re.compile(rb"\\x([89a-f][0-9a-f])")
_KINDS = {
    stat_module.S_IFREG: "file",
    stat_module.S_IFDIR: "directory",
    stat_module.S_IFLNK: "link",
    stat_module.S_IFIFO: "fifo",
    stat_module.S_IFSOCK: "socket",
    stat_module.S_IFCHR: "device",
    stat_module.S_IFBLK: "device",
}


def to_path(text: str) -> bytes:
    """Give the absolute path; relative ones are taken from the workspace."""
    if not text or "\0" in text:
        raise bad_request("a path must not be empty and must have no NUL character")
    try:
        path = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise bad_request("a path must be valid Unicode") from None
    if not path.startswith(b"/"):
        path = os.path.join(WORKSPACE, path)
    if len(path) > _PATH_BYTES:
        raise FileError("name_too_long", "the path is longer than %d bytes" % _PATH_BYTES)
    return path


def existing(text: str) -> bytes:
    r"""Give the path, or the file that is shown by that name if only its ``\xNN`` form exists."""
    path = to_path(text)
    if b"\\x" in path and not os.path.lexists(path):
        other = _SHOWN_BYTE.sub(lambda m: bytes([int(m.group(1), 16)]), path)
        if other != path and os.path.lexists(other):
            return other
    return path


def shown(path: bytes) -> str:
    """Give the text of a path; never fails."""
    return decode(path)


def real(path: bytes) -> Tuple[bytes, os.stat_result]:
    """Give where a path leads to and what is there. ``OSError`` when nothing is."""
    found = os.stat(path)  # before realpath, which hides loops and missing targets
    return os.path.realpath(path), found


def kind_of(mode: int) -> str:
    """Give the word for a file's type."""
    return _KINDS.get(stat_module.S_IFMT(mode), "device")


def require_file(found: os.stat_result, name: str) -> None:
    """Refuse what is not a regular file."""
    kind = kind_of(found.st_mode)
    if kind == "directory":
        raise FileError("is_a_directory", "%s is a directory" % name)
    if kind != "file":
        raise FileError("not_a_file", "%s is not a regular file but a %s" % (name, kind), kind=kind)
