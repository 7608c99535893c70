"""A small text file that is replaced as a whole: a reader sees the old or the new one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from .unfinished import making_file


def replace_text(path: Path, text: str) -> None:
    """Replace the file, or make it (0600, in a directory of 0700). Blocks; raises ``OSError``."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with making_file(path) as (fd, part):
        with open(fd, "w", encoding="utf-8", errors="surrogateescape", closefd=False) as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        os.replace(part, path)


def make_text(path: Path, text: str) -> None:
    """Make the file (0600) if there is none: of many makers one does. Blocks; raises ``OSError``.

    What it holds is what whoever was first has written, whole.
    """
    with making_file(path) as (fd, part):
        with open(fd, "w", encoding="utf-8", closefd=False) as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        with contextlib.suppress(FileExistsError):
            os.link(part, path)
