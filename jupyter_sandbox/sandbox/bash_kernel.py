"""Commands on the guest's bash kernel: one stream per call, Jupyter messages on it.

Everything a stream says is a claim of the sandbox: types are checked, text is bounded again, waits
are bounded by the clock of this side. The execution inside does not belong to the stream:
``attach`` follows one that an earlier server process has started.
"""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Any

from sandbox_guest import protocol

from ..errors import ToolError, Unavailable
from ..models import Emit, Outcome
from .link import GuestLink, GuestStream, valid_text
from .pace import Pace

_SLACK_BYTES = 64 * 1024
_GRACE_SECONDS = 15.0  # the guest ends a tree within 7 s; then the host gives up
_MOST_IDLE_WORDS = 1000  # messages of one call that say nothing new
_REFUSALS = {"Refused": "refused", "NotFound": "not_found"}  # the guest's names, our codes


class BashKernel:
    """The bash kernel of one sandbox."""

    def __init__(self, link: GuestLink) -> None:
        self._link = link

    async def execute(
        self,
        call_id: str,
        command: str,
        *,
        timeout_seconds: float,
        limit_bytes: int,
        emit: Emit,
    ) -> Outcome:
        """Run a command; its end, its timeout or a broken stream end the wait.

        Parameters
        ----------
        call_id : str
            Id of the execution in the guest; the same id never runs twice.
        timeout_seconds : float
            After which the guest ends the command's processes.
        limit_bytes : int
            Of output that is kept.

        Raises
        ------
        ToolError
            The guest refused the command.
        Unavailable
            The sandbox does not answer.
        """
        metadata = {"sandbox": {"timeout_seconds": timeout_seconds, "limit_bytes": limit_bytes}}
        content = {"code": command, "silent": False, "store_history": False, "allow_stdin": False}
        request = _message("shell", "execute_request", call_id, content, metadata)
        return await self._follow(request, timeout_seconds, limit_bytes, emit)

    async def attach(
        self,
        call_id: str,
        *,
        timeout_seconds: float,
        limit_bytes: int,
        emit: Emit,
        earlier_seconds: float = 0.0,
    ) -> Outcome | None:
        """Follow an execution from its beginning; None when the guest does not know it.

        ``earlier_seconds`` is how long it has been running: the wait is for what is left of
        ``timeout_seconds``.
        """
        request = _message(
            "shell", "attach_request", uuid.uuid4().hex, {"execution_id": call_id}, {}
        )
        try:
            return await self._follow(
                request, timeout_seconds, limit_bytes, emit, max(0.0, earlier_seconds)
            )
        except ToolError as exc:
            if exc.code == "not_found":
                return None
            raise

    async def interrupt(self, call_id: str | None = None) -> int:
        """End one execution, or all that run: INT, TERM, KILL; give how many there were."""
        content = {} if call_id is None else {"execution_id": call_id}
        request = _message("control", "interrupt_request", uuid.uuid4().hex, content, {})
        stream = await self._link.open(protocol.BASH)
        try:
            async with asyncio.timeout(10):
                await stream.send(request)
                for _ in range(_MOST_IDLE_WORDS):
                    body = (await stream.receive()).body
                    if _type_of(body) == "interrupt_reply":
                        return _integer(_dict(body.get("content")).get("count")) or 0
                raise _cut_off("messages that say nothing")
        except TimeoutError:
            raise Unavailable("the sandbox does not answer", status=504) from None
        finally:
            stream.close()

    async def _follow(
        self,
        request: dict[str, Any],
        timeout_seconds: float,
        limit_bytes: int,
        emit: Emit,
        earlier_seconds: float = 0.0,
    ) -> Outcome:
        started = asyncio.get_running_loop().time() - earlier_seconds
        left = max(0.0, timeout_seconds - earlier_seconds) + _GRACE_SECONDS
        kept = _Kept(limit_bytes + _SLACK_BYTES)
        try:
            async with (
                asyncio.timeout(left),
                self._link.pooled(protocol.BASH) as stream,
            ):
                await stream.send(request)
                reply = await self._replies(stream, request, kept, emit)
        except TimeoutError:
            raise Unavailable(
                f"the sandbox gave no result within {timeout_seconds + _GRACE_SECONDS:g} s",
                status=504,
            ) from None
        elapsed = asyncio.get_running_loop().time() - started
        return _outcome(kept.text(), elapsed, _dict(_dict(reply.get("metadata")).get("sandbox")))

    async def _replies(
        self, stream: GuestStream, request: dict[str, Any], kept: _Kept, emit: Emit
    ) -> dict[str, Any]:
        """Read until the reply and idle have come; after both the stream can be used again."""
        reply: dict[str, Any] | None = None
        msg_id = request["header"]["msg_id"]
        reply_type = request["header"]["msg_type"].replace("_request", "_reply")
        pace = Pace()
        idle_words = 0
        while True:
            body = (await stream.receive()).body
            pace.begin()
            if _dict(body.get("parent_header")).get("msg_id") != msg_id:
                raise Unavailable("the sandbox answered something that was not asked")
            msg_type, content = _type_of(body), _dict(body.get("content"))
            if msg_type == "stream":
                text = content.get("text")
                if not isinstance(text, str) or not text:
                    idle_words += 1
                elif kept.add(text := valid_text(text)):
                    emit(text)
            elif msg_type == reply_type:
                code = _REFUSALS.get(str(content.get("ename")), "")
                if content.get("status") == "error" and code:
                    message = _line(content.get("evalue"), 300)
                    raise ToolError(f"The command was not run: {message}.", code=code)
                reply = body
                idle_words += 1
            elif msg_type == "status" and content.get("execution_state") == "idle" and reply:
                return reply
            else:
                idle_words += 1
            if idle_words > _MOST_IDLE_WORDS:
                raise _cut_off("messages that say nothing")
            await pace.rest()


