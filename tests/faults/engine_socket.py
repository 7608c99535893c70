"""A unix socket between the docker engine and its service that can fail as a network can.

It stands for a service that is down, hangs, is slow or answers nonsense, without touching the real
one: dockerd goes on, with all that other tests have in it.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

DOCKER = "/var/run/docker.sock"
_NONSENSE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n"
    b'{"Surprise": [7]}'
)


class EngineSocket:
    """Forwards connections to the real service, until it is told to fail.

    Attributes
    ----------
    delay_seconds : float
        Before each piece that goes to the service.
    talks_nonsense : bool
        Each request is answered at once by JSON that answers nothing.
    """

    def __init__(self, path: Path, target: str = DOCKER) -> None:
        self.path = path
        self.delay_seconds = 0.0
        self.talks_nonsense = False
        self._target = target
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    async def up(self) -> None:
        """Listen; twice is once."""
        if self._server is None:
            self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def down(self) -> None:
        """Refuse connections and cut those there are; twice is once."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            self.path.unlink(missing_ok=True)
        await self.cut()

    async def cut(self) -> None:
        """End the connections there are."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def stall(self) -> None:
        """Pass nothing on any more, and close nothing."""
        self._flowing.clear()

    def flow(self) -> None:
        """Pass everything again, also what waits."""
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        outwards = None
        try:
            if self.talks_nonsense:
                while await reader.read(65536):
                    writer.write(_NONSENSE)
                return
            there, outwards = await asyncio.open_unix_connection(self._target)
            await asyncio.gather(
                self._pass(reader, outwards, is_request=True), self._pass(there, writer)
            )
        except (OSError, asyncio.CancelledError):
            pass  # cut
        finally:
            self._tasks.discard(task)
            for end in (writer, outwards):
                if end is not None:
                    end.close()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        is_request: bool = False,
    ) -> None:
        while data := await reader.read(65536):
            await self._flowing.wait()
            if is_request:
                await asyncio.sleep(self.delay_seconds)
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()
