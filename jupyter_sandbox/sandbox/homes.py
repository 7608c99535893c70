"""The directories of sandboxes in the runtime directory: whose they are, and what is dead in them.

Several installations may have one runtime directory, so each directory has a mark of its own's. The
rule: what has no mark of ours is not ours; a socket is dead when nobody holds it, and finding that
out disturbs nobody who does.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import time
from pathlib import Path

_ID = re.compile(r"[0-9a-f]{12}")
_OLD_SECONDS = 3600.0
_TEMPORARY = (".guest-", ".site-")  # `bundle.py` and `client_settings.py`, on their way
_SOCKETS = ("dial", "egress", "private")
_QUARANTINED = "quarantined"


def mark_of(server_id: str) -> str:
    """Give the name of the file by which an installation knows its directories."""
    return f".of-{server_id}"


def make_home(home: Path, mark: str) -> None:
    """Make a sandbox's directory, with a mark unless that is ""; its parent exists. Twice is once.

    Others may look up names below it, and list nothing.
    """
    home.mkdir(mode=0o711, exist_ok=True)
    os.chmod(home, 0o711)
    if mark:
        (home / mark).touch(mode=0o600)


class Homes:
    """All directories of one installation's sandboxes."""

    def __init__(self, runtime_dir: Path, server_id: str) -> None:
        self._runtime_dir = runtime_dir
        self._mark = mark_of(server_id)

    def __repr__(self) -> str:
        return f"<Homes {self._runtime_dir}>"

    def of(self, sandbox_id: str) -> Path:
        """Give the directory of a sandbox."""
        return self._runtime_dir / sandbox_id[:12]

    def make(self, sandbox_id: str) -> Path:
        """Make it; give it."""
        self._runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        home = self.of(sandbox_id)
        make_home(home, self._mark)
        return home

    def remove(self, sandbox_id: str) -> None:
        """Remove it with all that is in it; the mark last, so that a kill leaves it ours."""
        home = self.of(sandbox_id)
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(home):
                if entry.name != self._mark:
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path, ignore_errors=True)
                    else:
                        Path(entry.path).unlink(missing_ok=True)
        shutil.rmtree(home, ignore_errors=True)

    def at(self, path: str) -> str:
        """Give the name of the directory of ours that a path lies in; "" for any other path."""
        with contextlib.suppress(ValueError):
            name = Path(path).relative_to(self._runtime_dir).parts[0]
            if _ID.fullmatch(name) and (self._runtime_dir / name / self._mark).exists():
                return name
        return ""

    def quarantine(self, sandbox_id: str, why: str) -> None:
        """Note that a sandbox is not to be attached to any more, and why; it goes with it."""
        (self.of(sandbox_id) / _QUARANTINED).write_text(why, encoding="utf-8")

    def why_quarantined(self, sandbox_id: str) -> str:
        """Give why a sandbox is not to be attached to; "" if it may be."""
        with contextlib.suppress(OSError):
            return (self.of(sandbox_id) / _QUARANTINED).read_text(encoding="utf-8")
        return ""

    def ours(self) -> list[str]:
        """Give the first 12 characters of the ids of all sandboxes that have a directory."""
        return [name for name in self._names() if (self._runtime_dir / name / self._mark).exists()]

    def remove_dead_sockets(self, *sandbox_ids: str) -> list[Path]:
        """Remove the sockets of processes that are gone; give them."""
        there = [
            path
            for sandbox_id in sandbox_ids
            for name in _SOCKETS
            for path in _sockets(self.of(sandbox_id) / name)
        ]
        bound = bound_sockets()  # in this order: a socket is bound before it is seen
        dead = [path for path in there if str(path) not in bound and _refuses(path)]
        for path in dead:
            path.unlink(missing_ok=True)
        return dead

    def remove_old(self) -> list[Path]:
        """Remove what was on its way to its name when its maker died, long ago; give it."""
        found = [path for path in _listed(self._runtime_dir) if path.name.startswith(_TEMPORARY)]
        found = [path for path in found if _is_old(path)]
        for path in found:
            shutil.rmtree(path, ignore_errors=True)
        for name in self._names():  # killed before the mark
            home = self._runtime_dir / name
            if _is_old(home):
                with contextlib.suppress(OSError):
                    home.rmdir()
                    found.append(home)
        return found

    def _names(self) -> list[str]:
        return [path.name for path in _listed(self._runtime_dir) if _ID.fullmatch(path.name)]


def bound_sockets() -> frozenset[str]:
    """Give the paths of all unix sockets that a process of this host's network holds.

    Source: https://man7.org/linux/man-pages/man5/proc_pid_net.5.html (/proc/net/unix)
    """
    paths = set()
    with contextlib.suppress(OSError), open("/proc/net/unix", encoding="utf-8") as file:
        for line in file:
            fields = line.rstrip("\n").split(maxsplit=7)
            if len(fields) == 8 and fields[7].startswith("/"):
                paths.add(fields[7])
    return frozenset(paths)


def _refuses(path: Path) -> bool:
    """Say whether nobody listens; asked only of what no process here holds."""
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        probe.connect(str(path))
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    finally:
        probe.close()
    return False


def _sockets(directory: Path) -> list[Path]:
    return [path for path in _listed(directory) if path.is_socket()]


def _listed(directory: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(directory.iterdir())
    return []


def _is_old(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return time.time() - os.lstat(path).st_mtime > _OLD_SECONDS
    return False
