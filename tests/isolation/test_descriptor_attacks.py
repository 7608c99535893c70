"""What the kernel makes a server's thread wait for: descriptors that it closes last, leases.

Inside a real sandbox, where the kernel refuses them and the filter of system calls lets no close
wait; and played from the host, where no filter holds, against a server on an older kernel. A third
party asks the server all the time, from a process of its own.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jupyter_sandbox.policy.egress_rules import EgressCaps
from jupyter_sandbox.proxies import guest_sockets
from jupyter_sandbox.proxies.egress import EgressProxy
from jupyter_sandbox.proxies.forward import kept_bytes
from jupyter_sandbox.proxies.forward.budgets import Budgets, CapReached
from jupyter_sandbox.proxies.forward.kept_bytes import KeptBytes, make_memory
from jupyter_sandbox.proxies.guest_sockets import bind, listen, refuses_descriptors
from jupyter_sandbox.sandbox.link import GuestLink
from jupyter_sandbox.sandbox.way_out import WayOut
from tests import egress_lab, old_kernel
from tests.attacks import attack
from tests.conftest import BUBBLEWRAP
from tests.isolation.hostile_guest import HELLO, Watch

pytestmark = [pytest.mark.timeout(120), pytest.mark.alone]

INSIDE = (Path(__file__).parent / "pass_descriptors.py").read_text(encoding="utf-8")
DIRECTORIES = ("dial", "egress")
_LINGER_SECONDS = 3
_ASKING = """
import sys, time, urllib.request
seconds, url = float(sys.argv[1]), sys.argv[2]
end = time.monotonic() + seconds
while time.monotonic() < end:
    started = time.monotonic()
    urllib.request.urlopen(url, timeout=60).close()
    print(time.monotonic() - started, flush=True)
    time.sleep(0.01)
"""


@pytest.fixture
def sandbox_config():
    return {"SandboxEgress": {"presets": [], "allow_hosts": ["allowed.example"]}}


@pytest.fixture
def on_old_kernel(monkeypatch) -> None:
    old_kernel.pretend(monkeypatch)


class ThirdParty:
    """Somebody who asks the server for its version, in a process of its own."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def ask(self, seconds: float) -> list[float]:
        """Ask for so long; give the seconds of each answer, sorted.

        Of a slow one also those that would have been asked for meanwhile.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _ASKING, str(seconds), self._url), stdout=subprocess.PIPE
        )
        out, _ = await process.communicate()
        answers = [float(each) for each in out.split()]
        return sorted(each - i * 0.01 for each in answers for i in range(int(each / 0.01) + 1))


def p99(answers: list[float]) -> float:
    return answers[int(len(answers) * 0.99) - 1]


@pytest.fixture
def third_party(jp_serverapp):
    return ThirdParty(f"http://127.0.0.1:{jp_serverapp.port}{jp_serverapp.base_url}api")


async def passed_inside(api, conversation: str) -> dict[str, dict]:
    """Pass descriptors over both sockets at once; give what each attempt came to."""
    await api.text(conversation, "create_file", path="/workspace/pass.py", file_text=INSIDE)
    command = " & ".join(
        f"python3 pass.py '/run/jupyter-sandbox/{each}/*.sock' 3 {_LINGER_SECONDS} > {each}.json"
        for each in DIRECTORIES
    )
    shown = await api.bash(conversation, f"{command} & wait; cat dial.json egress.json")
    return dict(zip(DIRECTORIES, map(json.loads, shown.split("\n")[:2]), strict=True))


async def attacked(api, third_party: ThirdParty) -> dict[str, dict]:
    """Attack from inside, see that a third party is answered; give what the attempts came to."""
    hostile = await api.conversation()
    await api.bash(hostile, "true")
    quiet = await third_party.ask(1)
    attacking = asyncio.ensure_future(passed_inside(api, hostile))
    answers = await third_party.ask(_LINGER_SECONDS)
    got = await attacking
    print(f"quiet p99 {p99(quiet):.4f}, attacked {p99(answers):.4f}, most {answers[-1]:.4f}, {got}")
    assert answers[-1] < 1
    assert p99(answers) <= 10 * p99(quiet)
    assert "hello" in await api.bash(hostile, "echo hello")
    return got


@attack("T44", "T45")
async def test_descriptors_that_wait_to_be_closed_keep_nobody_waiting(
    api, third_party, engine_name
):
    assert refuses_descriptors()
    got = await attacked(api, third_party)
    refused = errno.EINVAL if engine_name == "gvisor" else errno.EPERM
    assert {code for each in got.values() for code in each["sent"]} == {refused}
    if engine_name != "gvisor":  # whose sockets are its own
        assert [each["linger"] for each in got.values()] == [[0, 0], [0, 0]]


@pytest.mark.own_server
@pytest.mark.usefixtures("on_old_kernel")
@pytest.mark.parametrize("engine_name", [BUBBLEWRAP], indirect=True)
async def test_a_server_on_an_older_kernel_works_and_keeps_nobody_waiting(api, third_party):
    got = await attacked(api, third_party)
    assert {code for each in got.values() for code in each["sent"]} == {0}


# From here on the test plays the sandbox: no filter keeps it from letting a close wait.


@contextlib.contextmanager
def waiting(seconds: int = 60) -> Iterator[int]:
    """Give a descriptor whose last close waits so long."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
        with peer:
            sender.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sender.send(b"x" * 65536)
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
            yield sender.detach()


