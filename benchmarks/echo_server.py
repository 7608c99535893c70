"""The bare tornado server that ours is compared with: an echo, and files that go as they are.

``python -m benchmarks.echo_server`` prints its port and serves until its stdin ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import tornado.httpserver
import tornado.netutil
import tornado.web

_PIECE_BYTES = 64 * 1024  # what tornado's own StaticFileHandler reads at once


class Echo(tornado.web.RequestHandler):
    """One answer of the size of its request."""

    def prepare(self) -> None:
        self.request.connection.stream.set_nodelay(True)  # type: ignore[union-attr]

    def post(self) -> None:
        self.set_header("Content-Type", "application/json")
        self.finish(self.request.body)


@tornado.web.stream_request_body
class File(tornado.web.RequestHandler):
    """One file, streamed to the disk and from it: no check, no hash, no cipher, no sync."""

    def initialize(self, path: Path) -> None:
        self._path = path

    def prepare(self) -> None:
        if self.request.method == "PUT":
            self._file = self._path.open("wb")

    def data_received(self, chunk: bytes) -> None:
        self._file.write(chunk)

    def put(self) -> None:
        self._file.close()
        self.set_status(201)
        self.set_header("Content-Length", "0")

    async def get(self) -> None:
        self.set_header("Content-Length", str(self._path.stat().st_size))
        with self._path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                self.write(piece)
                await self.flush()


async def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.getcwd()) as directory:
        await serve(Path(directory) / "file")


async def serve(path: Path) -> None:
    """Serve until stdin ends."""
    handlers = [("/echo", Echo), ("/file", File, {"path": path})]
    server = tornado.httpserver.HTTPServer(tornado.web.Application(handlers))
    sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    print(sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)  # whoever started it has ended


if __name__ == "__main__":
    asyncio.run(main())
