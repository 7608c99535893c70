"""``usage``: how much of the disk some directories take up, and the largest files in them.

Bytes are those on the disk (a sparse file counts what it holds). Links are not followed, other file
systems not entered, a file with several names counts once. A path that is not there takes nothing.
"""

from __future__ import annotations

import heapq
import os
from typing import Any, Dict, List, Set, Tuple

from .paths import existing, shown
from .requests import Request

MAX_ENTRIES = 1_000_000
MAX_TOP = 20
_BLOCK_BYTES = 512  # of st_blocks, whatever the file system's own
_REMEMBERED = 100_000


def usage(request: Request) -> Tuple[Dict[str, Any], bytes]:
    """Count files and bytes below ``paths``."""
    paths = [existing(text) for text in request.texts("paths", 100)]
    left = request.whole("max_entries", 1, MAX_ENTRIES, MAX_ENTRIES)
    top = request.whole("top", 0, MAX_TOP, 0)
    count = _Count(left, top)
    for path in paths:
        count.add(path)
    answer = {
        "bytes": count.bytes,
        "files": count.files,
        "complete": count.complete,
        "largest": [
            {"path": shown(path), "bytes": size} for size, path in sorted(count.largest)[::-1]
        ],
    }
    return answer, b""


class _Count:
    def __init__(self, left: int, top: int) -> None:
        self.bytes = self.files = 0
        self.complete = True
        self.largest: List[Tuple[int, bytes]] = []
        self._left = left
        self._top = top
        self._seen: Set[Tuple[int, int]] = set()

    def add(self, path: bytes) -> None:
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return
        if not os.path.isdir(path):
            self._take(path, found)
            return
        self._take_directory(found)
        pending = [path]
        while pending:
            self._walk(pending.pop(), found.st_dev, pending)

    def _walk(self, directory: bytes, device: int, pending: List[bytes]) -> None:
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if self._left <= 0:
                        self.complete = False
                        pending.clear()
                        return
                    self._left -= 1
                    self._entry(entry, device, pending)
        except OSError:  # not readable, gone, or deeper than a path can say
            self.complete = False

    def _entry(self, entry: "os.DirEntry[bytes]", device: int, pending: List[bytes]) -> None:
        try:
            found = entry.stat(follow_symlinks=False)
            if not entry.is_dir(follow_symlinks=False):
                self._take(entry.path, found)
            elif found.st_dev == device:
                self._take_directory(found)
                pending.append(entry.path)
        except FileNotFoundError:
            pass
        except OSError:
            self.complete = False

    def _take_directory(self, found: os.stat_result) -> None:
        self.bytes += found.st_blocks * _BLOCK_BYTES

    def _take(self, path: bytes, found: os.stat_result) -> None:
        self.files += 1
        if found.st_nlink > 1:
            key = (found.st_dev, found.st_ino)
            if key in self._seen:
                return
            if len(self._seen) < _REMEMBERED:
                self._seen.add(key)
        size = found.st_blocks * _BLOCK_BYTES
        self.bytes += size
        if self._top and size:
            if len(self.largest) < self._top:
                heapq.heappush(self.largest, (size, path))
            elif (size, path) > self.largest[0]:
                heapq.heapreplace(self.largest, (size, path))
