"""``/sandbox/api/sandboxes`` and ``…/suspend``, ``…/wake``, ``…/terminate``: sandboxes by hand.

For owners, and for administrators whoever the owner is, also while the feature is off. The rule: an
administrator sees states and times, never titles, files or what was run.
"""

from __future__ import annotations

from ..models import ConversationRecord, JsonValue
from .base import SandboxHandler, endpoint
from .conversations import to_json

_MOST = 1000
_TIMES = ("suspends_at", "terminates_at", "keep_awake_until")


class ByHandHandler(SandboxHandler):
    """Base: who may."""

    def require_access(self) -> None:
        """Let administrators go on, and who has access."""
        if not self.caller.is_administrator:
            super().require_access()

    async def find(self, conversation_id: str) -> ConversationRecord:
        """Give the caller's conversation, to an administrator anybody's."""
        return await self.services.conversations.find_to_manage(self.caller, conversation_id)

    async def answer_record(self, conversation_id: str) -> None:
        """Answer with the state as it is now."""
        self.answer(self.to_json(await self.find(conversation_id)))

    def to_json(self, record: ConversationRecord) -> dict[str, JsonValue]:
        """Give what may be told of a sandbox."""
        whole = to_json(record, self.services.conversations.lifecycle)
        live = self.services.conversations.known(record.conversation_id)
        shown = ("id", "state", "engine", "generation", "created_at", "used_at", *_TIMES)
        return {
            "owner": record.owner,
            **{name: whole[name] for name in shown},
            "sandbox_id": record.sandbox_id or None,
            "calls_running": 0 if live is None else live.users,
        }


class SandboxesHandler(ByHandHandler):
    """All that there are."""

    @endpoint
    async def get(self) -> None:
        """List the caller's sandboxes, last used first; ``?all=1``: everybody's."""
        everybody = self.integer_argument("all", 0, 0, 1)
        if everybody:
            self.require_administrator()
        owner = None if everybody else self.owner
        records = await self.services.conversations.with_sandbox(owner)
        self.answer(
            {
                "sandboxes": [self.to_json(record) for record in records[:_MOST]],
                "left_out": max(0, len(records) - _MOST),
            }
        )


class SandboxByHandHandler(ByHandHandler):
    """One sandbox."""

    @endpoint
    async def get(self, conversation_id: str) -> None:
        """Give its state, and what its files take."""
        shape = self.to_json(await self.find(conversation_id))
        usage = await self.services.database.usage(conversation_id)
        shape["usage"] = {
            "uploads": usage.uploads,
            "upload_bytes": usage.upload_bytes,
            "shares": usage.shares,
            "share_bytes": usage.share_bytes,
            "result_bytes": usage.result_bytes,
        }
        self.answer(shape)


class SuspendHandler(ByHandHandler):
    """A sandbox that is to stand still."""

    @endpoint
    async def post(self, conversation_id: str) -> None:
        """Suspend it: nothing runs, nothing is lost; the next use wakes it."""
        await self.find(conversation_id)
        live = self.services.conversations.live(conversation_id)
        await live.suspend(self.owner)
        await self.answer_record(conversation_id)


class WakeHandler(ByHandHandler):
    """A sandbox that is to go on."""

    @endpoint
    async def post(self, conversation_id: str) -> None:
        """Wake it."""
        await self.find(conversation_id)
        await self.services.conversations.live(conversation_id).wake()
        await self.answer_record(conversation_id)


class TerminateHandler(ByHandHandler):
    """A sandbox that is to end."""

    @endpoint
    async def post(self, conversation_id: str) -> None:
        """End it with all that runs in it; uploads and shared files stay."""
        await self.find(conversation_id)
        await self.services.conversations.live(conversation_id).terminate(self.owner)
        await self.services.kernels.release(conversation_id)
        await self.answer_record(conversation_id)