class _Kept:
    """Text up to a bound; a guest that sends far more than it may is cut off."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[str] = []
        self._bytes = 0
        self._received = 0

    def add(self, text: str) -> bool:
        size = len(text) if text.isascii() else len(text.encode("utf-8"))
        self._received += size
        if self._received > 4 * self._limit:
            raise _cut_off("more output than it may")
        if self._bytes + size > self._limit:
            return False
        self._bytes += size
        self._pieces.append(text)
        return True

    def text(self) -> str:
        return "".join(self._pieces)


def _cut_off(what: str) -> Unavailable:
    return Unavailable(f"the sandbox sent {what} and was cut off")


def _message(
    channel: str,
    msg_type: str,
    msg_id: str,
    content: dict[str, Any],
    metadata: dict[str, Any],
) -> dict[str, Any]:
    header = {
        "msg_id": msg_id,
        "msg_type": msg_type,
        "session": "host",
        "username": "host",
        "date": datetime.now(UTC).isoformat(),
        "version": "5.4",
    }
    return {
        "channel": channel,
        "header": header,
        "parent_header": {},
        "metadata": metadata,
        "content": content,
    }


def _outcome(text: str, elapsed: float, report: dict[str, Any]) -> Outcome:
    jobs: list[tuple[int, str]] = []
    claimed = report.get("jobs")
    if isinstance(claimed, list):
        for job in claimed[:20]:
            pid = _integer(_dict(job).get("pid"))
            if pid is not None:
                jobs.append((pid, _line(_dict(job).get("name"), 64)))
    duration = report.get("duration_seconds")
    if not isinstance(duration, int | float) or not 0 <= duration <= elapsed:
        duration = elapsed
    return Outcome(
        text=text,
        duration_seconds=float(duration),
        exit_code=_integer(report.get("exit_code")),
        cwd=_line(report.get("cwd"), 4096),
        jobs=tuple(jobs),
        jobs_output=_line(report.get("jobs_output"), 4096) or None,
        truncated=report.get("truncated") is True,
        spool=_line(report.get("spool"), 4096) or None,
        timed_out=report.get("timed_out") is True,
        interrupted=report.get("interrupted") is True,
        killed=_integer(report.get("killed")) or 0,
    )


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _type_of(body: dict[str, Any]) -> str:
    return str(_dict(body.get("header")).get("msg_type", ""))[:64]


def _integer(value: object) -> int | None:
    fits = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53
    return value if fits and isinstance(value, int) else None


def _line(value: object, length: int) -> str:
    """Give one printable line of bounded length."""
    if not isinstance(value, str):
        return ""
    return "".join(c if c.isprintable() else "\ufffd" for c in value[:length])
