"""The site's own proxy, real TLS end to end, and the splice by itself."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time

import pytest

from jupyter_sandbox.policy.egress_rules import EgressCaps
from jupyter_sandbox.proxies.forward import splice as splicing
from jupyter_sandbox.proxies.forward.budgets import Budgets, CapReached
from jupyter_sandbox.proxies.forward.splice import SpliceEnded, splice
from tests import egress_lab as lab
from tests.authority import make_authority
from tests.egress_lab import GOOD

AUTHORIZATION = b"proxy-authorization: Basic dXNlcjpwYTpzcw=="


class SiteProxy:
    """A company's proxy: asks for its password, tunnels to nowhere but itself, echoes."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 OK\r\nVia: site\r\n\r\n") -> None:
        self.answer = answer
        self.heads: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self.answer)
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


def through(port: int, **more):
    """Give rules with that proxy; listed names need not resolve here at all."""
    return lab.rules(upstream=f"http://user:pa%3Ass@site.example:{port}", allow_cidrs=(), **more)


WORDS = lab.command({"site.example": ["127.0.0.1"]})


async def test_a_tunnel_goes_through_the_sites_proxy_by_name(short_dir):
    site = SiteProxy()
    async with (
        lab.serving(site) as port,
        lab.running(short_dir, through(port), WORDS) as (_, client),
    ):
        reader, writer = await client.tunnel(443)
        writer.write(lab.hello(GOOD))
        assert await reader.readexactly(len(lab.hello(GOOD))) == lab.hello(GOOD)
        writer.close()
    head = f"CONNECT {GOOD}:443 HTTP/1.1\r\nhost: {GOOD}:443\r\n".encode()
    assert site.heads == [head + AUTHORIZATION + b"\r\n\r\n"]


async def test_a_fetch_goes_through_the_sites_proxy_as_an_absolute_url(short_dir):
    site = SiteProxy(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    async with (
        lab.serving(site) as port,
        lab.running(short_dir, through(port), WORDS) as (_, client),
    ):
        reader, writer = await client.connect()
        writer.write(f"GET http://{GOOD}/a HTTP/1.1\r\nProxy-Authorization: x\r\n\r\n".encode())
        assert (await reader.readuntil(b"ok")).endswith(b"connection: close\r\n\r\nok")
        writer.close()
    (head,) = site.heads
    assert head.startswith(f"GET http://{GOOD}/a HTTP/1.1\r\n".encode())
    assert AUTHORIZATION in head
    assert b": x" not in head


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        b"HTTP/1.1 503 no\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n\r\n",
        b"x" * 20_000,
    ],
)
async def test_a_proxy_that_refuses_is_a_failure_without_its_words(short_dir, answer):
    site = SiteProxy(answer)
    async with (
        lab.serving(site) as port,
        lab.running(short_dir, through(port), WORDS) as (_, client),
    ):
        said = await client.ask(f"CONNECT {GOOD}:443 HTTP/1.1\r\n\r\n".encode())
        assert lab.status_of(said) == 502
        assert b"A retry may help." in said
        assert not any(secret in said for secret in (b"pa:ss", b"dXNl", b"407", b"site"))


async def test_what_is_refused_is_not_asked_of_the_sites_proxy(short_dir):
    site = SiteProxy()
    async with (
        lab.serving(site) as port,
        lab.running(short_dir, through(port), WORDS) as (_, client),
    ):
        for head in (b"CONNECT other.example:443", b"CONNECT 10.0.0.1:443", b"GET http://1.1.1.1/"):
            assert lab.status_of(await client.ask(head + b" HTTP/1.1\r\n\r\n")) == 403
        reader, writer = await client.tunnel(443)
        writer.write(lab.hello("evil.example"))
        assert (await lab.read_all(reader)).startswith(b"\x15")
        writer.close()
    assert [head.partition(b"\r\n")[0] for head in site.heads] == [
        f"CONNECT {GOOD}:443 HTTP/1.1".encode()
    ]


# The splice


@pytest.fixture
def pair():
    """A client's and an upstream's two ends."""
    ends = [*socket.socketpair(), *socket.socketpair()]
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


def meter(**caps: int):
    return Budgets(EgressCaps(**caps)).meter("c1")


async def test_half_a_tunnel_does_not_stay(pair, monkeypatch):
    monkeypatch.setattr(splicing, "_HALF_CLOSED_SECONDS", 0.2)
    client, proxy_side, upstream_side, upstream = pair
    upstream.shutdown(socket.SHUT_WR)  # and the client never closes its side
    async with asyncio.timeout(5):
        await splice(proxy_side, upstream_side, meter(), 60, 60)
    assert await asyncio.get_running_loop().sock_recv(client, 10) == b""


async def test_an_answer_after_the_clients_end_still_comes(pair):
    loop = asyncio.get_running_loop()
    client, proxy_side, upstream_side, upstream = pair
    carrying = asyncio.ensure_future(splice(proxy_side, upstream_side, meter(), 60, 60))
    await loop.sock_sendall(client, b"question")
    client.shutdown(socket.SHUT_WR)
    assert await loop.sock_recv(upstream, 100) == b"question"
    assert await loop.sock_recv(upstream, 100) == b""
    await loop.sock_sendall(upstream, b"answer")
    upstream.shutdown(socket.SHUT_WR)
    assert await loop.sock_recv(client, 100) == b"answer"
    async with asyncio.timeout(5):
        await carrying


async def test_a_connection_has_a_longest_life_however_busy_it_is(pair):
    client, proxy_side, upstream_side, _ = pair

    async def chatter() -> None:
        while True:
            await asyncio.get_running_loop().sock_sendall(client, b"x")
            await asyncio.sleep(0.01)

    busy = asyncio.ensure_future(chatter())
    started = time.monotonic()
    with pytest.raises(SpliceEnded, match="open for too long"):
        await splice(proxy_side, upstream_side, meter(), 60, 0.3)
    assert time.monotonic() - started < 5
    busy.cancel()


async def test_bytes_over_a_cap_do_not_go_on(pair):
    loop = asyncio.get_running_loop()
    client, proxy_side, upstream_side, upstream = pair
    await loop.sock_sendall(client, b"x" * 100)
    with pytest.raises(CapReached):
        await splice(proxy_side, upstream_side, meter(up_bytes=99), 60, 60)
    with pytest.raises(BlockingIOError):
        upstream.recv(1)


# Real TLS


async def test_a_real_tls_client_verifies_the_host_end_to_end(short_dir, tmp_path):
    authority = make_authority(GOOD)
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    certificate.write_text(authority.server_certificate)
    key.write_text(authority.server_key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    trusting = ssl.create_default_context(cadata=authority.certificate)
    try:
        async with lab.running(short_dir, lab.rules(port)) as (_, client):
            for name, works in ((GOOD, True), ("evil.example", False)):
                sock = await asyncio.to_thread(blocking_tunnel, client.path, port)
                opening = asyncio.open_connection(sock=sock, ssl=trusting, server_hostname=name)
                if not works:
                    with pytest.raises((ssl.SSLError, ConnectionError)):
                        await opening
                    sock.close()
                    continue
                reader, writer = await opening
                writer.write(b"hello\n")
                assert await reader.readline() == b"HELLO\n"
                writer.close()
    finally:
        server.close()


def blocking_tunnel(path, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(str(path))
    sock.sendall(f"CONNECT {GOOD}:{port} HTTP/1.1\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 200 ")
    return sock
