"""A guest that is hostile from the start: dials a real link, says hello, then lies as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
from sandbox_guest.frames import FrameDecoder, encode

from jupyter_sandbox.sandbox.link import GuestLink

HELLO = encode({"hello": "jupyter-sandbox-guest", "protocol": 1, "version": "x", "python": "3"})
MIB = 1024 * 1024

Answer = Callable[[dict, asyncio.StreamWriter], Awaitable[None]]


def raw(text: bytes, payload: bytes = b"") -> bytes:
    """A frame of any text."""
    return struct.pack("!II", len(text), len(payload)) + text + payload


def message(parent, msg_type, content, channel="iopub", metadata=None) -> bytes:
    """A Jupyter message on a bash stream."""
    return encode(
        {
            "channel": channel,
            "header": {"msg_id": "x", "msg_type": msg_type},
            "parent_header": parent,
            "metadata": metadata or {},
            "content": content,
        }
    )


class HostileGuest:
    """Streams to a link, each answered by ``answer``."""

    def __init__(self, link: GuestLink, path: Path, answer: Answer) -> None:
        self.link = link
        self._path = path
        self._answer = answer
        self._tasks: list[asyncio.Task] = []
        self._ended = False

    async def dial(self) -> None:
        """Keep one idle stream ready, as a guest does."""
        self._tasks.append(asyncio.ensure_future(self._serve()))

    async def _serve(self) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self._path))
        with contextlib.suppress(ConnectionError):
            writer.write(HELLO)
            decoder = FrameDecoder()
            opened = False
            while data := await reader.read(65536):
                for frame in decoder.feed(data):
                    if opened:
                        await self._answer(frame.body, writer)
                        continue
                    opened = True
                    writer.write(encode({"opened": frame.body["open"]}))
                    await self.dial()
        writer.close()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


@contextlib.asynccontextmanager
async def hostile_guest(directory: Path, answer: Answer) -> AsyncIterator[HostileGuest]:
    """A started link with a hostile guest on it; nothing of either is left."""
    link = GuestLink(directory, "h")
    await link.start()
    guest = HostileGuest(link, directory / "h.sock", answer)
    try:
        await guest.dial()
        await link.wait_connected(5)
        yield guest
    finally:
        guest.close()
        await link.close()
    assert os.listdir(directory) == []


class Watch:
    """How long the loop was kept from others, and how much this process grew.

    Of each pause only what this process worked in it counts: on a busy machine others take time too.
    Nor counts what earlier tests left in it: the collector does not look through that meanwhile.
    """

    def __init__(self) -> None:
        self.slowest_seconds = 0.0
        self.grown_bytes = 0
        self._process = psutil.Process()

    async def __aenter__(self) -> Watch:
        gc.collect()
        gc.freeze()
        self._before = self._process.memory_info().rss
        self._task = asyncio.ensure_future(self._look())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        gc.unfreeze()

    async def _look(self) -> None:
        last, worked = time.perf_counter(), time.process_time()
        while True:
            await asyncio.sleep(0.002)
            pause = min(time.perf_counter() - last, time.process_time() - worked)
            self.slowest_seconds = max(self.slowest_seconds, pause)
            grown = self._process.memory_info().rss - self._before
            self.grown_bytes = max(self.grown_bytes, grown)
            last, worked = time.perf_counter(), time.process_time()
