"""Fair turns: a bounded number of workers or slots, shared between owners round robin.

Whatever is limited for the whole process (threads, worker processes, slots) is given out here and
nowhere else. The rules: of those that wait, the owner with the fewest turns comes first, and owners
with as many take turns; one owner has at most so many turns and so many waiting; no wait is
without a bound. ``Turns`` decides and knows neither tasks nor time; ``FairTurns`` waits and runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import weakref
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from .errors import LimitExceeded, Unavailable

T = TypeVar("T")

NOBODY = ""
"""The server itself: it is served like an owner, and its waiting is not bounded."""

_RETRY_AFTER_SECONDS = 5
_THREADS = 4
_THREADS_OF_OWNER = 2
_WAITING_FOR_THREADS = 256

_owner: ContextVar[str] = ContextVar("owner", default=NOBODY)


@contextlib.contextmanager
def acting_for(owner: str) -> Iterator[None]:
    """Count the turns that are asked for in this context as this owner's."""
    token = _owner.set(owner)
    try:
        yield
    finally:
        _owner.reset(token)


def owner_here() -> str:
    """Give for whom this context acts."""
    return _owner.get()


def act_for(owner: str) -> None:
    """Count all further turns of this task, and of tasks that it starts, as this owner's."""
    _owner.set(owner)


class Turns(Generic[T]):
    """Who has a turn and who waits.

    Parameters
    ----------
    at_once : int
        Turns of all owners together.
    of_owner : int
        Turns of one owner at once.
    waiting : int
        Of one owner at once; 0: nobody waits.
    """

    def __init__(self, at_once: int, of_owner: int, waiting: int) -> None:
        self._at_once = at_once
        self._of_owner = of_owner
        self._most_waiting = waiting
        self._running: Counter[str] = Counter()
        self._queues: dict[str, deque[T]] = {}
        self._given = 0
        self._last: dict[str, int] = {}  # when an owner got a turn last; of those that are here

    def __repr__(self) -> str:
        return f"<Turns running={self.running} waiting={self.waiting}>"

    @property
    def running(self) -> int:
        """How many turns are given out."""
        return self._running.total()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(len(queue) for queue in self._queues.values())

    def ask(self, owner: str, item: T) -> bool:
        """Let an item wait for a turn (``due`` gives it); False: too many of its owner wait."""
        queue = self._queues.get(owner)
        waiting = len(queue) if queue is not None else 0
        is_free = self.running < self._at_once and self._running[owner] < self._of_owner
        if owner != NOBODY and not is_free and waiting >= self._most_waiting:
            return False
        self._queues.setdefault(owner, deque()).append(item)
        return True

    def take(self, owner: str) -> bool:
        """Give an owner a turn at once, with nothing to wait for; False: there is none for it."""
        is_free = self.running < self._at_once and self._running[owner] < self._of_owner
        if is_free:
            self._running[owner] += 1
        return is_free

    def count(self, owner: str) -> int:
        """Give how many turns an owner has."""
        return self._running[owner]

    def due(self) -> tuple[str, T] | None:
        """Give a turn to the item that is next, and give it; None: no turn, or nobody waits."""
        if self.running >= self._at_once:
            return None
        free = [owner for owner in self._queues if self._running[owner] < self._of_owner]
        if not free:
            return None
        owner = min(free, key=lambda each: (self._running[each], self._last.get(each, 0)))
        item = self._queues[owner].popleft()
        self._running[owner] += 1
        self._given += 1
        self._last[owner] = self._given
        self._forget(owner)
        return owner, item

    def end(self, owner: str) -> None:
        """Take back a turn of this owner."""
        self._running[owner] -= 1
        self._forget(owner)

    def withdraw(self, owner: str, item: T) -> bool:
        """Let an item wait no longer; False: it does not wait."""
        queue = self._queues.get(owner)
        if queue is None or item not in queue:
            return False
        queue.remove(item)
        self._forget(owner)
        return True

    def withdraw_all(self) -> list[T]:
        """Let nobody wait any more; give those that did."""
        items = [item for queue in self._queues.values() for item in queue]
        for owner in list(self._queues):
            self._queues[owner].clear()
            self._forget(owner)
        return items

    def _forget(self, owner: str) -> None:
        if not self._queues.get(owner):
            self._queues.pop(owner, None)
            if not self._running[owner]:
                del self._running[owner]
                self._last.pop(owner, None)


