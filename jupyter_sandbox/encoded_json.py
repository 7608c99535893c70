"""Large JSON: encoded piece by piece and once, decoded only by whoever looks into it.

Python's encoder and decoder hold the interpreter's lock for a whole call, in a thread too: 15 MB
are up to 0.3 s in which the event loop stands still. The rule: what may be large is encoded with
``pieces`` in a thread, and what is stored encoded is passed on as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

LARGE = 64 * 1024
"""Characters and values that are encoded at once."""

Default = Callable[[Any], Any]


class EncodedJson(Mapping[str, Any]):
    """A JSON object in its encoded form; looking into it decodes it, once.

    Parameters
    ----------
    text : str
        The object.
    value : mapping, optional
        The same, decoded, if it is at hand.
    """

    def __init__(self, text: str, value: Mapping[str, Any] | None = None) -> None:
        self.text = text
        self._value = value

    def __repr__(self) -> str:
        return f"<EncodedJson of {len(self.text)} characters>"

    def __getitem__(self, name: str) -> Any:
        return self._decoded()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded())

    def __len__(self) -> int:
        return len(self._decoded())

    def after(self, head: Mapping[str, Any]) -> EncodedJson:
        """Give the object with these members before its own; decodes nothing."""
        first, rest = json.dumps(head)[:-1], self.text[1:]
        value = None if self._value is None else {**head, **self._value}
        return EncodedJson(first + ("" if rest.lstrip().startswith("}") else ", ") + rest, value)

    def _decoded(self) -> Mapping[str, Any]:
        if self._value is None:
            self._value = json.loads(self.text)
        assert self._value is not None
        return self._value


def is_large(value: Any) -> bool:
    """Say whether it has so much text, or so many values, that it is not encoded at once."""
    size, waiting = 0, [value]
    while waiting:
        each = waiting.pop()
        size += 1
        if isinstance(each, EncodedJson):
            return True  # only ``pieces`` can encode it
        if isinstance(each, str):
            size += len(each)
        elif isinstance(each, Mapping):
            size += len(each)
            waiting.extend(each.values())
        elif isinstance(each, list | tuple):
            size += len(each)
            if size <= LARGE:
                waiting.extend(each)
        if size > LARGE:
            return True
    return False


def pieces(value: Any, default: Default | None = None) -> Iterator[str]:
    """Give the JSON of a value in pieces that are small; as ``json.dumps`` gives it."""
    if isinstance(value, EncodedJson):
        yield value.text
    elif isinstance(value, str) and len(value) > LARGE:
        yield '"'
        for at in range(0, len(value), LARGE):
            yield json.dumps(value[at : at + LARGE])[1:-1]
        yield '"'
    elif isinstance(value, Mapping) and is_large(value):
        comma = "{"
        for name, member in value.items():
            yield f"{comma}{json.dumps(str(name))}: "
            yield from pieces(member, default)
            comma = ", "
        yield "}"
    elif isinstance(value, list | tuple) and is_large(value):
        comma = "["
        for member in value:
            yield comma
            yield from pieces(member, default)
            comma = ", "
        yield "]"
    else:
        yield json.dumps(value, default=default)


def encode(value: Any, default: Default | None = None) -> str:
    """Give the JSON of a value; in a thread, if it is large."""
    return "".join(pieces(value, default))
