"""What a client is told while a command runs: the last line of its output."""

from __future__ import annotations

import asyncio

from ...tools.ansi import plain
from ...tools.call import Call

_CHARACTERS = 200


class LastLine:
    """The last line of a call's output so far, for a client that shows what is going on."""

    def __init__(self, call: Call) -> None:
        self.text = ""
        self._task = asyncio.ensure_future(self._read(call))

    def __repr__(self) -> str:
        return f"<LastLine {self.text!r}>"

    async def close(self) -> None:
        """Stop reading."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _read(self, call: Call) -> None:
        async for piece in call.follow():
            lines = [line for line in plain(piece[-4096:]).splitlines() if line.strip()]
            if lines:
                self.text = lines[-1].strip()[-_CHARACTERS:]
