"""The filter of a kernel's ZMTP stream: whole bounded messages or nothing, however it is cut."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_sandbox.sandbox.zmtp import MAX_COMMAND_BYTES, ZmtpError, ZmtpFilter

GREETING = (
    b"\xff" + b"\0" * 7 + b"\x01\x7f" + b"\x03\x01" + b"NULL".ljust(20, b"\0") + b"\0" + b"\0" * 31
)
MAX_BYTES, MAX_PARTS = 1000, 4


def frame(body: bytes, more: bool = False, command: bool = False, long: bool = False) -> bytes:
    flags = more | command << 2
    if long or len(body) > 255:
        return bytes([flags | 2]) + len(body).to_bytes(8, "big") + body
    return bytes([flags, len(body)]) + body


def message(parts: list[bytes]) -> bytes:
    return b"".join(frame(p, more=i < len(parts) - 1) for i, p in enumerate(parts))


def is_within(parts: list[bytes]) -> bool:
    return sum(map(len, parts)) <= MAX_BYTES and len(parts) <= MAX_PARTS


bodies = st.one_of(st.binary(max_size=40), st.integers(0, 900).map(lambda n: b"b" * n))
messages = st.lists(bodies, min_size=1, max_size=6)
commands = st.binary(max_size=300)
traffic = st.lists(st.one_of(messages, commands), max_size=12)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    borders = sorted({min(c, len(data)) for c in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(borders)]


@given(traffic, st.lists(st.integers(0, 8000), max_size=60))
def test_what_passes_is_the_same_however_the_stream_is_cut(items, cuts):
    wire, expected, dropped = GREETING, GREETING, 0
    for item in items:
        encoded = frame(item, command=True) if isinstance(item, bytes) else message(item)
        wire += encoded
        if isinstance(item, bytes) or is_within(item):
            expected += encoded
        else:
            dropped += 1
    messages = ZmtpFilter(MAX_BYTES, MAX_PARTS)
    passed = b"".join(messages.feed(piece) for piece in pieces_of(wire, cuts))
    assert passed == expected
    assert messages.dropped == dropped
    assert messages.held_bytes == 0


@given(traffic, st.lists(st.integers(0, 8000), max_size=60))
def test_never_more_is_held_than_one_message_within_its_bounds(items, cuts):
    wire = GREETING + b"".join(
        frame(item, command=True) if isinstance(item, bytes) else message(item) for item in items
    )
    messages = ZmtpFilter(MAX_BYTES, MAX_PARTS)
    for piece in pieces_of(wire, cuts):
        messages.feed(piece)
        assert messages.held_bytes <= MAX_BYTES + 9 * (MAX_PARTS + 1) + MAX_COMMAND_BYTES


@settings(max_examples=300)
@given(st.binary(max_size=200), st.booleans())
def test_garbage_gives_an_error_or_nothing_but_never_another_exception(data, greeted):
    messages = ZmtpFilter(MAX_BYTES, MAX_PARTS)
    try:
        messages.feed((GREETING if greeted else b"") + data)
    except ZmtpError:
        with pytest.raises(ZmtpError):
            messages.feed(b"\0\0")


def test_the_greeting_passes_byte_by_byte_because_both_sides_wait_for_it():
    messages = ZmtpFilter()
    for byte in GREETING:
        assert messages.feed(bytes([byte])) == bytes([byte])


def test_a_heartbeat_between_the_frames_of_a_message_passes_at_once():
    messages = ZmtpFilter()
    ping = frame(b"\x04PING\0\0", command=True)
    assert messages.feed(GREETING + frame(b"one", more=True) + ping) == GREETING + ping
    assert messages.feed(frame(b"two")) == message([b"one", b"two"])


@pytest.mark.parametrize(
    ("size", "parts", "passes"),
    [(1000, 1, True), (1001, 1, False), (10, 4, True), (10, 5, False), (0, 4, True)],
)
def test_both_sides_of_each_bound(size, parts, passes):
    messages = ZmtpFilter(MAX_BYTES, MAX_PARTS)
    wire = message([b"x" * size] + [b""] * (parts - 1))
    assert messages.feed(GREETING + wire) == GREETING + (wire if passes else b"")
    assert messages.dropped == (not passes)
    assert messages.feed(message([b"next"])) == message([b"next"])


def test_a_message_far_over_the_bound_costs_no_memory_and_the_stream_lives_on():
    messages = ZmtpFilter()
    messages.feed(GREETING)
    many = frame(b"x" * 1_048_576, more=True)
    tracemalloc.start()
    for _ in range(1000):  # nearly 1 GiB
        assert messages.feed(many) == b""
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 * 1024 * 1024
    assert messages.feed(frame(b"end")) == b""
    assert messages.dropped == 1
    assert messages.feed(message([b"next"])) == message([b"next"])


@pytest.mark.parametrize("size", [65_536, 1, 0], ids=["bytes", "parts", "empty parts"])
def test_a_message_that_does_not_end_breaks_the_stream_and_costs_no_memory(size):
    messages = ZmtpFilter()
    messages.feed(GREETING)
    many = frame(b"x" * size, more=True) * 64

    def endless() -> None:
        for _ in range(20_000):
            assert messages.feed(many) == b""

    tracemalloc.start()
    with pytest.raises(ZmtpError, match="without end"):
        endless()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 * 1024 * 1024
    assert messages.held_bytes < 1024 * 1024


@pytest.mark.parametrize(
    "wire",
    [
        b"\xfe",
        GREETING[:9] + b"\x00",
        GREETING[:10] + b"\x02",
        GREETING[:12] + b"CURVE",
        GREETING + b"\x08\x00",
        GREETING + b"\x05\x00",  # a command with more to follow
        GREETING + b"\x02" + b"\xff" * 8,
        GREETING + frame(b"x" * (MAX_COMMAND_BYTES + 1), command=True),
    ],
)
def test_a_malformed_stream_is_refused(wire):
    with pytest.raises(ZmtpError):
        ZmtpFilter().feed(wire)
