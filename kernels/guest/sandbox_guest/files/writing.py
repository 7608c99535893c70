"""``write``: a whole file, atomically, from chunks.

What can be refused is refused before the first byte is written, and again when the file is put in
place. Parents are created. A link's target is replaced, not the link.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, Dict, Optional, Tuple

from .atomic import Staged
from .locks import PATH_LOCKS
from .managing import make_directories
from .paths import existing, require_file, shown
from .problems import FileError, bad_request
from .requests import Request


def write(request: Request) -> Tuple[Dict[str, Any], bytes]:
    """Write a file."""
    path = existing(request.text("path"))
    overwrite = request.flag("overwrite", False)
    mode: Optional[int] = None
    if request.body.get("mode") is not None:
        mode = request.whole("mode", 0, 0o777)
    if path.endswith(b"/"):
        raise bad_request("the path of a file must not end with /")
    target, before = _look(path)
    if before is not None:
        _require_replaceable(path, before, overwrite)
    parent = os.path.dirname(target)
    if not os.path.isdir(parent):
        make_directories(parent)
    size = 0
    with Staged(target, before, mode) as staged:
        for piece in request.chunks():
            staged.write(piece)
            size += len(piece)
        with PATH_LOCKS.hold(target):
            replaced = _lstat(target)
            if replaced is not None:
                _require_replaceable(path, replaced, overwrite)
            staged.commit(overwrite)
    answer = {
        "path": shown(target),
        "size": size,
        "created": replaced is None,
        "replaced": replaced is not None,
    }
    return answer, b""


def _look(path: bytes) -> Tuple[bytes, Optional[os.stat_result]]:
    """Give where the file will be and what is there; a link to nothing leads to its target."""
    found: Optional[os.stat_result] = None
    with contextlib.suppress(FileNotFoundError):
        found = os.stat(path)
    return os.path.realpath(path), found


def _lstat(path: bytes) -> Optional[os.stat_result]:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _require_replaceable(path: bytes, found: os.stat_result, overwrite: bool) -> None:
    require_file(found, shown(path))
    if not overwrite:
        raise FileError("exists", "%s exists already" % shown(path), size=found.st_size)
