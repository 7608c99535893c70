"""The egress process as the Jupyter server sees it: start, open, close, what was denied.

It holds what must be (which sandbox has a socket where); a process that died is started again,
after a growing pause, and told all of it. The rule: no proxy, no way out: sandboxes fail closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import metrics
from ..errors import Unavailable
from ..policy.egress_rules import Denial, EgressRules
from .forward.control import MAX_LINE_BYTES, from_line, to_line
from .forward.kept_bytes import make_memory

COMMAND = (sys.executable, "-P", "-m", "jupyter_sandbox.proxies.forward")
# Nothing else of the server's environment: it may hold keys.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "RES_OPTIONS", "LOCALDOMAIN", "HOSTALIASES")
_ANSWER_SECONDS = 10.0
_WATCH_SECONDS = 10.0
_STOP_SECONDS = 5.0
_PAUSES = (0.05, 0.2, 1.0, 5.0, 15.0)
_STEADY_SECONDS = 60.0  # a process that lived so long begins with the shortest pause again
_MAX_DENIALS = 50  # of one conversation
_MAX_CONVERSATIONS = 5_000


@dataclass(frozen=True)
class _Opened:
    """What must be open."""

    sandbox: str
    conversation: str
    path: Path

    def to_order(self) -> dict[str, object]:
        return {
            "do": "open",
            "sandbox": self.sandbox,
            "conversation": self.conversation,
            "path": str(self.path),
        }


class EgressProxy:
    """Runs the egress process for one Jupyter server.

    Parameters
    ----------
    rules : EgressRules
        What all sandboxes of this server may reach; does not change while it runs.
    command : sequence of str
        Starts the process, in place of ``COMMAND``; tests give one whose resolver they control.
    """

    def __init__(
        self,
        rules: EgressRules,
        log: logging.Logger | logging.LoggerAdapter[Any] | None = None,
        command: Sequence[str] = (),
    ) -> None:
        self.rules = rules
        self._log = log or logging.getLogger(__name__)
        self._command = tuple(command) or COMMAND
        self._opened: dict[str, _Opened] = {}
        self._denials: dict[str, deque[Denial]] = {}
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[str]] = {}
        self._process: Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._kept = -1  # what all its processes have counted
        self._is_up = asyncio.Event()
        self.on_denial: Callable[[str], None] = lambda conversation_id: None

    def __repr__(self) -> str:
        state = f"pid={self._process.pid}" if self._process is not None else "down"
        return f"<EgressProxy {state} sandboxes={len(self._opened)}>"

    @property
    def pid(self) -> int | None:
        """The process that runs now, for health reports."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the process and keep it running. Twice is once.

        Raises
        ------
        Unavailable
            It does not start; it is tried again all the same.
        """
        if self._keeping is None:
            self._kept = make_memory()
            self._keeping = asyncio.ensure_future(self._keep())
        await self._order({"do": "ping"})

    async def stop(self) -> None:
        """End the process; sandboxes have no way out any more. Twice is once."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping
            os.close(self._kept)
        self._opened.clear()

    async def open(self, sandbox_id: str, conversation_id: str, socket_path: Path) -> None:
        """Listen for a sandbox on a unix socket (mode 0666) at a path of the host's.

        A stale socket there is replaced. Again with the same arguments is no more than once; after
        a restart of the process it is done again without being asked.

        Raises
        ------
        Unavailable
            The path cannot be used, or the process is down. In the second case the socket appears
            as soon as the process is back.
        """
        wanted = _Opened(sandbox_id, conversation_id, socket_path)
        self._opened[sandbox_id] = wanted
        error = await self._order(wanted.to_order())
        if error:
            if self._opened.get(sandbox_id) is wanted:
                del self._opened[sandbox_id]
            raise Unavailable(
                "the sandbox's way out cannot be opened", detail=f"{socket_path}: {error}"
            )

    async def close(self, sandbox_id: str) -> None:
        """End the way out of a sandbox, its connections too. Twice is once."""
        if self._opened.pop(sandbox_id, None) is not None and self._is_up.is_set():
            with contextlib.suppress(Unavailable):  # what is down has nothing open
                await self._order({"do": "close", "sandbox": sandbox_id})

    async def settle(self) -> None:
        """Wait until every denial that was decided before now is in ``denials``; half a second."""
        with contextlib.suppress(Unavailable):
            await self._order({"do": "ping"}, seconds=0.5)

    def denials(self, conversation_id: str, since: float) -> list[Denial]:
        """Give what was denied to a conversation from a time on (monotonic clock), oldest first.

        The last fifty are kept, and no more than sixty in ten seconds are reported.
        """
        return [d for d in self._denials.get(conversation_id, ()) if d.at >= since]

    def forget(self, conversation_id: str) -> None:
        """Drop the denials of a conversation that is gone."""
        self._denials.pop(conversation_id, None)

    async def _order(self, order: dict[str, object], seconds: float = _ANSWER_SECONDS) -> str:
        """Send an order to the process that runs; give its error, "" for none."""
        try:
            async with asyncio.timeout(seconds):
                await self._is_up.wait()
                process = self._process
                if process is None or process.stdin is None:
                    raise Unavailable("the egress proxy is down")
                number = next(self._numbers)
                answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
                self._waiting[number] = answer
                try:
                    process.stdin.write(to_line({**order, "number": number}))
                    await process.stdin.drain()
                    return await answer
                finally:
                    self._waiting.pop(number, None)
        except (TimeoutError, OSError) as exc:
            raise Unavailable("the egress proxy does not answer", detail=repr(exc)) from exc

    async def _keep(self) -> None:
        """Run the process again and again."""
        failures = 0
        while True:
            started = time.monotonic()
            try:
                await self._run_once()
            except OSError as exc:
                self._log.error("egress proxy: does not start: %s", exc)
            except Exception:  # a bug of ours; without a proxy nothing would go out any more
                self._log.exception("egress proxy: broke")
            failures = 0 if time.monotonic() - started > _STEADY_SECONDS else failures + 1
            pause = _PAUSES[min(failures, len(_PAUSES)) - 1] if failures else _PAUSES[0]
            self._log.warning("egress proxy: ended; again in %.2f s", pause)
            await asyncio.sleep(pause)

    async def _run_once(self) -> None:
        """Start the process, tell it everything, and read from it until it ends."""
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=PIPE,
            stdout=PIPE,
            cwd="/",
            env=environment,
            limit=MAX_LINE_BYTES,
            pass_fds=[self._kept],
        )
        watching: asyncio.Task[None] | None = None
        try:
            assert process.stdin is not None
            first = {"do": "rules", "rules": self.rules.to_json(), "kept": self._kept}
            process.stdin.write(to_line(first))
            for opened in self._opened.values():
                process.stdin.write(to_line({**opened.to_order(), "number": 0}))
            self._process = process
            self._is_up.set()
            with contextlib.suppress(OSError):
                await process.stdin.drain()
            watching = asyncio.ensure_future(self._watch(process))
            await self._listen(process)
        finally:
            if watching is not None:
                watching.cancel()
            self._is_up.clear()
            self._process = None
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(Unavailable("the egress proxy has ended"))
            await asyncio.shield(_end(process))

    async def _watch(self, process: Process) -> None:
        """End a process that lives and does not answer any more; ``_keep`` starts another."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            try:
                await self._order({"do": "ping"})
            except Unavailable as exc:
                self._log.error("egress proxy: %s: it is killed", exc)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                return

    async def _listen(self, process: Process) -> None:
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                self._take(from_line(line))
        except ValueError:  # a line without end
            self._log.error("egress proxy: said something too long")

    def _take(self, message: dict[str, Any]) -> None:
        kind = message.get("is")
        if kind == "done":
            answer = self._waiting.get(message.get("number", 0))
            if answer is not None and not answer.done():
                answer.set_result(str(message.get("error", "")))
            elif message.get("error"):
                self._log.error("egress proxy: %s", message["error"])
        elif kind == "denial":
            self._remember(str(message["conversation"]), Denial(**message["denial"]))
        elif kind == "log":
            line = message.get("line")
            self._log.info("egress %s", json.dumps(line))
            if isinstance(line, dict):
                metrics.count_egress(line)

    def _remember(self, conversation: str, denial: Denial) -> None:
        self.on_denial(conversation)
        if conversation not in self._denials and len(self._denials) >= _MAX_CONVERSATIONS:
            del self._denials[next(iter(self._denials))]
        self._denials.setdefault(conversation, deque(maxlen=_MAX_DENIALS)).append(denial)


async def _end(process: Process) -> None:
    """End the process by the end of its pipe, or else by force; reap it."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
