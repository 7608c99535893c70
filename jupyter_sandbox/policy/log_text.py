"""What a log shows of text that others have written: one record stays one, no terminal obeys it.

Names, headers, addresses, messages of errors and of programs inside reach log calls everywhere,
ours and those of the libraries; so not each call cleans, but a filter of loggers and handlers.
The rule: a line that begins at the margin was begun by the server.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Mapping
from typing import Any

# Control characters (of C1 too: U+009B begins a sequence as ESC [ does) but the tab, what ends a
# line elsewhere, what changes the direction of text, and surrogates, which no stream can write.
_UNSAFE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_AT_MARGIN = re.compile(r"\n(?=[^\s])")


def one_line(text: str) -> str:
    """Return text with what is no plain character escaped as Python does."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


def block(text: str) -> str:
    """Return text of several lines likewise; lines after the first do not begin at the margin."""
    lines = "\n".join(one_line(line) for line in text.split("\n"))
    return _AT_MARGIN.sub("\n    ", lines)


class LogFilter(logging.Filter):
    """Cleans each record that passes; it holds back none. Twice is once."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the message and the traceback; see ``logging.Filter.filter``."""
        record.msg, record.args = _message(record), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        if record.exc_text:
            record.exc_text = block(record.exc_text)
        return True


LOG_FILTER = LogFilter()
"""The one of this process: a logger or handler that has it already does not get it twice."""


class _Shown:
    """An argument of a record, cleaned however it is shown."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return one_line(str(self._value))

    def __repr__(self) -> str:
        return one_line(repr(self._value))


def _message(record: logging.LogRecord) -> str:
    if not record.args:
        return block(str(record.msg))
    try:
        if isinstance(record.args, Mapping):
            shown: Any = {name: _shown(value) for name, value in record.args.items()}
        else:
            shown = tuple(_shown(value) for value in record.args)
        return block(str(record.msg) % shown)
    except Exception as exc:  # logging would print it as it is, with the arguments
        return block(f"{record.msg!s} (not formatted: {type(exc).__name__})")


def _shown(value: object) -> object:
    return value if isinstance(value, int | float) else _Shown(value)
