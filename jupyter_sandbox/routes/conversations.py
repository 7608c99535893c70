"""``/sandbox/api/conversations``: create, list, get, rename, keep awake, delete, interrupt."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from ..errors import InvalidRequest
from ..models import ConversationRecord, JsonValue, Lifecycle
from ..policy.idle import suspends_at, terminates_at
from ..stores.database import page_cursor
from .base import SandboxHandler, endpoint

_PAGE = 50
_CHANGEABLE = ("title", "keep_awake_until")
_FIRST_YEAR, _LAST_YEAR = 1970, 9999  # what a row can hold, wherever it was written


class ConversationsHandler(SandboxHandler):
    """The collection."""

    @endpoint
    async def get(self) -> None:
        """List the caller's conversations, newest first: ``?limit=1..200&after=CURSOR``."""
        limit = self.integer_argument("limit", _PAGE, 1, 200)
        after = self.get_query_argument("after", None)
        records = await self.services.conversations.list(self.owner, limit + 1, after)
        page, lifecycle = list(records[:limit]), self.services.conversations.lifecycle
        more = page_cursor(page[-1]) if len(records) > limit else None
        self.answer({"conversations": [to_json(r, lifecycle) for r in page], "next": more})

    @endpoint
    async def post(self) -> None:
        """Create one: ``{title?, key?}``; 201, or 200 when the owner's key is known."""
        body = self.json_body("title", "key")
        title, key = self.text_field(body, "title") or "", self.text_field(body, "key")
        record, created = await self.services.conversations.create(self.owner, title, key)
        lifecycle = self.services.conversations.lifecycle
        self.answer(to_json(record, lifecycle), 201 if created else 200)


class ConversationHandler(SandboxHandler):
    """One conversation."""

    @endpoint
    async def get(self, conversation_id: str) -> None:
        """Give its model."""
        record = await self.find(conversation_id)
        live = self.services.conversations.live(conversation_id)
        model = to_json(record, self.services.conversations.lifecycle)
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
            "result_bytes": usage.result_bytes,
        }
        self.answer(model)

    @endpoint
    async def patch(self, conversation_id: str) -> None:
        """Rename it, keep its sandbox awake: ``{title?, keep_awake_until?}``."""
        record = await self.find(conversation_id)
        conversations, body = self.services.conversations, self.json_body(*_CHANGEABLE)
        if not body:
            raise InvalidRequest(f"Give one of {' and '.join(_CHANGEABLE)}.")
        until = _time_field(body, "keep_awake_until")
        if "title" in body:
            title = self.text_field(body, "title") or ""
            record = await conversations.rename(self.owner, conversation_id, title)
        if "keep_awake_until" in body:
            record = await conversations.keep_awake(self.owner, conversation_id, until)
        self.answer(to_json(record, conversations.lifecycle))

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


def to_json(record: ConversationRecord, lifecycle: Lifecycle) -> dict[str, JsonValue]:
    """Give the model of a conversation."""
    return {
        "id": record.conversation_id,
        "title": record.title,
        "key": record.key,
        "state": str(record.state),
        "created_at": record.created_at.isoformat(),
        "used_at": record.used_at.isoformat(),
        "suspends_at": _iso(suspends_at(record, lifecycle)),
        "terminates_at": _iso(terminates_at(record, lifecycle)),
        "keep_awake_until": _iso(record.keep_awake_until),
        "engine": record.engine or None,
        "generation": record.generation,
        "notices": [record.notice] if record.notice else [],
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _time_field(body: Mapping[str, object], name: str) -> datetime | None:
    """Give a field that is a time with its offset from UTC, or absent (or null)."""
    value = body.get(name)
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or not _FIRST_YEAR < moment.year < _LAST_YEAR:
        raise InvalidRequest(f"{name}: must be a time as in 2026-01-31T12:00:00Z, or null.")
    return moment.astimezone(UTC)
