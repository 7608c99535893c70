"""The HTTP edge: the only place that knows status codes and headers."""

from __future__ import annotations

from .base import SandboxHandler
from .contents import (
    CheckpointHandler,
    CheckpointsHandler,
    ContentsFileHandler,
    ContentsHandler,
)
from .conversations import ConversationHandler, ConversationsHandler, InterruptHandler
from .downloads import FileHandler, SharesHandler, ZipHandler
from .health import HealthHandler
from .mcp.handler import McpHandler
from .openapi.handler import OpenApiHandler
from .policy import PolicyHandler
from .tools import CallHandler, CancelHandler, ToolCallHandler, ToolsHandler
from .uploads import UploadHandler, UploadsHandler

_ID = r"(?P<conversation_id>[^/]+)"
_CALL = r"(?P<call_id>[^/]+)"
_HERE = rf"/sandbox/c/{_ID}"

ROUTES: list[tuple[str, type[SandboxHandler]]] = [
    (r"/sandbox/api/conversations", ConversationsHandler),
    (rf"/sandbox/api/conversations/{_ID}", ConversationHandler),
    (rf"/sandbox/api/conversations/{_ID}/interrupt", InterruptHandler),
    (r"/sandbox/api/tools", ToolsHandler),
    (r"/sandbox/api/health", HealthHandler),
    (rf"/sandbox/api/conversations/{_ID}/uploads", UploadsHandler),
    (rf"/sandbox/api/conversations/{_ID}/uploads/(?P<name>[^/]+)", UploadHandler),
    (rf"/sandbox/api/conversations/{_ID}/shares", SharesHandler),
    (r"/sandbox/files/(?P<conversation_id>[^/]+)\.zip", ZipHandler),
    (rf"/sandbox/files/{_ID}/(?P<path>.+)", FileHandler),
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
    (r"/sandbox/mcp", McpHandler),
    (rf"/sandbox/c/{_ID}/mcp", McpHandler),
]
"""(pattern below the server's base URL, handler)."""
