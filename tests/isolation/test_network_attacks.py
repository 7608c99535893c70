"""Attacks from inside on what lies around a sandbox: the host's services, its addresses, its sockets.

Addresses that are nobody's business are named only where there is no route to them: in a sandbox.
What goes through the proxy names loopback only, where a canary listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import statistics
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.attacks import attack

pytestmark = [pytest.mark.timeout(120), pytest.mark.alone]


@pytest.fixture
def sandbox_config():
    return {"SandboxEgress": {"presets": [], "allow_hosts": ["allowed.example"]}}


class Canary:
    """A service of the host's on all its addresses, which must never hear anything."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._socket = socket.create_server(("0.0.0.0", 0))
        self.port = self._socket.getsockname()[1]
        self.name = f"canary-{self.port}"
        self._abstract = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._abstract.bind(f"\0{self.name}")
        self._abstract.listen()
        for sock in (self._socket, self._abstract):
            threading.Thread(target=self._listen, args=(sock,), daemon=True).start()

    def _listen(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, address = sock.accept()
                self.heard.append(str(address))
                peer.close()

    def close(self) -> None:
        for sock in (self._socket, self._abstract):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@pytest.fixture
def canary() -> Iterator[Canary]:
    made = Canary()
    yield made
    made.close()


def host_addresses() -> list[str]:
    return sorted(
        {
            address.address
            for addresses in psutil.net_if_addrs().values()
            for address in addresses
            if address.family == socket.AF_INET
        }
    )


_PROBE = """
import json, socket, sys
targets = json.loads(sys.argv[1])
found = {}
def attempt(name, act):
    try:
        found[name] = "reached: " + str(act())
    except OSError as exc:
        found[name] = exc.strerror or type(exc).__name__

def connect(family, kind, address):
    with socket.socket(family, kind) as sock:
        sock.settimeout(2)
        sock.connect(address)
        sock.send(b"hello")
        return address

for host, port in targets["tcp"]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    attempt("tcp %s:%s" % (host, port), lambda: connect(family, socket.SOCK_STREAM, (host, port)))
for host, port in targets["udp"]:
    attempt("udp %s:%s" % (host, port), lambda: connect(socket.AF_INET, socket.SOCK_DGRAM, (host, port)))
for name in targets["abstract"]:
    attempt("abstract " + name, lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, "\\0" + name))
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).sendto(b"x" * 8, ("192.0.2.1", 0)))
attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300))
attempt("resolve", lambda: socket.getaddrinfo("allowed.example", 443))
print(json.dumps(found))
"""

_THROUGH_PROXY = """
import json, socket, sys
found = {}
for line in json.loads(sys.argv[1]):
    with socket.create_connection(("127.0.0.1", 3128), 10) as sock:
        sock.sendall((line + " HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n").encode("latin-1"))
        found[line] = sock.recv(65536).split(b" ")[1].decode()
print(json.dumps(found))
"""


async def probe(api, conversation: str, script: str, argument: object) -> dict[str, str]:
    await api.call(
        conversation, "create_file", path="/tmp/probe.py", file_text=script, overwrite=True
    )
    shown = await api.bash(conversation, f"python3 /tmp/probe.py '{json.dumps(argument)}'")
    line = next(line for line in shown.split("\n") if line.startswith("{"))
    found: dict[str, str] = json.loads(line)
    return found


@attack("T05")
async def test_nothing_is_reached_directly(api, canary, jp_http_port):
    with socket.create_connection(("127.0.0.1", canary.port), 5):
        async with asyncio.timeout(5):  # from outside it can be heard
            while not canary.heard:
                await asyncio.sleep(0.01)
    canary.heard.clear()
    conversation = await api.conversation()
    ports = (canary.port, jp_http_port)
    targets = {
        "tcp": [[host, port] for host in host_addresses() for port in ports]
        + [["169.254.169.254", 80], ["100.100.100.100", 80], ["192.0.2.1", 443], ["fd00::1", 80]],
        "udp": [["192.0.2.53", 53], ["169.254.169.254", 53]],
        "abstract": [canary.name],
    }
    found = await probe(api, conversation, _PROBE, targets)
    assert len(found) == sum(map(len, targets.values())) + 3
    assert not [name for name, result in found.items() if result.startswith("reached")], found
    # That there is no way, in the words of the host's kernel or gVisor's; never a time-out.
    assert found["tcp 169.254.169.254:80"] in ("Network is unreachable", "No route to host")
    assert canary.heard == []


@attack("T05")
async def test_nothing_of_the_hosts_is_reached_through_the_proxy(api, canary, jp_http_port):
    conversation = await api.conversation()
    lines = [
        line
        for host in ("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0.0.0.0")
        for port in (canary.port, jp_http_port)
        for line in (f"CONNECT {host}:{port}", f"GET http://{host}:{port}/")
    ]
    lines += [f"CONNECT [::1]:{canary.port}", f"CONNECT [::ffff:127.0.0.1]:{canary.port}"]
    found = await probe(api, conversation, _THROUGH_PROXY, lines)
    assert set(found) == set(lines)
    assert set(found.values()) <= {"400", "403"}, found
    assert canary.heard == []


@attack("T01")
async def test_the_proxys_socket_cannot_be_replaced_nor_its_port_taken(api):
    conversation = await api.conversation()
    shown = await api.bash(
        conversation,
        "cd /run/jupyter-sandbox/egress\n"
        "rm -f *.sock && echo removed\n"
        "ln -s /var/run/docker.sock a.sock && echo linked\n"
        "mv h*.sock b.sock && echo moved\n"
        "touch off && echo made\n"
        "mount -o remount,rw . 2>/dev/null && echo remounted\n"
        "python3 -c 'import socket; s = socket.socket(); s.bind((\"127.0.0.1\", 3128))'\n"
        "ls",
    )
    for word in ("removed", "linked", "moved", "made", "remounted"):
        assert f"{word}\n" not in shown
    assert "Address already in use" in shown
    assert ".sock\n" in shown


_FLOOD = """
import socket, sys, time
held = []
for n in range(3000):
    if n % 2:
        s = socket.socket(socket.AF_UNIX); where = sys.argv[1]
    else:
        s = socket.socket(); where = ("127.0.0.1", 3128)
    s.settimeout(0.05)
    try:
        s.connect(where)
        s.send(b"CONN")
        held.append(s)
    except OSError:
        s.close()
print("held", len(held))
time.sleep(2)
"""


@attack("T03")
async def test_a_flood_of_connections_harms_no_neighbour_and_is_survived(api):
    hostile, neighbour = await api.conversation(), await api.conversation()
    await asyncio.gather(api.bash(hostile, "true"), api.bash(neighbour, "true"))
    await api.call(hostile, "create_file", path="/workspace/flood.py", file_text=_FLOOD)
    flood = asyncio.ensure_future(
        api.bash(
            hostile,
            "ulimit -n 8000; timeout 10 python3 flood.py /run/jupyter-sandbox/egress/*.sock",
            timeout_seconds=40,
        )
    )
    slowest = 0.0
    while not flood.done():
        started = time.monotonic()
        assert "403" in await api.bash(neighbour, "curl -sSI https://blocked.example/; true")
        slowest = max(slowest, time.monotonic() - started)
        await asyncio.sleep(0.1)
    assert slowest < 5
    assert "[exit code" in await flood
    async with asyncio.timeout(30):
        while "403" not in await api.bash(hostile, "curl -sSI -m 5 https://blocked.example/; true"):
            await asyncio.sleep(0.2)


_REFUSALS = """
import socket, sys, threading
def ask(times):
    for n in range(times):
        with socket.create_connection(("127.0.0.1", 3128), 20) as sock:
            sock.sendall(b"CONNECT flood%d.example:443 HTTP/1.1\\r\\n\\r\\n" % n)
            assert b" 403 " in sock.recv(65536)
threads = [threading.Thread(target=ask, args=(12,)) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("refused", 96)
"""


@attack("T11")
async def test_a_flood_of_refused_requests_slows_no_neighbour(api):
    """Loose, because machines are shared; benchmarks/refusals.py measures what it costs."""
    hostile, neighbour = await api.conversation(), await api.conversation()
    await asyncio.gather(api.bash(hostile, "true"), api.bash(neighbour, "true"))
    await api.call(hostile, "create_file", path="/workspace/ask.py", file_text=_REFUSALS)
    quiet: list[float] = []
    beside: list[float] = []

    async def echo(times: list[float]) -> None:
        started = time.monotonic()
        assert "hello" in await api.bash(neighbour, "echo hello")
        times.append(time.monotonic() - started)

    for _ in range(5):
        for _ in range(10):
            await echo(quiet)
        flood = asyncio.ensure_future(api.bash(hostile, "python3 ask.py"))
        while not flood.done():
            await echo(beside)
            await asyncio.sleep(0.02)
        assert "refused 96\n" in (shown := await flood)
        assert shown.count("was refused: ") <= 3  # and the result stays short
    assert statistics.median(beside) < 3 * statistics.median(quiet) + 0.05, (quiet, beside)
