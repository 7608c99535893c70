"""The records of calls and messages of a test's database, sealed as a server's are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from jupyter_sandbox.stores.call_records import CallRecords
from jupyter_sandbox.stores.conversation_keys import ConversationKeys
from jupyter_sandbox.stores.database import Database
from jupyter_sandbox.stores.disk_threads import DiskThreads
from jupyter_sandbox.stores.kept_bytes import KeptBytes
from jupyter_sandbox.stores.key_records import KeyRecords
from jupyter_sandbox.stores.master_keys import MasterKeys
from jupyter_sandbox.stores.message_records import MessageRecords
from jupyter_sandbox.stores.row_seals import RowSeals

T = TypeVar("T")

MASTER = MasterKeys([b"a master key of tests, 32 bytes."])
KEPT = KeptBytes(256 * 1024**2, 2 * 1024**3)


class _NoThreads(DiskThreads):
    """Does at once what costs a test nothing."""

    def __init__(self) -> None:
        pass

    async def run(self, work: Callable[[], T]) -> T:
        return work()


def seals_of(database: Database, master: MasterKeys = MASTER) -> RowSeals:
    """Give the seals of a database; of several that are opened on one, the same."""
    return RowSeals(ConversationKeys(KeyRecords(database.connections), master, _NoThreads()))


def calls_of(database: Database, kept: KeptBytes = KEPT) -> CallRecords:
    """Give the calls of a database."""
    return CallRecords(database.connections, seals_of(database), kept, database.now)


def messages_of(
    database: Database, kept: KeptBytes = KEPT, master: MasterKeys = MASTER, **most: int
) -> MessageRecords:
    """Give the messages of a database."""
    return MessageRecords(database.connections, seals_of(database, master), kept, **most)
