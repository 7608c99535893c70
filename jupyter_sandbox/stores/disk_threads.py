"""Where the work of the vault runs: a few threads of its own, shared fairly between owners."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

from ..errors import DiskFull, NotFound, Unavailable
from ..fair_turns import FairTurns
from ..shortages import shortage_of

T = TypeVar("T")

_THREADS = 4
_WAITING = 2048


class DiskThreads:
    """Runs disk work and ciphers off the event loop.

    A cancelled caller waits for the step that is under way: nobody closes a descriptor or removes a
    directory that a thread is still working on. So steps are short.
    """

    def __init__(self) -> None:
        self._turns = FairTurns("Stored files", _THREADS, waiting=_WAITING)
        self._closed = False

    def __repr__(self) -> str:
        return f"<DiskThreads {'closed' if self._closed else 'open'}>"

    async def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` in a thread; give what it gives, its errors translated.

        Raises
        ------
        LimitExceeded
            429: too much work of this owner waits already.
        """
        if self._closed:
            raise Unavailable("the file store is closed", status=503)
        future = self._turns.submit(work)
        try:
            return await asyncio.shield(future)
        except FileNotFoundError as exc:
            raise NotFound("There is no such file.", detail=repr(exc)) from exc
        except OSError as exc:
            if isinstance(shortage := shortage_of(exc), DiskFull):
                raise shortage from exc
            raise Unavailable("the file store failed", detail=repr(exc)) from exc
        except asyncio.CancelledError:
            self._turns.withdraw(future)
            while not future.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({future})
            if not future.cancelled():
                future.exception()
            raise

    def close(self) -> None:
        """End the threads after their work. Twice is once."""
        self._closed = True
        self._turns.close()