@contextlib.contextmanager
def passed(path: Path, first: bytes, reader: int, count: int = 3) -> Iterator[None]:
    """Connect and pass descriptors that wait, so many times; ``reader`` makes their last close."""
    with contextlib.ExitStack() as stack:
        os.kill(reader, signal.SIGSTOP)  # or ours were the last
        try:
            for _ in range(count):
                connection = stack.enter_context(socket.socket(socket.AF_UNIX))
                connection.connect(str(path))
                descriptor = stack.enter_context(waiting())
                rights = array.array("i", [descriptor])
                connection.sendmsg([first], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                os.close(descriptor)
        finally:
            os.kill(reader, signal.SIGCONT)
        yield


def standing(pid: int) -> int:
    """Give how many threads of a process wait for a TCP socket to take what it holds."""
    waits = Path(f"/proc/{pid}/task").glob("*/wchan")
    return sum(path.read_text() == "wait_woken" for path in waits)


@attack("T44", on="")
async def test_on_an_older_kernel_a_close_that_waits_holds_one_connection_of_one_sandbox(
    on_old_kernel, short_dir
):
    hostile, neighbour = GuestLink(short_dir, "h"), GuestLink(short_dir, "n")
    await asyncio.gather(hostile.start(), neighbour.start())
    async with Watch() as watch:
        assert hostile._listener is not None
        assert hostile._listener._courier is not None
        courier = hostile._listener._courier.pid
        with passed(short_dir / "h.sock", HELLO, courier):
            await egress_lab.eventually(lambda: standing(courier) == 3)
            for name, link in (("n", neighbour), ("h", hostile)):
                _, writer = await asyncio.open_unix_connection(str(short_dir / f"{name}.sock"))
                writer.write(HELLO)
                await link.wait_connected(5)
                writer.close()
            started = time.monotonic()
            await asyncio.gather(hostile.close(), neighbour.close())
            assert time.monotonic() - started < 1
    assert watch.slowest_seconds < 0.2
    assert os.listdir(short_dir) == []


@attack("T45", on="")
async def test_on_an_older_kernel_the_way_out_of_others_stays_open(on_old_kernel, short_dir):
    proxy = EgressProxy(egress_lab.rules())
    hostile, neighbour = (egress_lab.Client(short_dir / f"{name}.sock") for name in "hn")
    await proxy.start()
    try:
        await proxy.open("s1", "c1", hostile.path)
        await proxy.open("s2", "c2", neighbour.path)
        pid = proxy.pid
        (courier,) = (
            each.pid for each in psutil.Process(pid).children() if "h.sock" in str(each.cmdline())
        )
        with passed(hostile.path, b"CONNECT ", courier):
            await egress_lab.eventually(lambda: standing(courier) == 3)
            for client in (neighbour, hostile):
                started = time.monotonic()
                answer = await client.ask(b"CONNECT other.example:443 HTTP/1.1\r\n\r\n")
                assert egress_lab.status_of(answer) == 403
                assert time.monotonic() - started < 2
        assert proxy.pid == pid
    finally:
        await proxy.stop()


# The socket itself


def test_a_listening_socket_refuses_descriptors_from_its_first_moment(short_dir):
    with bind(short_dir / "s", 8) as listener, socket.socket(socket.AF_UNIX) as guest:
        assert listener.getsockopt(socket.SOL_SOCKET, guest_sockets.SO_PASSRIGHTS) == 0
        guest.connect(str(short_dir / "s"))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))]
        with pytest.raises(PermissionError):  # nobody has accepted it yet
            guest.sendmsg([b"x"], rights)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, guest_sockets.SO_PASSRIGHTS) == 0
            with pytest.raises(PermissionError):
                guest.sendmsg([b"x"], rights)
            guest.sendall(b"bytes")
            assert accepted.recv(10) == b"bytes"


async def test_a_courier_carries_bytes_both_ways_and_each_end_as_it_is(on_old_kernel, short_dir):
    listener = await listen(short_dir / "s", 8)
    try:
        reader, writer = await asyncio.open_unix_connection(str(short_dir / "s"))
        accepted = await listener.accept()
        server_reader, server_writer = await asyncio.open_unix_connection(sock=accepted)
        data = os.urandom(3 * 1024 * 1024)
        server_writer.write(data)
        assert await reader.readexactly(len(data)) == data
        writer.write(b"all of it")
        writer.write_eof()
        assert await server_reader.read() == b"all of it"
        server_writer.write(b"after that")
        await server_writer.drain()
        server_writer.close()
        assert await reader.read() == b"after that"
        writer.close()
    finally:
        await listener.close()


