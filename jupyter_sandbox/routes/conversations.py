"""``/sandbox/api/conversations``: create, list, get, rename, delete, interrupt."""

from __future__ import annotations

from ..models import ConversationRecord, JsonValue
from ..stores.database import page_cursor
from .base import SandboxHandler, endpoint

_PAGE = 50


class ConversationsHandler(SandboxHandler):
    """The collection."""

    @endpoint
    async def get(self) -> None:
        """List the caller's conversations, newest first: ``?limit=1..200&after=CURSOR``."""
        limit = self.integer_argument("limit", _PAGE, 1, 200)
        after = self.get_query_argument("after", None)
        records = await self.services.conversations.list(self.owner, limit + 1, after)
        page = list(records[:limit])
        more = page_cursor(page[-1]) if len(records) > limit else None
        self.answer({"conversations": [to_json(r) for r in page], "next": more})

    @endpoint
    async def post(self) -> None:
        """Create one: ``{title?, key?}``; 201, or 200 when the owner's key is known."""
        body = self.json_body("title", "key")
        title, key = self.text_field(body, "title") or "", self.text_field(body, "key")
        record, created = await self.services.conversations.create(self.owner, title, key)
        self.answer(to_json(record), 201 if created else 200)


class ConversationHandler(SandboxHandler):
    """One conversation."""

    @endpoint
    async def get(self, conversation_id: str) -> None:
        """Give its model."""
        record = await self.find(conversation_id)
        live = self.services.conversations.live(conversation_id)
        model = to_json(record)
        sandbox = live.sandbox
        model["kernel"] = {"python": "absent" if sandbox is None else str(sandbox.python.state)}
        model["calls_running"] = live.users
        usage = await self.services.database.usage(conversation_id)
        model["usage"] = {
            "uploads": usage.uploads,
            "upload_bytes": usage.upload_bytes,
            "shares": usage.shares,
            "share_bytes": usage.share_bytes,
            "capacity_bytes": self.services.limits.capacity_bytes,
        }
        self.answer(model)

    @endpoint
    async def patch(self, conversation_id: str) -> None:
        """Rename it: ``{title}``."""
        title = self.text_field(self.json_body("title"), "title") or ""
        record = await self.services.conversations.rename(self.owner, conversation_id, title)
        self.answer(to_json(record))

    @endpoint
    async def delete(self, conversation_id: str) -> None:
        """Delete it with everything: sandbox, files, records."""
        await self.services.conversations.delete(self.owner, conversation_id)
        await self.services.kernels.forget(conversation_id)
        self.services.previews.leases.end_conversation(conversation_id)
        self.set_status(204)
        self.finish()


class InterruptHandler(SandboxHandler):
    """What runs in a conversation."""

    @endpoint
    async def post(self, conversation_id: str) -> None:
        """End all running commands and cells."""
        await self.find(conversation_id)
        count = await self.services.conversations.live(conversation_id).interrupt()
        self.answer({"interrupted": count})


def to_json(record: ConversationRecord) -> dict[str, JsonValue]:
    """Give the model of a conversation."""
    return {
        "id": record.conversation_id,
        "title": record.title,
        "key": record.key,
        "state": str(record.state),
        "created_at": record.created_at.isoformat(),
        "used_at": record.used_at.isoformat(),
        "engine": record.engine or None,
        "generation": record.generation,
        "notices": [record.notice] if record.notice else [],
    }
