"""``/sandbox/c/{id}/api/sessions``: documents and consoles that use the conversation's kernel."""

from __future__ import annotations

from typing import Any

from ..conversations.conversations import check_text
from ..conversations.kernels import KernelModel, require_kernel_name
from ..errors import InvalidRequest
from ..models import JsonValue
from ..stores.session_records import SessionRecord
from .base import endpoint
from .kernels import KernelRouteHandler, kernel_json

_MOST_CHARACTERS = 1000


class SessionsHandler(KernelRouteHandler):
    """The list."""

    _track_activity = False

    @endpoint
    async def get(self, conversation_id: str) -> None:
        """List them; starts nothing."""
        sessions, kernel = await (await self.kernel_of(conversation_id)).sessions()
        self.answer([session_json(each, kernel) for each in sessions if kernel is not None])

    @endpoint
    async def post(self, conversation_id: str) -> None:
        """Give the session of a path, with the kernel running."""
        kernel = await self.kernel_of(conversation_id)
        body = self.json_body()
        path, name, kind = (short_text(self, body, field) for field in ("path", "name", "type"))
        if path is None or kind is None:
            raise InvalidRequest("path and type: must be strings.", status=400)
        kernel_name, kernel_id = kernel_of_body(self, body)
        session, model = await kernel.open_session(path, name or "", kind, kernel_name, kernel_id)
        self.set_header("Location", self.url_of(conversation_id, "sessions", session.session_id))
        self.answer(session_json(session, model), 201)


class SessionHandler(KernelRouteHandler):
    """One session."""

    _track_activity = False

    @endpoint
    async def get(self, conversation_id: str, session_id: str) -> None:
        """Give it."""
        kernel = await self.kernel_of(conversation_id)
        self.answer(session_json(*await kernel.session(session_id)))

    @endpoint
    async def patch(self, conversation_id: str, session_id: str) -> None:
        """Change its path, name or type; any other kernel is the same one."""
        kernel = await self.kernel_of(conversation_id)
        body = self.json_body()
        kernel_name, kernel_id = kernel_of_body(self, body)
        require_kernel_name(kernel_name)
        if kernel_id:
            await kernel.require(kernel_id)
        changes = [short_text(self, body, name) for name in ("path", "name", "type")]
        self.answer(session_json(*await kernel.change_session(session_id, *changes)))

    @endpoint
    async def delete(self, conversation_id: str, session_id: str) -> None:
        """Forget it; the kernel runs on, because it is the conversation's."""
        await (await self.kernel_of(conversation_id)).close_session(session_id)
        self.set_status(204)
        self.finish()


def short_text(handler: KernelRouteHandler, body: dict[str, Any], name: str) -> str | None:
    """Give a field that is a short text or absent."""
    text = handler.text_field(body, name)
    if text is not None:
        check_text(name, text, _MOST_CHARACTERS)
    return text


def kernel_of_body(handler: KernelRouteHandler, body: dict[str, Any]) -> tuple[str, str]:
    """Give the name and the id of the kernel that a body asks for, "" for none."""
    asked = body.get("kernel")
    if asked is None:
        return "", ""
    if not isinstance(asked, dict):
        raise InvalidRequest("kernel: must be an object.", status=400)
    return handler.text_field(asked, "name") or "", handler.text_field(asked, "id") or ""


def session_json(session: SessionRecord, kernel: KernelModel) -> dict[str, JsonValue]:
    """Give the model of a session as Jupyter has it."""
    shape: dict[str, JsonValue] = {
        "id": session.session_id,
        "path": session.path,
        "name": session.name,
        "type": session.kind,
        "kernel": kernel_json(kernel),
    }
    if session.kind == "notebook":
        shape["notebook"] = {"path": session.path, "name": session.name}
    return shape
