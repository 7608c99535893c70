"""The way out of all sandboxes as they are made and used: a socket each, and what was refused.

Between the sandboxes and the egress proxy. The rule: a sandbox works without a way out; what fails
here is logged and told inside, it spoils no start. Where no host is allowed there is no proxy at
all, and a file in the sandbox's directory says so to the forwarder inside.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox_guest import protocol

from ..errors import Unavailable
from ..policy.egress import allowed_text
from ..policy.egress_rules import EgressRules
from ..proxies.egress import EgressProxy

EGRESS_TARGET = protocol.EGRESS_DIR
OFF = (
    "This sandbox has no network: the server's administrator allows no hosts. Nothing can be "
    "downloaded or installed from outside, and a retry will not help. Use what is there."
)
_OPEN_SECONDS = 3.0
_MIRRORS_SECONDS = 5.0
_MAX_SHOWN = 3
_LOOP_TURNS = 4  # pipe, stream reader, its task


@dataclass(frozen=True)
class Outside:
    """What may be reached, and the variables that lead clients to the site's own registries."""

    rules: EgressRules
    mirrors: Mapping[str, str]


@dataclass
class _Opening:
    conversation_id: str
    task: asyncio.Future[None]


class WayOut:
    """Opens and closes the sandboxes' ways out.

    Parameters
    ----------
    find_outside : callable, optional
        Gives what may be reached; awaited once, in the background, because it asks the clients of
        this host. None: no host is allowed.
    """

    def __init__(
        self, find_outside: Callable[[], Awaitable[Outside]] | None, log: logging.Logger
    ) -> None:
        self._find_outside = find_outside
        self._mirrors: Mapping[str, str] = {}
        self._log = log
        self._starting: asyncio.Task[None] | None = None
        self._proxy: EgressProxy | None = None
        self._has_proxy = asyncio.Event()
        self._openings: dict[str, _Opening] = {}
        self.on_denial: Callable[[str], None] = lambda conversation_id: None

    def __repr__(self) -> str:
        return f"<WayOut {'off' if self._find_outside is None else self._proxy or 'not started'}>"

    @property
    def allowed(self) -> str | None:
        """What may be reached, in words; "" for nothing, None while that is being found out."""
        if self._find_outside is None:
            return ""
        return None if self._proxy is None else allowed_text(self._proxy.rules)

    @property
    def rules_text(self) -> str:
        """What may be reached, as text to compare; "" while it is not known."""
        if self._find_outside is None:
            return "off"
        return "" if self._proxy is None else json.dumps(self._proxy.rules.to_json(), default=str)

    async def mirrors(self) -> Mapping[str, str]:
        """Give the variables for new sandboxes; waits a moment while they are being found out."""
        if self._starting is not None and not self._has_proxy.is_set():
            known = asyncio.ensure_future(self._has_proxy.wait())
            await asyncio.wait(
                [known, self._starting],
                timeout=_MIRRORS_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            known.cancel()
        return self._mirrors

    def start(self) -> None:
        """Start the proxy in the background: nobody waits for it. Twice is once."""
        if self._find_outside is not None and self._starting is None:
            self._starting = asyncio.ensure_future(self._start(self._find_outside))

    async def stop(self) -> None:
        """End the proxy; sandboxes go on without a way out. Twice is once."""
        tasks = [opening.task for opening in self._openings.values()]
        self._openings.clear()
        if self._starting is not None:
            tasks.append(self._starting)
            self._starting = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._has_proxy.clear()
        proxy, self._proxy = self._proxy, None
        if proxy is not None:
            await proxy.stop()

    def open(self, sandbox_id: str, conversation_id: str, directory: Path, name: str) -> None:
        """Begin to open a sandbox's way out; ``wait_opened`` waits for it.

        Parameters
        ----------
        directory : Path
            Mounted at ``EGRESS_TARGET`` inside, or will be.
        name : str
            Of this server process: several may drive one sandbox.
        """
        off = directory / protocol.EGRESS_OFF
        if self._find_outside is None:
            # Made beside and moved: to open it for writing would wait for a lease of the sandbox's.
            made = directory.with_name(f"{directory.name}-{off.name}")
            made.write_text(f"{OFF}\n", encoding="utf-8")
            made.chmod(0o644)
            made.replace(off)
            return
        off.unlink(missing_ok=True)
        earlier = self._openings.pop(sandbox_id, None)
        if earlier is not None:
            earlier.task.cancel()
        path = directory / f"{name}.sock"
        task = asyncio.ensure_future(self._open(sandbox_id, conversation_id, path))
        self._openings[sandbox_id] = _Opening(conversation_id, task)

    async def wait_opened(self, sandbox_id: str) -> None:
        """Wait until the way out is there, or for a moment; it goes on opening after that."""
        opening = self._openings.get(sandbox_id)
        if opening is not None:
            await asyncio.wait([opening.task], timeout=_OPEN_SECONDS)

    async def close(self, sandbox_id: str) -> None:
        """End a sandbox's way out with its connections, and forget what was refused to it."""
        opening = self._openings.pop(sandbox_id, None)
        if opening is None:
            return
        opening.task.cancel()
        await asyncio.wait([opening.task])
        if self._proxy is not None:
            await self._proxy.close(sandbox_id)
            self._proxy.forget(opening.conversation_id)

    async def refusals(self, sandbox_id: str, since: float, failed: bool) -> tuple[str, ...]:
        """Give what was refused to a sandbox's conversation since a time, each text once.

        Parameters
        ----------
        since : float
            On the monotonic clock.
        failed : bool
            Whether what ran meanwhile has failed: then the proxy is asked whether that was all.
        """
        opening = self._openings.get(sandbox_id)
        if opening is None or self._proxy is None:
            return ()
        if failed:
            await self._proxy.settle()
        else:  # what the proxy has said already is in its pipe: let the loop read it
            for _ in range(_LOOP_TURNS):
                await asyncio.sleep(0)
        denials = self._proxy.denials(opening.conversation_id, since)
        texts = list(dict.fromkeys(denial.text for denial in denials))
        if len(texts) > _MAX_SHOWN:
            more = len(texts) - _MAX_SHOWN
            texts = [*texts[:_MAX_SHOWN], f"[{more} more were refused in the same way]"]
        return tuple(texts)

    async def _start(self, find_outside: Callable[[], Awaitable[Outside]]) -> None:
        try:
            outside = await find_outside()
        except Exception:
            self._log.exception("sandboxes have no way out: what is allowed cannot be found")
            return
        self._log.info("sandboxes may reach: %s", allowed_text(outside.rules))
        self._mirrors = outside.mirrors
        self._proxy = EgressProxy(outside.rules, self._log)
        self._proxy.on_denial = self.on_denial
        self._has_proxy.set()
        try:
            await self._proxy.start()
        except Unavailable as exc:  # it is tried again all the same
            self._log.error("sandboxes have no way out yet: %s", exc)

    async def _open(self, sandbox_id: str, conversation_id: str, path: Path) -> None:
        await self._has_proxy.wait()
        assert self._proxy is not None
        try:
            await self._proxy.open(sandbox_id, conversation_id, path)
        except Unavailable as exc:
            self._log.warning("sandbox %s: no way out: %s %s", sandbox_id, exc, exc.detail)
