"""``/sandbox/c/{id}/api`` and what else a Jupyter client asks of a server before it begins.

The answers are those of a server that has one kernelspec and belongs to one conversation.
"""

from __future__ import annotations

from datetime import datetime

import jupyter_server

from ..conversations.kernels import describe_kernel
from ..errors import NotFound
from ..models import JsonValue
from .base import SandboxHandler, endpoint


class ServerHandler(SandboxHandler):
    """The server itself."""

    @endpoint
    async def get(self, conversation_id: str) -> None:
        """Give the version of the API."""
        await self.find(conversation_id)
        self.answer({"version": jupyter_server.__version__})


class ServerStatusHandler(SandboxHandler):
    """What the conversation does."""

    _track_activity = False

    @endpoint
    async def get(self, conversation_id: str) -> None:
        """Give the counts that Jupyter gives."""
        record = await self.find(conversation_id)
        live = self.services.conversations.live(conversation_id)
        model = await self.services.kernels.of(live).look()
        used_at = record.used_at if model is None else max(record.used_at, model.last_activity)
        self.answer(
            {
                "started": to_jupyter_time(record.created_at),
                "last_activity": to_jupyter_time(used_at),
                "kernels": 0 if model is None else 1,
                "connections": 0 if model is None else model.connections,
            }
        )


class UserHandler(SandboxHandler):
    """Who asks."""

    @endpoint
    async def get(self, conversation_id: str) -> None:
        """Give the caller's identity."""
        await self.find(conversation_id)
        identity = self.identity_provider.identity_model(self.current_user)
        self.answer({"identity": identity, "permissions": {}})


class KernelSpecsHandler(SandboxHandler):
    """The kernels that there could be: one."""

    @endpoint
    async def get(self, conversation_id: str) -> None:
        """List them."""
        await self.find(conversation_id)
        spec = _kernel_spec()
        self.answer({"default": spec["name"], "kernelspecs": {str(spec["name"]): spec}})


class KernelSpecHandler(SandboxHandler):
    """One kernelspec."""

    @endpoint
    async def get(self, conversation_id: str, name: str) -> None:
        """Give it."""
        await self.find(conversation_id)
        spec = _kernel_spec()
        if name != spec["name"]:
            raise NotFound("There is no such kernel.")
        self.answer(spec)


def _kernel_spec() -> dict[str, JsonValue]:
    """Give a kernelspec in Jupyter's shape; how it is started is nobody's business."""
    known = describe_kernel()
    spec: dict[str, JsonValue] = {
        "argv": [],
        "env": {},
        "display_name": known["display_name"],
        "language": known["language"],
        "interrupt_mode": known["interrupt_mode"],
        "metadata": {},
    }
    return {"name": known["name"], "spec": spec, "resources": {}}


def to_jupyter_time(moment: datetime) -> str:
    """Give a time as Jupyter writes it: always with a fraction, as its gateway client demands."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