async def test_a_courier_reads_no_more_than_the_server_takes(on_old_kernel, short_dir):
    listener = await listen(short_dir / "s", 8)
    try:
        with socket.socket(socket.AF_UNIX) as guest:
            guest.connect(str(short_dir / "s"))
            accepted = await listener.accept()
            guest.settimeout(0.5)
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < 64 * 1024 * 1024:
                    sent += await asyncio.to_thread(guest.send, b"x" * 65536)
            accepted.close()
        assert sent < 2 * 1024 * 1024
    finally:
        await listener.close()


async def test_a_courier_that_was_killed_is_started_again(on_old_kernel, short_dir):
    link = GuestLink(short_dir, "h")
    await link.start()
    try:
        assert link._listener is not None
        assert link._listener._courier is not None
        first = link._listener._courier
        first.kill()
        await egress_lab.eventually(
            lambda: link._listener._courier not in (None, first) and link._listener.is_in_place
        )
        _, writer = await asyncio.open_unix_connection(str(short_dir / "h.sock"))
        writer.write(HELLO)
        await link.wait_connected(5)
        writer.close()
    finally:
        await link.close()


@attack("T45", on="")
async def test_a_proxy_that_was_killed_goes_on_with_the_days_bytes(short_dir):
    swallowed = 0

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal swallowed
        while data := await reader.read(65536):
            swallowed += len(data)

    async def send(client: egress_lab.Client, port: int, size: int) -> None:
        _, writer = await client.tunnel(port)
        writer.write(egress_lab.hello(egress_lab.GOOD) + b"x" * size)
        writer.write_eof()
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    caps = EgressCaps(up_bytes_per_day=500_000)
    async with (
        egress_lab.serving(swallow) as port,
        egress_lab.running(short_dir, egress_lab.rules(port, caps=caps)) as (proxy, client),
    ):
        await send(client, port, 400_000)
        await egress_lab.eventually(lambda: swallowed > 400_000)
        before = proxy.pid
        os.kill(before, signal.SIGKILL)
        await egress_lab.eventually(lambda: proxy.pid not in (None, before))
        await proxy.open("s1", "c1", client.path)
        await send(client, port, 400_000)
        await egress_lab.eventually(lambda: proxy.denials("c1", 0.0))
        (denial,) = proxy.denials("c1", 0.0)
        assert denial.reason == "this conversation has sent all it may within a day"
        assert swallowed <= 500_000


def test_what_was_counted_is_there_for_the_next_process_and_rows_are_used_again():
    memory = make_memory()
    try:
        first = Budgets(EgressCaps(up_bytes_per_day=100), kept=KeptBytes(memory))
        first.meter("a").count(0, 60)
        first.meter("b").count(0, 10)
        second = Budgets(EgressCaps(up_bytes_per_day=100), kept=KeptBytes(memory))
        assert (second.of("a").bytes.left(0), second.of("b").bytes.left(0)) == (40, 90)
        assert second._total.left(0) == second.caps.up_bytes_per_day_total - 70
        kept = KeptBytes(memory)
        kept.forget("a")
        assert KeptBytes(memory).of("a").tolist() == [0, 0, 0]
        assert KeptBytes(memory).of("b")[1] == 10
    finally:
        os.close(memory)


def test_a_name_for_which_there_is_no_row_is_counted_too(monkeypatch):
    monkeypatch.setattr(kept_bytes, "_ROWS", 2)
    kept = KeptBytes()
    kept.of("a"), kept.of("b")
    meter = Budgets(EgressCaps(up_bytes_per_day=100), kept=kept).meter("c")
    meter.count(0, 100)
    with pytest.raises(CapReached):
        meter.count(0, 1)


# Leases: whoever opens a file to change it waits for those who hold one.

_LEASING = """
import fcntl, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = open(sys.argv[1])
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
print(flush=True)
sys.stdin.read()
"""


@attack("T46", on="")
async def test_a_lease_on_what_lies_in_a_sandbox_keeps_no_later_server_waiting(short_dir):
    egress = short_dir / "egress"
    egress.mkdir()
    way_out = WayOut(None, logging.getLogger())
    way_out.open("s1", "c1", egress, "first")
    holder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _LEASING, str(egress / "off")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"\n"
        started = time.monotonic()
        way_out.open("s1", "c1", egress, "second")
        assert time.monotonic() - started < 1
        assert os.listdir(short_dir) == ["egress"]
    finally:
        holder.kill()
        await holder.wait()
