"""The HTTP edge: the only place that knows status codes and headers."""

from __future__ import annotations

from .base import SandboxHandler
from .by_hand import (
    SandboxByHandHandler,
    SandboxesHandler,
    SuspendHandler,
    TerminateHandler,
    WakeHandler,
)
from .channels import ChannelsHandler
from .contents import (
    CheckpointHandler,
    CheckpointsHandler,
    ContentsFileHandler,
    ContentsHandler,
)
from .conversations import ConversationHandler, ConversationsHandler, InterruptHandler
from .downloads import FileHandler, SharesHandler, ZipHandler
from .health import HealthHandler
from .kernels import (
    KernelHandler,
    KernelInterruptHandler,
    KernelRestartHandler,
    KernelsHandler,
)
from .leased import LeasedFileHandler
from .mcp.handler import McpHandler
from .messages import MessagesHandler, NotebookHandler
from .openapi.handler import OpenApiHandler
from .policy import PolicyHandler
from .previews import RenewHandler, SharePreviewHandler, UploadPreviewHandler
from .server_info import (
    KernelSpecHandler,
    KernelSpecsHandler,
    ServerHandler,
    ServerStatusHandler,
    UserHandler,
)
from .sessions import SessionHandler, SessionsHandler
from .tools import CallHandler, CancelHandler, ToolCallHandler, ToolsHandler
from .uploads import UploadHandler, UploadsHandler

_ID = r"(?P<conversation_id>[^/]+)"
_CALL = r"(?P<call_id>[^/]+)"
_KERNEL = r"(?P<kernel_id>[^/]+)"
_HERE = rf"/sandbox/c/{_ID}"

ROUTES: list[tuple[str, type[SandboxHandler]]] = [
    (r"/sandbox/api/conversations", ConversationsHandler),
    (rf"/sandbox/api/conversations/{_ID}", ConversationHandler),
    (rf"/sandbox/api/conversations/{_ID}/interrupt", InterruptHandler),
    (rf"/sandbox/api/conversations/{_ID}/suspend", SuspendHandler),
    (rf"/sandbox/api/conversations/{_ID}/wake", WakeHandler),
    (rf"/sandbox/api/conversations/{_ID}/terminate", TerminateHandler),
    (r"/sandbox/api/sandboxes", SandboxesHandler),
    (rf"/sandbox/api/sandboxes/{_ID}", SandboxByHandHandler),
    (r"/sandbox/api/tools", ToolsHandler),
    (r"/sandbox/api/health", HealthHandler),
    (rf"/sandbox/api/conversations/{_ID}/uploads", UploadsHandler),
    (rf"/sandbox/api/conversations/{_ID}/uploads/(?P<name>[^/]+)", UploadHandler),
    (rf"/sandbox/api/conversations/{_ID}/shares", SharesHandler),
    (rf"/sandbox/api/conversations/{_ID}/messages", MessagesHandler),
    (rf"/sandbox/api/conversations/{_ID}/notebook", NotebookHandler),
    (r"/sandbox/files/(?P<conversation_id>[^/]+)\.zip", ZipHandler),
    (rf"/sandbox/files/{_ID}/(?P<path>.+)", FileHandler),
    (r"/sandbox/preview/leased/(?P<token>[^/]+)/(?P<part>.*)", LeasedFileHandler),
    (rf"/sandbox/preview/{_ID}/shares/(?P<path>.+)", SharePreviewHandler),
    (rf"/sandbox/preview/{_ID}/uploads/(?P<name>[^/]+)", UploadPreviewHandler),
    (r"/sandbox/api/previews/(?P<lease_id>[^/]+)/renew", RenewHandler),
    (rf"/sandbox/api/conversations/{_ID}/tools/(?P<name>[^/]+)", ToolCallHandler),
    (rf"/sandbox/api/conversations/{_ID}/calls/{_CALL}", CallHandler),
    (rf"/sandbox/api/conversations/{_ID}/calls/{_CALL}/cancel", CancelHandler),
    # Files lie in folders: what is called `checkpoints` itself is none.
    (rf"{_HERE}/api/contents(?P<path>/[^/]+/.+)/checkpoints", CheckpointsHandler),
    (
        rf"{_HERE}/api/contents(?P<path>/[^/]+/.+)/checkpoints/(?P<checkpoint_id>[^/]+)",
        CheckpointHandler,
    ),
    (rf"{_HERE}/api/contents(?P<path>/.*|)", ContentsHandler),
    (rf"{_HERE}/files/(?P<path>.+)", ContentsFileHandler),
    (r"/sandbox/api/openapi\.json", OpenApiHandler),
    (r"/sandbox/api/policy", PolicyHandler),
    (rf"{_HERE}/api", ServerHandler),
    (rf"{_HERE}/api/status", ServerStatusHandler),
    (rf"{_HERE}/api/me", UserHandler),
    (rf"{_HERE}/api/kernelspecs", KernelSpecsHandler),
    (rf"{_HERE}/api/kernelspecs/(?P<name>[^/]+)", KernelSpecHandler),
    (rf"{_HERE}/api/kernels", KernelsHandler),
    (rf"{_HERE}/api/kernels/{_KERNEL}", KernelHandler),
    (rf"{_HERE}/api/kernels/{_KERNEL}/interrupt", KernelInterruptHandler),
    (rf"{_HERE}/api/kernels/{_KERNEL}/restart", KernelRestartHandler),
    (rf"{_HERE}/api/kernels/{_KERNEL}/channels", ChannelsHandler),
    (rf"{_HERE}/api/sessions", SessionsHandler),
    (rf"{_HERE}/api/sessions/(?P<session_id>[^/]+)", SessionHandler),
    (r"/sandbox/mcp", McpHandler),
    (rf"/sandbox/c/{_ID}/mcp", McpHandler),
]
"""(pattern below the server's base URL, handler)."""
