"""Large JSON in pieces: the same as at once, and never decoded by who only passes it on."""

from __future__ import annotations

import json

import pytest

from jupyter_sandbox.encoded_json import LARGE, EncodedJson, encode, is_large, pieces

LONG = 'é"\\\n\ud83d\U0001f600\x00' * LARGE


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        [],
        "",
        LONG,
        {"a": LONG, "b": [LONG, 1, None, {}], "": {"c": []}},
        [[LONG], [[], {}], 1.5, True],
        list(range(LARGE + 1)),
        {str(n): n for n in range(LARGE + 1)},
        [[[1]] * 10] * 7000,
    ],
)
def test_the_pieces_are_the_json_of_the_value_and_each_is_small(value):
    found = list(pieces(value))
    assert "".join(found) == json.dumps(value)
    assert max(map(len, found)) <= 12 * LARGE + 2  # each character is at most \ud83d\ude00


@pytest.mark.parametrize(
    ("value", "large"),
    [
        ("x" * (LARGE - 1), False),
        ("x" * LARGE, True),
        ([["x" * 100] * 600], False),
        ([["x" * 100] * 700], True),
        ([0] * LARGE, True),
        (EncodedJson("{}"), True),
        ({"a": 1}, False),
    ],
)
def test_what_is_large_is_told_apart(value, large):
    assert is_large(value) is large


@pytest.mark.parametrize("text", ["{}", '{"b": 2}', "{ }", '{"a": {"c": []}}'])
def test_an_encoded_object_takes_members_before_its_own(text):
    headed = EncodedJson(text).after({"x": 1, "y": "z"})
    assert json.loads(headed.text) == dict(headed) == {"x": 1, "y": "z", **json.loads(text)}


def test_what_is_passed_on_is_not_decoded():
    stored = EncodedJson("{not JSON}")
    assert encode({"a": stored}) == '{"a": {not JSON}}'
    assert encode(stored.after({"x": 1})) == '{"x": 1, not JSON}'
    with pytest.raises(ValueError, match="Expecting"):
        stored["a"]
