"""``/sandbox/c/{id}/api/kernels``: the conversation's one kernel, by Jupyter's kernels API."""

from __future__ import annotations

from jupyter_server.utils import url_path_join

from ..conversations.kernels import ConversationKernel, KernelModel
from ..models import JsonValue
from .base import SandboxHandler, endpoint
from .server_info import to_jupyter_time


class KernelRouteHandler(SandboxHandler):
    """Base of the handlers of kernels and sessions."""

    async def kernel_of(self, conversation_id: str) -> ConversationKernel:
        """Give the kernel of the caller's conversation."""
        await self.find(conversation_id)
        return self.services.kernels.of(self.services.conversations.live(conversation_id))

    def url_of(self, conversation_id: str, *parts: str) -> str:
        """Give a URL below the conversation's API."""
        return url_path_join(self.base_url, "sandbox/c", conversation_id, "api", *parts)


class KernelsHandler(KernelRouteHandler):
    """The list."""

    _track_activity = False

    @endpoint
    async def get(self, conversation_id: str) -> None:
        """List the kernel, if there is one; starts nothing."""
        model = await (await self.kernel_of(conversation_id)).look()
        self.answer([] if model is None else [kernel_json(model)])

    @endpoint
    async def post(self, conversation_id: str) -> None:
        """Give the kernel; provisions a sandbox and starts it as needed."""
        kernel = await self.kernel_of(conversation_id)
        model = await kernel.start(self.text_field(self.json_body(), "name") or "")
        self.set_header("Location", self.url_of(conversation_id, "kernels", model.kernel_id))
        self.answer(kernel_json(model), 201)


class KernelHandler(KernelRouteHandler):
    """The kernel."""

    _track_activity = False

    @endpoint
    async def get(self, conversation_id: str, kernel_id: str) -> None:
        """Give its model."""
        kernel = await self.kernel_of(conversation_id)
        self.answer(kernel_json(await kernel.require(kernel_id)))

    @endpoint
    async def delete(self, conversation_id: str, kernel_id: str) -> None:
        """End it with all it started."""
        await (await self.kernel_of(conversation_id)).shut_down(kernel_id)
        self.set_status(204)
        self.finish()


class KernelInterruptHandler(KernelRouteHandler):
    """The running cell."""

    @endpoint
    async def post(self, conversation_id: str, kernel_id: str) -> None:
        """Interrupt it."""
        await (await self.kernel_of(conversation_id)).interrupt(kernel_id)
        self.set_status(204)
        self.finish()


class KernelRestartHandler(KernelRouteHandler):
    """A new kernel in the place of the old one."""

    @endpoint
    async def post(self, conversation_id: str, kernel_id: str) -> None:
        """Restart it."""
        model = await (await self.kernel_of(conversation_id)).restart(kernel_id)
        self.answer(kernel_json(model))


def kernel_json(model: KernelModel) -> dict[str, JsonValue]:
    """Give the model of a kernel as Jupyter has it."""
    return {
        "id": model.kernel_id,
        "name": model.name,
        "last_activity": to_jupyter_time(model.last_activity),
        "execution_state": model.state,
        "connections": model.connections,
    }
