"""The framing of a stream, by properties: any bytes, cut anywhere."""

from __future__ import annotations

import itertools
import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox_guest.frames import Frame, FrameDecoder, FrameError, encode
from sandbox_guest.protocol import MAX_JSON_BYTES, MAX_PAYLOAD_BYTES

texts = st.text(st.characters(), max_size=20)  # lone surrogates too
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
bodies = st.dictionaries(texts, values, max_size=5)
frames = st.builds(Frame, bodies, st.binary(max_size=200))


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(n % (len(data) + 1) for n in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


@given(st.lists(frames, max_size=5), st.lists(st.integers(0, 10_000), max_size=20))
def test_frames_come_out_as_they_went_in_however_they_are_cut(
    sent: list[Frame], cuts: list[int]
) -> None:
    data = b"".join(encode(frame.body, frame.payload) for frame in sent)
    decoder = FrameDecoder()
    got: list[Frame] = []
    for piece in cut(data, cuts):
        got += decoder.feed(piece)
    assert got == sent
    assert decoder.take_rest() == b""


@given(st.lists(frames, min_size=1, max_size=3))
def test_frames_come_out_byte_by_byte_at_their_last_byte(sent: list[Frame]) -> None:
    decoder = FrameDecoder()
    for frame in sent:
        data = encode(frame.body, frame.payload)
        for byte in data[:-1]:
            assert decoder.feed(bytes([byte])) == []
        assert decoder.feed(data[-1:]) == [frame]


@given(frames, st.binary(max_size=50))
def test_the_rest_after_a_frame_is_kept_for_a_raw_stream(frame: Frame, rest: bytes) -> None:
    decoder = FrameDecoder()
    for byte in encode(frame.body, frame.payload):
        decoder.feed(bytes([byte]))
    # fewer bytes than a prelude, or a length that is not reached yet: they wait
    data = struct.pack("!II", 1000, 0) + rest
    assert decoder.feed(data) == []
    assert decoder.take_rest() == data
    assert decoder.take_rest() == b""


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=10), frames)
def test_any_bytes_are_frames_or_an_error_and_after_an_error_nothing(
    data: bytes, cuts: list[int], after: Frame
) -> None:
    decoder = FrameDecoder(1000, 1000)
    broken = False
    for piece in cut(data, cuts):
        try:
            got = decoder.feed(piece)
        except FrameError:
            broken = True
        else:
            assert not broken
            assert all(isinstance(frame.body, dict) for frame in got)
    if broken:
        with pytest.raises(FrameError):
            decoder.feed(encode(after.body, after.payload))
        with pytest.raises(FrameError):
            decoder.feed(b"")
        assert decoder.take_rest() == b""


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 5000),
    st.integers(0, 5000),
)
def test_a_frame_over_the_bounds_is_refused_by_its_prelude(
    json_bytes: int, payload_bytes: int, max_json: int, max_payload: int
) -> None:
    decoder = FrameDecoder(max_json, max_payload)
    prelude = struct.pack("!II", json_bytes, payload_bytes)
    assert decoder.feed(prelude[:7]) == []
    too_large = json_bytes > max_json or payload_bytes > max_payload
    if too_large or json_bytes + payload_bytes == 0:  # nothing is no JSON object
        with pytest.raises(FrameError):
            decoder.feed(prelude[7:])
    else:
        assert decoder.feed(prelude[7:]) == []


@settings(max_examples=5)
@given(st.integers(1, 3))
def test_a_writer_refuses_what_a_reader_would_not_take(more: int) -> None:
    largest = encode({}, b"x" * MAX_PAYLOAD_BYTES)
    assert FrameDecoder().feed(largest)[0].payload == b"x" * MAX_PAYLOAD_BYTES
    with pytest.raises(FrameError, match="payload"):
        encode({}, b"x" * (MAX_PAYLOAD_BYTES + more))
    room = MAX_JSON_BYTES - len('{"a":""}')
    assert FrameDecoder().feed(encode({"a": "y" * room}))[0].body == {"a": "y" * room}
    with pytest.raises(FrameError, match="JSON"):
        encode({"a": "y" * (room + more)})


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"1",
        b"null",
        b"{",
        b'{"a":}',
        b"{} {}",
        b'{"\xff": 1}',
        b"\xff\xfe{\0}\0",
        b'{"a":' * 50_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"a": ' + b"9" * 100_000 + b"}",
    ],
    ids=range(12),
)
def test_json_that_is_no_object_is_an_error_of_the_framing(text: bytes) -> None:
    decoder = FrameDecoder()
    with pytest.raises(FrameError):
        decoder.feed(struct.pack("!II", len(text), 0) + text)
    assert "broken" in repr(decoder)


@given(bodies)
def test_the_json_on_the_wire_is_plain_ascii_json(body: dict[str, Any]) -> None:
    data = encode(body)
    length, payload = struct.unpack("!II", data[:8])
    assert (length, payload) == (len(data) - 8, 0)
    assert json.loads(data[8:].decode("ascii")) == body