class FairTurns:
    """Turns that can be waited for.

    Parameters
    ----------
    what : str
        What a turn is of, for messages: ``"documents are rendered"``.
    at_once : int
        Turns of all owners together, and threads of ``run``.
    of_owner : int, optional
        Turns of one owner; default: all of them. Where a turn is long, fewer leave one for others.
    waiting : int
        Of one owner; a further one is refused.
    wait_seconds : float, optional
        Who waits longer is refused; default: whoever asks bounds the wait.
    """

    def __init__(
        self,
        what: str,
        at_once: int,
        *,
        of_owner: int | None = None,
        waiting: int,
        wait_seconds: float | None = None,
    ) -> None:
        self._what = what
        self._waiting = waiting
        self._wait_seconds = wait_seconds
        self._turns: Turns[asyncio.Future[Any]] = Turns(at_once, of_owner or at_once, waiting)
        self._begins: dict[asyncio.Future[Any], Callable[[], None]] = {}  # of those that wait
        self._executor = ThreadPoolExecutor(at_once, thread_name_prefix="sandbox-turns")
        self._closed = False
        self._all_done = asyncio.Event()

    def __repr__(self) -> str:
        return f"<FairTurns {self._what}: {self._turns!r}>"

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._turns.waiting

    @property
    def running(self) -> int:
        """How many have a turn."""
        return self._turns.running

    @contextlib.asynccontextmanager
    async def turn(self, owner: str | None = None) -> AsyncIterator[None]:
        """Have a turn during the body.

        Parameters
        ----------
        owner : str, optional
            Default: for whom this context acts.

        Raises
        ------
        LimitExceeded
            429: too many of the owner wait, or this one has waited for too long.
        """
        owner = _owner.get() if owner is None else owner
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ask(owner, future, lambda: future.set_result(None))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._end(owner)  # it had just got its turn
            raise
        try:
            yield
        finally:
            self._end(owner)

    def submit(self, work: Callable[[], T], owner: str | None = None) -> asyncio.Future[T]:
        """Run ``work`` in a thread when it has a turn; give a future of what it gives.

        A future that is cancelled while it waits gives up its place. Work that runs has its turn
        until its end, whoever still waits for it.

        Raises
        ------
        LimitExceeded
            429: too many of the owner wait. The future raises it after too long a wait.
        """
        owner = _owner.get() if owner is None else owner
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def begin() -> None:
            running = loop.run_in_executor(self._executor, work)
            running.add_done_callback(functools.partial(self._over, owner, future))

        self._ask(owner, future, begin)
        return future

    async def run(self, work: Callable[..., T], *args: Any, owner: str | None = None) -> T:
        """Give what ``work(*args)`` gives, run as by ``submit``."""
        return await self.submit(functools.partial(work, *args), owner)

    def withdraw(self, future: asyncio.Future[Any]) -> None:
        """Cancel a future of ``submit`` if its work has not begun; else leave it."""
        if future in self._begins:
            future.cancel()

    async def finish(self) -> None:
        """Wait until all that was asked for is done."""
        while self._turns.running or self._turns.waiting:
            self._all_done.clear()
            await self._all_done.wait()

    def close(self) -> None:
        """Give no further turn; what runs ends by itself. Twice is once."""
        self._closed = True
        for future in self._turns.withdraw_all():
            if not future.done():
                future.set_exception(_closed())
        self._executor.shutdown(wait=False)

    def _ask(self, owner: str, future: asyncio.Future[Any], begin: Callable[[], None]) -> None:
        if self._closed:
            raise _closed()
        if not self._turns.ask(owner, future):
            raise LimitExceeded(
                f"{self._what}: {self._waiting} of this user wait for their turn already; try "
                "again when they are done.",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        self._begins[future] = begin
        self._begin_due()
        if future in self._begins:
            future.add_done_callback(functools.partial(self._leave, owner))
            if self._wait_seconds is not None:
                loop = asyncio.get_running_loop()
                timer = loop.call_later(self._wait_seconds, self._give_up, future)
                future.add_done_callback(lambda _: timer.cancel())

    def _give_up(self, future: asyncio.Future[Any]) -> None:
        if future in self._begins and not future.done():
            future.set_exception(
                LimitExceeded(
                    f"{self._what}: no turn within {self._wait_seconds:g} s; try again.",
                    retry_after_seconds=_RETRY_AFTER_SECONDS,
                )
            )

    def _leave(self, owner: str, future: asyncio.Future[Any]) -> None:
        """Take one out that waits no longer, for whatever reason."""
        if self._begins.pop(future, None) is not None:
            self._turns.withdraw(owner, future)
            self._all_done.set()

    def _begin_due(self) -> None:
        while (due := self._turns.due()) is not None:
            owner, future = due
            begin = self._begins.pop(future)
            if future.done():  # cancelled a moment ago
                self._turns.end(owner)
            else:
                begin()

    def _end(self, owner: str) -> None:
        self._turns.end(owner)
        if not self._closed:
            self._begin_due()
        self._all_done.set()

    def _over(self, owner: str, future: asyncio.Future[T], running: asyncio.Future[T]) -> None:
        self._end(owner)
        error = running.exception()
        if future.done():  # nobody waits any more
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(running.result())


def _closed() -> Unavailable:
    return Unavailable("the server stops", status=503)


_pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, FairTurns] = (
    weakref.WeakKeyDictionary()
)


async def in_thread(work: Callable[..., T], *args: Any, owner: str | None = None) -> T:
    """Give what ``work(*args)`` gives, run in a thread of those that all users' work shares.

    In the place of ``asyncio.to_thread`` for whatever a user or a sandbox can ask for; the
    server's own work (``to_thread``) never waits behind it.
    """
    loop = asyncio.get_running_loop()
    pool = _pools.get(loop)
    if pool is None:
        pool = _pools[loop] = FairTurns(
            "large messages and files",
            _THREADS,
            of_owner=_THREADS_OF_OWNER,
            waiting=_WAITING_FOR_THREADS,
        )
    return await pool.run(work, *args, owner=owner)
