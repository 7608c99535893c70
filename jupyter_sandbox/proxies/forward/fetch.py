"""Plain http: the request that goes out is written anew, its answer says ``connection: close``.

Pure. The rule: of the sandbox's request go on the method, the path, the host that was decided on,
and a few headers that say what is wanted; never cookies, credentials, or a second request.
"""

from __future__ import annotations

from ...policy.egress_names import Target
from .head import HEAD_END, RequestHead

MAX_ANSWER_HEAD_BYTES = 64 * 1024
_PASSED = (
    "accept",
    "accept-encoding",
    "cache-control",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "range",
    "user-agent",
)
_HOP_BY_HOP = (b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"set-cookie")


def to_request(head: RequestHead, target: Target, through_proxy: str | None = None) -> bytes:
    """Give the request to send.

    Parameters
    ----------
    through_proxy : str or None
        Given: a site's proxy is asked, with this ``proxy-authorization`` ("" for none).
    """
    authority = target.host if target.port == 80 else f"{target.host}:{target.port}"
    named = target.path if through_proxy is None else f"http://{authority}{target.path}"
    lines = [f"{head.method} {named} HTTP/1.1", f"host: {authority}"]
    lines += [f"{name}: {value}" for name, value in head.headers if name in _PASSED]
    if through_proxy:
        lines.append(f"proxy-authorization: {through_proxy}")
    return "\r\n".join([*lines, "connection: close", "", ""]).encode("ascii")


def to_closing_answer(data: bytes) -> bytes | None:
    """Give the beginning of an answer with a head that announces the end of the connection.

    Without it a client would wait on this connection with its next request. None: the head is not
    whole yet.
    """
    end = data.find(HEAD_END)
    if end < 0:
        return None
    first, *headers = data[:end].split(b"\r\n")
    kept = [h for h in headers if h.partition(b":")[0].strip().lower() not in _HOP_BY_HOP]
    return b"\r\n".join([first, *kept, b"connection: close", b"", b""]) + data[end + 4 :]
