"""Asks workers to read hostile documents, and bounds it: time, number at once, size of the answer.

The rule: whatever a document does to its worker, the caller gets an answer soon; None means that
the document can only be shown as it is. Workers are started with the first document, one more than
are busy, and used again; one that does not answer in time is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Literal

from ..errors import InvalidRequest
from ..fair_turns import FairTurns
from .worker import DONE, NOTHING_BETTER, REFUSED

Kind = Literal["markdown", "html", "text", "display", "notebook", "save"]

WORKER = ("-P", "-m", "jupyter_sandbox.previews.worker")
"""What Python runs; -P: nothing of the directory it starts in."""

_SECONDS = 20.0  # of the wall; the processor time of a document is bounded by the worker
_AT_ONCE = min(max(2, os.cpu_count() or 1), 8)
_OF_OWNER = _AT_ONCE // 2  # the others' documents never wait for one that takes its time
_WAITING = 16
_MOST_OUTPUT_BYTES = 64 * 1024**2
_MOST_LINE_BYTES = 1024
_PIECE_BYTES = 256 * 1024


class Renderer:
    """The workers of one server process."""

    def __init__(self, log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        self._log = log
        self._turns = FairTurns(
            "Documents that are made ready to be shown",
            _AT_ONCE,
            of_owner=_OF_OWNER,
            waiting=_WAITING,
        )
        self._idle: list[_Worker] = []
        self._closed = False

    def __repr__(self) -> str:
        return f"<Renderer {self._turns!r}>"

    async def render(
        self, kind: Kind, name: str, text: str, owner: str | None = None
    ) -> str | None:
        """Give the text as HTML that is safe to show, or None.

        Raises
        ------
        LimitExceeded
            429: too many documents of the owner wait already.
        """
        data = await self.read(kind, name, text.encode("utf-8", "replace"), owner)
        return None if data is None else data.decode("utf-8", "replace")

    async def read(
        self, kind: Kind, name: str, data: bytes, owner: str | None = None
    ) -> bytes | None:
        """Give what a worker makes of a document, or None. A cancelled caller ends the work.

        Raises
        ------
        LimitExceeded
            As ``render``.
        InvalidRequest
            400: it is no document of this kind.
        """
        if self._closed:
            return None
        job = _Job(kind, name, data)
        try:
            end, answer = await self._turns.run(self._do, job, owner=owner)
        except asyncio.CancelledError:
            job.stop()
            raise
        if end == DONE:
            return answer
        if end == REFUSED:
            raise InvalidRequest(answer.decode("utf-8", "replace"), status=400)
        if end != NOTHING_BETTER:
            self._log.info("preview: not rendered as %s: the worker ended by %s", kind, end)
        return None

    async def close(self) -> None:
        """Start no further work and end the workers; those at work end by their bounds."""
        self._closed = True
        self._turns.close()
        await asyncio.to_thread(self._end_idle)

    def _end_idle(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().kill()

    def _take_idle(self) -> _Worker | None:
        """Give a worker that waits for work; one that was killed meanwhile is none."""
        with contextlib.suppress(IndexError):
            while True:
                worker = self._idle.pop()
                if worker.is_alive:
                    return worker
                worker.kill()
        return None

    def _do(self, job: _Job) -> tuple[int | str, bytes]:
        """Let a worker do a job; in a thread."""
        try:
            worker = self._take_idle() or _Worker()
        except OSError as exc:
            return type(exc).__name__, b""
        try:
            end, answer = worker.ask(job)
        except (OSError, ValueError, EOFError) as exc:
            worker.kill()
            return type(exc).__name__, b""
        self._idle.append(worker)
        if self._closed:  # meanwhile
            self._end_idle()
        elif len(self._idle) == 1 and self._turns.running < _AT_ONCE:
            # The next one, perhaps another user's, does not wait for a worker's start.
            with contextlib.suppress(OSError):
                self._idle.insert(0, _Worker())
        return end, answer


class _Job:
    """A document on its way through a worker."""

    def __init__(self, kind: Kind, name: str, data: bytes) -> None:
        head = {"kind": kind, "name": name[:_MOST_LINE_BYTES], "size_bytes": len(data)}
        self.head = json.dumps(head).encode() + b"\n"
        self.data = data
        self.worker: _Worker | None = None
        self.is_stopped = False

    def stop(self) -> None:
        """End it: nobody waits for it any more."""
        self.is_stopped = True
        if self.worker is not None:
            self.worker.stop()


class _Worker:
    """A worker process and the socket to it. Its methods block."""

    def __init__(self) -> None:
        self._socket, inside = socket.socketpair()
        with inside:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, *WORKER],
                    stdin=inside.fileno(),
                    stdout=inside.fileno(),
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env=_environment(),
                    start_new_session=True,  # its children end with it
                )
            except BaseException:
                self._socket.close()
                raise

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def ask(self, job: _Job) -> tuple[int, bytes]:
        """Give how the worker ended the job, and its answer.

        Raises
        ------
        OSError, EOFError, ValueError
            There is no answer, or none in time: the worker is to be killed.
        """
        job.worker = self
        try:
            if job.is_stopped:
                raise EOFError
            ends_at = time.monotonic() + _SECONDS
            for data in (job.head, job.data):
                self._send(data, ends_at)
            line = bytearray()
            while not line.endswith(b"\n"):
                line += self._receive(1, ends_at)
                if len(line) > _MOST_LINE_BYTES:
                    raise ValueError("no answer")
            head = json.loads(line)
            end, left = int(head["end"]), int(head["size_bytes"])
            if not 0 <= left <= _MOST_OUTPUT_BYTES:
                raise ValueError("too long an answer")
            pieces = []
            while left:
                pieces.append(self._receive(min(left, _PIECE_BYTES), ends_at))
                left -= len(pieces[-1])
            return end, b"".join(pieces)
        finally:
            job.worker = None

    def stop(self) -> None:
        """End it, with its child, and do not wait; who waits for its answer gets none."""
        with contextlib.suppress(ProcessLookupError):
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End it and let go of it."""
        self.stop()
        self._socket.close()
        self._process.wait()

    def _send(self, data: bytes, ends_at: float) -> None:
        view = memoryview(data)
        while view:
            self._bound(ends_at)
            view = view[self._socket.send(view[:_PIECE_BYTES]) :]

    def _receive(self, size: int, ends_at: float) -> bytes:
        self._bound(ends_at)
        data = self._socket.recv(size)
        if not data:
            raise EOFError
        return data

    def _bound(self, ends_at: float) -> None:
        left = ends_at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)


def _environment() -> dict[str, str]:
    """Give what Python needs to find its packages; none of the server's secrets."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return {**kept, "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
