"""What all conversations of a server share, as one value."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ..policy.clipping import clip_text
from ..sandbox.sandboxes import Sandboxes
from ..stores.audit_log import AuditLog
from ..stores.database import Database
from ..stores.server_marks import ServerMarks
from .journal import Journal
from .places import Places
from .placing import Placing
from .resting import Resting
from .warm_pool import WarmPool


@dataclass(frozen=True)
class Surroundings:
    """The parts, and the one way to tell of a conversation's sandbox."""

    database: Database
    sandboxes: Sandboxes
    placing: Placing
    places: Places
    journal: Journal
    marks: ServerMarks
    log: logging.Logger
    audit: AuditLog
    pool: WarmPool
    resting: Resting

    def tell(self, conversation_id: str, notice: str) -> None:
        """Put a notice into the conversation's message stream."""
        self.journal.add(conversation_id, "notice", {"text": clip_text(notice, 8000)})
