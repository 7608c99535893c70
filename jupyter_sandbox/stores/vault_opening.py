"""Puts the vault of an installation together: its keyring, its keys, its directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import sqlalchemy as sa

from ..errors import Unavailable
from .blobs import DirectoryBlobs
from .connections import Connections
from .conversation_keys import ConversationKeys
from .disk_threads import DiskThreads
from .key_records import KeyRecords
from .master_keys import MasterKeys, load_master_keys
from .room import Room
from .schema import shares
from .vault import Vault
from .whole_file import make_text

MASTER_KEY_NAME = "master.key"
DIRECTORY_NAME = "vault"
UNVERSIONED_NAME = "unversioned.json"
"""Which version each shared file is that was sealed without it, by an earlier release."""

_VERSIONS = sa.select(shares.c.stored_name, shares.c.version)


async def open_vault(
    data_dir: Path,
    connections: Connections,
    environ: Mapping[str, str],
    master_key_file: str = "",
    room: Room | None = None,
) -> tuple[Vault, MasterKeys]:
    """Give the vault and its keyring.

    Parameters
    ----------
    data_dir : Path
        Holds the sealed files and, unless told otherwise, the master key.
    connections : Connections
        Of the database that is open.
    environ : mapping
        May hold the master key.
    master_key_file : str
        Where the keyring lies; "" is ``master.key`` in ``data_dir``.
    room : Room, optional
        Asked before more is kept; None: there always is some.

    Raises
    ------
    Unavailable
        503: there is no safe master key, or not the one that the files need.
    """
    threads = DiskThreads()
    records = KeyRecords(connections)
    try:
        needed = await records.count_by_master_key()
        file = Path(master_key_file) if master_key_file else data_dir / MASTER_KEY_NAME
        master = await threads.run(lambda: load_master_keys(file, environ, may_create=not needed))
        unversioned = await _unversioned(data_dir / UNVERSIONED_NAME, connections, threads)
    except BaseException:
        threads.close()
        raise
    keys = ConversationKeys(records, master, threads)
    blobs = DirectoryBlobs(data_dir / DIRECTORY_NAME)
    return Vault(blobs, keys, threads, unversioned, room or Room()), master


async def _unversioned(
    file: Path, connections: Connections, threads: DiskThreads
) -> Mapping[str, int]:
    """Return the versions of the shared files that were sealed without them, by file id.

    The first server that seals versions notes beside the database what the database says then; from
    there on the database alone makes an older version of such a file no newer one.
    """
    if not await threads.run(file.exists):
        rows = await connections.run(lambda connection: connection.execute(_VERSIONS).all())
        noted = json.dumps({str(row[0]): int(row[1]) for row in rows})
        await threads.run(lambda: make_text(file, noted))
    try:
        found = json.loads(await threads.run(file.read_text))
        return {str(file_id): int(version) for file_id, version in found.items()}
    except (ValueError, TypeError, AttributeError) as exc:
        raise Unavailable(
            f"{file.name} in the data directory is damaged: restore it from a backup, or remove it "
            "to have it made again from the database as it is now",
            status=503,
            detail=str(file),
        ) from exc
