"""Who waits for messages of which conversation, and what wakes them.

Messages of this process wake their readers at once; those of other server processes on the same
database are looked for every second, with one query however many wait. The rule: a feed says that
there may be more, never what; its reader asks the journal from the number that it has.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from ..errors import LimitExceeded, SandboxError
from ..event_loop import require_loop
from ..fair_turns import NOBODY, Turns, acting_for, owner_here
from ..stores.message_records import MessageRecords

_POLL_SECONDS = 1.0
_MOST_FEEDS = 32  # of a conversation
_MOST_OF_ALL = 4096
_MOST_OF_OWNER = 256


class Feed:
    """One reader's.

    Attributes
    ----------
    is_over : bool
        The conversation was deleted.
    """

    def __init__(self, conversation_id: str) -> None:
        self.conversation_id = conversation_id
        self.owner = owner_here()
        self.is_over = False
        self._changed = asyncio.Event()
        self._changed.set()

    def __repr__(self) -> str:
        return f"<Feed {self.conversation_id}{' over' if self.is_over else ''}>"

    async def wait(self) -> None:
        """Wait until there may be more than there was at the last time."""
        await self._changed.wait()
        self._changed.clear()

    def wake(self) -> None:
        """Let the reader look."""
        self._changed.set()


class MessageFeeds:
    """All readers of this server process."""

    def __init__(self, records: MessageRecords) -> None:
        self._records = records
        self._feeds: dict[str, set[Feed]] = {}
        self._known: dict[str, int] = {}  # the last number that the readers were woken for
        self._poller: asyncio.Task[None] | None = None
        self._places: Turns[None] = Turns(_MOST_OF_ALL, _MOST_OF_OWNER, 0)

    def __repr__(self) -> str:
        return f"<MessageFeeds of {len(self._feeds)} conversations>"

    def open(self, conversation_id: str) -> Feed:
        """Give a feed; whoever gets it closes it.

        Raises
        ------
        LimitExceeded
            So many read this conversation, or messages of this user's, already.
        """
        require_loop()
        feeds = self._feeds.setdefault(conversation_id, set())
        if len(feeds) >= _MOST_FEEDS:
            raise LimitExceeded(
                f"{_MOST_FEEDS} clients read the messages of this conversation already.",
                retry_after_seconds=5,
            )
        feed = Feed(conversation_id)
        if not self._places.take(feed.owner):
            if not feeds:
                del self._feeds[conversation_id]
            raise LimitExceeded(
                "Too many clients of this user, or of all, read messages; close one.",
                retry_after_seconds=5,
            )
        feeds.add(feed)
        if self._poller is None:
            with acting_for(NOBODY):
                self._poller = asyncio.ensure_future(self._poll())
        return feed

    def close(self, feed: Feed) -> None:
        """Forget a feed. Twice is once."""
        feeds = self._feeds.get(feed.conversation_id, set())
        if feed in feeds:
            feeds.discard(feed)
            self._places.end(feed.owner)
        if not feeds:
            self._feeds.pop(feed.conversation_id, None)
            self._known.pop(feed.conversation_id, None)
        if not self._feeds and self._poller is not None:
            self._poller.cancel()
            self._poller = None

    def end(self) -> None:
        """End all feeds, for the server's stop."""
        for feeds in list(self._feeds.values()):
            for feed in list(feeds):
                feed.is_over = True
                feed.wake()
                self.close(feed)

    def written(self, numbers: Mapping[str, int]) -> None:
        """Wake the readers of these conversations: each has a message of this number now.

        On the loop only.
        """
        require_loop()
        for conversation_id, number in numbers.items():
            feeds = self._feeds.get(conversation_id)
            if feeds and number > self._known.get(conversation_id, 0):
                self._known[conversation_id] = number
                for feed in feeds:
                    feed.wake()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            asked = list(self._feeds)
            with contextlib.suppress(SandboxError):  # the readers will be told when they read
                numbers = await self._records.last(asked)
                self.written(numbers)
                for conversation_id in set(asked) - set(numbers):
                    for feed in self._feeds.get(conversation_id, ()):
                        feed.is_over = True
                        feed.wake()
