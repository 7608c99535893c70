"""Tells Jupyter's event system what the audit log has written.

The rule: every user may listen, so users and conversations are told by their hashes, and of the
details only what the schema names.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from jupyter_events.logger import EventLogger

from ..stores.audit_records import Appended

SCHEMA_FILE = Path(__file__).with_name("audit.yaml")
SCHEMA_ID = "https://events.jupyter.org/jupyter_sandbox/audit/v1"
DETAILS = frozenset(
    ("tool", "code", "seconds", "output_characters", "files", "bytes", "count", "switched_on")
)


class AuditEvents:
    """Emits an event for each audit row; nothing where nobody listens."""

    def __init__(
        self, events: EventLogger, log: logging.Logger | logging.LoggerAdapter[Any]
    ) -> None:
        self._events = events
        self._log = log
        if SCHEMA_ID not in events.schemas:
            events.register_event_schema(SCHEMA_FILE)

    def __repr__(self) -> str:
        return f"<AuditEvents {SCHEMA_ID}>"

    def emit(self, appended: Appended) -> None:
        """Tell rows that were written."""
        for row in appended.rows:
            detail = json.loads(row.detail)
            data = {
                "action": row.action,
                "number": row.number,
                "actor": appended.references.get(row.actor, ""),
                "conversation": appended.references.get(row.conversation_id, ""),
                **{name: detail[name] for name in DETAILS if name in detail},
            }
            try:
                self._events.emit(schema_id=SCHEMA_ID, data=data)
            except Exception:  # a listener of somebody else's must not stop the audit log
                self._log.exception("audit: row %d was not told", row.number)
