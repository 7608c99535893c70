"""What is done with the database now and then: rows in plain are sealed, unused room is given back.

It knows no rows. The rule: a conversation whose rows cannot be sealed keeps none from the next one.
"""

from __future__ import annotations

import logging

from ..errors import SandboxError
from ..stores.connections import Connections
from ..stores.plain_rows import PlainRows

ROUND_SECONDS = 60.0


class Tidying:
    """A chore of one server of several."""

    def __init__(self, connections: Connections, plain: PlainRows, log: logging.Logger) -> None:
        self._connections = connections
        self._plain = plain
        self._log = log

    def __repr__(self) -> str:
        return f"<Tidying {self._connections!r}>"

    async def tidy(self) -> None:
        """Do all that there is to do."""
        after, done = "", 0
        while (conversation_id := await self._plain.next_conversation(after)) is not None:
            after = conversation_id
            try:
                while await self._plain.seal_some(conversation_id):
                    pass
                done += 1
            except SandboxError as exc:
                self._log.warning(
                    "conversation %s: not sealed: %s %s", conversation_id, exc, exc.detail
                )
        if done:
            self._log.info("results and messages of %d conversations were sealed", done)
        await self._connections.give_back()
