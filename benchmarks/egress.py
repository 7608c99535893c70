"""The egress process by itself: how fast it carries and refuses, what a neighbour's flood costs.

Knows no engine and no sandbox: it talks to the proxy's unix socket as a sandbox's forwarder does.
The download server and the flood are processes of their own: neither shares our interpreter.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jupyter_sandbox.policy.egress_rules import EgressCaps, EgressRules, HostRule
from jupyter_sandbox.proxies.egress import EgressProxy
from jupyter_sandbox.proxies.forward.budgets import REFUSAL_COST

from .arms import Arm, timed
from .client import CaseFailed

_ROOT = Path(__file__).parents[1]
_HOST = "good.example"
_REFUSED = b"CONNECT other.example:443 HTTP/1.1\r\n\r\n"
_BURST = 5  # refusals that one round measures
_CALM_SECONDS = 0.05  # before a burst: the flood is up by then, and we stay below our own rate
_READ_BYTES = 256 * 1024
# So that as many are refused as are allowed by default: more than the product would answer.
_RATE = EgressCaps().requests_per_second * REFUSAL_COST

# The egress process with one name that leads to the loopback; all else is as in the product.
_PROXY = """
from jupyter_sandbox.proxies.forward.process import run
async def resolve(host): return ["127.0.0.1"]
run(resolve)
"""
# Sends as much as the first line says after `hello`'s end, to whoever connects.
_SERVER = """
import socket, sys, threading
piece = memoryview(bytes(1024 * 1024))
def serve(sock):
    with sock:
        sock.recv(65536)
        for _ in range(int(sys.argv[1])): sock.sendall(piece)
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
while True: threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"""
# Asks for what is refused, from eight threads, as fast as it gets answers.
_FLOOD = """
import socket, sys, threading
def ask():
    while True:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(sys.argv[1])
            sock.sendall(b"CONNECT flood.example:443 HTTP/1.1\\r\\n\\r\\n")
            while sock.recv(65536): pass
for _ in range(8): threading.Thread(target=ask, daemon=True).start()
sys.stdin.read()
"""


@dataclass(frozen=True)
class EgressArms:
    """What is measured, with ``direct`` and ``alone`` the floors of the arms before them."""

    download: Arm
    direct: Arm
    refusal: Arm
    beside_flood: Arm
    alone: Arm


@contextlib.contextmanager
def egress_arms(mebibytes: int) -> Iterator[EgressArms]:
    """Give the arms over running egress processes; the rate limits only where it is meant to."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        server = stack.enter_context(_process(_SERVER, str(mebibytes)))
        assert server.stdout is not None
        port = int(server.stdout.readline())
        unhurried, ours, neighbour = (directory / f"{n}.sock" for n in ("a", "b", "c"))
        stack.enter_context(_proxy(port, 1_000_000, unhurried))
        stack.enter_context(_proxy(port, _RATE, ours, neighbour))
        flood = stack.enter_context(_process(_FLOOD, str(neighbour)))
        flood.send_signal(signal.SIGSTOP)
        stack.callback(flood.send_signal, signal.SIGCONT)
        size = mebibytes * 1024**2
        yield EgressArms(
            download=timed(lambda: _take(_tunnel(unhurried, port), size)),
            direct=timed(lambda: _take(_direct(port), size)),
            refusal=lambda: _refusals(unhurried),
            beside_flood=lambda: _beside(flood, ours),
            alone=lambda: _beside(None, ours),
        )


@contextlib.contextmanager
def _process(source: str, argument: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", source, argument],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def _proxy(port: int, rate: int, *paths: Path) -> Iterator[None]:
    """Run the egress process on a loop in a thread, with a conversation for each path."""
    rules = EgressRules(
        (HostRule(_HOST, frozenset({port})),),
        allow_cidrs=("127.0.0.1/32",),
        caps=EgressCaps(
            requests_per_second=rate, down_bytes_per_day=2**50, down_bytes_per_day_total=2**50
        ),
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    proxy = EgressProxy(rules, command=(sys.executable, "-c", _PROXY))
    try:
        run(proxy.start())
        for number, path in enumerate(paths):
            run(proxy.open(f"s{number}", f"c{number}", path))
        yield
    finally:
        run(proxy.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _direct(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(_hello())
    return sock


def _tunnel(path: Path, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    sock.sendall(f"CONNECT {_HOST}:{port} HTTP/1.1\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        piece = sock.recv(1)
        if not piece:
            raise CaseFailed(f"the egress proxy answered {answer!r}")
        answer += piece
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise CaseFailed(f"the egress proxy answered {answer!r}")
    sock.sendall(_hello())
    return sock


def _hello() -> bytes:
    """Give a TLS greeting that names the host; the server does not speak TLS, nobody else looks."""
    name = _HOST.encode()
    entry = b"\0" + len(name).to_bytes(2, "big") + name
    names = len(entry).to_bytes(2, "big") + entry
    extension = b"\0\0" + len(names).to_bytes(2, "big") + names
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0"
    body += len(extension).to_bytes(2, "big") + extension
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


def _take(sock: socket.socket, size: int) -> None:
    buffer = memoryview(bytearray(_READ_BYTES))
    taken = 0
    with sock:
        while read := sock.recv_into(buffer):
            taken += read
    if taken != size:
        raise CaseFailed(f"{taken} of {size} bytes came")


def _refusals(path: Path) -> float:
    """Give the seconds of one refusal on a new connection, the mean of a few."""
    started = time.perf_counter()
    for _ in range(_BURST):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(_REFUSED)
            answer = sock.recv(4096)
        if not answer.startswith(b"HTTP/1.1 403 "):
            raise CaseFailed(f"the egress proxy answered {answer!r}")
    return (time.perf_counter() - started) / _BURST


def _beside(flood: subprocess.Popen[bytes] | None, path: Path) -> float:
    if flood is not None:
        flood.send_signal(signal.SIGCONT)
    try:
        time.sleep(_CALM_SECONDS)
        return _refusals(path)
    finally:
        if flood is not None:
            flood.send_signal(signal.SIGSTOP)
