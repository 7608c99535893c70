"""``stat`` and ``read``: what a path is, and bytes of a file."""

from __future__ import annotations

import os
from typing import Any, Dict, Tuple

from ..protocol import MAX_PAYLOAD_BYTES
from .opening import modified_at, opened, read_at
from .paths import existing, kind_of, real, shown
from .requests import Request

_LAST_OFFSET = 2**62


def stat(request: Request) -> Tuple[Dict[str, Any], bytes]:
    """Give what a path is; with ``follow`` false a link is looked at itself."""
    path = existing(request.text("path"))
    answer: Dict[str, Any] = {}
    if request.flag("follow", True):
        where, found = real(path)
    else:
        found = os.lstat(path)
        path = path.rstrip(b"/") or b"/"
        parent, name = os.path.split(path)
        where = os.path.join(os.path.realpath(parent), name)
    kind = kind_of(found.st_mode)
    if kind == "link":
        answer["link_target"] = shown(os.readlink(path))
    answer.update(
        path=shown(where),
        kind=kind,
        size=found.st_size,
        mode=found.st_mode & 0o7777,
        modified_at=modified_at(found),
    )
    return answer, b""


def read(request: Request) -> Tuple[Dict[str, Any], bytes]:
    """Give a range of a regular file; empty beyond its end."""
    offset = request.whole("offset", 0, _LAST_OFFSET, 0)
    count = request.whole("max_bytes", 1, MAX_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES)
    with opened(existing(request.text("path"))) as (fd, found):
        return {"size": found.st_size, "kind": "file"}, read_at(fd, offset, count)
