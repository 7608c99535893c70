"""What a websocket of the message stream sends: messages in order, and output as it comes.

It knows no sockets: ``send`` takes a text and is done when the client has room for the next. The
rule: one thing is sent after the other and nothing is kept ready, so a slow client costs a page of
messages. Output has no number and is not sent again: who comes back gets that of running calls from
its beginning, and that of others in their results.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable

from ..conversations.journal import Journal
from ..conversations.message_feeds import Feed
from ..models import JsonValue, MessageRecord
from ..tools.call import Call
from ..tools.calls import Calls

_PAGE = 100
_PIECE_CHARACTERS = 32 * 1024

Send = Callable[[str], Awaitable[None]]
ToJson = Callable[[MessageRecord], dict[str, JsonValue]]


class MessageStream:
    """The stream of a conversation to one client.

    Parameters
    ----------
    after : int
        Number of the last message that the client has.
    """

    def __init__(
        self, feed: Feed, after: int, journal: Journal, calls: Calls, to_json: ToJson, send: Send
    ) -> None:
        self._feed = feed
        self._after = after
        self._journal = journal
        self._calls = calls
        self._to_json = to_json
        self._raw_send = send
        self._sending = asyncio.Lock()  # of a text: followers and messages take turns
        self._followers: dict[str, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"<MessageStream after={self._after} following={len(self._followers)}>"

    async def run(self) -> None:
        """Send until the conversation is deleted, or ``send`` raises."""
        conversation_id = self._feed.conversation_id
        running = self._calls.running(conversation_id)  # their messages are in the journal
        try:
            while not self._feed.is_over:
                await self._feed.wait()
                while await self._send_page():
                    pass
                self._follow(running)
                running = []
        finally:
            followers = list(self._followers.values())
            for follower in followers:
                follower.cancel()
            await asyncio.gather(*followers, return_exceptions=True)

    async def _send_page(self) -> bool:
        page = await self._journal.page(self._feed.conversation_id, self._after, _PAGE)
        for message in page.messages:
            call_id = str(message.body.get("call_id"))
            if message.kind == "result" and call_id in self._followers:
                await self._followers.pop(call_id)  # all of its output comes before it
            await self._send(self._to_json(message))
            self._after = message.seq
            if message.kind == "call":
                self._follow(
                    call
                    for call in self._calls.running(self._feed.conversation_id)
                    if call.call_id == call_id
                )
        return bool(page.messages)

    def _follow(self, calls: Iterable[Call]) -> None:
        for call in calls:
            if call.call_id not in self._followers and not call.done.done():
                follower = asyncio.ensure_future(self._send_output(call))
                self._followers[call.call_id] = follower

    async def _send_output(self, call: Call) -> None:
        async for text in call.follow():
            for at in range(0, len(text), _PIECE_CHARACTERS):
                piece = text[at : at + _PIECE_CHARACTERS]
                await self._send({"type": "output", "call_id": call.call_id, "text": piece})

    async def _send(self, shape: dict[str, JsonValue]) -> None:
        async with self._sending:
            await self._raw_send(json.dumps(shape))
