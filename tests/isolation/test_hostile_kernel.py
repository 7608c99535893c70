"""Code in the Python kernel that speaks for the kernel: it holds the key and the sockets."""

from __future__ import annotations

import asyncio

import pytest

from jupyter_sandbox.errors import ToolError
from jupyter_sandbox.sandbox import dispatcher as dispatcher_module
from tests.attacks import attack
from tests.local_guest import LocalGuest, eventually

from .hostile_guest import MIB, Watch

LIMIT = 100_000
LONGEST_SECONDS = 0.25
MOST_GROWN = 120 * MIB

FORGE = """
import itertools, json, time
ids = itertools.count()  # the same message twice is refused as such
kernel = get_ipython().kernel
session, iopub = kernel.session, kernel.iopub_socket
parent = kernel.get_parent()

def frames(header, parent, metadata, content):
    parts = [p if isinstance(p, bytes) else json.dumps(p, default=str).encode()
             for p in (header, parent, metadata, content)]
    return [b"topic", b"<IDS|MSG>", session.sign(parts), *parts]

def say(content, msg_type="stream", header=None, by=None, metadata=None):
    header = {"msg_id": str(next(ids)), "msg_type": msg_type, "version": "5.3"} if header is None else header
    by = parent["header"] if by is None else by
    iopub.send_multipart(frames(header, by, metadata or {}, content))

text = {"name": "stdout", "text": "forged"}
png = "iVBORw0KGgoAAAANSUhEUgABhqAAAYagCAIAAAA="
"""

# Code -> what the cell's text must hold (None: anything), besides the words "the end".
FORGED = {
    "no JSON": "for bad in (b'{', b'', b'nonsense', b'\\xff\\xfe', b'[]', b'3', b'null'): say(bad)",
    "a bad signature": "iopub.send_multipart([b't', b'<IDS|MSG>', b'0' * 64, *[b'{}'] * 4])",
    "no delimiter": "iopub.send_multipart([b'x'] * 10); iopub.send_multipart([b''])",
    "too few parts": "iopub.send_multipart([b'<IDS|MSG>', session.sign([b'{}']), b'{}'])",
    "deep nesting": "say(b'{\"a\":' * 50000 + b'1' + b'}' * 50000); say(b'[' * 900 + b']' * 900)",
    "numbers of 5,000 digits": "say(b'{\"text\": ' + b'9' * 5000 + b'}')",
    "types that are wrong": (
        "say([1]); say(3); say(text, header=[]); say(text, header={'msg_type': 5});"
        " say(text, by=[1]); say(text, header={}); say(text, header={'msg_type': 'x' * 9999});"
        " say(text, by={'msg_id': ['a']}); say({'text': ['a']}); say({'data': 3}, 'display_data');"
        " say({'data': {'image/png': 5, 'text/plain': {}}}, 'display_data');"
        " say({'traceback': [{}, 3], 'ename': [], 'evalue': {}}, 'error')"
    ),
    "NaN and lone surrogates": (
        "say(b'{\"text\": NaN}'); say({'text': 'a\\ud800b'}); say(b'{\"text\": 1e999}')"
    ),
    "messages of another request": "say(text, by={'msg_id': 'another', 'msg_type': 'x'})",
    "comms": "for n in range(3000): say({'comm_id': 'c', 'data': {'x': 'y' * 1000}}, 'comm_open')",
    "requests for input": "for n in range(300): say({'prompt': '?'}, 'input_request')",
    "displays without number": (
        "for n in range(20000): say({'data': {'text/plain': 'x'}}, 'display_data')"
    ),
    "updates of displays": (
        "for n in range(3000): say({'data': {'text/plain': 'x' * 99},"
        " 'transient': {'display_id': 'd'}}, 'update_display_data')"
    ),
    "values without number": "say(b'{\"a\":[' + b'[],' * 4000000 + b'1]}')",
    "a message of 15 MiB": "say({'name': 'stdout', 'text': 'x' * (15 << 20)})",
    "a message of 200 MiB": "say({'name': 'stdout', 'text': 'x' * (200 << 20)})",
    "a text that is wide": "say({'name': 'stdout', 'text': '\\U0001f600' + 'x' * (14 << 20)})",
    "a message of the protocol's third version": (
        "for kind in ('stream', 'display_data', 'error', 'execute_reply', 'kernel_info_reply'):"
        " say({'text': [1]}, header={'msg_type': kind, 'version': '3.0'});"
        " say({}, header={'msg_type': kind, 'version': 5}); say({}, header={'msg_type': kind})"
    ),
    "markup": (
        "say({'data': {'text/html': '<script>alert(1)</script>',"
        " 'application/javascript': 'alert(1)', 'image/svg+xml': '<svg onload=alert(1)>'}},"
        " 'display_data')"
    ),
    "a picture of 10,000,000,000 pixels": (
        "say({'data': {'image/png': png, 'text/plain': 'x'}}, 'display_data')"
    ),
    "a thousand malformed messages": "for n in range(990): say(b'{')",
}


@pytest.fixture
def guest(short_dir):
    guest = LocalGuest(short_dir)
    yield guest
    guest.close()


async def run(kernel, code: str, seconds: float = 60):
    return await kernel.execute(code, seconds, lambda text: None, LIMIT)


