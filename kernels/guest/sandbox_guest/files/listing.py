"""``list``: a directory as a sorted tree, bounded in entries, bytes, memory and time.

Sorted by the bytes of the names, a directory before what is in it. Links are listed, never
followed. What is left out is counted: hidden entries, skipped names, and ``more`` for what lies
beyond the maximum. Only the names that will be shown are kept and looked at.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import time
from typing import Any, Dict, FrozenSet, Iterator, List, Optional, Tuple

from ..protocol import MAX_JSON_BYTES
from .opening import modified_at
from .paths import existing, kind_of, real, shown, to_path
from .problems import FileError
from .requests import Request

MAX_ENTRIES = 5000
LIST_SECONDS = 5.0
_ANSWER_BYTES = MAX_JSON_BYTES * 3 // 4
_ENTRY_BYTES = 110  # of JSON beside the path
_LOOK_AT_CLOCK = 4096


def list_directory(request: Request) -> Tuple[Dict[str, Any], bytes]:
    """Give the entries of a directory, ``depth`` levels deep."""
    text = request.text("path")
    depth = request.whole("depth", 1, 3, 1)
    room = request.whole("max_entries", 1, MAX_ENTRIES, 1000)
    skip = frozenset(os.path.basename(to_path(name)) for name in request.texts("skip", 100) if name)
    where, found = real(existing(text))
    if kind_of(found.st_mode) != "directory":
        raise FileError("not_a_directory", "%s is not a directory" % text)
    lister = _Lister(room, request.flag("hidden", False), skip)
    with os.scandir(where):  # its refusal is the answer; below it an unreadable one is only empty
        lister.walk(where, b"", depth)
    answer = {
        "entries": lister.entries,
        "omitted": {"hidden": lister.hidden, "skipped": lister.skipped, "more": lister.more},
        "complete": lister.complete,
    }
    return answer, b""


class _Lister:
    def __init__(self, room: int, show_hidden: bool, skip: FrozenSet[bytes]) -> None:
        self.entries: List[Dict[str, Any]] = []
        self.hidden = self.skipped = self.more = 0
        self.complete = True
        self._room = room
        self._bytes_left = _ANSWER_BYTES
        self._show_hidden = show_hidden
        self._skip = skip
        self._ends_at = time.monotonic() + LIST_SECONDS

    def walk(self, directory: bytes, prefix: bytes, depth: int) -> Optional[int]:
        """Take up a directory; give the number of its direct entries, None if unreadable."""
        room = self._room - len(self.entries)
        counts = _Counts()
        names = (entry.name for entry in self._visible(directory, counts))
        kept = heapq.nsmallest(max(1, room), names)[: max(0, room)]
        if counts.visible > len(kept):
            self.more += counts.visible - len(kept)
            if depth > 1:
                self._count_beyond(directory, kept[-1] if kept else b"", depth)
        self.hidden += counts.hidden
        self.skipped += counts.skipped
        for name in kept:
            path = os.path.join(directory, name)
            try:
                found = os.lstat(path)
            except OSError:
                continue  # gone meanwhile
            self._add(path, prefix + name, found, depth)
        return counts.all if counts.readable else None

    def _add(self, path: bytes, relative: bytes, found: os.stat_result, depth: int) -> None:
        kind = kind_of(found.st_mode)
        name = shown(relative)
        if len(self.entries) >= self._room or self._bytes_left < 0:
            self.more += 1
            if kind == "directory" and depth > 1:
                self._count(path, depth - 1)
            return
        entry: Dict[str, Any] = {
            "path": name,
            "kind": kind,
            "size": found.st_size,
            "modified_at": modified_at(found),
        }
        self._bytes_left -= len(json.dumps(name)) + _ENTRY_BYTES
        self.entries.append(entry)
        if kind != "directory":
            return
        if depth > 1:
            entry["size"] = self.walk(path, relative + b"/", depth - 1)
        else:
            counts = _Counts()
            for _ in self._visible(path, counts):
                pass
            entry["size"] = counts.all if counts.readable else None

    def _count(self, directory: bytes, depth: int) -> None:
        """Count what is not shown, ``depth`` levels deep."""
        counts = _Counts()
        for entry in self._visible(directory, counts):
            if depth > 1 and _is_directory(entry):
                self._count(entry.path, depth - 1)
        self.more += counts.visible
        self.hidden += counts.hidden
        self.skipped += counts.skipped

    def _count_beyond(self, directory: bytes, last: bytes, depth: int) -> None:
        """Count below the directories whose names come after the last that is shown."""
        for entry in self._visible(directory, _Counts()):
            if entry.name > last and _is_directory(entry):
                self._count(entry.path, depth - 1)

    def _visible(self, directory: bytes, counts: "_Counts") -> Iterator["os.DirEntry[bytes]"]:
        if time.monotonic() > self._ends_at:
            self.complete = False
            return
        with contextlib.suppress(OSError), os.scandir(directory) as found:
            counts.readable = True
            for entry in found:
                counts.all += 1
                if not counts.all % _LOOK_AT_CLOCK and time.monotonic() > self._ends_at:
                    self.complete = False
                    return
                name = entry.name
                if name.startswith(b".") and not self._show_hidden:
                    counts.hidden += 1
                elif name in self._skip:
                    counts.skipped += 1
                else:
                    counts.visible += 1
                    yield entry


class _Counts:
    def __init__(self) -> None:
        self.all = self.visible = self.hidden = self.skipped = 0
        self.readable = False


def _is_directory(entry: "os.DirEntry[bytes]") -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False
