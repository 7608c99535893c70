"""The unix socket of one sandbox: accepts its connections, within its budget.

The socket is the identity: nothing that comes in over it can claim another sandbox. The rule: over
its connections or its rate a sandbox waits in its own backlog, and nobody else waits with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path

from ..guest_sockets import GuestListener, listen
from .budgets import Budgets
from .connection import Connection, Outside
from .log_line import Account

_BACKLOG = 128
_RETRY_SECONDS = 0.1

OnEnd = Callable[[Account, list[int], float], None]
"""Takes a connection's account, its bytes up and down, and its seconds."""


class Listener:
    """Listens until it is closed.

    Parameters
    ----------
    turns : asyncio.Semaphore
        Of the connections of all sandboxes together.
    """

    def __init__(
        self,
        sandbox: str,
        conversation: str,
        path: Path,
        outside: Outside,
        budgets: Budgets,
        turns: asyncio.Semaphore,
        on_end: OnEnd,
        on_bug: Callable[[BaseException], None],
    ) -> None:
        self.sandbox = sandbox
        self.conversation = conversation
        self.path = path
        self._outside = outside
        self._budgets = budgets
        self._budget = budgets.of(conversation)
        self._turns = turns
        self._on_end = on_end
        self._on_bug = on_bug
        self._own = asyncio.Semaphore(outside.caps.connections)
        self._connections: set[asyncio.Task[None]] = set()
        self._listener: GuestListener | None = None
        self._accepting: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Listener {self.sandbox} connections={len(self._connections)}>"

    @property
    def is_in_place(self) -> bool:
        """Whether the socket of this listener still lies at its path."""
        return self._listener is not None and self._listener.is_in_place

    async def start(self) -> None:
        """Bind and accept; OSError if the path cannot be used."""
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(self.path).st_mode):
                raise OSError(errno.EEXIST, "something else lies at the socket's path")
        self._listener = await listen(self.path, _BACKLOG)
        self._accepting = asyncio.ensure_future(self._accept(self._listener))

    async def close(self) -> None:
        """Stop listening, end all connections, remove the socket. Twice is once."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        tasks = set(self._connections)
        if self._accepting is not None:
            tasks.add(self._accepting)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=5)
        await listener.close()

    async def _accept(self, listener: GuestListener) -> None:
        while True:
            await self._own.acquire()
            client = None
            try:
                client = await listener.accept()
                await asyncio.sleep(self._budget.wait_seconds())
                await self._turns.acquire()
            except BaseException as exc:
                self._own.release()
                if client is not None:
                    client.close()
                if not isinstance(exc, OSError):
                    raise
                await asyncio.sleep(_RETRY_SECONDS)  # out of descriptors, say
                continue
            task = asyncio.ensure_future(self._serve(client))
            self._connections.add(task)
            task.add_done_callback(functools.partial(self._ended, client))

    def _ended(self, client: socket.socket, task: asyncio.Task[None]) -> None:
        """Give back what a connection had, also of one that was cancelled before it began."""
        self._connections.discard(task)
        client.close()
        self._own.release()
        self._turns.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_bug(error)

    async def _serve(self, client: socket.socket) -> None:
        started = time.monotonic()
        account = Account(self.sandbox, self.conversation)
        meter = self._budgets.meter(self.conversation)
        self._budget.connections += 1
        try:
            await Connection(client, self._outside, meter, account).serve()
        finally:
            self._budget.connections -= 1
            if account.verdict == "deny":
                self._budget.count_refusal()
            if account.verdict:
                self._on_end(account, meter.used, time.monotonic() - started)
