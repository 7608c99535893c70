"""What JSON from inside may be parsed: never more than the bounds, never less than is honest."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_guest.frames import FrameDecoder, FrameError, encode

from jupyter_sandbox.policy.json_bounds import (
    DEEPEST,
    MOST_VALUES,
    JsonBoundsError,
    check_json,
)

texts = st.text(st.sampled_from('[]{},"\\ a\U0001f600'), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def depth(value) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def marks(value) -> int:
    """Commas and opening brackets outside of strings."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return 0
    return 1 + max(0, len(value) - 1) + sum(map(marks, value))


@given(values, st.integers(0, 20), st.integers(0, 6), st.booleans())
def test_what_is_in_strings_does_not_count_and_the_rest_exactly(value, most, deepest, is_ascii):
    data = json.dumps(value, ensure_ascii=is_ascii).encode()
    strings = data.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"')
    if marks(value) <= most and depth(value) <= deepest and strings <= 4 * most:
        check_json(data, most, deepest)
    elif marks(value) > most or depth(value) > deepest:
        with pytest.raises(JsonBoundsError):
            check_json(data, most, deepest)


@given(st.binary(max_size=400))
def test_any_bytes_are_allowed_or_refused_and_nothing_else(data):
    try:
        check_json(data, 10, 3)
    except JsonBoundsError:
        return


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":[' + b"[]," * 1_390_000 + b"1]}",
        b'{"a":[' + b"1," * 2_000_000 + b"1]}",
        b"{" + b",".join(b'"%x":1' % n for n in range(400_000)) + b"}",
        b'{"a":' * 500 + b"1" + b"}" * 500,
        b'{"a":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"a":[' + b'"",' * 1_390_000 + b'""]}',
        b'{"a":"' + b'\\"' * 2_000_000 + b"",
    ],
    ids=["lists", "numbers", "names", "deep", "deep list", "strings", "unfinished"],
)
def test_what_is_dear_to_parse_is_refused_at_once(text):
    decoder = FrameDecoder(check=check_json)
    began = time.process_time()
    with pytest.raises(FrameError):
        decoder.feed(len(text).to_bytes(4, "big") + b"\0\0\0\0" + text)
    assert time.process_time() - began < 0.25


def test_the_largest_listing_and_the_longest_text_pass():
    decoder = FrameDecoder(check=check_json)
    entry = {"path": 'a,b[c]{"d"', "kind": "file", "size": 1, "modified_at": 1.5}
    listing = {"ok": {"entries": [entry] * 5000, "omitted": {}, "complete": True}}
    text = {"content": {"text": '[{,"' * 60_000}}
    assert [frame.body for frame in decoder.feed(encode(listing) + encode(text))] == [listing, text]


def test_both_sides_of_the_depth():
    for levels, passes in ((DEEPEST, True), (DEEPEST + 1, False)):
        data = b"[" * levels + b"]" * levels
        if passes:
            check_json(data)
        else:
            with pytest.raises(JsonBoundsError):
                check_json(data)
    check_json(b"[" + b"1," * (MOST_VALUES - 1) + b"1]")
    with pytest.raises(JsonBoundsError):
        check_json(b"[" + b"1," * MOST_VALUES + b"1]")


def test_a_number_of_thousands_of_digits_is_refused_and_one_in_a_text_is_not():
    for text in ("[" + "1" * 401 + "]", '{"a": [0.' + "3" * 4000 + "]}", "-" + "9" * 4299):
        with pytest.raises(JsonBoundsError, match="number"):
            check_json(text.encode())
    check_json(json.dumps([10**399, "7" * 10_000, '"' + "7" * 500]).encode())
    many = b"[" + b",".join([b"1" * 400] * 30_000) + b"]"
    began = time.process_time()
    check_json(many)
    json.loads(many)
    assert time.process_time() - began < 1
