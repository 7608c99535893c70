"""The keys of conversations: made with the first file, wrapped by the master key, kept as rows.

The rule: a key is in memory or wrapped, never written down as it is. Who deletes the row has
deleted the files of that conversation, wherever copies of them are.
"""

from __future__ import annotations

import os
from collections import OrderedDict

from ..errors import NotFound
from .disk_threads import DiskThreads
from .key_records import KeyRecords, WrappedKey
from .master_keys import KEY_BYTES, MasterKeys

_MOST_KNOWN = 1000


class ConversationKeys:
    """Gives the key of a conversation.

    Parameters
    ----------
    threads : DiskThreads
        Where the keyring's file is looked at.
    """

    def __init__(self, records: KeyRecords, master: MasterKeys, threads: DiskThreads) -> None:
        self._records = records
        self._master = master
        self._threads = threads
        self._known: OrderedDict[str, bytes] = OrderedDict()

    def __repr__(self) -> str:
        return f"<ConversationKeys {len(self._known)} known>"

    async def get(self, conversation_id: str) -> bytes:
        """Give the key; ``NotFound`` if there is none: it has no files, or not any more."""
        known = self._known.get(conversation_id)
        if known is not None:
            self._known.move_to_end(conversation_id)
            return known
        kept = await self._records.get(conversation_id)
        if kept is None:
            raise NotFound("There is no such file.", detail="the conversation has no key")
        return await self._remember(kept)

    async def get_or_make(self, conversation_id: str) -> bytes:
        """Give the key, for a new file; ``NotFound`` if the conversation was deleted."""
        try:
            return await self.get(conversation_id)
        except NotFound:
            key = os.urandom(KEY_BYTES)
            key_id, wrapped = await self._threads.run(lambda: self._master.wrap(key))
            kept = await self._records.add(WrappedKey(conversation_id, key_id, wrapped))
            return await self._remember(kept)

    async def destroy(self, conversation_id: str) -> bool:
        """Delete the key; False: a copy waits for ``erase``. Twice is once."""
        try:
            return await self._records.destroy(conversation_id)
        finally:
            self._known.pop(conversation_id, None)

    async def erase(self) -> bool:
        """Remove what is left of deleted keys; False: it is to be tried again."""
        return await self._records.erase()

    async def _remember(self, kept: WrappedKey) -> bytes:
        key = await self._threads.run(
            lambda: self._master.unwrap(kept.master_key_id, kept.wrapped_key)
        )
        self._known[kept.conversation_id] = key
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return key


async def rewrap_all(records: KeyRecords, master: MasterKeys) -> int:
    """Wrap every key by the newest master key; give how many were wrapped by another.

    Files are not touched. A key that was deleted or rewrapped meanwhile is left alone.
    """
    changed = 0
    for kept in await records.all():
        if kept.master_key_id == master.ids[0]:
            continue
        key = master.unwrap(kept.master_key_id, kept.wrapped_key)
        key_id, wrapped = master.wrap(key)
        changed += await records.replace(kept, WrappedKey(kept.conversation_id, key_id, wrapped))
    return changed
