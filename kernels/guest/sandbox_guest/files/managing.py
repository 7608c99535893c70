"""``mkdir``, ``rename``, ``remove``: change names, not contents. Links are never followed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat as stat_module
from typing import Any, Dict, List, Tuple

from .paths import existing, shown, to_path
from .problems import FileError, bad_request
from .requests import Request

_LONG_PATH = 2048  # of the 4,095 bytes that a path may have


def mkdir(request: Request) -> Tuple[Dict[str, Any], bytes]:
    """Make a directory and its parents; ``exists`` if something is there."""
    path = to_path(request.text("path")).rstrip(b"/") or b"/"
    if os.path.lexists(path):
        raise FileError("exists", "%s exists already" % shown(path))
    make_directories(path)
    return {}, b""


def rename(request: Request) -> Tuple[Dict[str, Any], bytes]:
    """Give a file, directory or link another name; ``exists`` if that is taken."""
    path = existing(request.text("path"))
    to = to_path(request.text("to"))
    os.lstat(path)
    if os.path.lexists(to):
        raise FileError("exists", "%s exists already" % shown(to))
    try:
        os.rename(path, to)
    except OSError as exc:
        if exc.errno == errno.EINVAL:
            raise bad_request("a directory cannot be moved into itself") from None
        raise
    return {}, b""


def remove(request: Request) -> Tuple[Dict[str, Any], bytes]:
    """Remove a file, a link, an empty directory, or with ``recursive`` all that is in it."""
    path = existing(request.text("path")).rstrip(b"/")
    recursive = request.flag("recursive", False)
    if not path or os.path.normpath(path) == b"/":
        raise bad_request("/ cannot be removed")
    if not stat_module.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
    elif recursive:
        _remove_tree(path)
    else:
        os.rmdir(path)
    return {}, b""


def make_directories(path: bytes) -> None:
    """Make a directory and those above it that are missing; one that is there is well."""
    missing: List[bytes] = []
    while True:
        try:
            os.mkdir(path)
            break
        except FileNotFoundError:
            missing.append(path)
            path = os.path.dirname(path)
        except FileExistsError:
            if not os.path.isdir(path):
                raise FileError("not_a_directory", "%s is not a directory" % shown(path)) from None
            break
    for inner in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(inner)


def _remove_tree(top: bytes) -> None:
    """Remove a tree of any depth: what lies too deep for a path is first moved up."""
    pending: List[bytes] = [top]
    while pending:
        directory = pending[-1]
        inner = _clear(directory, top)
        if inner:
            pending += inner
        else:
            pending.pop()
            os.rmdir(directory)


def _clear(directory: bytes, top: bytes) -> List[bytes]:
    """Remove what is no directory; give the directories that are left to do."""
    inner: List[bytes] = []
    with os.scandir(directory) as entries:
        found = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for path, is_directory in found:
        if not is_directory:
            os.unlink(path)
            continue
        if len(path) > len(top) + _LONG_PATH:
            moved = os.path.join(top, b".removed-" + secrets.token_hex(8).encode())
            os.rename(path, moved)
            path = moved
        inner.append(path)
    return inner
