"""Where a server keeps things on its host, and that the directories are its own.

``data_dir`` is the installation: database, keys, files, and its id. ``runtime_dir`` has the sockets
of its sandboxes. The rules: the data directory remembers the runtime directory, because the
sandboxes of an earlier server have it mounted; one that looked elsewhere would take them for lost.
A directory is used if this server makes it, or if it is empty or holds what a server of ours has
put there; one that exists is never changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .errors import Misconfigured
from .stores.connections import Connections
from .stores.installation import require_installation
from .stores.vault_opening import DIRECTORY_NAME as VAULT_NAME
from .stores.whole_file import make_text, replace_text

_SERVER_ID = "server-id"
_RUNTIME_DIR = "runtime-dir"
FILES = (_SERVER_ID, _RUNTIME_DIR)
"""What is written into the data directory here, beside its name first."""

DATA_NAMES = (
    r"\.?(sandbox\.db|master\.key|policy\.json|audit\.mark|unversioned\.json|server-id|runtime-dir"
    r"|servers|vault|bubblewrap)([-.].*)?"
)
"""What lies in a data directory: also what an administrator puts there before the first start."""
RUNTIME_NAMES = r"\.?(guest|site)-[0-9a-f]+(\..*)?|[0-9a-f]{12}|servers"
"""What lies in a runtime directory, which several installations may have."""

_ALWAYS_THERE = "lost+found"  # in a file system of its own
_LONGEST_BASE = 40  # a socket's path has at most 107 bytes


def choose_runtime_dir(data_dir: Path, environ: Mapping[str, str]) -> Path:
    """Give the runtime directory of an earlier server on this data, else one of this session."""
    with contextlib.suppress(OSError, ValueError):
        known = Path((data_dir / _RUNTIME_DIR).read_text(encoding="utf-8").strip())
        if known.is_absolute() and _is_ours(known):
            return known
    base = environ.get("XDG_RUNTIME_DIR", "")
    if base and os.access(base, os.W_OK) and len(base) <= _LONGEST_BASE:
        return Path(base) / "jupyter-sandbox"
    if os.getuid() == 0:
        return Path("/run/jupyter-sandbox")
    return Path(tempfile.gettempdir()) / f"jupyter-sandbox-{os.getuid()}"


def remember_runtime_dir(data_dir: Path, runtime_dir: Path) -> None:
    """Note where the sandboxes of this data directory have their sockets."""
    path, text = data_dir / _RUNTIME_DIR, f"{runtime_dir.resolve()}\n"
    with contextlib.suppress(OSError):
        if path.read_text(encoding="utf-8") == text:
            return
    replace_text(path, text)


def find_problem(
    path: str | Path, own_names: str, *, may_not: int = 0o077, has_id: bool = True
) -> str:
    """Say why a directory cannot be this server's, and what to do; "" if it can. Makes nothing.

    Parameters
    ----------
    path : str or Path
        As it was set.
    own_names : str
        A pattern of the names that a server of ours gives to what it puts there.
    may_not : int
        Bits of its mode that must not be set.
    has_id : bool
        Whether an installation's id in it makes it ours, whatever else lies there.
    """
    directory = Path(path)
    if not directory.is_absolute():
        return f"{str(path)!r} is not an absolute path"
    try:
        status = os.lstat(directory)
        if stat.S_ISLNK(status.st_mode):
            return f"{directory} is a link: name the directory that it leads to"
        if not stat.S_ISDIR(status.st_mode):
            return f"{directory} is no directory"
        if status.st_uid != os.getuid():
            return f"{directory} belongs to another user"
        foreign = _foreign(directory, own_names)
    except FileNotFoundError:
        return _why_not_made(directory)
    except (OSError, ValueError) as exc:  # a ValueError for a path that can be none
        return f"{str(directory)!r} cannot be used: {getattr(exc, 'strerror', exc)}"
    if foreign and not (has_id and (directory / _SERVER_ID).is_file()):
        return (
            f"{directory} holds other things ({foreign}): "
            "name a directory that is empty or does not exist"
        )
    if status.st_mode & may_not:
        mode = f"{status.st_mode & 0o777 & ~may_not:o}"
        return (
            f"{directory} is open to other users of this machine: chmod {mode} {directory}, or "
            "name a directory in it that does not exist"
        )
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        return f"{directory} cannot be written"
    return ""


def make_private(directory: Path, own_names: str = DATA_NAMES) -> None:
    """Make a directory of ours (0700) if it does not exist.

    Raises
    ------
    Misconfigured
        It cannot be made, or what is there cannot be used (``find_problem``).
    """
    if problem := find_problem(directory, own_names):
        raise Misconfigured([problem])
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise Misconfigured([f"{directory} cannot be made: {exc.strerror}"]) from exc
    if problem := find_problem(directory, own_names):  # somebody was faster
        raise Misconfigured([problem])


def server_id(data_dir: Path) -> str:
    """Give the id of this installation; made once, kept in its data directory."""
    path = data_dir / _SERVER_ID
    if not path.exists():
        make_text(path, secrets.token_hex(8))
    return path.read_text().strip()


def has_stored_files(vault: Path) -> bool:
    """Say whether a server has stored files of conversations here."""
    with contextlib.suppress(FileNotFoundError), os.scandir(vault) as entries:
        return any(entry.is_dir(follow_symlinks=False) for entry in entries)
    return False


async def require_database(connections: Connections, data_dir: Path) -> str:
    """Check that an open database is that of the files here; give the id of the installation.

    Raises
    ------
    Unavailable
        It is another's, or new beside files: what is decided by it would harm these files.
    """
    has_files = await asyncio.to_thread(has_stored_files, data_dir / VAULT_NAME)
    own = await asyncio.to_thread(server_id, data_dir)
    await require_installation(connections, own, has_files)
    return own


def _is_ours(directory: Path) -> bool:
    status = os.lstat(directory)
    return status.st_uid == os.getuid() and directory.is_dir() and not directory.is_symlink()


def _foreign(directory: Path, own_names: str) -> str:
    """Give the name of something in a directory that is not of ours; "" if there is none."""
    own = re.compile(own_names)
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name != _ALWAYS_THERE and not own.fullmatch(entry.name):
                return entry.name
    return ""


def _why_not_made(directory: Path) -> str:
    """Say why a directory that does not exist cannot be made; "" if it can."""
    for parent in directory.parents:
        try:
            if not stat.S_ISDIR(os.stat(parent).st_mode):
                return f"{directory} cannot be made: {parent} is no directory"
        except FileNotFoundError:
            if os.path.lexists(parent):
                return f"{directory} cannot be made: {parent} is a link that leads nowhere"
            continue
        except OSError as exc:
            return f"{directory} cannot be made: {exc.strerror}"
        if not os.access(parent, os.W_OK | os.X_OK):
            return f"{directory} cannot be made: {parent} cannot be written"
        return ""
    return f"{directory} cannot be made"
