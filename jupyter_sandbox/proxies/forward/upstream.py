"""The site's own proxy, when there is one: its address, its credentials, CONNECT through it.

The rule: the host that was decided on goes to it by name (it resolves), and nothing that the
sandbox wrote does. Its credentials never show.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from ...policy.egress_names import Target
from .head import HEAD_END
from .resolver import Resolve

_MAX_ANSWER_BYTES = 16 * 1024


@dataclass(frozen=True)
class Upstream:
    """Where it is.

    Attributes
    ----------
    authorization : str
        Value of ``proxy-authorization``; "" for none.
    """

    host: str
    port: int
    authorization: str = field(default="", repr=False)

    @classmethod
    def from_url(cls, url: str) -> Upstream | None:
        """Read ``http://[user:password@]host:port``; None for an empty text."""
        if not url:
            return None
        parts = urlsplit(url)
        authorization = ""
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + base64.b64encode(pair.encode()).decode()
        return cls(parts.hostname or "", parts.port or 80, authorization)

    async def connect(self, resolve: Resolve) -> socket.socket:
        """Connect to it. An administrator chose it, so its address may be any."""
        loop = asyncio.get_running_loop()
        failure = OSError("the site's proxy has no address")
        for address in await resolve(self.host):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await loop.sock_connect(sock, (address, self.port))
                return sock
            except OSError as exc:
                sock.close()
                failure = exc
            except BaseException:
                sock.close()
                raise
        raise failure

    async def tunnel(self, sock: socket.socket, target: Target) -> None:
        """Ask for a tunnel; OSError if it is not given."""
        loop = asyncio.get_running_loop()
        authority = f"{target.host}:{target.port}"
        lines = [f"CONNECT {authority} HTTP/1.1", f"host: {authority}"]
        if self.authorization:
            lines.append(f"proxy-authorization: {self.authorization}")
        await loop.sock_sendall(sock, "\r\n".join([*lines, "", ""]).encode("ascii"))
        answer = b""
        while not answer.endswith(HEAD_END):
            # One byte at a time: what follows the head belongs to the tunnel. It is a short head.
            byte = await loop.sock_recv(sock, 1)
            if not byte or len(answer) >= _MAX_ANSWER_BYTES:
                raise OSError("the site's proxy gave no answer")
            answer += byte
        match = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
        if match is None or match[1] != b"200":
            raise OSError(f"the site's proxy answered {match[1].decode() if match else 'nonsense'}")
