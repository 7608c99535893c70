"""Which calls of MCP clients run, so that ``notifications/cancelled`` finds its call.

The rule: a client cancels by an id that it chose itself, so the ids of different owners and
sessions never meet.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeAlias

from ...models import ConversationRecord
from ...tools.call import Call
from .messages import RequestId

Key: TypeAlias = tuple[str, str, RequestId]
"""(owner, session or conversation, the request's id)."""


class InFlight:
    """The running calls of one server process. Used from the event loop only."""

    def __init__(self) -> None:
        self._calls: dict[Key, tuple[ConversationRecord, Call]] = {}

    def __repr__(self) -> str:
        return f"<InFlight {len(self._calls)} calls>"

    @contextlib.contextmanager
    def noted(self, key: Key, record: ConversationRecord, call: Call) -> Iterator[None]:
        """Note a call while the block runs; of two with one id the later one is found."""
        self._calls[key] = (record, call)
        try:
            yield
        finally:
            if self._calls.get(key, (None, None))[1] is call:
                del self._calls[key]

    def find(self, key: Key) -> tuple[ConversationRecord, Call] | None:
        """Give a running call and its conversation."""
        return self._calls.get(key)
