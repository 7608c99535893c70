"""What a result says of a limit that was met: which, what happened, what to do next."""

from __future__ import annotations

from collections.abc import Iterable

from ..models import LimitHit
from .ansi import plain
from .texts import short_size

_PATH_CHARACTERS = 200


def limit_notes(hits: Iterable[LimitHit]) -> list[str]:
    """Give a line for each."""
    return [_NOTES[hit.limit](hit) for hit in hits]


def _memory(hit: LimitHit) -> str:
    return (
        f"[memory limit hit: the sandbox may have {short_size(int(hit.limit_value))}, /tmp and "
        "/dev/shm counted; a process that wanted more was ended or refused. Work in smaller "
        "pieces, or end what is not needed.]"
    )


def _processes(hit: LimitHit) -> str:
    return (
        f"[process limit hit: the sandbox may have {hit.limit_value:,.0f} processes and threads at "
        "once; a new one was refused. Start fewer at a time, or end what is not needed.]"
    )


def _file_size(hit: LimitHit) -> str:
    return (
        f"[file size limit hit: one file may have {short_size(int(hit.limit_value))}; the process "
        "that wrote more was ended or refused (SIGXFSZ). Write several files.]"
    )


def _disk(hit: LimitHit) -> str:
    if hit.entries:
        limit = f"{hit.limit_value:,.0f} files and directories" if hit.stop else "no more files"
    else:
        limit = short_size(int(hit.limit_value))
    if hit.stop is None and not hit.ended and not hit.path:
        return (
            f"[disk limit hit: something found no space left (the sandbox may have {limit} on its "
            "disk, less in /tmp and /dev/shm); now there is some again. Delete what is not needed.]"
        )
    if hit.stop is not None or hit.ended:
        has = ""
        if hit.stop is not None:
            has = f" and has {short_size(hit.stop.size_bytes)}"
            if hit.entries:
                has = f" and has {hit.stop.entries or 0:,}"
        ended = "all its processes were ended. " if hit.ended else ""
        return (
            f"[disk limit hit: the sandbox may have {limit} on its disk{has}; {ended}"
            f"{_largest(hit)}Delete what is not needed (`rm` works); until then whatever writes "
            "more is ended.]"
        )
    full = f"{_path(hit.path)} is full ({limit}{' fit in' if hit.entries else ''})"
    elsewhere = ""
    if hit.path in ("/tmp", "/dev/shm"):
        elsewhere = " It is in memory: put large files under /workspace or /var/tmp."
    return f"[disk limit hit: {full}. {_largest(hit)}Delete what is not needed.{elsewhere}]"


def _largest(hit: LimitHit) -> str:
    if not hit.largest:
        return ""
    sizes = (f"{n:,} entries" if hit.entries else short_size(n) for _, n in hit.largest)
    named = (f"{_path(path)} {size}" for (path, _), size in zip(hit.largest, sizes, strict=True))
    return f"Largest: {', '.join(named)}. "


def _path(path: str) -> str:
    shown = "".join(c if c.isprintable() else "\ufffd" for c in plain(path))
    return shown if len(shown) <= _PATH_CHARACTERS else f"…{shown[-_PATH_CHARACTERS:]}"


_NOTES = {
    "memory": _memory,
    "processes": _processes,
    "file_size": _file_size,
    "disk": _disk,
}
