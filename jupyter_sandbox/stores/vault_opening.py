"""Puts the vault of an installation together: its keyring, its keys, its directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .blobs import DirectoryBlobs
from .connections import Connections
from .conversation_keys import ConversationKeys
from .disk_threads import DiskThreads
from .key_records import KeyRecords
from .master_keys import MasterKeys, load_master_keys
from .vault import Vault

MASTER_KEY_NAME = "master.key"
DIRECTORY_NAME = "vault"


async def open_vault(
    data_dir: Path,
    connections: Connections,
    environ: Mapping[str, str],
    master_key_file: str = "",
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
    except BaseException:
        threads.close()
        raise
    keys = ConversationKeys(records, master, threads)
    return Vault(DirectoryBlobs(data_dir / DIRECTORY_NAME), keys, threads), master
