"""Whether JSON from a sandbox or a client may be parsed: how many values it has and how deep it is.

A parser takes fifty times the bytes of a JSON of many small values, and the loop stands still
meanwhile (16 MiB of empty lists: four seconds); the time for a number grows with the square of its
digits. So structure is bounded before it is parsed; what is in strings does not count. The rule:
linear time, a few milliseconds for what is refused.
"""

from __future__ import annotations

import re

MOST_VALUES = 50_000
"""Of a frame. The largest that the guest sends is a listing: 5,000 entries of five values."""
DEEPEST = 32

MESSAGE_VALUES = 200_000
"""Of a Jupyter message or the body of a request: charts, tables and notebooks travel as JSON."""
MESSAGE_DEEPEST = 100
MOST_DIGITS = 400
"""Of a number; the largest that a float has are 309."""

_DIGITS = bytes(ord("0") if byte in b"0123456789" else 0 for byte in range(256))
_LONG_NUMBER = b"0" * (MOST_DIGITS + 1)
_STRING = re.compile(rb'"[^"]*"')
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


class JsonBoundsError(ValueError):
    """More values, deeper, or longer numbers than any honest message."""


def check_json(data: bytes, most_values: int = MOST_VALUES, deepest: int = DEEPEST) -> None:
    """Refuse JSON text that would cost too much to parse, or to walk through.

    Raises
    ------
    JsonBoundsError
        More than ``most_values`` values, ``deepest`` levels, or ``MOST_DIGITS`` digits of a number.
        Whether it is JSON at all is for the parser to say.
    """
    opened = data.count(b"[") + data.count(b"{")
    has_long = _LONG_NUMBER in data.translate(_DIGITS)  # perhaps in a string
    if not has_long and opened <= deepest and opened + data.count(b",") <= most_values:
        return
    # Each string is a value or a name; what is escaped ends none.
    bare = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    if bare.count(b'"') > 4 * most_values:
        raise JsonBoundsError("too many values")
    bare = _STRING.sub(b"", bare)
    if has_long and _LONG_NUMBER in bare.translate(_DIGITS):
        raise JsonBoundsError("too long a number")
    if sum(bare.count(mark) for mark in (b",", b"[", b"{")) > most_values:
        raise JsonBoundsError("too many values")
    depth = 0
    for bracket in bare.translate(None, _NOT_BRACKETS):
        if bracket in b"[{":
            depth += 1
            if depth > deepest:
                raise JsonBoundsError("nested too deep")
        else:
            depth -= 1
