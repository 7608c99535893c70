"""The egress process as the server drives it: sockets, restarts, what is denied and told."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
import time

import psutil
import pytest

from jupyter_sandbox.errors import Unavailable
from jupyter_sandbox.policy.egress_rules import EgressRules
from jupyter_sandbox.proxies.egress import EgressProxy
from tests import egress_lab as lab


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def test_a_listed_host_is_reached_through_a_tunnel(short_dir):
    async with lab.serving(echo) as port, lab.running(short_dir, lab.rules(port)) as (_, client):
        reader, writer = await client.tunnel(port)
        greeting = lab.hello(lab.GOOD)
        writer.write(greeting + b"and more")
        assert await reader.readexactly(len(greeting) + 8) == greeting + b"and more"
        writer.write_eof()
        assert await lab.read_all(reader) == b""


async def test_a_refusal_reads_alike_in_body_header_and_report(short_dir):
    async with lab.running(short_dir, lab.rules()) as (proxy, client):
        since = time.monotonic()
        answer = await client.ask(b"CONNECT other.example:443 HTTP/1.1\r\n\r\n")
        await proxy.settle()
        assert lab.status_of(answer) == 403
        (denial,) = proxy.denials("c1", since)
        assert denial.text == lab.reason_of(answer)
        assert (denial.host, denial.port) == ("other.example", 443)
        assert denial.text == (
            "Network access to other.example:443 was refused: the host is not on the list of "
            "allowed hosts. Allowed: https to good.example; http to good.example. "
            "A retry will not help."
        )
        assert proxy.denials("c1", time.monotonic()) == []
        assert proxy.denials("another", since) == []


async def test_the_socket_lets_every_user_of_the_sandbox_in_and_goes_with_its_sandbox(short_dir):
    async with lab.running(short_dir, lab.rules()) as (proxy, client):
        assert stat.S_IMODE(os.stat(client.path).st_mode) == 0o666
        inode = client.path.stat().st_ino
        await proxy.open("s1", "c1", client.path)
        assert client.path.stat().st_ino == inode
        await proxy.close("s1")
        await proxy.close("s1")
        assert not client.path.exists()


async def test_a_stale_socket_is_replaced_and_anything_else_is_left_alone(short_dir):
    async with lab.running(short_dir, lab.rules()) as (proxy, _):
        stale = short_dir / "stale.sock"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(stale))
        await proxy.open("s2", "c2", stale)
        assert lab.status_of(await lab.Client(stale).ask(b"NO\r\n\r\n")) == 400
        kept = short_dir / "kept"
        kept.write_text("a file")
        with pytest.raises(Unavailable):
            await proxy.open("s3", "c3", kept)
        assert kept.read_text() == "a file"
        with pytest.raises(Unavailable):
            await proxy.open("s4", "c4", short_dir / "no" / "such.sock")


async def test_a_killed_process_comes_back_with_all_its_sockets(short_dir):
    async with lab.running(short_dir, lab.rules()) as (proxy, client):
        await proxy.open("s2", "c2", short_dir / "other.sock")
        before = proxy.pid
        os.kill(before, signal.SIGKILL)
        await lab.eventually(lambda: proxy.pid not in (None, before))
        await proxy.settle()
        for each in (client, lab.Client(short_dir / "other.sock")):
            answer = await each.ask(b"CONNECT other.example:443 HTTP/1.1\r\n\r\n")
            assert lab.status_of(answer) == 403


async def test_without_the_process_there_is_no_way_out(short_dir):
    async with lab.running(short_dir, lab.rules()) as (proxy, client):
        await proxy.stop()
        await proxy.stop()
        with pytest.raises(OSError, match=r"No such file|refused"):
            await client.connect()


async def test_the_process_ends_when_the_pipe_does(short_dir):
    proxy = EgressProxy(lab.rules(), command=lab.command({}))
    await proxy.start()
    process = proxy._process
    process.stdin.close()
    async with asyncio.timeout(5):
        assert await process.wait() == 0
    await proxy.stop()


SERVER = """
import asyncio, sys
from pathlib import Path
from jupyter_sandbox.policy.egress_rules import EgressRules
from jupyter_sandbox.proxies.egress import EgressProxy

async def main():
    proxy = EgressProxy(EgressRules())
    await proxy.start()
    await proxy.open("s1", "c1", Path(sys.argv[1]))
    print(proxy.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_killed_server_takes_the_process_with_it(short_dir):
    path = short_dir / "egress.sock"
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, str(path), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        process = psutil.Process(int(await server.stdout.readline()))
    answer = await lab.Client(path).ask(b"CONNECT a.example:443 HTTP/1.1\r\n\r\n")
    assert "Allowed: nothing." in lab.reason_of(answer)
    server.kill()
    await server.wait()
    await lab.eventually(lambda: not process.is_running() or process.status() == "zombie")
    with pytest.raises(OSError, match=r"refused|No such file"):
        await lab.Client(path).connect()


async def test_the_process_gets_nothing_of_the_servers_environment_and_directory(monkeypatch):
    monkeypatch.setenv("JUPYTER_SANDBOX_MASTER_KEY", "secret")
    proxy = EgressProxy(EgressRules())
    await proxy.start()
    process = psutil.Process(proxy.pid)
    assert "secret" not in process.environ().values()
    assert set(process.environ()) <= {"PATH", "PYTHONPATH", "LANG", "LC_ALL", "LC_CTYPE"}
    assert process.cwd() == "/"
    await proxy.stop()
    assert not process.is_running()


async def test_a_process_that_does_not_start_is_unavailable(short_dir):
    proxy = EgressProxy(lab.rules(), command=("/does/not/exist",))
    proxy_start = asyncio.ensure_future(proxy.start())
    done, _ = await asyncio.wait({proxy_start}, timeout=0.5)
    assert not done  # it is tried again
    proxy_start.cancel()
    await proxy.stop()
