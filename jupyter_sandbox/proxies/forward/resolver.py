"""Names to addresses: once for many askers, remembered for a minute, never on the loop.

Only allowed hosts are ever asked for, so the memory has as many entries as the list has hosts. The
rule: one look-up of a name at a time; its answer is what all who wait for it get.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

Resolve = Callable[[str], Awaitable[list[str]]]
"""Gives all addresses of a canonical host name; raises OSError."""

_THREADS = 8
_LOOKUP_SECONDS = 10.0
_KEPT_SECONDS = 60.0
_KEPT_FAILURE_SECONDS = 5.0


class SystemResolver:
    """What the host's own resolver says, asked on a few threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="egress-dns")

    async def __call__(self, host: str) -> list[str]:
        """Give the addresses in the order of the system's preference."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _look_up, host)
        return list(dict.fromkeys(found))


def _look_up(host: str) -> list[str]:
    # The final dot keeps search domains of the host out of it. Some resolvers of /etc/hosts only
    # know the name without.
    for name in (host + ".", host):
        try:
            answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except UnicodeError as exc:
            raise OSError(f"{host} cannot be resolved") from exc
        except socket.gaierror:
            if name == host:
                raise
        else:
            return [str(answer[4][0]) for answer in answers]
    raise OSError(f"{host} cannot be resolved")


class CachingResolver:
    """Remembers answers, and asks once at a time for each name."""

    def __init__(self, resolve: Resolve, clock: Callable[[], float] = time.monotonic) -> None:
        self._resolve = resolve
        self._clock = clock
        self._answers: dict[str, tuple[float, list[str] | OSError]] = {}
        self._asking: dict[str, asyncio.Task[list[str]]] = {}

    def __repr__(self) -> str:
        return f"<CachingResolver known={len(self._answers)} asking={len(self._asking)}>"

    async def __call__(self, host: str) -> list[str]:
        """Give the addresses of a host.

        Raises
        ------
        OSError
            It has none, or the look-up took too long.
        """
        until, known = self._answers.get(host, (0.0, []))
        if self._clock() < until:
            if isinstance(known, OSError):
                raise OSError(*known.args)
            return list(known)
        task = self._asking.get(host)
        if task is None:
            task = asyncio.ensure_future(self._ask(host))
            self._asking[host] = task
            task.add_done_callback(lambda _: self._asking.pop(host, None))
        return list(await asyncio.shield(task))  # who goes away takes the answer from nobody

    async def _ask(self, host: str) -> list[str]:
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                found = await self._resolve(host)
        except (OSError, TimeoutError) as exc:
            failure = OSError(str(exc) or "the look-up took too long")
            self._answers[host] = (self._clock() + _KEPT_FAILURE_SECONDS, failure)
            raise failure from exc
        self._answers[host] = (self._clock() + _KEPT_SECONDS, found)
        return found
