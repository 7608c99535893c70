"""The master keys: a keyring whose newest key wraps the keys of conversations.

It knows a file and an environment variable, no database. A key's id is a hash of it, so that a
wrong key is told from a damaged file. The rule: the file is the server's alone (0600, its own, no
link), or the server does not start; it is made once, never overwritten in place.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap,
    aes_key_wrap,
)

from ..errors import Unavailable
from .unfinished import remove_unfinished
from .whole_file import make_text, replace_text

ENVIRONMENT = "JUPYTER_SANDBOX_MASTER_KEY"
"""Keys in base64, separated by commas, the newest first."""

KEY_BYTES = 32
_MOST_BYTES = 65536


class KeyUnusable(Unavailable):
    """A wrapped key that this keyring does not open: a matter of one conversation, not of all."""


class MasterKeys:
    """A keyring, the newest key first.

    Parameters
    ----------
    keys : sequence of bytes
        32 bytes each; the first one wraps, all unwrap.
    file : Path, optional
        Where they come from: read again when it has changed, so that a rotation needs no restart.
    """

    def __init__(self, keys: list[bytes], file: Path | None = None) -> None:
        self._file = file
        self._state = _state(file)
        self._keys = _by_id(keys)

    def __repr__(self) -> str:
        return f"<MasterKeys {len(self._keys)} from {self._file or 'the environment'}>"

    @property
    def ids(self) -> list[str]:
        """The keys' ids, the newest first."""
        return list(self._keys)

    def wrap(self, key: bytes) -> tuple[str, bytes]:
        """Give the id of the newest key and ``key`` wrapped by it. Blocks for a ``stat``."""
        self._refresh()
        key_id, newest = next(iter(self._keys.items()))
        return key_id, aes_key_wrap(newest, key)

    def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        """Give the key that was wrapped. Blocks for a ``stat``.

        Raises
        ------
        KeyUnusable
            The keyring does not have that key, or it is another.
        """
        if key_id not in self._keys:
            self._refresh()
        try:
            return aes_key_unwrap(self._keys[key_id], wrapped)
        except KeyError:
            raise KeyUnusable(
                "the stored files of this conversation cannot be opened: they were encrypted "
                "under another master key. An administrator can add it to the keyring again",
                detail=f"no master key {key_id}",
            ) from None
        except InvalidUnwrap as exc:
            raise KeyUnusable(
                "the stored files of this conversation cannot be opened: its key is damaged",
                detail=f"master key {key_id}",
            ) from exc

    def add_new(self) -> str:
        """Put a new key in front, in the file too; give its id. Blocks."""
        if self._file is None:
            raise Unavailable(f"the master keys come from {ENVIRONMENT}; put the new one there")
        self._store([os.urandom(KEY_BYTES), *_read(self._file)])
        return self.ids[0]

    def forget(self, key_ids: Collection[str]) -> None:
        """Remove keys from the file, never the newest one. Blocks."""
        if self._file is None:
            raise Unavailable(f"the master keys come from {ENVIRONMENT}; remove them there")
        keys = _read(self._file)
        self._store([keys[0], *(key for key in keys[1:] if _id_of(key) not in key_ids)])

    def _store(self, keys: list[bytes]) -> None:
        assert self._file is not None
        _write(self._file, keys)
        self._state = _state(self._file)
        self._keys = _by_id(keys)

    def _refresh(self) -> None:
        if self._file is None or (state := _state(self._file)) == self._state:
            return
        self._keys = _by_id(_read(self._file))
        self._state = state


def load_master_keys(
    file: Path, environ: Mapping[str, str], *, may_create: bool = True
) -> MasterKeys:
    """Give the keyring: from the environment variable if it is set, else from ``file``. Blocks.

    Parameters
    ----------
    may_create : bool
        False: a missing file is an error, for there are files that its keys have encrypted.

    Raises
    ------
    Unavailable
        503: the keys cannot be had, or not safely; the message says what to do.
    """
    text = environ.get(ENVIRONMENT, "")
    if text:
        return MasterKeys([_decode(part) for part in text.split(",")])
    with contextlib.suppress(OSError):  # a keyring that a killed server did not get to name
        remove_unfinished(file.parent, file.name)
    if not os.path.lexists(file):
        if not may_create:
            raise _refused(file, "is missing, and stored files need it: restore it from a backup")
        _write(file, [os.urandom(KEY_BYTES)], only_if_missing=True)
    return MasterKeys(_read(file), file)


def _read(file: Path) -> list[bytes]:
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        raise _refused(file, "cannot be opened, or is a link", repr(exc)) from exc
    with os.fdopen(fd, "rb") as opened:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise _refused(file, "is no regular file")
        if status.st_uid != os.getuid():
            raise _refused(file, "belongs to another user")
        if status.st_mode & 0o077:
            raise _refused(file, "can be read by others: chmod 600, and rotate the key")
        data = opened.read(_MOST_BYTES)
    try:
        keys = [_decode(text) for text in json.loads(data)["keys"]]
    except (ValueError, KeyError, TypeError) as exc:
        raise _refused(file, "is damaged: restore it from a backup") from exc
    if not keys:
        raise _refused(file, "holds no key: restore it from a backup")
    return keys


def _write(file: Path, keys: list[bytes], only_if_missing: bool = False) -> None:
    """Write beside and rename: a reader, and a crash, see the old or the new keyring.

    ``only_if_missing``: of two servers that start at once one makes it.
    """
    text = json.dumps({"version": 1, "keys": [base64.b64encode(k).decode() for k in keys]})
    (make_text if only_if_missing else replace_text)(file, text + "\n")


def _decode(text: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError, AttributeError):
        key = b""
    if len(key) != KEY_BYTES:
        raise Unavailable(
            f"a master key is not {KEY_BYTES} bytes in base64 "
            f"(make one: head -c {KEY_BYTES} /dev/urandom | base64)",
            status=503,
        )
    return key


def _by_id(keys: list[bytes]) -> dict[str, bytes]:
    return {_id_of(key): key for key in keys}


def _id_of(key: bytes) -> str:
    return hashlib.sha256(b"jupyter-sandbox master key\0" + key).hexdigest()[:16]


def _state(file: Path | None) -> tuple[int, int, int] | None:
    if file is None:
        return None
    with contextlib.suppress(OSError):
        status = os.lstat(file)
        return (status.st_ino, status.st_mtime_ns, status.st_size)
    return None


def _refused(file: Path, why: str, detail: str = "") -> Unavailable:
    return Unavailable(
        f"the master key file {file.name} {why}", status=503, detail=detail or str(file)
    )
