"""Others on the loop get as much time as a reader of a sandbox's messages takes.

A sandbox can send what is cheap to write and dear to read, without end. Reading it is work of the
one loop that serves all conversations. The rule: no reader works longer than a moment at a time,
and after that it lets go of the loop for as long as it worked. A reader that waits for its sandbox
loses nothing.
"""

from __future__ import annotations

import asyncio
import time

_AT_ONCE_SECONDS = 0.005
_LONGEST_REST_SECONDS = 0.5


class Pace:
    """The time that one reader has used since it last rested.

    ``begin()``, work without an await, ``await rest()``.
    """

    def __init__(self) -> None:
        self._used = 0.0
        self._began = 0.0

    def __repr__(self) -> str:
        return f"<Pace {self._used * 1000:.1f} ms used>"

    def begin(self) -> None:
        """Note that work begins."""
        self._began = time.perf_counter()

    async def rest(self) -> None:
        """Note that work has ended; wait if others have their turn now."""
        self._used += time.perf_counter() - self._began
        if self._used >= _AT_ONCE_SECONDS:
            used, self._used = self._used, 0.0
            await asyncio.sleep(min(used, _LONGEST_REST_SECONDS))
