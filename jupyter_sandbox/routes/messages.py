"""``…/messages``: the message stream of a conversation, and what users say in it."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidRequest, LimitExceeded
from ..models import JsonValue, MessageRecord, UploadRecord
from ..policy.names import decide_file_name
from .base import SandboxHandler, endpoint
from .links import card_links, preview_link, upload_preview_url, upload_url

MOST_SEQ = 10**12
_PAGE = 100
_MOST_PAGE = 500
_TEXT_CHARACTERS = 64 * 1024
_MOST_ATTACHMENTS = 10
_MEDIA_TYPE_CHARACTERS = 127


@dataclass(frozen=True)
class _Attachment:
    """A file of a user's message; ``data`` None: an upload that is there."""

    name: str
    data: bytes | None = field(repr=False)


class MessagesHandler(SandboxHandler):
    """The stream of one conversation."""

    @endpoint
    async def get(self, conversation_id: str) -> None:
        """Give the messages behind ``?after=N``; at most ``limit`` of them."""
        await self.find(conversation_id)
        after = self.integer_argument("after", 0, 0, MOST_SEQ)
        limit = self.integer_argument("limit", _PAGE, 1, _MOST_PAGE)
        page = await self.services.journal.page(conversation_id, after, limit)
        self.answer(
            {
                "messages": [self.to_json(message) for message in page.messages],
                "first": page.first,
                "last": page.last,
            }
        )

    @endpoint
    async def post(self, conversation_id: str) -> None:
        """Add a message of the user: ``{text, attachments?}``; its files are kept as uploads."""
        await self.find(conversation_id)
        body = self.json_body("text", "attachments")
        text = self.text_field(body, "text")
        if text is None:
            raise InvalidRequest("text: is required.")
        if len(text) > _TEXT_CHARACTERS:
            raise InvalidRequest(f"text: at most {_TEXT_CHARACTERS} characters, not {len(text)}.")
        attachments = _parse_attachments(body.get("attachments"))
        if not text.strip() and not attachments:
            raise InvalidRequest("The message is empty.")
        for attachment in attachments:
            if attachment.data is None:
                await self.services.uploads.find(conversation_id, attachment.name)
            elif len(attachment.data) > self.services.limits.upload_bytes:
                limit = self.services.limits.upload_bytes
                raise LimitExceeded(f"The file is larger than {limit:,} bytes.", status=413)
        rows = [await self._keep(conversation_id, each) for each in attachments]
        said: dict[str, JsonValue] = {
            "text": text,
            "attachments": [_attachment_json(row) for row in rows],
        }
        message = await self.services.journal.put(conversation_id, "user", said)
        self.answer(self.to_json(message), 201)

    def to_json(self, message: MessageRecord) -> dict[str, JsonValue]:
        """Give a message, its files with their addresses."""
        shape, conversation_id = message.to_json(), message.conversation_id
        if message.kind == "file":
            return {**shape, **card_links(self.base_url, conversation_id, shape)}
        if message.kind == "upload":
            return {**shape, **self._upload_links(conversation_id, shape)}
        attachments = shape.get("attachments")
        if message.kind == "user" and isinstance(attachments, list):
            shape["attachments"] = [
                {**each, **self._upload_links(conversation_id, each)}
                for each in attachments
                if isinstance(each, dict)
            ]
        return shape

    def _upload_links(
        self, conversation_id: str, shape: dict[str, JsonValue]
    ) -> dict[str, JsonValue]:
        if shape.get("action") == "deleted":
            return {}
        place = (self.base_url, conversation_id, str(shape.get("name")))
        shown = upload_preview_url(*place)
        return {
            "url": upload_url(*place),
            "preview_url": preview_link(str(shape.get("preview")), shown),
        }

    async def _keep(self, conversation_id: str, attachment: _Attachment) -> UploadRecord:
        if attachment.data is None:
            return await self.services.uploads.find(conversation_id, attachment.name)
        file = await self.services.uploads.receive(conversation_id, attachment.name)
        try:
            await file.write(attachment.data)
            await file.finish()
            row, _ = await file.keep()
        finally:
            await file.close()
        return row


def _attachment_json(row: UploadRecord) -> dict[str, JsonValue]:
    return {
        "name": row.name,
        "id": row.upload_id,
        "size_bytes": row.size_bytes,
        "media_type": row.media_type,
        "preview": row.preview,
    }


def _parse_attachments(given: Any) -> list[_Attachment]:
    """Give what a message brings; all of it is checked before any of it is kept."""
    if given is None:
        return []
    if not isinstance(given, list) or len(given) > _MOST_ATTACHMENTS:
        raise InvalidRequest(f"attachments: must be a list of at most {_MOST_ATTACHMENTS}.")
    found = [_parse_attachment(each) for each in given]
    if len({each.name for each in found}) < len(found):
        raise InvalidRequest("attachments: two have the same name.")
    return found


def _parse_attachment(given: Any) -> _Attachment:
    if not isinstance(given, dict) or not set(given) <= {"name", "media_type", "data"}:
        raise InvalidRequest("attachments: each has `name`, `data` and `media_type`.")
    name, data, media_type = given.get("name"), given.get("data"), given.get("media_type")
    if not isinstance(name, str):
        raise InvalidRequest("attachments: `name` must be a string.")
    decision = decide_file_name(name)
    if not decision:
        raise InvalidRequest(f"Not attached: {decision.reason}.")
    if media_type is not None and (
        not isinstance(media_type, str) or len(media_type) > _MEDIA_TYPE_CHARACTERS
    ):
        raise InvalidRequest("attachments: `media_type` must be a short string.")
    if data is None:
        return _Attachment(name, None)
    if not isinstance(data, str):
        raise InvalidRequest("attachments: `data` must be base64.")
    try:
        return _Attachment(name, base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError) as exc:
        raise InvalidRequest("attachments: `data` must be base64.") from exc
