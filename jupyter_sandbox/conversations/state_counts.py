"""How many conversations are in each state, for the metrics: counted now and then.

The database is asked and not the engine: servers that share it show the same numbers. The rule: a
database that fails leaves the last numbers, and nobody waits.
"""

from __future__ import annotations

import asyncio
import contextlib

from .. import metrics
from ..errors import SandboxError
from ..stores.database import Database
from .states import State

_SECONDS = 15.0


class StateCounts:
    """The counting, in the background."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._task = asyncio.ensure_future(self._keep())

    def __repr__(self) -> str:
        return f"<StateCounts {'ended' if self._task.done() else 'counting'}>"

    async def look(self) -> None:
        """Count once."""
        metrics.show_states(await self._database.count_by_state(), [str(each) for each in State])

    async def close(self) -> None:
        """Stop it. Twice is once."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(SandboxError):
                await self.look()
            await asyncio.sleep(_SECONDS)
