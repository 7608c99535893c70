"""The head of a request, read strictly: what two parsers could read differently is refused.

Pure. The rule: ASCII, CR LF line ends and no other CR or LF, no NUL, single spaces in the request
line, header names of token characters with no space before the colon, no continued lines, no body.
Source: https://www.rfc-editor.org/rfc/rfc9112 (sections 2.2, 3, 5.1, 6.3, 11.2)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_HEAD_BYTES = 16 * 1024
HEAD_END = b"\r\n\r\n"
_MAX_HEADERS = 100
_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) ([!-~]+) HTTP/1\.[01]")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?:[!-~][ -~\t]*)?)")
_BODY_HEADERS = ("content-length", "transfer-encoding", "expect", "trailer", "upgrade")
_SINGLE_HEADERS = ("host", "content-length", "range", "if-range", "user-agent")
# What may stand in no head: control characters but CR LF and tab, bytes beyond ASCII, a lone LF.
_IMPOSSIBLE = re.compile(rb"[^\t\r\n -~]|(?<!\r)\n|\r(?=[^\n])")


class HeadRefused(ValueError):
    """A head that is refused; the text is the reason, a clause.

    Attributes
    ----------
    status : int
        The HTTP status to answer with.
    """

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class RequestHead:
    """A request line and its headers, names in lower case, in their order."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()

    def first(self, name: str) -> str:
        """Give the value of a header, "" without it."""
        return next((value for key, value in self.headers if key == name), "")


def require_possible(data: bytes) -> None:
    """Refuse the beginning of a head that cannot become one, so that nobody waits for the rest.

    Raises
    ------
    HeadRefused
        It is another protocol, or has stray control characters.
    """
    if len(data) > MAX_HEAD_BYTES:
        raise HeadRefused("the request's head is too long", 431)
    if _IMPOSSIBLE.search(data):
        raise HeadRefused("the request's head has bytes that no head has, or bare line ends")


def parse_head(data: bytes) -> RequestHead:
    """Read a head that ends with its empty line.

    Raises
    ------
    HeadRefused
        It breaks the rule above.
    """
    require_possible(data)
    if not data.endswith(HEAD_END):
        raise HeadRefused("the request's head has no end")
    first, *rest = data[: -len(HEAD_END)].decode("ascii").split("\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise HeadRefused("the request line is not one of HTTP/1.0 or HTTP/1.1")
    if len(rest) > _MAX_HEADERS:
        raise HeadRefused("the request has too many headers", 431)
    return RequestHead(match[1], match[2], tuple(_header(line) for line in rest))


def require_no_body(head: RequestHead) -> None:
    """Refuse what announces a body, another protocol, or says one thing twice.

    Raises
    ------
    HeadRefused
        It does.
    """
    names = [name for name, _ in head.headers]
    for name in _BODY_HEADERS:
        if name in names and not (name == "content-length" and head.first(name) == "0"):
            raise HeadRefused("requests with a body or an upgrade are not allowed")
    for name in _SINGLE_HEADERS:
        if names.count(name) > 1:
            raise HeadRefused("the request repeats a header that may stand once only")


def _header(line: str) -> tuple[str, str]:
    match = _HEADER.fullmatch(line)
    if match is None:
        raise HeadRefused("the request has a malformed header line")
    return match[1].lower(), match[2].rstrip(" \t")
