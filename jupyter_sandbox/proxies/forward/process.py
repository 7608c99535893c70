"""The egress process: reads the control pipe, keeps a listener per sandbox, reports.

How names are resolved and addresses dialled is given by whoever runs it, as code: no setting, no
message and nothing a sandbox can say changes that. The rule: it ends when the server does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import resource
import signal
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...policy.egress import EgressPolicy
from ...policy.egress_rules import Denial, EgressRules
from ...policy.log_text import LOG_FILTER, block
from .budgets import Budgets
from .connection import Outside
from .control import MAX_LINE_BYTES, Reports, from_line
from .dialer import Dial, dial_tcp
from .floods import FloodGate
from .kept_bytes import KeptBytes
from .listener import Listener
from .log_line import Account
from .resolver import CachingResolver, Resolve, SystemResolver
from .upstream import Upstream

_PR_SET_PDEATHSIG = 1
_MAX_DATA_BYTES = 1024**3  # ten times what full caps need: a leak ends us, not the machine
_LOG_LINES, _DENIALS = 60, 60  # of one conversation in each window
_WINDOW_SECONDS = 10.0


def run(resolve: Resolve | None = None, dial: Dial = dial_tcp) -> None:
    """Run until the control pipe ends.

    Parameters
    ----------
    resolve : Resolve, optional
        Tests give their own; None: the system's.
    dial : Dial
        Likewise.
    """
    _die_with_parent()
    _set_limits()
    reports = os.dup(1)
    os.dup2(2, 1)  # nothing but messages may come out of the pipe
    if logging.lastResort is not None:  # asyncio's, to the server's log
        logging.lastResort.addFilter(LOG_FILTER)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then closes us
    asyncio.run(_main(reports, resolve or SystemResolver(), dial))
    sys.stderr.flush()
    os._exit(0)  # a look-up that hangs in a thread must not hold us


async def _main(reports_fd: int, resolve: Resolve, dial: Dial) -> None:
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    transport, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(reports_fd, "wb"))
    first = from_line(await orders.readline())
    if first.get("do") != "rules":
        return
    rules, kept = EgressRules.from_json(first["rules"]), KeptBytes(first["kept"])
    process = EgressProcess(rules, Reports(transport), resolve, dial, kept)
    try:
        while line := await orders.readline():
            await process.obey(from_line(line))
    finally:
        await process.close()


class EgressProcess:
    """All listeners and what they share."""

    def __init__(
        self,
        rules: EgressRules,
        reports: Reports,
        resolve: Resolve,
        dial: Dial = dial_tcp,
        kept: KeptBytes | None = None,
    ) -> None:
        self._reports = reports
        self._budgets = Budgets(rules.caps, kept=kept)
        self._turns = asyncio.Semaphore(_within_descriptors(rules.caps.connections_total))
        self._outside = Outside(
            policy=EgressPolicy(rules),
            caps=rules.caps,
            resolve=CachingResolver(resolve),
            dial=dial,
            upstream=Upstream.from_url(rules.upstream),
            on_denial=self._report_denial,
        )
        self._listeners: dict[str, Listener] = {}
        self._log_gate = FloodGate(_LOG_LINES, _WINDOW_SECONDS)
        self._denial_gate = FloodGate(_DENIALS, _WINDOW_SECONDS)

    def __repr__(self) -> str:
        return f"<EgressProcess listeners={len(self._listeners)}>"

    async def obey(self, order: dict[str, Any]) -> None:
        """Do what one message says, and say that it is done."""
        error = ""
        try:
            if order.get("do") == "open":
                await self._open(order["sandbox"], order["conversation"], Path(order["path"]))
            elif order.get("do") == "close":
                await self._close(order["sandbox"])
        except OSError as exc:
            error = exc.strerror or str(exc)
        self._reports.must_say({"is": "done", "number": order.get("number"), "error": error})

    async def close(self) -> None:
        """Close all listeners."""
        for sandbox in list(self._listeners):
            await self._close(sandbox)

    async def _open(self, sandbox: str, conversation: str, path: Path) -> None:
        known = self._listeners.get(sandbox)
        if known is not None:
            if (known.conversation, known.path) == (conversation, path) and known.is_in_place:
                return
            await self._close(sandbox)
        listener = Listener(
            sandbox,
            conversation,
            path,
            self._outside,
            self._budgets,
            self._turns,
            self._log,
            _log_bug,
        )
        await listener.start()
        self._listeners[sandbox] = listener

    async def _close(self, sandbox: str) -> None:
        listener = self._listeners.pop(sandbox, None)
        if listener is not None:
            await listener.close()

    def _report_denial(self, conversation: str, denial: Denial) -> None:
        if self._denial_gate.passes(conversation):
            self._reports.may_say(
                {"is": "denial", "conversation": conversation, "denial": asdict(denial)}
            )

    def _log(self, account: Account, used: list[int], seconds: float) -> None:
        passes, held = self._log_gate.admit(account.conversation)
        if held:
            left_out = {"conversation": account.conversation, "left_out": held}
            self._reports.may_say({"is": "log", "line": left_out})
        if passes:
            line = account.to_line(used[0], used[1], round(1000 * seconds))
            self._reports.may_say({"is": "log", "line": line})


def _log_bug(error: BaseException) -> None:
    """Show a bug of ours; it has ended one connection and no more."""
    print(block("".join(traceback.format_exception(error))), file=sys.stderr)


def _die_with_parent() -> None:
    """Ask the kernel to end this process with the server, besides the end of the pipe."""
    parent = os.getppid()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _set_limits() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold what flows through us
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if most == resource.RLIM_INFINITY or most > _MAX_DATA_BYTES:
        resource.setrlimit(resource.RLIMIT_DATA, (_MAX_DATA_BYTES, most))


def _within_descriptors(connections: int) -> int:
    """Give how many connections there are descriptors for: two each, and room for listeners."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return connections
    return max(16, min(connections, (soft - 256) // 2))
