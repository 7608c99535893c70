"""``…/messages``: the message stream of a conversation, and what users say in it.

A GET that asks for a websocket gets one; until it is one, it is answered as any other request.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

from jupyter_server.base.websocket import WebSocketMixin
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from ..conversations.message_feeds import Feed
from ..errors import InvalidRequest, LimitExceeded, SandboxError
from ..models import JsonValue, MessageRecord, UploadRecord
from ..policy.names import decide_file_name
from .base import SandboxHandler, endpoint
from .disposition import attachment
from .links import card_links, preview_link, upload_preview_url, upload_url
from .message_stream import MessageStream

MOST_SEQ = 10**12
_PAGE = 100
_MOST_PAGE = 500
_TEXT_CHARACTERS = 64 * 1024
_MOST_ATTACHMENTS = 10
_MEDIA_TYPE_CHARACTERS = 127
_SLOW_SECONDS = 30.0

_GONE = 1000
_NOT_ASKED = 1003
_NO_ACCESS = 1008
_CANNOT = 1011
_TRY_AGAIN = 1013


@dataclass(frozen=True)
class _Attachment:
    """A file of a user's message; ``data`` None: an upload that is there."""

    name: str
    data: bytes | None = field(repr=False)


class _NoAccess(Exception):
    """Chat access was taken, or the feature switched off, while a client listened."""


class MessagesHandler(WebSocketMixin, WebSocketHandler, SandboxHandler):
    """The stream of one conversation."""

    _feed: Feed | None = None
    _after = 0
    _streaming: asyncio.Task[None] | None = None

    async def prepare(self) -> None:  # type: ignore[override]
        """Identify the caller; who is unknown is answered by ``get``, not sent to a login page."""
        await SandboxHandler.prepare(self)

    @endpoint
    async def get(self, conversation_id: str) -> None:
        """Give the messages behind ``?after=N``: at most ``limit``, or all on a websocket."""
        await self.find(conversation_id)
        after = self.integer_argument("after", 0, 0, MOST_SEQ)
        if self.request.headers.get("Upgrade", "").lower() == "websocket":
            await self._serve(conversation_id, after)
            return
        limit = self.integer_argument("limit", _PAGE, 1, _MOST_PAGE)
        page = await self.services.journal.page(conversation_id, after, limit)
        self.answer(
            {
                "messages": [self.to_json(message) for message in page.messages],
                "first": page.first,
                "last": page.last,
            }
        )

    def open(self, *args: str, **kwargs: str) -> None:
        """Begin to send."""
        super().open(*args, **kwargs)
        self._streaming = asyncio.ensure_future(self._stream())

    def on_message(self, message: bytes | str) -> None:
        """Refuse it: what users say is posted."""
        self.close(_NOT_ASKED, "messages are posted")

    def get_compression_options(self) -> dict[str, Any] | None:
        """Give the server's."""
        options: dict[str, Any] | None = self.settings.get("websocket_compression_options")
        return options

    async def _serve(self, conversation_id: str, after: int) -> None:
        """Open the websocket, and return when it is closed."""
        self._after = after
        self._feed = self.services.message_feeds.open(conversation_id)
        try:
            await super().get(conversation_id)
        finally:
            self.services.message_feeds.close(self._feed)
            if self._streaming is not None:
                self._streaming.cancel()
                await asyncio.wait([self._streaming])

    async def _stream(self) -> None:
        assert self._feed is not None
        services = self.services
        stream = MessageStream(
            *(self._feed, self._after, services.journal, services.calls),
            *(self.to_json, self._send),
        )
        try:
            await stream.run()
            self.close(_GONE, "there is no more")
        except _NoAccess:
            self.close(_NO_ACCESS, "no chat access")
        except (TimeoutError, SandboxError) as exc:  # it comes back with the number that it has
            self.log.info("message stream ended: %s", exc or "the client reads too slowly")
            self.close(_TRY_AGAIN, "come back")
        except (WebSocketClosedError, StreamClosedError):
            pass
        except Exception:
            self.log.exception("message stream: internal error")
            self.close(_CANNOT, "internal error")

    async def _send(self, text: str) -> None:
        """Send a text and wait until the client's side has taken it; not for ever."""
        if not self.has_access:
            raise _NoAccess
        async with asyncio.timeout(_SLOW_SECONDS):
            await self.write_message(text)

    @endpoint
    async def post(self, conversation_id: str) -> None:
        """Add a message of the user: ``{text, attachments?}``; its files are kept as uploads."""
        await self.find(conversation_id)
        self.services.disk_guard.room.require()
        body = self.json_body("text", "attachments")
        text = self.text_field(body, "text")
        if text is None:
            raise InvalidRequest("text: is required.")
        if len(text) > _TEXT_CHARACTERS:
            raise InvalidRequest(f"text: at most {_TEXT_CHARACTERS} characters, not {len(text)}.")
        attachments = _parse_attachments(body.get("attachments"))
        if not text.strip() and not attachments:
            raise InvalidRequest("The message is empty.")
        for brought in attachments:
            if brought.data is None:
                await self.services.uploads.find(conversation_id, brought.name)
            elif len(brought.data) > self.services.limits.upload_bytes:
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
        return message_json(self.base_url, message)

    async def _keep(self, conversation_id: str, brought: _Attachment) -> UploadRecord:
        if brought.data is None:
            return await self.services.uploads.find(conversation_id, brought.name)
        file = await self.services.uploads.receive(conversation_id, brought.name)
        try:
            await file.write(brought.data)
            await file.finish()
            row, _ = await file.keep()
        finally:
            await file.close()
        return row


class NotebookHandler(SandboxHandler):
    """A conversation as a notebook."""

    ends_with_client = True

    @endpoint
    async def get(self, conversation_id: str) -> None:
        """Give it, to be saved."""
        record = await self.find(conversation_id)
        text = await self.services.notebooks.export(
            record, lambda message: message_json(self.base_url, message)
        )
        self.set_header("Content-Type", "application/x-ipynb+json")
        self.set_header("Cache-Control", "no-store")
        name = f"{record.title or record.conversation_id}.ipynb"
        self.set_header("Content-Disposition", attachment(name))
        self.finish(text, set_content_type="application/x-ipynb+json")


def message_json(base_url: str, message: MessageRecord) -> dict[str, JsonValue]:
    """Give a message, its files with their addresses."""
    shape, conversation_id = message.to_json(), message.conversation_id
    if message.kind == "file":
        return {**shape, **card_links(base_url, conversation_id, shape)}
    if message.kind == "upload":
        return {**shape, **_upload_links(base_url, conversation_id, shape)}
    attachments = shape.get("attachments")
    if message.kind == "user" and isinstance(attachments, list):
        shape["attachments"] = [
            {**each, **_upload_links(base_url, conversation_id, each)}
            for each in attachments
            if isinstance(each, dict)
        ]
    return shape


def _upload_links(
    base_url: str, conversation_id: str, shape: dict[str, JsonValue]
) -> dict[str, JsonValue]:
    if shape.get("action") == "deleted":
        return {}
    place = (base_url, conversation_id, str(shape.get("name")))
    shown = upload_preview_url(*place)
    return {
        "url": upload_url(*place),
        "preview_url": preview_link(str(shape.get("preview")), shown),
    }


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
