"""``/sandbox/c/{id}/api/contents`` and ``…/files``: a conversation's files for JupyterLab.

The protocol is jupyter_server's: its handlers, asked without their decorators (which remember the
first request's action and resource, and let in whoever is logged in), behind our own check of who
owns the conversation. The rule: the manager is that of the conversation, never the server's.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, cast
from urllib.parse import quote

from jupyter_client.jsonutil import json_default
from jupyter_server.services.contents.handlers import ContentsHandler as StockContentsHandler
from jupyter_server.utils import url_path_join

from ..conversations.contents.manager import SandboxContentsManager
from ..errors import InvalidRequest, NotFound
from .base import SandboxHandler, endpoint
from .sending import SendingHandler

_FRAME_BYTES = 64 * 1024
_TEXT_FIELDS = ("path", "name", "copy_from", "ext", "type", "format")
_MOST_CHARACTERS = 4096  # of each: a path has at most three names of 255 bytes

_Method = Callable[..., Awaitable[None]]


def _stock(name: str) -> _Method:
    """Give a method of jupyter_server's handler as it was written, without its decorators."""
    return cast(_Method, inspect.unwrap(getattr(StockContentsHandler, name)))


_GET, _PUT, _POST, _PATCH, _DELETE = map(_stock, ("get", "put", "post", "patch", "delete"))


class ConversationHandlerMixin(SandboxHandler):
    """What handlers of a conversation's contents do alike."""

    async def prepare(self) -> None:  # type: ignore[override]
        """Let a body be as long as a file in base64; nobody unknown sends one."""
        limit = self.settings["jupyter_sandbox"].upload_bytes
        self.max_body_bytes = limit * 3 // 2 + _FRAME_BYTES
        await super().prepare()
        if self.current_user is None and not self._finished:
            self.set_header("Connection", "close")
            self.answer_error(401, "unauthenticated", "Log in, or send a token.")

    async def enter(self, conversation_id: str) -> SandboxContentsManager:
        """Find the caller's conversation; ``contents_manager`` is its from then on."""
        record = await self.find(conversation_id)
        self._manager = self.services.contents.of(record)
        self.set_header("Cache-Control", "no-store")
        return self._manager

    @property
    def contents_manager(self) -> SandboxContentsManager:
        """The conversation's own."""
        return self._manager

    def get_json_body(self) -> dict[str, Any] | None:
        """Give the body, its text fields strings or absent; None if there is no body."""
        if not self._body.strip():
            return None
        body = self.json_body()
        self._body.clear()
        for name in _TEXT_FIELDS:
            text = self.text_field(body, name)
            if text is None:
                body.pop(name, None)  # null is absent
            elif len(text) > _MOST_CHARACTERS:
                raise InvalidRequest(
                    f"{name}: must have at most {_MOST_CHARACTERS:,} characters.", status=400
                )
        return body


class ContentsHandler(ConversationHandlerMixin, StockContentsHandler):
    """Files and folders."""

    ends_with_client = True
    _model: dict[str, Any] | None = None

    @endpoint
    async def get(self, conversation_id: str, path: str = "") -> None:
        """Give a model."""
        await self.enter(conversation_id)
        await _GET(self, path)
        await self._answer_model()

    @endpoint
    async def put(self, conversation_id: str, path: str = "") -> None:
        """Save a file, or a chunk of it."""
        await self.enter(conversation_id)
        await _PUT(self, path)
        await self._answer_model()

    @endpoint
    async def post(self, conversation_id: str, path: str = "") -> None:
        """Make something under a free name, or copy."""
        await self.enter(conversation_id)
        await _POST(self, path)
        await self._answer_model()

    @endpoint
    async def patch(self, conversation_id: str, path: str = "") -> None:
        """Rename."""
        await self.enter(conversation_id)
        body = self.json_body()
        if not isinstance(body.get("path"), str):
            raise InvalidRequest("path: must be a string.", status=400)
        await _PATCH(self, path)
        await self._answer_model()

    @endpoint
    async def delete(self, conversation_id: str, path: str = "") -> None:
        """Delete."""
        await self.enter(conversation_id)
        await _DELETE(self, path)

    def _finish_model(self, model: dict[str, Any], location: bool = True) -> None:
        """Take the model that jupyter_server's method answers with, for ``_answer_model``."""
        if location:
            self.set_header("Location", self.location_url(model["path"]))
        self.set_header("Last-Modified", model["last_modified"])
        self._model = model

    async def _answer_model(self) -> None:
        if self._model is not None and not self._finished:
            await self.answer_large(self._model, self.get_status(), default=json_default)

    def location_url(self, path: str) -> str:
        """Give the URL of a path, for the header ``Location``."""
        base = url_path_join(self.base_url, "sandbox/c", self.path_kwargs["conversation_id"])
        return url_path_join(base, "api/contents", quote(path, safe="/"))


class CheckpointsHandler(ConversationHandlerMixin):
    """Checkpoints of a file."""

    @endpoint
    async def get(self, conversation_id: str, path: str) -> None:
        """List them."""
        manager = await self.enter(conversation_id)
        self.answer([*await manager.list_checkpoints(path)])

    @endpoint
    async def post(self, conversation_id: str, path: str) -> None:
        """Make one."""
        manager = await self.enter(conversation_id)
        model = await manager.create_checkpoint(path)
        moment = model["last_modified"].isoformat()
        self.answer({"id": model["id"], "last_modified": moment}, 201)


class CheckpointHandler(ConversationHandlerMixin):
    """One checkpoint."""

    @endpoint
    async def post(self, conversation_id: str, path: str, checkpoint_id: str) -> None:
        """Go back to it."""
        manager = await self.enter(conversation_id)
        await manager.restore_checkpoint(checkpoint_id, path)

    @endpoint
    async def delete(self, conversation_id: str, path: str, checkpoint_id: str) -> None:
        """Remove it."""
        manager = await self.enter(conversation_id)
        await manager.delete_checkpoint(checkpoint_id, path)


class ContentsFileHandler(SendingHandler):
    """The bytes of a file, to be saved: where JupyterLab's drives look for them."""

    @endpoint
    async def get(self, conversation_id: str, path: str) -> None:
        """Send it."""
        await self._send(conversation_id, path)

    @endpoint
    async def head(self, conversation_id: str, path: str) -> None:
        """Give the headers of ``get``."""
        await self._send(conversation_id, path)

    async def _send(self, conversation_id: str, path: str) -> None:
        self.require_same_site()
        try:
            record = await self.find(conversation_id)
        except NotFound:
            raise NotFound("There is no such file.") from None
        area, parts = self.services.contents.area(record, path)
        async with area.reading(parts) as (node, reader):
            size, media_type = node.size_bytes or 0, node.media_type or "application/octet-stream"
            if node.sha256 is None:  # of a file that may change at any time: no parts of it
                self.name_download(node.name)
                await self.send_pieces(reader.pieces(), size, media_type)
            else:
                await self.send_file(
                    reader,
                    name=node.name,
                    media_type=media_type,
                    sha256=node.sha256,
                    size_bytes=size,
                )
