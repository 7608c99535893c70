"""How a body of files is received: in pieces, as fast as they can be stored, refused early.

The rule: whoever may not, or sends too much, is told so at once and nothing is kept; then the rest
of the body is read and dropped, within bounds, because a connection that is closed under a client
that still sends loses the answer.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
import uuid
from typing import Any

from tornado import web

from ..errors import InvalidRequest, LimitExceeded, SandboxError
from .base import SandboxHandler

_NO_LIMIT = 2**50  # bodies are counted here, not by tornado, which would answer 400
_DRAIN_BYTES = 128 * 1024 * 1024
_DRAIN_SECONDS = 30.0
_IDLE_SECONDS = 60.0

_DIGEST = re.compile(r"\s*([a-z][a-z0-9_*.-]*)\s*=\s*:([A-Za-z0-9+/=]*):\s*(?:;[^,]*)?")


@web.stream_request_body
class ReceivingHandler(SandboxHandler):
    """Base of the handlers that take files. A subclass has ``begin``, ``take`` and ``drop``."""

    max_body_bytes = _NO_LIMIT
    receives: tuple[str, ...] = ("PUT", "POST")
    """The methods whose bodies are files."""

    def initialize(self, **kwargs: Any) -> None:
        """Begin without a refusal."""
        super().initialize(**kwargs)
        self._refused = False
        self._dropped_bytes = 0
        self._refused_at = 0.0
        self._idle: asyncio.TimerHandle | None = None
        self._seen_at = 0.0
        self._dropping: asyncio.Task[None] | None = None

    async def begin(self, **path: str) -> None:
        """Check who asks and for what; open what takes the body."""
        raise NotImplementedError

    async def take(self, chunk: bytes) -> None:
        """Store a piece of the body."""
        raise NotImplementedError

    async def drop(self) -> None:
        """Let go of everything that is not kept. Twice is once."""
        raise NotImplementedError

    async def prepare(self) -> None:  # type: ignore[override]
        """Refuse, or begin, before the body is read."""
        await super().prepare()
        if self._finished or self.request.method not in self.receives:
            return
        self._watch()
        try:
            if self.current_user is None:
                await self._refuse(401, "unauthenticated", "Log in, or send a token.")
                return
            self.services = await self.settings["jupyter_sandbox"].ready()
            self.require_access()
            await self.begin(**self.path_kwargs)
        except Exception as exc:
            await self._refuse_for(exc)

    async def data_received(self, chunk: bytes) -> None:  # type: ignore[override]
        """Take a piece; the next one is read when it is stored."""
        if self.request.method not in self.receives:
            super().data_received(chunk)
            return
        self._watch()
        if self._refused:
            self._dropped_bytes += len(chunk)
            loop = asyncio.get_running_loop()
            if (
                self._dropped_bytes > _DRAIN_BYTES
                or loop.time() - self._refused_at > _DRAIN_SECONDS
            ):
                self._close()
            return
        try:
            await self.take(chunk)
        except Exception as exc:
            await self._refuse_for(exc)

    def on_connection_close(self) -> None:
        """Let go of a body whose client has gone."""
        super().on_connection_close()
        self._unwatch()
        if self.request.method in self.receives:
            self._dropping = asyncio.ensure_future(self.drop())

    def on_finish(self) -> None:
        """Stop the watch."""
        self._unwatch()
        super().on_finish()

    async def refused(self) -> bool:
        """Say whether the request was refused; then its answer is complete with this."""
        self._unwatch()
        if not self._refused:
            return False
        if not self._finished:
            await super(SandboxHandler, self).finish(set_content_type="application/json")
        self._close()
        return True

    def require_room(self, limit_bytes: int) -> None:
        """Refuse a body that says that it is larger."""
        length = self.request.headers.get("Content-Length", "")
        if length.isdigit() and int(length) > limit_bytes:
            raise LimitExceeded(f"The file is larger than {limit_bytes:,} bytes.", status=413)

    async def _refuse_for(self, exc: Exception) -> None:
        if isinstance(exc, web.HTTPError):
            raise exc
        await self.drop()
        if isinstance(exc, SandboxError):
            await self._answer_early(lambda: self.answer_sandbox_error(exc))
            return
        error_id = uuid.uuid4().hex[:12]
        self.log.error("internal error %s", error_id, exc_info=exc)
        text = f"Internal error {error_id}; the server's log has more."
        await self._refuse(500, "internal_error", text)

    async def _refuse(self, status: int, code: str, message: str) -> None:
        await self._answer_early(lambda: self.answer_error(status, code, message))

    async def _answer_early(self, answer: Any) -> None:
        """Send the whole answer, but leave the connection open for what the client still sends."""
        self._refused = True
        self._refused_at = asyncio.get_running_loop().time()
        self.set_header("Connection", "close")
        if self.request.headers.get("Expect", "").lower() == "100-continue":
            answer()  # it sends nothing before it has heard of us
            return
        self._early = True
        try:
            answer()
        finally:
            self._early = False
        await self.flush()

    _early = False

    def finish(self, *args: Any, **kwargs: Any) -> Any:
        """Finish, or only write when the body has not been read yet."""
        if not self._early:
            return super().finish(*args, **kwargs)
        body = str(args[0]).encode()
        self.set_header("Content-Type", "application/json")
        self.set_header("Content-Length", str(len(body)))
        self.write(body)
        return None

    def _watch(self) -> None:
        """Note a sign of life; without one for a while the connection is closed."""
        loop = asyncio.get_running_loop()
        self._seen_at = loop.time()
        if self._idle is None:
            self._idle = loop.call_later(_IDLE_SECONDS, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._idle = None
        left = self._seen_at + _IDLE_SECONDS - loop.time()
        if left <= 0:
            self._close()
        else:
            self._idle = loop.call_later(left, self._look)

    def _unwatch(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _close(self) -> None:
        stream = getattr(self.request.connection, "stream", None)
        if stream is not None:
            stream.close()


def parse_content_digest(header: str | None) -> bytes | None:
    """Give the SHA-256 that a ``Content-Digest`` header promises; None if it promises none.

    Source: https://www.rfc-editor.org/rfc/rfc9530#section-2.
    """
    if header is None:
        return None
    found = None
    for item in header.split(","):
        match = _DIGEST.fullmatch(item)
        if match is None:
            raise InvalidRequest("Content-Digest: not understood.", status=400)
        if match[1] == "sha-256":
            try:
                found = base64.b64decode(match[2], validate=True)
            except binascii.Error as exc:
                raise InvalidRequest("Content-Digest: not base64.", status=400) from exc
            if len(found) != hashlib.sha256().digest_size:
                raise InvalidRequest("Content-Digest: not a SHA-256.", status=400)
    return found


def require_digest(promised: bytes | None, sha256: str) -> None:
    """Refuse what is not what the client promised."""
    if promised is not None and promised.hex() != sha256:
        raise InvalidRequest(
            "The body is not what its Content-Digest says; nothing was kept. Send it again.",
            status=400,
        )
