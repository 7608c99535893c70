"""How large a picture is once it is unpacked, from the head of its file; nothing is unpacked.

A file of some kilobytes can be a picture of gigabytes: whoever shows it (a browser, a model's image
reader) pays. The rule: at most ``MOST_SEGMENTS`` steps; what cannot be read has no size.
Source: https://www.w3.org/TR/png/#11IHDR, https://www.w3.org/Graphics/JPEG/itu-t81.pdf (B.2.2),
https://www.w3.org/Graphics/GIF/spec-gif89a.txt (18), RFC 9649 (WebP).
"""

from __future__ import annotations

from .decision import ALLOWED, Decision

MOST_PIXELS = 64_000_000
MOST_SIDE = 16_384
MOST_SEGMENTS = 1_000

# SOF markers: start of frame, each of them with the size (C4, C8, CC are other things).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length


def decide_image_size(data: bytes) -> Decision:
    """Decide whether a picture (png, jpeg, gif, webp) is one that others can be given to show."""
    size = image_size(data)
    if size is None:
        return Decision(False, "its size in pixels cannot be read")
    width, height = size
    if width < 1 or height < 1:
        return Decision(False, "it has no pixels")
    if width > MOST_SIDE or height > MOST_SIDE or width * height > MOST_PIXELS:
        return Decision(
            False,
            f"it has {width} x {height} pixels; {MOST_SIDE} on a side and {MOST_PIXELS:,} in all "
            "are the most",
        )
    return ALLOWED


def image_size(data: bytes) -> tuple[int, int] | None:
    """Give width and height in pixels as the file claims them, or None."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        if len(data) < 24 or data[12:16] != b"IHDR":
            return None
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data[:6] in (b"GIF87a", b"GIF89a"):
        if len(data) < 10:
            return None
        return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if kind == b"VP8X":
        width = int.from_bytes(body[4:7], "little") + 1
        return width, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width = int.from_bytes(body[6:8], "little") & 0x3FFF
        return width, int.from_bytes(body[8:10], "little") & 0x3FFF
    if kind == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    for _ in range(MOST_SEGMENTS):
        if at + 4 > len(data) or data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker in _FRAMES:
            if at + 9 > len(data):
                return None
            height = int.from_bytes(data[at + 5 : at + 7], "big")
            return int.from_bytes(data[at + 7 : at + 9], "big"), height
        else:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    return None
