"""One connection of a sandbox, from its first byte to its last: head, decision, dial, bytes.

The rule: one request a connection; everything that is awaited has a bound; whatever ends it, both
sockets are closed and one line says what happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from ...policy.egress import METHODS, EgressPolicy
from ...policy.egress_names import Target
from ...policy.egress_rules import Denial, EgressCaps
from . import answers
from .budgets import CapReached, Meter
from .client_hello import HelloRefused, find_server_name
from .dialer import AddressRefused, Dial, dial_vetted
from .fetch import MAX_ANSWER_HEAD_BYTES, to_closing_answer, to_request
from .head import (
    HEAD_END,
    HeadRefused,
    RequestHead,
    parse_head,
    require_no_body,
    require_possible,
)
from .log_line import Account
from .resolver import Resolve
from .splice import DOWN, UP, SpliceEnded, splice
from .upstream import Upstream

_READ_BYTES = 16 * 1024
_LINGER_SECONDS = 1.0
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class Outside:
    """What all connections share: the decisions and the ways out."""

    policy: EgressPolicy
    caps: EgressCaps
    resolve: Resolve
    dial: Dial
    upstream: Upstream | None
    on_denial: Callable[[str, Denial], None]
    """Takes a conversation's denial, before the sandbox gets its answer."""


class Refused(Exception):
    """A request that gets no further; the text is the reason, a clause."""

    def __init__(self, reason: str, status: int = 403) -> None:
        super().__init__(reason)
        self.status = status


