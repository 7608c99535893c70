"""The parts of a running server, as one value that handlers are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jupyter_server.base.handlers import JupyterHandler

from .conversations.access_file import AccessFile
from .conversations.contents.contents import Contents
from .conversations.conversations import Conversations
from .conversations.housekeeping import Housekeeping
from .conversations.idling import Idling
from .conversations.journal import Journal
from .conversations.kernels import Kernels
from .conversations.memory_guard import MemoryGuard
from .conversations.message_feeds import MessageFeeds
from .conversations.places import Places
from .conversations.state_counts import StateCounts
from .conversations.uploads import Uploads
from .conversations.warm_pool import WarmPool
from .engines.base import Engine
from .models import Caller, Lifecycle, Limits
from .previews.file_previews import FilePreviews
from .previews.rendering import Renderer
from .sandbox.disk_guard import DiskGuard
from .sandbox.way_out import WayOut
from .stores.audit_log import AuditLog
from .stores.database import Database
from .stores.file_store import FileStore
from .stores.place_records import PlaceRecords
from .stores.server_marks import ServerMarks
from .tools.calls import Calls
from .tools.five_steps import FiveSteps
from .tools.notebooks import Notebooks


@dataclass(frozen=True)
class Services:
    """What handlers work with; made by ``app`` once per server.

    Attributes
    ----------
    guidance : callable
        Gives the text for an assistant's system instructions, as it is now.
    access : AccessFile
        Flags and grants.
    caller_of : callable
        Gives who asks through a handler.
    stop_watching : callable
        Ends the watch over the loop, when all that is read from sandboxes is closed.
    engine_reason : str
        Why this engine was chosen, or why there is none; safe to show.
    """

    database: Database
    engine: Engine
    engine_available: bool
    engine_reason: str
    conversations: Conversations
    calls: Calls
    journal: Journal
    message_feeds: MessageFeeds
    notebooks: Notebooks
    five_steps: FiveSteps
    uploads: Uploads
    contents: Contents
    kernels: Kernels
    idling: Idling
    files: FileStore
    audit: AuditLog
    marks: ServerMarks
    warm_pool: WarmPool
    housekeeping: Housekeeping
    places: Places
    place_records: PlaceRecords
    memory_guard: MemoryGuard
    state_counts: StateCounts
    disk_guard: DiskGuard
    way_out: WayOut
    stop_watching: Callable[[], None]
    previews: FilePreviews
    renderer: Renderer
    limits: Limits
    lifecycle: Lifecycle
    guidance: Callable[[], str]
    access: AccessFile
    caller_of: Callable[[JupyterHandler], Caller]
