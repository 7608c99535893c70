"""A server whose clocks a test turns: what nobody uses for a quarter of an hour, in a moment."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


class IdleClock:
    """Both clocks of a server, the one that is set and the steady one; its chores stand still."""

    def __init__(self, services) -> None:
        self.services = services
        self.wall_seconds = self.steady_seconds = 0.0
        services.database._clock = lambda: datetime.now(UTC) + timedelta(seconds=self.wall_seconds)
        services.idling.steady = lambda: time.monotonic() + self.steady_seconds

    @classmethod
    async def of(cls, app) -> IdleClock:
        """Take over the clocks of a server."""
        services = await app.ready()
        await services.housekeeping.close()
        clock = cls(services)
        await clock.look()  # the first look decides nothing
        clock.pass_time(40)
        return clock

    def pass_time(self, seconds: float) -> None:
        """Let time pass; uses note themselves again."""
        self.wall_seconds += seconds
        self.steady_seconds += seconds
        for live in self.services.conversations.all():
            live._uses.forget()

    def jump(self, seconds: float) -> None:
        """Set the clock."""
        self.wall_seconds += seconds

    def stop(self) -> None:
        """Let time stand but for what the test lets pass: this machine may be slow."""
        wall, steady = datetime.now(UTC), time.monotonic()
        self.services.database._clock = lambda: wall + timedelta(seconds=self.wall_seconds)
        self.services.idling.steady = lambda: steady + self.steady_seconds

    async def look(self) -> None:
        """Let the server look at all sandboxes once."""
        await self.services.idling.look()

    async def settle(self) -> None:
        """Let so much time pass that the server decides by its clock, with looks on the way."""
        for _ in range(3):
            self.pass_time(15)
            await self.services.idling.note_uses()
            await self.look()
