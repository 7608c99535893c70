"""The server name in a TLS ClientHello, read strictly.

Pure and incremental: the first bytes of a tunnel go in, a name, a refusal or "not whole yet" comes
out. The rule: handshake records that hold one whole ClientHello with exactly one host name in
exactly one server_name extension; every length must fit exactly.
Source: https://www.rfc-editor.org/rfc/rfc8446#section-4.1.2, https://www.rfc-editor.org/rfc/rfc6066#section-3
"""

from __future__ import annotations

MAX_HELLO_BYTES = 16 * 1024
_MAX_RECORD = 2**14
_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME, _HOST_NAME = 22, 1, 0, 0


class HelloRefused(ValueError):
    """First bytes that may not pass; the text is the reason, a clause."""


class _Cursor:
    """Reads big-endian numbers and blocks from bytes, never beyond their end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def block(self, length_size: int) -> _Cursor:
        return _Cursor(self.take(self.number(length_size)))

    def take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise HelloRefused("the tunnel's TLS greeting is malformed")
        self._at += size
        return self._data[self._at - size : self._at]

    @property
    def at_end(self) -> bool:
        return self._at == len(self._data)

    def require_end(self) -> None:
        if not self.at_end:
            raise HelloRefused("the tunnel's TLS greeting is malformed")


def find_server_name(data: bytes) -> str | None:
    """Give the server name of the ClientHello that ``data`` begins with; None: not whole yet.

    Raises
    ------
    HelloRefused
        It is no TLS, malformed, too long, or names no host.
    """
    message = _handshake_message(data)
    if message is None:
        if len(data) >= MAX_HELLO_BYTES:
            raise HelloRefused("the tunnel's TLS greeting is too long")
        return None
    hello = _Cursor(message)
    hello.take(2 + 32)  # legacy_version, random
    if len(hello.take(hello.number(1))) > 32:  # legacy_session_id
        raise HelloRefused("the tunnel's TLS greeting is malformed")
    suites = hello.take(hello.number(2))
    methods = hello.take(hello.number(1))
    if not suites or len(suites) % 2 or not methods:
        raise HelloRefused("the tunnel's TLS greeting is malformed")
    if hello.at_end:
        raise HelloRefused("the tunnel's TLS greeting names no host (no SNI)")
    extensions = hello.block(2)
    hello.require_end()
    return _server_name(extensions)


def _handshake_message(data: bytes) -> bytes | None:
    """Give the body of the first handshake message, put together from its records."""
    message, at = b"", 0
    while True:
        record = data[at:]
        _require_prefix(record)
        if len(record) < 5:
            return None
        size = int.from_bytes(record[3:5], "big")
        if not 0 < size <= _MAX_RECORD:
            raise HelloRefused("the tunnel's TLS greeting is malformed")
        message += record[5 : 5 + size]
        if message[:1] not in (b"", bytes([_CLIENT_HELLO])):
            raise HelloRefused("the tunnel does not begin with a TLS greeting")
        if len(message) >= 4:
            length = int.from_bytes(message[1:4], "big")
            if length > MAX_HELLO_BYTES:
                raise HelloRefused("the tunnel's TLS greeting is too long")
            if len(message) > 4 + length:
                raise HelloRefused("the tunnel's TLS greeting is malformed")
            if len(message) == 4 + length:
                return message[4:]
        if len(record) < 5 + size:
            return None
        at += 5 + size


def _require_prefix(record: bytes) -> None:
    """Refuse at the first byte that no TLS handshake record has there."""
    if record[:1] not in (b"", bytes([_HANDSHAKE])) or record[1:2] not in (b"", b"\x03"):
        raise HelloRefused("the tunnel does not begin with TLS; only TLS may be tunnelled")


def _server_name(extensions: _Cursor) -> str:
    names: list[bytes] = []
    while not extensions.at_end:
        kind = extensions.number(2)
        body = extensions.block(2)
        if kind != _SERVER_NAME:
            continue
        entries = body.block(2)
        body.require_end()
        while not entries.at_end:
            if entries.number(1) != _HOST_NAME:
                raise HelloRefused("the tunnel's TLS greeting is malformed")
            names.append(entries.take(entries.number(2)))
        if not names:
            raise HelloRefused("the tunnel's TLS greeting is malformed")
    if not names:
        raise HelloRefused("the tunnel's TLS greeting names no host (no SNI)")
    if len(names) > 1:
        raise HelloRefused("the tunnel's TLS greeting names several hosts")
    try:
        return names[0].decode("ascii")
    except UnicodeDecodeError:
        raise HelloRefused("the tunnel's TLS greeting is malformed") from None
