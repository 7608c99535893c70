"""The size of a picture, both sides of each bound, and any bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_sandbox.policy.image_size import MOST_SIDE, decide_image_size, image_size


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + struct.pack(">II", width, height) + b"\x08\2\0\0\0"


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0"


def jpeg(width: int, height: int, before: bytes = b"") -> bytes:
    frame = b"\xff\xc2\0\x11\x08" + struct.pack(">HH", height, width) + b"\3"
    return b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0" + before + frame


def webp(kind: bytes, body: bytes) -> bytes:
    return b"RIFF\0\0\0\0WEBP" + kind + b"\0\0\0\0" + body


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (png(640, 480), (640, 480)),
        (png(2**32 - 1, 1), (2**32 - 1, 1)),
        (gif(640, 480), (640, 480)),
        (jpeg(640, 480), (640, 480)),
        (jpeg(640, 480, b"\xff\xff\xff\xdb\0\x04ab"), (640, 480)),
        (jpeg(640, 480, b"\xff\xc4\0\x04\xff\xc0"), (640, 480)),  # a table is no frame
        (webp(b"VP8X", b"\0\0\0\0\x7f\2\0\xdf\1\0"), (640, 480)),
        (webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a\x80\2\xe0\1"), (640, 480)),
        (webp(b"VP8L", b"\x2f" + struct.pack("<I", 639 | 479 << 14) + b"\0" * 5), (640, 480)),
        (png(1, 1)[:20], None),
        (gif(1, 1)[:8], None),
        (jpeg(1, 1)[:-4], None),
        (jpeg(1, 1, b"\xff\xe1\0\2" * 2000), None),  # more segments than are looked at
        (webp(b"VP8 ", b"\0" * 10), None),
        (b"\xff\xd8" + b"\0" * 50, None),
        (b"", None),
    ],
)
def test_the_size_is_what_the_head_says(data, size):
    assert image_size(data) == size


@pytest.mark.parametrize(
    ("size", "allowed"),
    [
        ((1, 1), True),
        ((0, 1), False),
        ((8000, 8000), True),
        ((8000, 8001), False),
        ((MOST_SIDE, 1), True),
        ((MOST_SIDE + 1, 1), False),
        ((100_000, 100_000), False),
    ],
)
def test_both_sides_of_each_bound(size, allowed):
    assert decide_image_size(png(*size)).allowed is allowed


@given(
    st.sampled_from([b"", png(1, 1)[:16], b"\xff\xd8\xff", b"RIFF1234WEBPVP8X", b"GIF89a"]),
    st.binary(max_size=300),
)
def test_any_bytes_have_a_size_or_none(head, rest):
    size = image_size(head + rest)
    assert size is None or all(isinstance(side, int) and side >= 0 for side in size)