class Failed(Exception):
    """An allowed host that does not answer; the text is what to say."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Connection:
    """Serves one accepted socket.

    Parameters
    ----------
    account : Account
        Filled while it is served; the caller logs it.
    """

    def __init__(
        self, client: socket.socket, outside: Outside, meter: Meter, account: Account
    ) -> None:
        self._client = client
        self._out = outside
        self._meter = meter
        self.account = account
        self._rest = b""  # what came after the head

    def __repr__(self) -> str:
        return f"<Connection {self.account.sandbox} {self.account.named or 'no request yet'}>"

    async def serve(self) -> None:
        """Serve the request; returns when everything of it is closed."""
        try:
            head = await self._read_head()
            if head is not None:
                await self._serve_request(head)
        except Refused as exc:
            await self._refuse(exc.status, str(exc))
        except Failed as exc:
            self.account.verdict, self.account.reason = "fail", str(exc)
            text = f"Network access to {self.account.named} failed: {exc}. A retry may help."
            await self._answer(answers.failure(exc.status, text, self.account.method != "HEAD"))
        except CapReached as exc:
            self._deny("cut", str(exc))
        except SpliceEnded as exc:  # a retry may help: no denial
            self.account.verdict, self.account.reason = "cut", str(exc)
        except OSError as exc:  # a side broke: nobody is left to tell
            self.account.reason = f"broken: {exc.strerror or exc}"
        finally:
            self._client.close()

    async def _read_head(self) -> RequestHead | None:
        """Give the request's head; None if the client went away without one."""
        loop = asyncio.get_running_loop()
        data = b""
        try:
            async with asyncio.timeout(self._out.caps.head_seconds):
                while (end := data.find(HEAD_END)) < 0:
                    require_possible(data)
                    piece = await loop.sock_recv(self._client, _READ_BYTES)
                    if not piece:
                        if not data:
                            return None
                        raise Refused("the request's head has no end", 400)
                    data += piece
            end += len(HEAD_END)
            self._rest = data[end:]
            return parse_head(data[:end])
        except TimeoutError:
            raise Refused("the request's head came too slowly", 408) from None
        except HeadRefused as exc:
            raise Refused(str(exc), exc.status) from None

    async def _serve_request(self, head: RequestHead) -> None:
        self.account.method = head.method
        decision = self._out.policy.decide(head.method, head.target)
        self.account.named = decision.named
        if decision.target is None:
            raise Refused(decision.reason, 403 if head.method in METHODS else 405)
        try:
            require_no_body(head)
            self._meter.require_some()
        except HeadRefused as exc:
            raise Refused(str(exc), exc.status) from None
        except CapReached as exc:
            raise Refused(str(exc)) from None
        upstream = await self._dial(decision.target, tunnel=head.method == "CONNECT")
        try:
            self.account.verdict = "allow"
            if head.method == "CONNECT":
                await self._serve_tunnel(upstream, decision.target)
            else:
                await self._serve_fetch(upstream, head, decision.target)
        finally:
            upstream.close()

    async def _dial(self, target: Target, tunnel: bool) -> socket.socket:
        """Connect to the target, or to the site's proxy on the way to it."""
        try:
            async with asyncio.timeout(self._out.caps.connect_seconds):
                if self._out.upstream is None:
                    addresses = await self._resolve(target.host)
                    return await dial_vetted(
                        self._out.dial,
                        self._out.policy.addresses,
                        addresses,
                        target.port,
                        self._out.caps.connect_seconds,
                    )
                self.account.address = "upstream"
                sock = await self._out.upstream.connect(self._out.resolve)
                try:
                    if tunnel:
                        await self._out.upstream.tunnel(sock, target)
                except BaseException:
                    sock.close()
                    raise
                return sock
        except AddressRefused as exc:
            raise Refused(str(exc)) from None
        except TimeoutError:
            raise Failed("it does not answer", 504) from None
        except OSError as exc:
            # Not the library's words: they have addresses of the inside of the site.
            why = os.strerror(exc.errno) if exc.errno else "no answer"
            raise Failed(f"it cannot be reached ({why})", 502) from None

    async def _resolve(self, host: str) -> list[str]:
        try:
            addresses = await self._out.resolve(host)
        except OSError:
            raise Failed("its name cannot be resolved", 502) from None
        self.account.address = addresses[0] if addresses else ""
        return addresses

    async def _serve_tunnel(self, upstream: socket.socket, target: Target) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._client, answers.ESTABLISHED)
        try:
            hello = await self._read_hello(target.host)
        except HelloRefused as exc:
            self._deny("deny", str(exc))
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await loop.sock_sendall(self._client, answers.TLS_REFUSED)
            await self._linger()
            return
        if not hello:
            return
        self._meter.count(UP, len(hello))
        await loop.sock_sendall(upstream, hello)
        await self._splice(upstream)

    async def _read_hello(self, host: str) -> bytes:
        """Give the first bytes of the tunnel once they name its host; empty if it was left unused.

        Nothing goes to the host before.
        """
        loop = asyncio.get_running_loop()
        data, self._rest = self._rest, b""
        try:
            async with asyncio.timeout(self._out.caps.head_seconds):
                while (name := find_server_name(data)) is None:
                    piece = await loop.sock_recv(self._client, _READ_BYTES)
                    if not piece:
                        if not data:
                            return b""
                        raise HelloRefused("the tunnel's TLS greeting is not whole")
                    data += piece
        except TimeoutError:
            raise HelloRefused("the tunnel's TLS greeting came too slowly") from None
        if name.lower() != host:
            raise HelloRefused("the tunnel's TLS greeting names another host (SNI)")
        return data

    async def _serve_fetch(
        self, upstream: socket.socket, head: RequestHead, target: Target
    ) -> None:
        loop = asyncio.get_running_loop()
        proxy = self._out.upstream
        request = to_request(head, target, None if proxy is None else proxy.authorization)
        self._meter.count(UP, len(request))
        await loop.sock_sendall(upstream, request)
        data = b""
        try:
            async with asyncio.timeout(self._out.caps.idle_seconds):
                while (answer := to_closing_answer(data)) is None:
                    piece = await loop.sock_recv(upstream, _READ_BYTES)
                    if not piece or len(data) > MAX_ANSWER_HEAD_BYTES:
                        raise Failed("it gave no proper answer", 502)
                    data += piece
        except TimeoutError:
            raise Failed("it does not answer", 504) from None
        self._meter.count(DOWN, len(answer))
        await loop.sock_sendall(self._client, answer)
        await self._splice(upstream, one_way=True)

    async def _splice(self, upstream: socket.socket, one_way: bool = False) -> None:
        caps = self._out.caps
        await splice(
            self._client,
            upstream,
            self._meter,
            caps.idle_seconds,
            caps.tunnel_seconds,
            one_way=one_way,
        )

    async def _refuse(self, status: int, reason: str) -> None:
        """Refuse with the one text, in the log, to the server and to the sandbox."""
        text = self._deny("deny", reason)
        await self._answer(answers.refusal(status, text, self.account.method != "HEAD"))

    def _deny(self, verdict: str, reason: str) -> str:
        account = self.account
        account.verdict, account.reason = verdict, reason
        text = self._out.policy.refusal(account.named, reason)
        host, _, port = account.named.rpartition(":")
        denial = Denial(
            at=time.monotonic(),
            host=host if port.isdigit() else account.named,
            port=int(port) if port.isdigit() else 0,
            reason=reason,
            text=text,
        )
        self._out.on_denial(account.conversation, denial)
        return text

    async def _answer(self, response: bytes) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_ANSWER_SECONDS):
                await asyncio.get_running_loop().sock_sendall(self._client, response)
        await self._linger()

    async def _linger(self) -> None:
        """Take what is still on its way for a moment: closing on unread bytes is a reset."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, TimeoutError):
            self._client.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(_LINGER_SECONDS):
                for _ in range(16):
                    if not await loop.sock_recv(self._client, _READ_BYTES):
                        return
