"""Suspends and ends idle sandboxes so that others have room, or the host memory.

Which, the policy decides (``policy.evictions``); here is what is known of each, and the doing. The
rule: what somebody has used between the look and the move stays.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from .. import metrics
from ..errors import InvalidRequest, NotFound, SandboxError
from ..models import Lifecycle
from ..policy.evictions import Candidate, Move, MoveKind, to_make_room
from ..policy.places import Bound
from ..stores.place_records import PlaceRecords, SettledSandbox
from .conversations import Conversations

_OF_USER = "its owner's places were all taken and it had not been used for longest"
_OF_ALL = "the server's places were all taken and it had not been used for long"


class Evictions:
    """What makes room.

    Parameters
    ----------
    longest_call_seconds : float
        A call that is recorded as running for longer than that runs no more.
    """

    def __init__(
        self,
        records: PlaceRecords,
        conversations: Conversations,
        limits: Lifecycle,
        longest_call_seconds: float,
        log: logging.Logger,
    ) -> None:
        self._records = records
        self._conversations = conversations
        self._end_after = timedelta(seconds=limits.evict_idle_seconds)
        self._longest_call_seconds = longest_call_seconds
        self._log = log

    def __repr__(self) -> str:
        return f"<Evictions after {self._end_after}>"

    async def make_room(self, bound: Bound, owner: str) -> bool:
        """Make one place within a bound for an owner; False when nothing could be done."""
        moves = to_make_room(
            await self.candidates(), bound, owner, datetime.now(UTC), self._end_after
        )
        why = _OF_USER if bound.is_of_user else _OF_ALL
        cause = "user" if bound.is_of_user else "total"
        for move in moves:
            if await self.do(move, cause, why):
                return True
        return False

    async def candidates(self, memory: Mapping[str, int] | None = None) -> list[Candidate]:
        """Give what is known of the sandboxes that there are, or of these ids only.

        Parameters
        ----------
        memory : mapping, optional
            What each takes, in bytes, by its id.
        """
        return [
            self._candidate(each, 1 if memory is None else memory[each.sandbox_id])
            for each in await self._records.settled(self._longest_call_seconds)
            if memory is None or each.sandbox_id in memory
        ]

    async def do(self, move: Move, cause: str, why: str) -> bool:
        """Do a move; False when the sandbox is in use after all, or the engine fails.

        Parameters
        ----------
        cause : str
            ``"user"``, ``"total"`` or ``"memory"``, for the metric.
        why : str
            Half a sentence for the next result in its conversation.
        """
        conversation = self._conversations.live(move.conversation_id)
        try:
            if move.kind is MoveKind.SUSPEND:
                await conversation.suspend(because=why, unused_since=move.unused_since)
            else:
                await conversation.terminate(why=why, unused_since=move.unused_since)
        except (InvalidRequest, NotFound):
            return False
        except SandboxError as exc:
            self._log.warning("%s: not %s: %s %s", move, move.kind, exc, exc.detail)
            return False
        metrics.EVICTIONS.labels(str(move.kind), cause).inc()
        self._log.info(
            "conversation %s: %s to make room (%s)", move.conversation_id, move.kind, cause
        )
        return True

    def _candidate(self, settled: SettledSandbox, memory_bytes: int) -> Candidate:
        live = self._conversations.known(settled.conversation_id)
        return Candidate(
            conversation_id=settled.conversation_id,
            owner=settled.owner,
            is_running=settled.is_running,
            used_at=settled.used_at,
            in_use=settled.has_call or settled.is_kept_awake or (live is not None and live.is_busy),
            memory_bytes=memory_bytes,
        )
