"""The relay between the host's sockets and those of a kernel inside a sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat

import pytest

from jupyter_sandbox.errors import Unavailable
from jupyter_sandbox.sandbox import relay as relay_module
from jupyter_sandbox.sandbox.relay import KernelRelay

from .local_guest import LocalGuest, eventually
from .test_zmtp import GREETING, frame, message


@pytest.fixture
def guest(short_dir):
    guest = LocalGuest(short_dir)
    yield guest
    guest.close()


class Peer:
    """A socket inside that says what a test wants."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.writers: list[asyncio.StreamWriter] = []

    async def _accept(self, reader, writer) -> None:
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                self.received += data
        writer.close()

    @contextlib.asynccontextmanager
    async def listening(self, path):
        server = await asyncio.start_unix_server(self._accept, path)
        yield self
        server.close()
        for writer in self.writers:
            writer.close()


@contextlib.asynccontextmanager
async def relaying(guest, **options):
    async with guest.link() as link:
        relay = KernelRelay(link, str(guest.work / "r"), guest.directory / "made" / "l", **options)
        await relay.start()
        try:
            yield relay
        finally:
            await relay.close()


def local(guest, port: int = 1) -> str:
    return str(guest.directory / "made" / f"l-{port}")


async def test_bytes_go_out_as_they_are_and_come_in_as_whole_messages(guest):
    async with relaying(guest), Peer().listening(guest.work / "r-1") as peer:
        reader, writer = await asyncio.open_unix_connection(local(guest))
        writer.write(b"anything at all")
        await eventually(lambda: peer.received == b"anything at all")
        peer.writers[0].write(GREETING + frame(b"part", more=True))
        assert await reader.readexactly(64) == GREETING
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.read(1)
        peer.writers[0].write(frame(b"end"))
        assert await reader.readexactly(11) == message([b"part", b"end"])
        writer.close()


async def test_half_close_travels_both_ways(guest):
    async with relaying(guest), Peer().listening(guest.work / "r-1") as peer:
        reader, writer = await asyncio.open_unix_connection(local(guest))
        writer.write(b"last")
        writer.write_eof()
        async with asyncio.timeout(5):
            assert await reader.read() == b""  # the peer closed when it had read all
        assert peer.received == b"last"
        writer.close()


async def test_a_connection_waits_for_a_kernel_that_has_no_sockets_yet(guest):
    async with relaying(guest):
        _, writer = await asyncio.open_unix_connection(local(guest))
        writer.write(b"early")
        await asyncio.sleep(0.2)
        async with Peer().listening(guest.work / "r-1") as peer:
            await eventually(lambda: peer.received == b"early")
        writer.close()


async def test_what_is_no_zmtp_is_cut_off(guest):
    broken: list[int] = []
    async with (
        relaying(guest, on_broken=lambda: broken.append(1)),
        Peer().listening(guest.work / "r-1") as peer,
    ):
        reader, writer = await asyncio.open_unix_connection(local(guest))
        await eventually(lambda: peer.writers)
        peer.writers[0].write(b"HTTP/1.1 200 OK\r\n")
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        assert broken == [1]
        writer.close()


async def test_a_host_that_does_not_read_stops_the_kernel(guest):
    async with relaying(guest) as relay, Peer().listening(guest.work / "r-2") as peer:
        _, writer = await asyncio.open_unix_connection(local(guest, 2), limit=1)
        await eventually(lambda: peer.writers)
        peer.writers[0].write(GREETING)
        written = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while written < 200 * 1024 * 1024:
                    peer.writers[0].write(frame(b"x" * 100_000))
                    await peer.writers[0].drain()
                    written += 100_000
        assert 0 < written < 8 * 1024 * 1024
        writer.close()
        await eventually(lambda: not relay._connections)


async def test_connections_are_bounded(guest, monkeypatch):
    monkeypatch.setattr(relay_module, "_MAX_CONNECTIONS", 3)
    async with relaying(guest) as relay, Peer().listening(guest.work / "r-1"):
        opened = [await asyncio.open_unix_connection(local(guest)) for _ in range(5)]
        await eventually(lambda: len(relay._connections) == 3)
        async with asyncio.timeout(5):
            assert await opened[-1][0].read() == b""
        for _, writer in opened:
            writer.close()


async def test_close_is_idempotent_and_leaves_neither_task_nor_socket(guest):
    async with guest.link() as link:
        relay = KernelRelay(link, str(guest.work / "r"), guest.directory / "made" / "l")
        await relay.start()
        directory = guest.directory / "made"
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert len(os.listdir(directory)) == 5
        opened = [await asyncio.open_unix_connection(local(guest, n)) for n in range(1, 6)]
        await eventually(lambda: len(relay._connections) == 5)
        await relay.close()
        await relay.close()
        assert os.listdir(directory) == []
        for _, writer in opened:
            writer.close()
        left = [t for t in asyncio.all_tasks() if "KernelRelay" in repr(t.get_coro())]
        assert left == []


async def test_a_path_too_long_for_a_socket_is_said_and_leaves_nothing(guest):
    async with guest.link() as link:
        deep = guest.directory / ("d" * 100)
        with pytest.raises(Unavailable):
            await KernelRelay(link, "/r", deep / "l").start()
        assert os.listdir(deep) == []
