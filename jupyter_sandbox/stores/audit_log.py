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
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from .. import metrics
from ..errors import SandboxError
from ..event_loop import require_loop
from ..fair_turns import NOBODY, acting_for
from ..models import AuditEntry, JsonValue
from .audit_chain import Mark
from .audit_records import Appended, AuditRecords, LogDamaged
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
        self._noted: Mark | None = None  # the end of the log as this process knows it
        self._replaces = False  # the mark, whatever it says: its number is nobody's

    def __repr__(self) -> str:
        return f"<AuditLog {len(self._waiting)} wait>"

    def note(
        self, action: str, actor: str = "", conversation_id: str = "", **detail: JsonValue
    ) -> None:
        """Take note; without an actor it is the conversation's owner. On the loop only."""
        require_loop()
        if len(self._waiting) >= _MOST_WAITING:
            self._lost += 1
            metrics.AUDIT_LOST.inc()
            return
        self._waiting.append(AuditEntry(datetime.now(UTC), action, actor, conversation_id, detail))
        self._begin()

    def note_denial(self, conversation_id: str) -> None:
        """Count a connection that the egress proxy refused; told as one entry for many.

        On the loop only.
        """
        require_loop()
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
                with acting_for(NOBODY):  # they are of all users, whoever waits for it
                    appended = await self._append()
                del self._waiting[: len(appended.rows)]
                metrics.AUDIT_ROWS.inc(len(appended.rows))
                self._noted = appended.mark
                await asyncio.to_thread(write_mark, self._mark, appended.mark, self._replaces)
                self._replaces = False
                self._listener(appended)

    async def prune(self, keep: timedelta) -> None:
        """Remove rows that are older.

        Raises
        ------
        Unavailable
            They are not as they were written, and stay.
        """
        removed = 0
        while more := await self._records.prune(datetime.now(UTC) - keep):
            removed += more
        if removed:
            self.note("rows_removed", count=removed)

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

    async def _append(self) -> Appended:
        """Write the next entries; damage of the log is told first, in the log itself."""
        if self._noted is None:
            self._noted = await asyncio.to_thread(read_mark, self._mark)
        batch = self._waiting[:_MOST_AT_ONCE]
        try:
            needs_mark = self._noted is None
            return await self._records.append(batch, self._noted, needs_mark=needs_mark)
        except LogDamaged as exc:
            self._log.error("audit: %s: %s; `jupyter sandbox audit verify`", exc, exc.code)
            self._lost += len(self._waiting) >= _MOST_WAITING
            del self._waiting[_MOST_WAITING - 1 :]
            self.note("log_damaged", code=exc.code)
            self._waiting.insert(0, self._waiting.pop())
            self._replaces = True
            return await self._records.append(self._waiting[: len(batch) + 1], goes_on=True)

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


def write_mark(file: Path, mark: Mark, replaces: bool = False) -> None:
    """Remember the last row; of two servers the later one's stays, unless ``replaces``. Blocks."""
    known = read_mark(file)
    if replaces or known is None or known.number < mark.number:
        replace_text(file, json.dumps(mark._asdict()) + "\n")


def read_mark(file: Path) -> Mark | None:
    """Return the last row that was remembered; None if there is none, or no file. Blocks.

    What is no mark is one that no server has written.
    """
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
        shape = json.loads(text)
        number, seal = int(shape["number"]), str(shape["seal"])
        return Mark(number, seal, str(shape.get("mark_seal", "")))
    return Mark(0, "")
