"""Takes note of what happened and writes it down a moment later, many things together.

``note`` costs its caller a few microseconds and never fails; a task writes to the chain
(``audit_records``), marks its end in a file outside the database, and tells a listener. The rule:
sizes, codes and ids, never contents, code or names of files. What a failing database keeps waiting
is bounded; what is lost beyond that is counted in the log itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import metrics
from ..errors import SandboxError
from ..fair_turns import NOBODY, acting_for
from ..models import AuditEntry, JsonValue
from .audit_records import Appended, AuditRecords
from .whole_file import replace_text

MARK_NAME = "audit.mark"
_SECONDS = 0.5
_RETRY_SECONDS = 5.0
_MOST_WAITING = 10_000
_MOST_AT_ONCE = 500
_MOST_DENIED = 1_000


class AuditLog:
    """The audit log of one server process.

    Parameters
    ----------
    mark : Path
        The file that remembers the last row that was written.
    listener : callable
        Is given what was written, on the loop; it must not fail.
    """

    def __init__(
        self,
        records: AuditRecords,
        mark: Path,
        log: logging.Logger | logging.LoggerAdapter[Any],
        listener: Callable[[Appended], None] = lambda appended: None,
    ) -> None:
        self._records = records
        self._mark = mark
        self._log = log
        self._listener = listener
        self._waiting: list[AuditEntry] = []
        self._denied: dict[str, int] = {}
        self._lost = 0
        self._task: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return f"<AuditLog {len(self._waiting)} wait>"

    def note(
        self, action: str, actor: str = "", conversation_id: str = "", **detail: JsonValue
    ) -> None:
        """Take note; without an actor it is the conversation's owner."""
        if len(self._waiting) >= _MOST_WAITING:
            self._lost += 1
            metrics.AUDIT_LOST.inc()
            return
        self._waiting.append(AuditEntry(datetime.now(UTC), action, actor, conversation_id, detail))
        self._begin()

    def note_denial(self, conversation_id: str) -> None:
        """Count a connection that the egress proxy refused; told as one entry for many."""
        if conversation_id in self._denied or len(self._denied) < _MOST_DENIED:
            self._denied[conversation_id] = self._denied.get(conversation_id, 0) + 1
            self._begin()

    async def flush(self) -> None:
        """Write what waits.

        Raises
        ------
        Unavailable
            The database or the keyring fails; it waits on.
        """
        async with self._writing:
            denied, self._denied = self._denied, {}
            for conversation_id, count in denied.items():
                self.note("egress_denied", "", conversation_id, count=count)
            if self._lost and len(self._waiting) < _MOST_WAITING:
                lost, self._lost = self._lost, 0
                self.note("entries_lost", count=lost)
            while self._waiting:
                batch = self._waiting[:_MOST_AT_ONCE]
                with acting_for(NOBODY):  # they are of all users, whoever waits for it
                    appended = await self._records.append(batch)
                del self._waiting[: len(batch)]
                metrics.AUDIT_ROWS.inc(len(batch))
                last = appended.rows[-1]
                await asyncio.to_thread(write_mark, self._mark, last.number, last.seal)
                self._listener(appended)

    async def close(self) -> None:
        """Write what waits, and end. Twice is once."""
        self._closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        try:
            await self.flush()
        except (SandboxError, OSError) as exc:
            self._log.error("audit: %d entries were not written: %s", len(self._waiting), exc)

    def _begin(self) -> None:
        if self._task is None and not self._closed:
            self._task = asyncio.ensure_future(self._write())

    async def _write(self) -> None:
        pause = _SECONDS
        try:
            while self._waiting or self._denied:
                await asyncio.sleep(pause)
                try:
                    await asyncio.shield(self.flush())
                    pause = _SECONDS
                except (SandboxError, OSError) as exc:
                    pause = _RETRY_SECONDS
                    detail = getattr(exc, "detail", "")
                    self._log.error("audit: not written yet: %s %s", exc, detail)
        finally:
            self._task = None


def write_mark(file: Path, number: int, seal: str) -> None:
    """Remember the last row; of two servers the later one's stays. Blocks."""
    known = read_mark(file)
    if known is None or known[0] < number:
        replace_text(file, json.dumps({"number": number, "seal": seal}) + "\n")


def read_mark(file: Path) -> tuple[int, str] | None:
    """Give the last row that was remembered; None if there is none, or no file. Blocks."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        shape = json.loads(file.read_text())
        return int(shape["number"]), str(shape["seal"])
    return None
