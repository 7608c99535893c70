"""The HTTP edge: the only place that knows status codes and headers."""

from __future__ import annotations

from .base import SandboxHandler
from .conversations import ConversationHandler, ConversationsHandler, InterruptHandler
from .downloads import FileHandler, SharesHandler, ZipHandler
from .tools import CallHandler, CancelHandler, ToolCallHandler, ToolsHandler
from .uploads import UploadHandler, UploadsHandler

_ID = r"(?P<conversation_id>[^/]+)"
_CALL = r"(?P<call_id>[^/]+)"

ROUTES: list[tuple[str, type[SandboxHandler]]] = [
    (r"/sandbox/api/conversations", ConversationsHandler),
    (rf"/sandbox/api/conversations/{_ID}", ConversationHandler),
    (rf"/sandbox/api/conversations/{_ID}/interrupt", InterruptHandler),
    (r"/sandbox/api/tools", ToolsHandler),
    (rf"/sandbox/api/conversations/{_ID}/uploads", UploadsHandler),
    (rf"/sandbox/api/conversations/{_ID}/uploads/(?P<name>[^/]+)", UploadHandler),
    (rf"/sandbox/api/conversations/{_ID}/shares", SharesHandler),
    (r"/sandbox/files/(?P<conversation_id>[^/]+)\.zip", ZipHandler),
    (rf"/sandbox/files/{_ID}/(?P<path>.+)", FileHandler),
    (rf"/sandbox/api/conversations/{_ID}/tools/(?P<name>[^/]+)", ToolCallHandler),
    (rf"/sandbox/api/conversations/{_ID}/calls/{_CALL}", CallHandler),
    (rf"/sandbox/api/conversations/{_ID}/calls/{_CALL}/cancel", CancelHandler),
]
"""(pattern below the server's base URL, handler)."""
