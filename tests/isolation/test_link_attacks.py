"""Attacks on the one door between a sandbox and the host: its socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
import time

import psutil
import pytest
from sandbox_guest.frames import encode

from jupyter_sandbox.errors import SandboxError, Unavailable
from jupyter_sandbox.sandbox.bash_kernel import BashKernel
from jupyter_sandbox.sandbox.link import GuestLink
from tests.attacks import attack

_FLOOD = """
import socket, time, sys
held = []
refused = 0
payloads = [b"", b"\\x00", b"\\xff" * 64, b"\\x00\\x00\\x00\\x02\\x00\\x00\\x00\\x00[]", b"CTL\\n"]
for n in range(3000):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(0.2)
    try:
        s.connect(sys.argv[1])
        s.sendall(payloads[n % len(payloads)])
        held.append(s)
    except OSError:
        refused += 1
print("held", len(held), "refused", refused)
time.sleep(3)
"""


@attack("T03")
async def test_a_flood_of_connections_harms_no_neighbour_and_is_survived(api):
    hostile, neighbour = await api.conversation(), await api.conversation()
    await api.bash(hostile, "true")
    await api.bash(neighbour, "true")
    await api.text(hostile, "create_file", path="/workspace/flood.py", file_text=_FLOOD)
    process = psutil.Process()
    before = process.num_fds()
    flood = asyncio.ensure_future(
        api.bash(
            hostile,
            "ulimit -n 4000; python3 flood.py /run/jupyter-sandbox/dial/*.sock",
            timeout_seconds=60,
        )
    )
    slowest, most = 0.0, 0
    while not flood.done():
        started = time.monotonic()
        assert "hello" in await api.bash(neighbour, "echo hello")
        slowest = max(slowest, time.monotonic() - started)
        most = max(most, process.num_fds())
        await asyncio.sleep(0.05)
    assert "held" in await flood
    assert slowest < 2
    assert most < before + 400
    assert "hello" in await api.bash(hostile, "echo hello")


@attack("T01")
async def test_the_dial_directory_is_read_only_and_holds_only_the_socket(api):
    conversation = await api.conversation()
    shown = await api.bash(
        conversation,
        "cd /run/jupyter-sandbox/dial && ls && ln -s /etc/passwd x; rm -f *.sock; mv *.sock y; ls",
    )
    assert shown.count("Read-only file system") >= 2
    assert shown.count(".sock") >= 2


# A guest that is hostile from the start, played by this test against a real link.


@pytest.fixture
def dialled(short_dir):
    """Gives a started link and a function that dials it."""
    return lambda: _dialled(short_dir)


@contextlib.asynccontextmanager
async def _dialled(short_dir):
    link = GuestLink(short_dir, "h")
    await link.start()
    writers = []

    async def dial(first: bytes):
        reader, writer = await asyncio.open_unix_connection(str(short_dir / "h.sock"))
        writers.append(writer)
        writer.write(first)
        return reader, writer

    try:
        yield link, dial
    finally:
        for writer in writers:
            writer.close()
        await link.close()
    assert os.listdir(short_dir) == []


HELLO = encode({"hello": "jupyter-sandbox-guest", "protocol": 1, "version": "x", "python": "3"})


@pytest.mark.parametrize(
    "first",
    [
        b"\xff" * 64,
        struct.pack("!II", 2**31, 0),
        struct.pack("!II", 2, 0) + b"[]",
        encode({"hello": "somebody-else", "protocol": 1}),
        encode({"hello": "jupyter-sandbox-guest", "protocol": 2}),
        struct.pack("!II", 200_000, 0) + b"[" * 200_000,
    ],
    ids=["garbage", "huge", "no-object", "stranger", "version", "deep"],
)
@attack("T04")
async def test_a_stream_without_a_proper_hello_is_closed(dialled, first):
    async with dialled() as (link, dial):
        reader, _ = await dial(first)
        assert await asyncio.wait_for(reader.read(), 6) == b""
        assert not link.connected
        with pytest.raises(Unavailable):
            await link.wait_connected(0.1)


async def _answering(dial, answer):
    """Dial; answer the opening; then hand each frame that comes to ``answer``."""
    reader, writer = await dial(HELLO)

    async def serve() -> None:
        from sandbox_guest.frames import FrameDecoder

        decoder = FrameDecoder()
        opened = False
        while data := await reader.read(65536):
            for frame in decoder.feed(data):
                if not opened:
                    opened = True
                    writer.write(encode({"opened": frame.body["open"]}))
                else:
                    await answer(frame.body, writer)

    return asyncio.ensure_future(serve())


def _message(parent, msg_type, content, channel="iopub"):
    return encode(
        {
            "channel": channel,
            "header": {"msg_id": "x", "msg_type": msg_type},
            "parent_header": parent,
            "metadata": {},
            "content": content,
        }
    )


async def _attack(dialled, answer, seconds: float = 10.0):
    pieces: list[str] = []
    async with dialled() as (link, dial):
        server = await _answering(dial, answer)
        try:
            async with asyncio.timeout(seconds):
                return await BashKernel(link).execute(
                    "c", "id", timeout_seconds=1, limit_bytes=65536, emit=pieces.append
                )
        finally:
            server.cancel()
            assert sum(map(len, pieces)) < 4 * 1024 * 1024


@attack("T18")
async def test_output_without_end_is_cut_off(dialled):
    async def flood(body, writer):
        piece = _message(body["header"], "stream", {"text": "x" * 60_000})
        while True:
            writer.write(piece)
            await writer.drain()

    process = psutil.Process()
    before = process.memory_info().rss
    with pytest.raises(Unavailable, match="more output"):
        await _attack(dialled, flood)
    assert process.memory_info().rss - before < 32 * 1024 * 1024


@pytest.mark.parametrize(
    "reply",
    [
        lambda body: _message({"msg_id": "another"}, "stream", {"text": "x"}),
        lambda body: struct.pack("!II", 2**30, 0),
        lambda body: struct.pack("!II", 2, 0) + b"{]",
        lambda body: encode({"header": None, "parent_header": [1, 2]}),
        lambda body: (
            encode({"header": "x", "parent_header": body["header"], "content": 3})
            + struct.pack("!II", 2**31, 2**31)
        ),
    ],
    ids=["forged parent", "huge frame", "not json", "no types", "then huge"],
)
@attack("T04")
async def test_a_malformed_or_forged_answer_ends_the_call_with_a_clear_error(dialled, reply):
    async def answer(body, writer):
        writer.write(reply(body))

    with pytest.raises(SandboxError) as caught:
        await _attack(dialled, answer, seconds=20)
    assert "Traceback" not in caught.value.message


async def test_a_guest_that_says_nothing_is_given_up(dialled):
    async def silence(body, writer):
        pass

    import jupyter_sandbox.sandbox.bash_kernel as module

    grace, module._GRACE_SECONDS = module._GRACE_SECONDS, 0.5
    try:
        with pytest.raises(Unavailable, match="no result"):
            await _attack(dialled, silence)
    finally:
        module._GRACE_SECONDS = grace


async def test_claims_of_a_result_are_checked_and_bounded(dialled):
    async def lie(body, writer):
        report = {
            "exit_code": 10**30,
            "cwd": "/a\n\x1b[31m" + "b" * 10_000,
            "jobs": [{"pid": "1", "name": 3}, {"pid": 7, "name": "x" * 1000}] * 1000,
            "killed": "many",
            "duration_seconds": -5,
            "spool": 3,
        }
        message = json.loads(
            _message(body["header"], "execute_reply", {"status": "ok"}, "shell")[8:]
        )
        message["metadata"] = {"sandbox": report}
        writer.write(encode(message))
        writer.write(_message(body["header"], "status", {"execution_state": "idle"}))

    outcome = await _attack(dialled, lie)
    assert outcome.exit_code is None
    assert len(outcome.cwd) <= 4096
    assert "\x1b" not in outcome.cwd
    assert "\n" not in outcome.cwd
    assert len(outcome.jobs) <= 20
    assert all(len(name) <= 64 for _, name in outcome.jobs)
    assert outcome.duration_seconds >= 0
    assert outcome.spool is None
