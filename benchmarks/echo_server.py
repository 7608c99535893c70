"""The bare tornado server that file tools are compared with: gives back what it is sent, as it is.

``python -m benchmarks.echo_server`` prints its port and serves until its stdin ends.
"""

from __future__ import annotations

import asyncio
import os
import sys

import tornado.httpserver
import tornado.netutil
import tornado.web


class Echo(tornado.web.RequestHandler):
    """One answer of the size of its request."""

    def prepare(self) -> None:
        self.request.connection.stream.set_nodelay(True)  # type: ignore[union-attr]

    def post(self) -> None:
        self.set_header("Content-Type", "application/json")
        self.finish(self.request.body)


async def main() -> None:
    server = tornado.httpserver.HTTPServer(tornado.web.Application([("/echo", Echo)]))
    sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    print(sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)  # whoever started it has ended
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