@pytest.mark.parametrize("case", FORGED)
@attack("T19")
async def test_a_forged_message_harms_neither_the_reader_nor_the_next_cell(case, guest):
    async with guest.python() as kernel:
        await run(kernel, FORGE)
        code = f"parent = kernel.get_parent()\n{FORGED[case]}\ntime.sleep(.2)\nprint('the end')"
        async with Watch() as watch:
            outcome = await run(kernel, code)
        assert outcome.error in (None, "unknown error"), outcome.text
        assert len(outcome.text) < LIMIT + 140_000
        outcome.text.encode("utf-8")
        assert "<script" not in outcome.text
        assert all(len(image.data) < 100 for image in outcome.images)
        assert watch.slowest_seconds < LONGEST_SECONDS
        assert watch.grown_bytes < MOST_GROWN
        after = await run(kernel, "print('the next cell')")
        assert after.text == "the next cell\n"
        assert after.lost == ""


@attack("T19")
async def test_an_idle_that_is_forged_ends_no_call_before_its_time(guest):
    async with guest.python() as kernel:
        await run(kernel, FORGE)
        outcome = await run(
            kernel,
            "parent = kernel.get_parent()\nsay({'execution_state': 'idle'}, 'status')\n"
            "time.sleep(1)\nprint('the end')",
        )
        assert outcome.duration_seconds >= 1
        # Output and reply come over two sockets: the forged idle may cost the cell its own last words.
        assert outcome.text in ("the end\n", "")


@attack("T19")
async def test_a_kernel_that_sends_rubbish_without_end_is_ended_and_the_next_one_works(
    guest, monkeypatch
):
    monkeypatch.setattr(dispatcher_module, "_MOST_ERRORS", 100)
    async with guest.python() as kernel:
        await run(kernel, FORGE)
        async with Watch() as watch:
            with pytest.raises(ToolError, match="cut off") as caught:
                await run(kernel, "while True: say(b'{')", 30)
        assert caught.value.code == "kernel_died"
        assert watch.slowest_seconds < LONGEST_SECONDS
        outcome = await run(kernel, "print('the next kernel')")
        assert outcome.text == "the next kernel\n"
        assert "cut off" in outcome.lost


# The kernel's own ZMQ socket makes way for one that says what a test wants, below ZMQ.
TAKE_OVER = """
import os, socket, struct, threading, time
from ipykernel.connect import get_connection_info
info = get_connection_info(unpack=True)
path = f"{info['ip']}-{info['iopub_port']}"
GREETING = b"\\xff" + bytes(8) + b"\\x7f\\x03\\x01" + b"NULL".ljust(20, b"\\0") + bytes(32)
READY = b"\\x04\\x19\\x05READY\\x0bSocket-Type\\0\\0\\0\\x03PUB"

def serve(say):
    os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def accept():
        while True:
            peer, _ = listener.accept()
            try:
                say(peer)
            except OSError:
                pass

    threading.Thread(target=accept, daemon=True).start()
    for fd in map(int, os.listdir("/proc/self/fd")):  # the streams of the old socket end
        try:
            old = socket.socket(fileno=os.dup(fd))
            ours = old.family == socket.AF_UNIX and old.getsockname() == path
            if ours and not old.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                old.shutdown(socket.SHUT_RDWR)
            old.close()
        except OSError:
            pass

def greeted(flood):
    def say(peer):
        peer.sendall(GREETING + READY)
        flood(peer)
    return say
"""

BELOW = {
    "an endless message": "greeted(lambda p: [p.sendall(b'\\x03' + struct.pack('>Q', 65536)"
    " + bytes(65536)) for _ in range(100000)])",
    "parts without end": "greeted(lambda p: [p.sendall(b'\\x01\\0' * 30000) for _ in range(9999)])",
    "a frame of 1 GiB": "greeted(lambda p: (p.sendall(b'\\x02' + struct.pack('>Q', 2 << 30)),"
    " [p.sendall(bytes(1 << 20)) for _ in range(2048)]))",
    "a frame of 2^62": "greeted(lambda p: p.sendall(b'\\x02' + struct.pack('>Q', 2 ** 62)))",
    "no ZMTP": "lambda p: p.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\n' * 9)",
    "a command of 1 MiB": "greeted(lambda p: p.sendall(b'\\x06' + struct.pack('>Q', 1 << 20)))",
    "another mechanism": "lambda p: p.sendall(GREETING.replace(b'NULL', b'CURV'))",
}


@pytest.mark.parametrize("case", BELOW)
@attack("T18")
async def test_a_kernel_that_breaks_its_stream_is_ended_and_the_next_one_works(case, guest):
    async with guest.python() as kernel:
        await run(kernel, TAKE_OVER)
        async with Watch() as watch:
            with pytest.raises(ToolError, match="cut off") as caught:
                await run(kernel, f"serve({BELOW[case]})\ntime.sleep(60)", 30)
        assert caught.value.code == "kernel_died"
        assert watch.slowest_seconds < LONGEST_SECONDS
        assert watch.grown_bytes < MOST_GROWN
        outcome = await run(kernel, "print('the next kernel')")
        assert outcome.text == "the next kernel\n"
        assert "cut off" in outcome.lost


@attack("T18")
async def test_small_messages_without_end_leave_the_loop_to_others(guest):
    async with guest.python() as kernel:
        await run(kernel, FORGE)
        cell = asyncio.ensure_future(
            run(
                kernel,
                "end = time.time() + 4\nwhile time.time() < end: say({'text': ''})\nprint('the end')",
            )
        )
        await eventually(lambda: kernel.is_busy)
        async with Watch() as watch:
            await cell
        assert watch.slowest_seconds < LONGEST_SECONDS
        assert (await run(kernel, "1")).text == "1\n"
