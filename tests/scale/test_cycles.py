"""What a server keeps of conversations that are gone: nothing, after thousands and of real ones."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from benchmarks.cases import suspend
from benchmarks.client import CaseFailed, SandboxClient
from benchmarks.server import BenchServer, running_server
from tests.conftest import BUBBLEWRAP, DOCKER, full
from tests.scale.ready_guests import end_all

CYCLES = int(os.environ.get("JUPYTER_SANDBOX_CYCLES", "2000"))
REAL = 24
WARM = 160
AT_ONCE = 16
MIB = 1024**2
_SETTLE_SECONDS = 20.0
SETTINGS = (
    "--ServerApp.jpserver_extensions=benchmarks.probe=True",
    "--SandboxLimits.conversations_per_hour=0",
    "--SandboxLimits.calls_per_minute=0",
    "--SandboxEgress.presets=[]",
    "--ServerApp.log_level=WARN",
)
Tools = tuple[tuple[str, dict[str, str]], ...]


def cycle(client: SandboxClient, tools: Tools) -> None:
    """Create, use, suspend, wake, terminate, delete."""
    conversation = client.create()
    for tool, arguments in tools:
        client.call(conversation, tool, **arguments)
    suspend(client, conversation)
    client.call(conversation, "bash", command="true")
    client.json("POST", f"conversations/{conversation}/terminate", {})
    client.delete(conversation)


def run(server: BenchServer, count: int, tools: Tools, at_once: int = AT_ONCE) -> None:
    """Do so many cycles, some at once."""

    def work(share: int) -> None:
        client = server.client()
        for _ in range(share):
            cycle(client, tools)
        client.close()

    with saying(server), ThreadPoolExecutor(at_once) as threads:
        list(threads.map(work, [count // at_once] * at_once))


@contextlib.contextmanager
def saying(server: BenchServer) -> Iterator[None]:
    """Print the end of the server's log when a cycle fails."""
    try:
        yield
    except CaseFailed:
        print(server.last_words())
        raise


def probe(server: BenchServer) -> dict[str, Any]:
    """Ask the server what it holds."""
    client = server.client()
    status, body = client.get("/probe")
    client.close()
    assert status == 200, (body[-300:], server.last_words())
    found: dict[str, Any] = json.loads(body)
    return found


def settled(server: BenchServer, before: dict[str, Any], most: float) -> dict[str, Any]:
    """Ask until what is let go of now and then is gone (the disk guard lists every 5 s)."""
    ends_at = time.monotonic() + _SETTLE_SECONDS
    while True:
        after = probe(server)
        if time.monotonic() > ends_at or all(n < most for n in kept(before, after).values()):
            return after
        time.sleep(0.5)


def kept(before: dict[str, Any], after: dict[str, Any]) -> dict[str, int]:
    """Give what there is more of, with the growth."""
    more = {name: after[name] - before[name] for name in ("descriptors", "threads", "tasks")}
    ours = {name: count - before["ours"].get(name, 0) for name, count in after["ours"].items()}
    return {name: count for name, count in {**more, **ours}.items() if count > 0}


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_keeps_nothing_of_2000_conversations():
    engine = "--ServerApp.jpserver_extensions=tests.scale.ready_guests=True"
    tools = (("bash", {"command": "echo hello"}), ("view", {"path": "/etc/hostname"}))
    with running_server("bubblewrap", settings=(*SETTINGS, engine)) as server:
        try:
            run(server, WARM, tools)
            before = probe(server)
            run(server, CYCLES, tools)
            after = settled(server, before, CYCLES / 50)
        finally:
            server.stop()
            end_all(server.directory / "guests")  # of a server that did not end by itself
    growth = after["resident_bytes"] - before["resident_bytes"]
    said = f"{CYCLES} cycles: {growth / MIB:+.1f} MiB, {kept(before, after)}, {before}, {after}"
    print(said)
    assert all(count < CYCLES / 50 for count in kept(before, after).values()), said
    assert after["objects"] - before["objects"] < CYCLES, said  # not one for each
    assert growth < 8 * MIB, said


@pytest.mark.parametrize("engine", [full(DOCKER), BUBBLEWRAP])
@pytest.mark.alone
@pytest.mark.slow
def test_a_server_keeps_nothing_of_real_sandboxes_with_their_python_kernels(engine):
    tools: Tools = (
        ("bash", {"command": "echo hello > /workspace/a; sleep 100 > /dev/null & "}),
        ("python", {"code": "x = 1"}),
    )
    with running_server(engine, settings=SETTINGS) as server:
        run(server, 8, tools, at_once=4)
        before = probe(server)
        run(server, REAL, tools, at_once=4)
        after = settled(server, before, REAL / 2)
    said = f"{REAL} cycles: {kept(before, after)}, {before}, {after}"
    print(said)
    assert all(count < REAL / 2 for count in kept(before, after).values()), said
