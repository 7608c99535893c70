"""``room``: which file systems are full, and the directories in which most of it is.

For the end of a command that found no space. Counts what was changed since the sandbox was started:
what the image brought takes nothing of its room. Looks for a bounded time and is right about the
order of magnitude: links are not followed, other file systems not entered, several names count
several times.
"""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, Optional, Tuple

from ..trees import read_process
from .paths import shown, to_path
from .requests import Request

SECONDS = 2.0
_DEPTH = 3  # of the directories that are named, below the paths that were asked for
_MOST = 5
_FULL_BYTES = 1024 * 1024
_FULL_ENTRIES = 16
_BLOCK_BYTES = 512
_SLACK_SECONDS = 2.0

Sums = Dict[bytes, List[int]]  # directory: bytes, entries


def room(request: Request) -> Tuple[Dict[str, Any], bytes]:
    """Give the full ones of the file systems of ``paths``, and what is largest there.

    With ``all`` what is largest is looked for whether one is full or not.
    """
    everywhere = request.flag("all", False)
    full: Dict[int, Dict[str, Any]] = {}
    roots: List[bytes] = []
    for text in request.texts("paths", 20):
        path = to_path(os.path.expanduser(text))
        try:
            device = os.stat(path).st_dev
            found = None if device in full else _full(path)
        except OSError:
            continue
        if found is not None:
            full[device] = found
        if everywhere or device in full:
            roots.append(path)
    sums: Sums = {}
    complete = _add(roots, sums)
    few = any(each["entries"] for each in full.values()) or request.flag("entries", False)
    by = 1 if few else 0
    largest = [{"path": shown(path), "size": sums[path][by]} for path in _pick(sums, by)]
    return {"full": list(full.values()), "largest": largest, "complete": complete}, b""


def _full(path: bytes) -> Optional[Dict[str, Any]]:
    found = os.statvfs(path)
    total, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    no_bytes = free < max(_FULL_BYTES, total // 100)
    no_entries = found.f_files > 0 and found.f_favail < _FULL_ENTRIES
    if not (no_bytes or no_entries):
        return None
    return {"path": shown(path), "bytes": total, "entries": no_entries and not no_bytes}


def _add(roots: List[bytes], sums: Sums) -> bool:
    """Count what is below ``roots``; say whether that was all."""
    ends_at = time.monotonic() + SECONDS
    since = _started_at() - _SLACK_SECONDS
    pending: List[Tuple[bytes, int, Tuple[bytes, ...]]] = []
    for root in reversed(roots):  # taken from the end: the first are the likely ones
        try:
            pending.append((root, os.stat(root).st_dev, (root,)))
        except OSError:
            continue
    seen = set()
    while pending:
        if time.monotonic() > ends_at:
            return False
        path, device, named = pending.pop()
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    if found.st_dev != device:
                        continue
                    for name in named if found.st_ctime >= since else ():
                        total = sums.setdefault(name, [0, 0])
                        total[0] += found.st_blocks * _BLOCK_BYTES
                        total[1] += 1
                    if entry.is_dir(follow_symlinks=False) and found.st_ino not in seen:
                        seen.add(found.st_ino)
                        below = (*named, entry.path) if len(named) <= _DEPTH else named
                        pending.append((entry.path, device, below))
        except OSError:  # gone, closed, or deeper than a path can say
            continue
    return True


def _started_at() -> float:
    """Give when PID 1 was started, in seconds since 1970."""
    process = read_process(1)
    ticks = process.started if process is not None else 0
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def _pick(sums: Sums, by: int) -> List[bytes]:
    """Give the directories that say most: not one whose largest children hold nearly all of it."""
    inner: Dict[bytes, List[int]] = {}
    for path, total in sums.items():
        parent = os.path.dirname(path)
        if parent in sums:
            inner.setdefault(parent, []).append(total[by])
    picked: List[bytes] = []
    for path in sorted(sums, key=lambda each: sums[each][by], reverse=True):
        held = sum(sorted(inner.get(path, ()))[-_MOST:])
        is_shell = held * 5 >= sums[path][by] * 4
        is_inside = any(path.startswith(other + b"/") for other in picked)
        tells = not picked or sums[path][by] * 50 >= sums[picked[0]][by]
        if tells and not is_shell and not is_inside:
            picked.append(path)
    return picked[:_MOST]
