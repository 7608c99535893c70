"""One tool call as this server process knows it: its output so far, its end, who waits for it.

It knows no sandbox and no database. The rule: it ends once, and whoever follows it gets all of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from .. import metrics
from ..encoded_json import EncodedJson
from ..models import CallRecord, CallState, JsonValue
from .kept_results import kept_result

_WITH_CARDS = "share_files"


class Call:
    """A call that runs in this process, or did a moment ago.

    Attributes
    ----------
    done : Future
        Resolves with None when the call is over; it never raises.
    recording : Future or None
        Of the record that it runs; None as long as there is none.
    arguments : mapping or None
        What it was called with; None for a call that an earlier server process began.
    """

    def __init__(
        self,
        conversation_id: str,
        call_id: str,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.conversation_id = conversation_id
        self.call_id = call_id
        self.tool = tool
        self.arguments = arguments
        self.recording: asyncio.Future[CallRecord | None] | None = None
        self.result: Mapping[str, JsonValue] | None = None
        self.state = "running"
        self.cancelled = False
        self.has_sandbox = False  # it got one: what the notice of a new one says is so
        self.ran_seconds: float | None = None  # of a call that was taken over, when it is known
        self.task: asyncio.Task[None] | None = None
        self.started_at = datetime.now(UTC)
        self.finished_at: datetime | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pieces: list[str] = []
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Call {self.call_id} {self.tool} {self.state}>"

    @classmethod
    def of(cls, stored: CallRecord) -> Call:
        """Give a call that another server process has begun, or one that is over."""
        call = cls(stored.conversation_id, stored.call_id, stored.tool)
        call.started_at, call.finished_at = stored.started_at, stored.finished_at
        call.recording = asyncio.get_running_loop().create_future()
        call.recording.set_result(stored)
        if stored.state != "running":
            call.result, call.state = kept_result(stored), stored.state
            call.done.set_result(None)
        return call

    @property
    def key(self) -> tuple[str, str]:
        """What it is looked up by."""
        return self.conversation_id, self.call_id

    @property
    def end_state(self) -> CallState:
        """The state that the call ends in."""
        return "cancelled" if self.cancelled else "finished"

    def emit(self, text: str) -> None:
        """Take a piece of output."""
        self._pieces.append(text)
        self._changed.set()

    def finish(self, result: Mapping[str, JsonValue], state: str = "finished") -> None:
        """End the call; who waits goes on."""
        self.result = result
        self.state = state
        seconds = result.get("duration_seconds") if self.task is not None else None
        code = "lost" if state == "lost" else str(result.get("code"))
        metrics.count_call(self.tool, code, float(seconds) if isinstance(seconds, float) else None)
        self.finished_at = datetime.now(UTC)
        if not self.done.done():
            self.done.set_result(None)
        self._changed.set()

    def leave(self) -> None:
        """Stop following a call that goes on; who waits is told that it runs."""
        if not self.done.done():
            self.done.set_result(None)
        self._changed.set()

    async def follow(self) -> AsyncIterator[str]:
        """Give the output from its beginning, as it comes."""
        position = 0
        while True:
            self._changed.clear()
            if position < len(self._pieces):
                text = "".join(self._pieces[position:])
                position = len(self._pieces)
                yield text
            elif self.done.done():
                return
            else:
                await self._changed.wait()

    def to_record(self) -> CallRecord:
        """Give what the database keeps of a call that is over."""
        return CallRecord(
            call_id=self.call_id,
            conversation_id=self.conversation_id,
            tool=self.tool,
            state=self.end_state,
            started_at=self.started_at,
            finished_at=self.finished_at,
            result=self.result,
        )

    def to_json(self) -> Mapping[str, JsonValue]:
        """Give the JSON of SPEC.md 10; encoded already if it is large."""
        head: dict[str, JsonValue] = {
            "call_id": self.call_id,
            "tool": self.tool,
            "state": self.state,
            "started_at": self.started_at.isoformat(),
        }
        return shape_of(head, self.tool, self.result)


def shape_of(
    head: dict[str, JsonValue], tool: str, result: Mapping[str, JsonValue] | None
) -> Mapping[str, JsonValue]:
    """Give the members of a call and then its result; a result that is encoded stays so.

    But for those with file cards, which are small and get their links later.
    """
    if isinstance(result, EncodedJson) and tool != _WITH_CARDS:
        return result.after(head)
    return {**head, **(result or {})}
