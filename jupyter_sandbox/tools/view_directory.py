"""A directory as ``view`` shows it: two levels deep, with sizes, and what was left out."""

from __future__ import annotations

from ..sandbox.file_models import Entry
from .bounds import VIEW_NOTICE
from .context import FilesPort
from .texts import count, short_size

SKIPPED = "node_modules"
_DEPTH = 2
_MOST_ENTRIES = 2000
_LAST_WORDS_BYTES = 300


async def directory_text(files: FilesPort, path: str, limit_bytes: int) -> tuple[str, bool]:
    """Give the listing of a directory, and whether it was cut."""
    listing = await files.list(path, depth=_DEPTH, max_entries=_MOST_ENTRIES, skip=(SKIPPED,))
    header = (
        f"Here's the files and directories up to 2 levels deep in {path}, excluding hidden items "
        f"and {SKIPPED}:"
    )
    rows = [_row(entry, path.rstrip("/")) for entry in listing.entries] or ["(nothing)"]
    room = max(64, limit_bytes - len(header.encode("utf-8", "replace")) - _LAST_WORDS_BYTES)
    shown: list[str] = []
    for row in rows:
        room -= len(row.encode("utf-8", "replace")) + 1
        if room < 0:
            break
        shown.append(row)
    more = listing.more + len(rows) - len(shown)
    left_out = []
    if listing.hidden:
        left_out.append(f"{listing.hidden:,} hidden")
    if listing.skipped:
        left_out.append(f"{listing.skipped:,} {SKIPPED}")
    if more:
        left_out.append(f"{more:,} more")
    text = [header, *shown]
    if left_out:
        about = "" if listing.complete else "at least "
        text.append(f"[left out: {about}{', '.join(left_out)}]")
    if more:
        text.append("[view a directory in it, or list with bash (ls, find), to see more]")
        text.append(VIEW_NOTICE)
    return "\n".join(text), more > 0


def _row(entry: Entry, directory: str) -> str:
    where = f"{directory}/{_shown(entry.path)}"
    if entry.kind == "directory":
        size = "?" if entry.size is None else count(entry.size, "item")
        return f"{size}\t{where}/"
    if entry.kind == "file":
        return f"{short_size(entry.size or 0)}\t{where}"
    return f"{entry.kind}\t{where}"


def _shown(name: str) -> str:
    """Give a name in which nothing ends a line, moves a cursor or turns the direction of text."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
