"""A guest that lies in every way it can: each lie costs its own conversation an error, no more."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sandbox_guest.frames import encode

from jupyter_sandbox.errors import SandboxError, ToolError, Unavailable
from jupyter_sandbox.models import Outcome
from jupyter_sandbox.sandbox import bash_kernel
from jupyter_sandbox.sandbox import link as link_module
from jupyter_sandbox.sandbox.bash_kernel import BashKernel
from jupyter_sandbox.sandbox.files import GuestFiles
from jupyter_sandbox.sandbox.link import GuestError, GuestLink
from jupyter_sandbox.sandbox.provisioner import SandboxAccess
from jupyter_sandbox.tools.run import error_result
from tests.attacks import attack

from .hostile_guest import HELLO, MIB, Watch, hostile_guest, message, raw

LONGEST_SECONDS = 0.2  # that the loop may be kept from others (issue 4, T18)
MOST_GROWN = 48 * MIB


async def endlessly(writer, data: bytes) -> None:
    while True:
        writer.write(data)
        await writer.drain()


def status(body, state="idle"):
    return message(body["header"], "status", {"execution_state": state})


def reply(body, content=None, **report):
    content = content or {"status": "ok"}
    return message(body["header"], "execute_reply", content, "shell", {"sandbox": report})


def lie(*pieces):
    """An answer that says these pieces (bytes, or functions of the request) once."""

    async def answer(body, writer):
        for piece in pieces:
            writer.write(piece(body) if callable(piece) else piece)

    return answer


def flood(piece):
    async def answer(body, writer):
        await endlessly(writer, piece(body) if callable(piece) else piece)

    return answer


# What a guest answers to a command -> what the call comes to: an exception, or a check of the outcome.
COMMANDS = {
    "output without end": (
        flood(lambda b: message(b["header"], "stream", {"text": "x" * 60_000})),
        "more output",
    ),
    "output without end, a character a message": (
        flood(lambda b: message(b["header"], "stream", {"text": "x"}) * 500),
        "no result within",
    ),
    "empty output without end": (
        flood(lambda b: message(b["header"], "stream", {"text": ""}) * 500),
        "say nothing",
    ),
    "busy without end": (flood(lambda b: status(b, "busy") * 500), "say nothing"),
    "replies without end": (flood(lambda b: reply(b) * 500), "say nothing"),
    "unknown messages without end": (
        flood(lambda b: message(b["header"], "comm_msg", {"data": "x" * 1000}) * 100),
        "say nothing",
    ),
    "requests for input without end": (
        flood(lambda b: message(b["header"], "input_request", {"prompt": "?"}, "stdin") * 100),
        "say nothing",
    ),
    "a forged parent": (
        lie(lambda b: message({"msg_id": "another"}, "stream", {"text": "x"})),
        "not asked",
    ),
    "no parent": (lie(encode({"header": {}, "content": {}})), "not asked"),
    "a parent that is a list": (lie(encode({"header": None, "parent_header": [1]})), "not asked"),
    "a frame of 1 GiB": (lie(raw(b"")[:0] + b"\x40\0\0\0\0\0\0\0"), "broke"),
    "a payload of 4 GiB": (lie(b"\0\0\0\2\xff\xff\xff\xff{}"), "broke"),
    "no JSON": (lie(raw(b"{]")), "broke"),
    "a list": (lie(raw(b"[]")), "broke"),
    "bad UTF-8": (lie(raw(b'{"a":"\xff"}')), "broke"),
    "deep nesting": (lie(raw(b'{"a":' * 300 + b"1" + b"}" * 300)), "broke"),
    "4 MiB of empty lists": (lie(raw(b'{"a":[' + b"[]," * 1_390_000 + b"1]}")), "broke"),
    "a number of 5,000 digits": (lie(raw(b'{"a":' + b"9" * 5000 + b"}")), "broke"),
    "the end in the middle of a frame": (
        lambda body, writer: _half(writer, message(body["header"], "stream", {"text": "x"})),
        "closed the connection",
    ),
    "half a frame and silence": (lie(raw(b"x" * 100)[:50]), "no result within"),
    "silence": (lie(), "no result within"),
    "idle without a reply": (lie(status), "no result within"),
    "a refusal that is no text": (
        lie(lambda b: reply(b, {"status": "error", "ename": "Refused", "evalue": {"a": [1]}})),
        "was not run",
    ),
    "a refusal with control characters": (
        lie(
            lambda b: reply(
                b, {"status": "error", "ename": "Refused", "evalue": "\x1b]0;x\x07\n\udc80" * 999}
            )
        ),
        "was not run",
    ),
    "an early idle": (
        lie(lambda b: status(b), reply, lambda b: status(b)),
        lambda o: o.text == "" and o.exit_code is None,
    ),
    "lone surrogates": (
        lie(lambda b: message(b["header"], "stream", {"text": "a\ud800b"}), reply, status),
        lambda o: o.text == "a\\ud800b",
    ),
    "numbers that are none": (
        lie(
            lambda b: raw(
                reply(b, exit_code="E", duration_seconds="D", killed="K")[8:]
                .replace(b'"E"', b"NaN")
                .replace(b'"D"', b"Infinity")
                .replace(b'"K"', b"-1e400")
            ),
            status,
        ),
        lambda o: o.exit_code is None and 0 <= o.duration_seconds < 30 and o.killed == 0,
    ),
    "types that are wrong": (
        lie(
            lambda b: reply(
                b,
                exit_code=True,
                cwd=["/"],
                jobs={"pid": 1},
                spool={"a": 1},
                truncated="yes",
                timed_out=1,
                duration_seconds=[],
            ),
            status,
        ),
        lambda o: (o.exit_code, o.cwd, o.jobs, o.spool, o.timed_out) == (None, "", (), None, False),
    ),
}


async def _half(writer, data: bytes) -> None:
    writer.write(data[: len(data) // 2])
    await writer.drain()
    writer.close()


@pytest.fixture
def short_grace(monkeypatch):
    monkeypatch.setattr(bash_kernel, "_GRACE_SECONDS", 1.5)


@pytest.mark.parametrize("case", COMMANDS)
@attack("T04", "T18")
async def test_a_lie_to_a_command_ends_it_and_keeps_nobody_else_waiting(
    case, short_dir, short_grace
):
    answer, expected = COMMANDS[case]
    pieces: list[str] = []
    async with hostile_guest(short_dir, answer) as guest, Watch() as watch:
        kernel = BashKernel(guest.link)
        call = kernel.execute("c", "id", timeout_seconds=0.5, limit_bytes=65536, emit=pieces.append)
        if callable(expected):
            outcome = await asyncio.wait_for(call, 10)
            assert isinstance(outcome, Outcome)
            assert expected(outcome), outcome
        else:
            with pytest.raises(SandboxError, match=expected) as caught:
                await asyncio.wait_for(call, 10)
            text = error_result(caught.value).content[0].text
            assert "Traceback" not in text
            assert all(c.isprintable() for c in text)
            text.encode("utf-8")
        # The link is as good as before: the next stream is answered (by the same liar).
        stream = await guest.link.open("bash", 5)
        stream.close()
    assert sum(map(len, pieces)) <= 65536 + bash_kernel._SLACK_BYTES
    assert watch.slowest_seconds < LONGEST_SECONDS
    assert watch.grown_bytes < MOST_GROWN


def ok(**members):
    return encode({"ok": members})


STAT = {"path": "/x", "kind": "file", "size": 1, "mode": 0o644, "modified_at": 1.0}

# What a guest answers to a request of the file service: all of it is refused.
FILES = {
    "stat: no object": ("stat", encode({"ok": 3})),
    "stat: nothing": ("stat", encode({})),
    "stat: both": ("stat", encode({"ok": STAT, "error": {"code": "not_found"}})),
    "stat: a surrogate": ("stat", ok(**{**STAT, "path": "/\ud800"})),
    "stat: a kind of its own": ("stat", ok(**{**STAT, "kind": "door"})),
    "stat: a size below zero": ("stat", ok(**{**STAT, "size": -1})),
    "stat: a size that is true": ("stat", ok(**{**STAT, "size": True})),
    "stat: a size beyond all": ("stat", ok(**{**STAT, "size": 2**63})),
    "stat: a mode of setuid and more": ("stat", ok(**{**STAT, "mode": 0o170777})),
    "stat: a year beyond all": ("stat", ok(**{**STAT, "modified_at": 1e300})),
    "stat: no time": ("stat", raw(ok(**STAT)[8:].replace(b"1.0", b"NaN"))),
    "stat: a path of 100,000": ("stat", ok(**{**STAT, "path": "x" * 100_000})),
    "list: more than was asked for": (
        "list",
        ok(entries=[STAT] * 1001, omitted={"hidden": 0, "skipped": 0, "more": 0}, complete=True),
    ),
    "list: entries that are none": (
        "list",
        ok(entries=[None], omitted={"hidden": 0, "skipped": 0, "more": 0}, complete=True),
    ),
    "read: more than was asked for": ("read", encode({"ok": {"size": 1}}, b"x" * 65)),
    "export: a chunk that is empty": ("export", encode({"chunk": True, "more": True})),
    "export: no chunk": ("export", encode({"surprise": 1}, b"x")),
    "export: another hash": (
        "export",
        encode({"ok": {"size": 1, "sha256": "0" * 64, "modified_at": 1, "mode": 0}}, b"x"),
    ),
    "export: another size": (
        "export",
        encode({"ok": {"size": 2, "sha256": "0" * 64, "modified_at": 1, "mode": 0}}, b"x"),
    ),
    "export: without end": ("export", encode({"chunk": True, "more": True}, b"x" * 262_144) * 40),
    "export: a byte a chunk": ("export", encode({"chunk": True, "more": True}, b"x") * 500),
    "an error that is a text": ("stat", encode({"error": "x"})),
    "an error with a code of its own": (
        "stat",
        encode({"error": {"code": "\x1b[31m" + "c" * 900, "message": "m\ud800" * 5000}}),
    ),
    "an error of wrong types": (
        "replace",
        encode({"error": {"code": "many_matches", "message": [], "lines": "x", "count": -1}}),
    ),
    "an error with facts of wrong types": (
        "replace",
        encode({"error": {"code": "no_match", "nearest": {"text": 3, "differences": {}}}}),
    ),
}


@pytest.mark.parametrize("case", FILES)
@attack("T04")
async def test_a_lie_of_the_file_service_is_an_error_that_can_be_shown(case, short_dir):
    verb, data = FILES[case]

    async def sink(piece: bytes) -> None:
        pass

    async with hostile_guest(short_dir, lie(data)) as guest, Watch() as watch:
        files = GuestFiles(guest.link)
        asked = {
            "stat": lambda: files.stat("/x"),
            "list": lambda: files.list("/x"),
            "read": lambda: files.read("/x", max_bytes=64),
            "export": lambda: files.export("/o/x", "/o", 4 * MIB, sink),
            "replace": lambda: files.replace("/x", "a", "b"),
        }[verb]
        with pytest.raises((Unavailable, GuestError)) as caught:
            await asyncio.wait_for(asked(), 10)
    result = error_result(caught.value)
    assert result.code.isidentifier()
    result.content[0].text.encode("utf-8")
    assert "Traceback" not in result.content[0].text
    assert watch.slowest_seconds < LONGEST_SECONDS
    assert watch.grown_bytes < MOST_GROWN


@pytest.mark.parametrize(
    "record",
    [
        {"connection": {"ip": "/r", "key": "\ud800"}},
        {"connection": {"ip": "/r\0x", "key": 5}},
        {"connection": {"ip": "x" * 257, "key": "k"}},
        {"connection": []},
        {},
    ],
)
async def test_a_lie_about_a_kernel_is_an_error(record, short_dir, tmp_path):
    from jupyter_sandbox.sandbox.kernel_manager import SandboxKernelManager

    dial = short_dir / "d"
    dial.mkdir()
    async with hostile_guest(dial, lie(encode({"ok": record}))) as guest:
        access = SandboxAccess(guest.link, short_dir / "k")
        manager = SandboxKernelManager(access, kernel_id="k")
        with pytest.raises(Unavailable):
            await asyncio.wait_for(manager.start_kernel(), 10)
        await manager.sandbox_provisioner.cleanup()


@attack("T04")
async def test_a_target_that_was_not_opened_as_asked_is_not_used(short_dir):
    link = GuestLink(short_dir, "h")
    await link.start()
    _, writer = await asyncio.open_unix_connection(str(short_dir / "h.sock"))
    writer.write(HELLO + encode({"opened": "control"}))  # before anything was asked
    try:
        with pytest.raises(Unavailable, match="malformed"):
            await link.open("bash", 5)
        assert not link._idle
    finally:
        writer.close()
        await link.close()


async def test_an_answer_nobody_asked_for_is_not_the_next_ones(short_dir):
    twice = lie(ok(**STAT) + ok(**{**STAT, "path": "/surplus"}))
    async with hostile_guest(short_dir, twice) as guest:
        files = GuestFiles(guest.link)
        for _ in range(3):
            assert (await files.stat("/x")).path == "/x"


@attack("T03")
async def test_streams_that_say_nothing_are_few_and_go_after_a_moment(short_dir, monkeypatch):
    monkeypatch.setattr(link_module, "_HELLO_SECONDS", 0.5)
    link = GuestLink(short_dir, "h")
    await link.start()
    writers = []
    try:
        for _ in range(100):
            _, writer = await asyncio.open_unix_connection(str(short_dir / "h.sock"))
            writers.append(writer)
        await asyncio.sleep(0.1)
        assert len(link._all) <= link_module._MAX_HELLOS
        async with asyncio.timeout(10):
            while link._all or link._hellos:
                await asyncio.sleep(0.05)
        _, writer = await asyncio.open_unix_connection(str(short_dir / "h.sock"))
        writers.append(writer)
        writer.write(HELLO)
        assert (await link.wait_connected(5)).version == "x"
    finally:
        for writer in writers:
            writer.close()
        await link.close()


async def test_a_large_hello_is_refused_before_it_is_kept(short_dir):
    link = GuestLink(short_dir, "h")
    await link.start()
    reader, writer = await asyncio.open_unix_connection(str(short_dir / "h.sock"))
    try:
        writer.write(raw(b"x" * 5000))
        assert await asyncio.wait_for(reader.read(), 3) == b""
    finally:
        writer.close()
        await link.close()


@attack("T03")
async def test_a_flood_of_connections_is_accepted_at_a_bounded_rate(short_dir, monkeypatch):
    monkeypatch.setattr(link_module, "_ACCEPTS_AT_ONCE", 20)
    monkeypatch.setattr(link_module, "_ACCEPTS_PER_SECOND", 50.0)
    link = GuestLink(short_dir, "h")
    await link.start()
    accepted = 0
    hold = link._hold

    async def counted(connection):
        nonlocal accepted
        accepted += 1
        await hold(connection)

    monkeypatch.setattr(link, "_hold", counted)
    began = asyncio.get_running_loop().time()
    refused = 0
    try:
        async with Watch() as watch:
            while (seconds := asyncio.get_running_loop().time() - began) < 2:
                await asyncio.sleep(0)
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
                    peer.setblocking(False)
                    try:
                        peer.connect(str(short_dir / "h.sock"))
                    except BlockingIOError:  # the backlog is full
                        refused += 1
        assert refused
        assert accepted <= 22 + 50 * seconds
        assert watch.slowest_seconds < LONGEST_SECONDS
    finally:
        await link.close()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "ok",
                    "error",
                    "code",
                    "message",
                    "path",
                    "size",
                    "mode",
                    "kind",
                    "entries",
                    "omitted",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(json_values, st.binary(max_size=40))
def test_whatever_the_file_service_answers_is_checked(value, payload):
    from jupyter_sandbox.sandbox import file_models
    from jupyter_sandbox.sandbox.answers import Answer

    for read in (
        file_models.FileStat.from_answer,
        lambda a: file_models.Listing.from_answer(a, 10),
        lambda a: file_models.LinesView.from_answer(a, payload),
        file_models.WriteResult.from_answer,
        lambda a: file_models.Edit.from_answer(a, payload),
        lambda a: file_models.Usage.from_answer(a, 5),
    ):
        with contextlib.suppress(Unavailable):
            read(Answer(value))
    error = GuestError.from_answer(value)
    assert error_result(error).code.isidentifier()
    assert not isinstance(error, ToolError)
