"""What the proxy itself answers: refusals and failures, as whole HTTP responses.

Pure. The rule: one line of printable ASCII says everything, alike in the body and in
``x-deny-reason``; it is never HTML.
"""

from __future__ import annotations

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
# Fatal, unrecognized_name: tells a TLS client at once, where there is no HTTP to tell it in.
# Source: https://www.rfc-editor.org/rfc/rfc6066#section-3
TLS_REFUSED = b"\x15\x03\x03\x00\x02\x02\x70"

_PHRASES = {
    400: "Refused by the sandbox: bad request",
    403: "Refused by the sandbox",
    405: "Refused by the sandbox: method",
    408: "Refused by the sandbox: too slow",
    431: "Refused by the sandbox: head too long",
    502: "The host cannot be reached",
    504: "The host does not answer",
}


def refusal(status: int, text: str, with_body: bool = True) -> bytes:
    """Give the response of a refusal; ``with_body`` is False for HEAD."""
    return _response(status, f"x-deny-reason: {text}\r\n", text, with_body)


def failure(status: int, text: str, with_body: bool = True) -> bytes:
    """Give the response for a host that is allowed and did not answer."""
    return _response(status, "", text, with_body)


def _response(status: int, header: str, text: str, with_body: bool) -> bytes:
    body = f"{text}\n"
    head = (
        f"HTTP/1.1 {status} {_PHRASES[status]}\r\n"
        "content-type: text/plain; charset=us-ascii\r\n"
        "x-content-type-options: nosniff\r\n"
        f"content-length: {len(body)}\r\n"
        f"{header}connection: close\r\n\r\n"
    )
    return (head + (body if with_body else "")).encode("ascii")
