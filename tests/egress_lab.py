"""A real egress process with chosen names, and what talks to it over its unix sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from jupyter_sandbox.policy.egress_rules import EgressCaps, EgressRules, HostRule
from jupyter_sandbox.proxies.egress import EgressProxy

LOOPBACK = ("127.0.0.1/32",)
GOOD = "good.example"


def command(answers: dict[str, Any], record: Path | None = None) -> tuple[str, ...]:
    """Give what starts a process whose names are these; with ``record`` it connects to nothing."""
    words = (sys.executable, "-m", "tests.egress_process", json.dumps(answers))
    return words if record is None else (*words, "--record", str(record))


def rules(*ports: int, caps: EgressCaps = EgressCaps(), **more: Any) -> EgressRules:  # noqa: B008
    """Give rules that allow `GOOD` on these ports, https and http, at 127.0.0.1."""
    every = frozenset({443, *ports})
    host = HostRule(GOOD, every, frozenset({80, *ports}))
    return EgressRules(**{"hosts": (host,), "allow_cidrs": LOOPBACK, "caps": caps, **more})


@contextlib.asynccontextmanager
async def running(short_dir: Path, the_rules: EgressRules, words: tuple[str, ...] = ()):
    """Give a proxy with one sandbox open, and a function that asks over its socket."""
    proxy = EgressProxy(the_rules, command=words or command({GOOD: ["127.0.0.1"]}))
    await proxy.start()
    try:
        path = short_dir / "egress.sock"
        await proxy.open("s1", "c1", path)
        yield proxy, Client(path)
    finally:
        await proxy.stop()


class Client:
    """What a sandbox can do with its socket."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.path), limit=2**20)

    async def ask(self, data: bytes, seconds: float = 10.0) -> bytes:
        """Send bytes, give all that comes back until the end."""
        reader, writer = await self.connect()
        try:
            writer.write(data)
            async with asyncio.timeout(seconds):
                return await read_all(reader)
        finally:
            writer.close()

    async def tunnel(self, port: int, host: str = GOOD):
        """Ask for a tunnel; give its streams after the 200."""
        reader, writer = await self.connect()
        writer.write(f"CONNECT {host}:{port} HTTP/1.1\r\n\r\n".encode())
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        return reader, writer


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Give everything until the end; a reset is an end too."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(2**16):
            found += piece
    return found


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def reason_of(answer: bytes) -> str:
    """Give the refusal: the header, which must be what the body says."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = [h for h in head.split(b"\r\n") if h.startswith(b"x-deny-reason: ")]
    assert len(lines) == 1, answer
    text = lines[0].partition(b": ")[2].decode("ascii")
    assert body.decode("ascii") == text + "\n"
    return text


@contextlib.asynccontextmanager
async def serving(handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]):
    """Give the port of a TCP server on the loopback that serves each connection with ``handle``."""
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def serve() -> None:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await handle(reader, writer)
            writer.close()

        task = asyncio.ensure_future(serve())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=2**20)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition does not come true"
        await asyncio.sleep(0.01)


def hello(name: str | bytes | None, *, pad: int = 0) -> bytes:
    """Give a TLS ClientHello in one record, with this server name or with none."""
    extensions = b""
    if name is not None:
        host = name.encode() if isinstance(name, str) else name
        entry = b"\x00" + len(host).to_bytes(2, "big") + host
        extensions += b"\x00\x00" + _block(2, _block(2, entry))
    extensions += b"\x00\x15" + _block(2, b"\0" * pad)
    body = b"\x03\x03" + b"r" * 32 + _block(1, b"") + _block(2, b"\x13\x01") + _block(1, b"\0")
    message = body + _block(2, extensions)
    return record(b"\x01" + len(message).to_bytes(3, "big") + message)


def record(message: bytes) -> bytes:
    """Give a handshake record."""
    return b"\x16\x03\x01" + _block(2, message)


def _block(length_size: int, data: bytes) -> bytes:
    return len(data).to_bytes(length_size, "big") + data
