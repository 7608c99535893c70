"""Files that arrive in several requests: JupyterLab's chunks 1, 2, … and -1 for the last.

Each is an incoming file that waits, in the store encrypted like all others, for its next chunk. The
rule: chunks come in order and of one sender; whoever pauses too long, breaks the order or exceeds a
limit begins again, and nothing of it stays. One owner has a part of the places only; when all are
taken, the owner with the most gives one up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ...errors import InvalidRequest, LimitExceeded
from ...fair_turns import NOBODY, Turns
from .area import Incoming

_IDLE_SECONDS = 60.0
_FRESH_SECONDS = 10.0
_AT_ONCE = 256
_OF_OWNER = 32
_RETRY_AFTER_SECONDS = 5

Key = tuple[str, str]
"""The conversation and the path."""


class ChunkedFile:
    """One file between its first and last chunk."""

    def __init__(self, incoming: Incoming, owner: str, seen_at: float) -> None:
        self.incoming = incoming
        self.owner = owner
        self.size_bytes = 0
        self.next = 1
        self.seen_at = seen_at
        self.lock = asyncio.Lock()  # one chunk at a time
        self.timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<ChunkedFile next={self.next} {self.size_bytes} bytes>"


class ChunkedFiles:
    """All of them, of all conversations of this process."""

    def __init__(self, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._files: dict[Key, ChunkedFile] = {}
        self._places: Turns[None] = Turns(_AT_ONCE, _OF_OWNER, 0)
        self._dropping: set[asyncio.Future[None]] = set()

    def __repr__(self) -> str:
        return f"<ChunkedFiles {len(self._files)}>"

    async def take(
        self,
        key: Key,
        number: object,
        data: bytes,
        begin: Callable[[], Awaitable[Incoming]],
        owner: str = NOBODY,
    ) -> int | None:
        """Take a chunk; give how many bytes there are so far, None when the file is complete.

        Parameters
        ----------
        number : int
            1, 2, … or -1 for the last.
        begin : callable
            Opens the file, for chunk 1.
        owner : str
            Who sends it.

        Raises
        ------
        LimitExceeded
            429: too many files of the owner, or of all, wait for their next chunk.
        """
        if not isinstance(number, int) or isinstance(number, bool) or number < -1 or number == 0:
            raise InvalidRequest("chunk: must be 1, 2, … or -1 for the last.", status=400)
        if number == 1:
            await self._begin(key, begin, owner)
        file = self._files.get(key)
        if file is None:
            raise _begin_again()
        async with file.lock:
            if self._files.get(key) is not file:
                raise _begin_again()
            try:
                if number not in (file.next, -1):
                    raise _begin_again()
                self._watch(key, file)
                await file.incoming.write(data)
                file.size_bytes += len(data)
                file.next += 1
                if number != -1:
                    self._watch(key, file)
                    return file.size_bytes
                await file.incoming.keep()
            except BaseException:
                await asyncio.shield(self._drop(key, file))
                raise
            await self._drop(key, file)
            return None

    async def close(self) -> None:
        """Let go of all. Twice is once."""
        for key, file in list(self._files.items()):
            await self._drop(key, file)
        if self._dropping:
            await asyncio.wait(self._dropping)

    async def _begin(self, key: Key, begin: Callable[[], Awaitable[Incoming]], owner: str) -> None:
        loop = asyncio.get_running_loop()
        other = self._files.get(key)
        if other is not None:
            if loop.time() - other.seen_at < _FRESH_SECONDS:
                # Chunks do not say whose they are: two senders at once would make a mixture.
                raise InvalidRequest(
                    "This file is being uploaded already; try again in "
                    f"{_FRESH_SECONDS:g} seconds.",
                    status=409,
                )
            await self._drop(key, other)
        await self._take_place(owner)
        try:
            incoming = await begin()
        except BaseException:
            self._places.end(owner)
            raise
        if key in self._files:  # another one was faster
            self._places.end(owner)
            await incoming.close()
            raise InvalidRequest("This file is being uploaded already.", status=409)
        self._files[key] = ChunkedFile(incoming, owner, loop.time())

    async def _take_place(self, owner: str) -> None:
        if self._places.take(owner):
            return
        mine = self._places.count(owner)
        if mine >= _OF_OWNER:
            raise LimitExceeded(
                f"{_OF_OWNER} uploads of this user wait for their next part; finish one, or wait "
                f"{self._idle_seconds:g} seconds.",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        others = [
            (-self._places.count(file.owner), file.seen_at, key)
            for key, file in self._files.items()
            if self._places.count(file.owner) > mine + 1 and not file.lock.locked()
        ]
        if not others:
            raise LimitExceeded(
                "Too many uploads are under way.", retry_after_seconds=_RETRY_AFTER_SECONDS
            )
        key = min(others)[2]
        await self._drop(key, self._files[key])
        if not self._places.take(owner):
            raise LimitExceeded(
                "Too many uploads are under way.", retry_after_seconds=_RETRY_AFTER_SECONDS
            )

    def _watch(self, key: Key, file: ChunkedFile) -> None:
        loop = asyncio.get_running_loop()
        file.seen_at = loop.time()
        if file.timer is not None:
            file.timer.cancel()
        file.timer = loop.call_later(self._idle_seconds, self._drop_soon, key, file)

    def _drop_soon(self, key: Key, file: ChunkedFile) -> None:
        if file.lock.locked():  # a slow store, not a silent client
            self._watch(key, file)
            return
        dropping = asyncio.ensure_future(self._drop(key, file))
        self._dropping.add(dropping)
        dropping.add_done_callback(self._dropping.discard)

    async def _drop(self, key: Key, file: ChunkedFile) -> None:
        if file.timer is not None:
            file.timer.cancel()
        if self._files.get(key) is file:
            del self._files[key]
            self._places.end(file.owner)
        await file.incoming.close()


def _begin_again() -> InvalidRequest:
    return InvalidRequest(
        "This is not the chunk that was due: begin again with chunk 1.", status=409
    )
