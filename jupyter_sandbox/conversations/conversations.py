"""All conversations: whose they are, and the live ones of this server process.

Ownership is checked here and nowhere below: ``find`` gives a conversation to its owner and raises
the same ``NotFound`` for a missing and for a foreign one.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
import weakref
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from ..errors import InvalidRequest, NotFound, SandboxError
from ..models import Caller, ConversationRecord, Enforced, Lifecycle
from ..policy.idle import cap_keep_awake, choose_times
from ..stores.file_store import FileStore
from .conversation import Conversation
from .rates import Rates
from .states import State
from .surroundings import Surroundings

_TITLE_LENGTH = 200
_KEY_LENGTH = 200


class Conversations:
    """The registry.

    Parameters
    ----------
    around : Surroundings
    files : FileStore
        Holds uploads and shared files, which go when their conversation is deleted.
    rates : Rates
        How often each user may make a conversation, and call a tool.
    lifecycle : Lifecycle
        When sandboxes that nobody uses rest and end.
    """

    def __init__(
        self, around: Surroundings, files: FileStore, rates: Rates, lifecycle: Lifecycle
    ) -> None:
        self._around = around
        self.lifecycle = lifecycle
        self.rates = rates
        self._files = files
        # One object for a conversation, as long as anybody holds it; those that have a sandbox, or
        # had one a moment ago, are held here.
        self._known: weakref.WeakValueDictionary[str, Conversation] = weakref.WeakValueDictionary()
        self._live: dict[str, Conversation] = {}
        self._idle: set[str] = set()

    def __repr__(self) -> str:
        return f"<Conversations live={len(self._live)}>"

    async def create(
        self, owner: str, title: str = "", key: str | None = None
    ) -> tuple[ConversationRecord, bool]:
        """Give a new conversation, or the owner's with that key; and whether it is new."""
        check_text("title", title, _TITLE_LENGTH)
        if key is not None:
            if not key:
                raise InvalidRequest("key: must not be empty (leave it out instead)")
            check_text("key", key, _KEY_LENGTH)
        if key is not None:
            known = await self._around.database.conversation_by_key(owner, key)
            if known is not None:
                return known, False
        self.rates.take_conversation(owner)
        record, is_new = await self._around.database.create_conversation(owner, title, key)
        if is_new:
            self._around.audit.note("conversation_created", owner, record.conversation_id)
        return record, is_new

    async def find(self, owner: str, conversation_id: str) -> ConversationRecord:
        """Give the owner's conversation; ``NotFound`` for a missing and a foreign one alike."""
        record = None
        if is_uuid(conversation_id):
            record = await self._around.database.conversation(conversation_id)
        if record is None or record.owner != owner:
            raise NotFound("There is no such conversation.")
        return record

    async def find_to_manage(self, caller: Caller, conversation_id: str) -> ConversationRecord:
        """Give the caller's conversation, to an administrator anybody's; else ``NotFound``."""
        if not caller.is_administrator:
            return await self.find(caller.owner, conversation_id)
        record = None
        if is_uuid(conversation_id):
            record = await self._around.database.conversation(conversation_id)
        if record is None:
            raise NotFound("There is no such conversation.")
        return record

    async def with_sandbox(self, owner: str | None) -> list[ConversationRecord]:
        """Give the conversations that have a sandbox, last used first; None: everybody's."""
        records = await self._around.database.conversations_with_sandbox()
        found = [
            record
            for record in records
            if record.state != State.TERMINATED and owner in (None, record.owner)
        ]
        return sorted(found, key=lambda record: record.used_at, reverse=True)

    async def find_for_use(self, owner: str, conversation_id: str) -> ConversationRecord:
        """Give the owner's conversation, perhaps as it was some time ago; for its calls.

        Who owns it never changes, and its sandbox goes before it does: as long as the sandbox is
        attached here, nothing needs to be asked. A foreign one takes as long as a missing one.
        """
        live = self._known.get(conversation_id)
        if live is not None and live.is_attached:
            known = live.found
            if known is not None and known.owner == owner:
                return known
        record = await self.find(owner, conversation_id)
        self.live(conversation_id).found = replace(record, notice="")
        return record

    async def list(self, owner: str, limit: int, after: str | None) -> Sequence[ConversationRecord]:
        """Give a page of the owner's conversations, newest first; ``after`` is a page's cursor."""
        return await self._around.database.conversations(owner, limit, after)

    async def rename(self, owner: str, conversation_id: str, title: str) -> ConversationRecord:
        """Change the title."""
        check_text("title", title, _TITLE_LENGTH)
        await self.find(owner, conversation_id)
        await self._around.database.rename(conversation_id, title)
        return await self.find(owner, conversation_id)

    async def delete(self, owner: str, conversation_id: str) -> None:
        """Remove everything: sandbox, files and their key, records.

        The record goes first, and the key with it: a conversation is never there with a part of
        what it had, and what is left is without a record, which is swept and reaped.
        """
        await self.find(owner, conversation_id)
        with contextlib.suppress(SandboxError):  # what waits there names its owner by this record
            await self._around.audit.flush()
        await self.live(conversation_id).delete()
        self._live.pop(conversation_id, None)
        self._around.audit.note("conversation_deleted", owner, conversation_id)
        try:
            if not await self._files.remove_conversation(conversation_id):
                self._around.log.warning(
                    "conversation %s: deleted; its wrapped key is still in the database's log, "
                    "which another program reads: it is erased as soon as that lets go of it",
                    conversation_id,
                )
        except (SandboxError, OSError) as exc:
            self._around.log.warning(
                "conversation %s: deleted; its files are removed later: %r", conversation_id, exc
            )

    def live(self, conversation_id: str) -> Conversation:
        """Give the live object of a conversation that was found."""
        known = self._known.get(conversation_id)
        if known is None:
            known = self._known[conversation_id] = Conversation(conversation_id, self._around)
        self._live[conversation_id] = known
        self._idle.discard(conversation_id)
        return known

    def known(self, conversation_id: str) -> Conversation | None:
        """Give the live object of a conversation if there is one."""
        return self._known.get(conversation_id)

    async def forget_idle(self) -> None:
        """Let go of the objects of conversations that have no sandbox here and are not in use.

        Only of those that were so at the last time too: somebody may just be about to use one.
        """
        idle = set()
        for conversation_id, conversation in list(self._known.items()):
            if conversation.sandbox is not None or conversation.is_busy:
                self._live[conversation_id] = conversation  # somebody had held on to it
            elif conversation_id in self._idle:
                self._live.pop(conversation_id, None)
            else:
                idle.add(conversation_id)
        self._idle = idle

    def all(self) -> Sequence[Conversation]:
        """Give the live objects of this process."""
        return tuple(self._known.values())

    async def keep_awake(
        self, owner: str, conversation_id: str, until: datetime | None
    ) -> ConversationRecord:
        """Keep a sandbox from being suspended and ended until then, or as long as may be; None: no.

        What is there to keep is the next use's to say: this wakes and provisions nothing.
        """
        await self.find(owner, conversation_id)
        idle = self._around.resting.records
        until = cap_keep_awake(until, idle.now(), self.lifecycle)
        await idle.keep_awake(conversation_id, until)
        return await self.find(owner, conversation_id)

    def note_caller(self, caller: Caller, conversation_id: str) -> None:
        """Remember which idle times apply to the groups of its user, for its next use."""
        if self.lifecycle.group_times:
            self.live(conversation_id).note_times(choose_times(caller.groups, self.lifecycle))

    async def enforcement(self, conversation_id: str = "") -> tuple[Enforced, ...]:
        """Give what holds the sandbox of a conversation; by default of any sandbox that runs.

        () when none runs. ``Unavailable`` when the engine cannot say.
        """
        sandbox = self.live(conversation_id).sandbox if conversation_id else None
        if conversation_id and sandbox is None:
            return ()
        return await self._around.sandboxes.enforcement(sandbox.sandbox_id if sandbox else "")

    async def detach(self) -> None:
        """Let go of all sandboxes; they run on. For the server's stop."""
        live, self._live = list(self._known.values()), {}
        await asyncio.gather(*(c.detach() for c in live), return_exceptions=True)


def is_uuid(text: str) -> bool:
    """Say whether the text is a UUID in its canonical form."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def check_text(name: str, text: str, length: int) -> None:
    """Raise ``InvalidRequest`` for text that is too long or not printable."""
    if len(text) > length:
        raise InvalidRequest(f"{name}: at most {length} characters, not {len(text)}")
    if any(ord(c) < 32 or 0xD800 <= ord(c) <= 0xDFFF for c in text):
        raise InvalidRequest(f"{name}: control characters and lone surrogates are not allowed")
