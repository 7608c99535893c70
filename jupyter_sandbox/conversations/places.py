"""Places of sandboxes: taken at once where there is one, else waited for, in fair order.

What is taken is counted in the database, over all servers; who waits, waits here. The rules: who
waits is not overtaken by who comes later, but for what is fair between users
(``policy.places.fair_order``); no wait is without bound, and neither is the queue.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from .. import metrics
from ..errors import LimitExceeded, SandboxError, Unavailable
from ..fair_turns import NOBODY, acting_for
from ..models import ConversationRecord, Lifecycle, PlacesTaken
from ..policy.memory import Level
from ..policy.places import Bound, Place, decide_place, decide_wait, fair_order
from ..stores.place_records import PlaceRecords, Taking

_LOOK_SECONDS = 0.5  # places that other servers gave back are found by looking
_TRY_SECONDS = 15.0
_RETRY_AFTER_SECONDS = 10
_HOW_TO_END = (
    "Nothing was run. Try again later, or let the user end a sandbox that is not needed any more "
    "(`jupyter sandbox list` and `jupyter sandbox terminate ID`, or POST to `terminate` of its "
    "conversation)."
)
_NO_MEMORY = "the memory of the host is almost used up, so no sandbox is started or woken now."

Attempt = Callable[[Callable[[PlacesTaken], bool]], Awaitable[Taking]]
MakeRoom = Callable[[Bound, str], Awaitable[bool]]


class _Seat:
    """One that wants a place.

    Attributes
    ----------
    place : Place or None
        How the last attempt was decided; None as long as none was.
    lacks_memory : bool
        Nothing was decided at the last attempt, for the memory's sake.
    """

    def __init__(self, owner: str, is_live: bool, attempt: Attempt) -> None:
        self.owner = owner
        self.is_live = is_live
        self.attempt = attempt
        self.place: Place | None = None
        self.lacks_memory = False
        self.turn = asyncio.Event()
        self.tried = asyncio.Event()
        self.left = False

    @property
    def bound(self) -> Bound | None:
        """The limit that it waits for, as far as that is known."""
        return self.place.bound if self.place is not None and not self.lacks_memory else None

    def goes_before(self, owner: str) -> bool:
        """Say whether a later one of this owner has to queue behind it."""
        bound = self.bound
        return owner == self.owner or bound is None or not bound.is_of_user


class Places:
    """The places, as one server process takes them.

    Attributes
    ----------
    make_room : callable
        Suspends or ends a sandbox that is not in use, so that the owner can have a place within
        the bound; says whether it has.
    memory_level : callable
        Gives how short the host's memory is.
    """

    def __init__(self, records: PlaceRecords, limits: Lifecycle, log: logging.Logger) -> None:
        self._records = records
        self._limits = limits
        self._log = log
        self._queue: list[_Seat] = []
        self._serving: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self.make_room: MakeRoom = _no_room
        self.memory_level: Callable[[], Level] = lambda: Level.ENOUGH

    def __repr__(self) -> str:
        return f"<Places {len(self._queue)} wait>"

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    async def claim(
        self, record: ConversationRecord, server: str, lease_seconds: float, ended: str = ""
    ) -> bool:
        """Take the right to provision, with a place; False when somebody else has it.

        Raises
        ------
        LimitExceeded
            There was no place for too long, or too many wait.
        Unavailable
            The host's memory is almost used up, and was for so long.
        """

        def attempt(allow: Callable[[PlacesTaken], bool]) -> Awaitable[Taking]:
            return self._records.claim(record.conversation_id, server, lease_seconds, allow, ended)

        return await self._take(_Seat(record.owner, False, attempt))

    async def wake(self, record: ConversationRecord, dead: str = "") -> bool:
        """Move a suspended sandbox to running, with a place; False when it is not suspended.

        False, too, while it is being frozen, unless by ``dead``, a server that lives no more.
        Raises as ``claim`` does.
        """

        def attempt(allow: Callable[[PlacesTaken], bool]) -> Awaitable[Taking]:
            return self._records.wake(record, allow, dead)

        return await self._take(_Seat(record.owner, True, attempt))

    async def close(self) -> None:
        """Serve nobody any more. Twice is once."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait([self._serving])

    async def _take(self, seat: _Seat) -> bool:
        if not any(each.goes_before(seat.owner) for each in self._queue):
            taking = await self._try(seat)
            if taking is not Taking.FULL:
                return taking is Taking.TAKEN
        wait = decide_wait([each.owner for each in self._queue], seat.owner, self._most_waiting)
        if not wait:
            raise self._refusal(seat, wait.reason)
        self._queue.append(seat)
        metrics.WAITING_FOR_PLACE.inc()
        self._arrived.set()
        if self._serving is None:
            with acting_for(NOBODY):
                self._serving = asyncio.ensure_future(self._serve())
        try:
            return await self._wait(seat)
        finally:
            metrics.WAITING_FOR_PLACE.dec()
            self._queue.remove(seat)
            seat.left = True
            seat.tried.set()

    @property
    def _most_waiting(self) -> int:
        return self._limits.place_queue if self._limits.place_wait_seconds else 0

    async def _wait(self, seat: _Seat) -> bool:
        """Try when it is this one's turn, until there is a place."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._limits.place_wait_seconds
        while True:
            try:
                async with asyncio.timeout_at(ends_at):
                    await seat.turn.wait()
            except TimeoutError:
                raise self._refusal(seat, "each is in use") from None
            seat.turn.clear()
            try:
                taking = await self._try(seat)
            finally:
                seat.tried.set()
            if taking is not Taking.FULL:
                return taking is Taking.TAKEN

    async def _try(self, seat: _Seat) -> Taking:
        seat.lacks_memory = self.memory_level() is Level.CRITICAL
        if seat.lacks_memory:
            return Taking.FULL

        def allow(taken: PlacesTaken) -> bool:
            seat.place = decide_place(taken, self._limits, seat.is_live)
            return bool(seat.place.decision)

        return await seat.attempt(allow)

    async def _serve(self) -> None:
        """Give turns as long as somebody waits."""
        try:
            while self._queue:
                self._arrived.clear()
                try:
                    await self._serve_round()
                except SandboxError as exc:
                    self._log.warning("places: %s %s", exc, exc.detail)
                try:
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await self._arrived.wait()
                except TimeoutError:
                    pass
        finally:
            self._serving = None

    async def _serve_round(self) -> None:
        running = await self._records.running_by_owner()
        seats = list(self._queue)
        hopeless: set[tuple[Bound | None, str]] = (
            set()
        )  # no room to be made for these in this round
        for position in fair_order([seat.owner for seat in seats], running):
            seat = seats[position]
            while (seat.bound, seat.owner) not in hopeless and not await self._let_try(seat):
                if seat.bound is None or not await self.make_room(seat.bound, seat.owner):
                    hopeless.add((seat.bound, seat.owner))

    async def _let_try(self, seat: _Seat) -> bool:
        """Give a turn; True when this one waits no longer."""
        if seat.left:
            return True
        seat.tried.clear()
        seat.turn.set()
        try:
            async with asyncio.timeout(_TRY_SECONDS):
                await seat.tried.wait()
        except TimeoutError:
            return True  # its database does not answer: not now
        await asyncio.sleep(0)  # let it leave
        return seat.left

    def _refusal(self, seat: _Seat, why: str) -> SandboxError:
        if seat.lacks_memory:
            return Unavailable(_NO_MEMORY, status=503, retry_after_seconds=_RETRY_AFTER_SECONDS)
        reason = "other calls came earlier"
        if seat.place is not None:
            reason = seat.place.decision.reason
        self._log.info("no place for a sandbox: %s, and %s", reason, why)
        return LimitExceeded(
            f"There is no place for a sandbox now: {reason}, and {why}. {_HOW_TO_END}",
            retry_after_seconds=_RETRY_AFTER_SECONDS,
        )


async def _no_room(bound: Bound, owner: str) -> bool:
    """Make none."""
    return False
