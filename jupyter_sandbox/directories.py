"""Where a server keeps things on its host, and that the directories are its own.

``data_dir`` is the installation: database, keys, files, and its id. ``runtime_dir`` has the sockets
of its sandboxes. The rule: the data directory remembers the runtime directory, because the
sandboxes of an earlier server have it mounted; one that looked elsewhere would take them for lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .errors import Unavailable
from .stores.connections import Connections
from .stores.installation import require_installation
from .stores.vault_opening import DIRECTORY_NAME as VAULT_NAME
from .stores.whole_file import make_text, replace_text

_SERVER_ID = "server-id"
_RUNTIME_DIR = "runtime-dir"
FILES = (_SERVER_ID, _RUNTIME_DIR)
"""What is written into the data directory here, beside its name first."""

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


def make_private(directory: Path) -> None:
    """Make a directory of ours (0700).

    Raises
    ------
    Unavailable
        It belongs to somebody else.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_ours(directory):
        raise Unavailable(
            f"the directory {directory.name} belongs to another user; "
            "set SandboxApp.data_dir and SandboxApp.runtime_dir",
            status=503,
            detail=str(directory),
        )
    if os.lstat(directory).st_mode & 0o077:
        os.chmod(directory, 0o700)


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
