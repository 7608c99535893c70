"""All sandboxes of this installation: make, attach to, remove, list.

Between the engine (environments) and ``Sandbox`` (what runs in one). It owns the host directories
of each sandbox::

    {runtime_dir}/{sandbox_id[:12]}/dial/       mounted read-only inside; our sockets
    {runtime_dir}/{sandbox_id[:12]}/egress/     mounted read-only inside; sockets of egress proxies
    {runtime_dir}/{sandbox_id[:12]}/private/    never mounted; the kernel relay's sockets

and the one that is mounted read-only at the uploads path (``plaintext``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import weakref
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from ..engines.base import (
    DIAL_TARGET,
    GUEST_TARGET,
    Engine,
    EngineSandbox,
    EngineState,
    Mount,
    Resources,
    SandboxSpec,
)
from ..errors import DiskFull, Unavailable
from ..fair_turns import FairTurns
from ..models import Enforced
from .bundle import prepare_bundle
from .client_settings import SITE_TARGET
from .homes import Homes
from .limit_hits import LimitHits
from .link import GuestLink
from .plaintext import PlaintextDirs
from .recipe import digest_of
from .sandbox import Sandbox
from .silence import Silence
from .way_out import EGRESS_TARGET, WayOut

_ENGINE_SECONDS = 60.0
_ABANDON_SECONDS = 5.0
_END_LOOKS, _END_LOOK_SECONDS = 20, 0.1  # a service learns of a container's end a moment later
_TERMINATED = 128 + 15
_NOBODYS_ID = "0" * 24  # in a recipe, where each sandbox has its own
_SWEEP_SECONDS = 300.0

T = TypeVar("T")


GUEST_ARGV = ("{python}", "-S", "-s", "-m", "sandbox_guest")

_STARTS_FOR_OTHERS = 2  # of those at once, whoever has asked for more
_WAITING_STARTS = 256


@dataclass(frozen=True)
class SandboxSettings:
    """What all new sandboxes have in common; paths inside are absolute."""

    server_id: str
    runtime_dir: Path
    plaintext: PlaintextDirs
    site_files: Path
    start_timeout_seconds: float = 60.0
    starts_at_once: int = 8
    starts_python: bool = True  # with each sandbox; else by its first use
    uploads_path: str = "/mnt/user-data/uploads"
    workspace_path: str = "/workspace"
    outputs_path: str = "/mnt/user-data/outputs"
    resources: Resources = field(default_factory=Resources)
    env: dict[str, str] = field(default_factory=dict)


class SilentGuest(Unavailable):
    """An environment runs, but its guest does not dial."""


class Sandboxes:
    """Makes and finds sandboxes.

    Parameters
    ----------
    engine : Engine
        Chosen at start; one for all.
    way_out : WayOut
        Likewise.
    """

    def __init__(
        self,
        engine: Engine,
        settings: SandboxSettings,
        way_out: WayOut,
        log: logging.Logger | None = None,
    ) -> None:
        self.engine = engine
        self.settings = settings
        self.way_out = way_out
        self._log = log or logging.getLogger(__name__)
        self.homes = Homes(settings.runtime_dir, settings.server_id)
        self._socket_name = f"h{secrets.token_hex(4)}"
        self._starts = FairTurns(
            "Sandboxes that are started",
            settings.starts_at_once,
            of_owner=max(1, settings.starts_at_once - _STARTS_FOR_OTHERS),
            waiting=_WAITING_STARTS,
        )
        self._bundle: Path | None = None
        self._ended: dict[str, str] = {}
        self.attached: weakref.WeakValueDictionary[str, Sandbox] = weakref.WeakValueDictionary()
        self.paused_because = ""  # a sentence while the disk guard lets no sandbox run
        self.wanted = 0  # sandboxes that conversations wait for just now

    def require_running(self) -> None:
        """Raise ``DiskFull`` while sandboxes are paused for the host's sake."""
        if self.paused_because:
            raise DiskFull(self.paused_because)

    async def create(self, sandbox_id: str, conversation_id: str) -> Sandbox:
        """Make a new environment and wait for its guest; on failure nothing is left.

        Raises
        ------
        Unavailable
            The engine refused, or the guest did not dial in time.
        LimitExceeded
            Too many of the owner's wait for their start.
        """
        self.wanted += 1
        try:
            async with self._starts.turn():
                return await self._create(sandbox_id, conversation_id)
        finally:
            self.wanted -= 1

    async def create_spare(self, sandbox_id: str) -> Sandbox:
        """Make one that is nobody's yet, as ``create`` does; it has no way out.

        It takes no turn from those that somebody waits for; the caller bounds how many are made.
        """
        return await self._create(sandbox_id, "")

    async def assign(self, sandbox: Sandbox, conversation_id: str) -> None:
        """Open the way out of a spare one: from now on what it does is this conversation's."""
        egress = self.homes.of(sandbox.sandbox_id) / "egress"
        self.way_out.open(sandbox.sandbox_id, conversation_id, egress, self._socket_name)
        await self.way_out.wait_opened(sandbox.sandbox_id)

    async def recipe(self) -> str:
        """Give a digest of all that new sandboxes are made of, and of what they may reach."""
        spec = await self._spec(_NOBODYS_ID)
        return digest_of(spec, await _bounded(self.engine.recipe()), self.way_out.rules_text)

    async def attach(
        self, sandbox_id: str, conversation_id: str, timeout_seconds: float = 10.0
    ) -> Sandbox | None:
        """Give a sandbox that another or an earlier process made; None when it is not there.

        A spare one, which has no way out, when ``conversation_id`` is empty.

        Raises
        ------
        SilentGuest
            It is there, and does not answer in time.
        Unavailable
            Its engine does not answer.
        """
        found = await _bounded(self.engine.inspect(sandbox_id))
        if found is None or found.state is EngineState.EXITED:
            return None
        if why := self.homes.why_quarantined(sandbox_id):
            await self.end(sandbox_id, why)
            return None
        self.require_running()
        if found.state is EngineState.PAUSED:
            await _bounded(self.engine.resume(sandbox_id))
        sandbox = await self._open(sandbox_id, conversation_id)
        try:
            await sandbox.link.wait_connected(timeout_seconds)
            await self.way_out.wait_opened(sandbox_id)
        except BaseException as exc:
            await asyncio.shield(sandbox.detach())
            if isinstance(exc, Unavailable):
                raise SilentGuest(exc.message, status=504, detail=exc.detail) from exc
            raise
        self.attached[sandbox_id] = sandbox
        return sandbox

    async def pause(self, sandbox_id: str) -> None:
        """Let an environment stand still; ``attach`` and ``go_on`` let it go on."""
        await _bounded(self.engine.pause(sandbox_id))

    async def resume(self, sandbox_id: str) -> None:
        """Let an environment go on that stands still."""
        await _bounded(self.engine.resume(sandbox_id))

    async def state(self, sandbox_id: str) -> str:
        """Give ``running`` or ``paused``, as the engine has it; "" when it is gone or has ended."""
        found = await _bounded(self.engine.inspect(sandbox_id))
        return "" if found is None or found.state is EngineState.EXITED else str(found.state)

    async def go_on(self, sandbox: Sandbox) -> None:
        """Let the environment of a sandbox that stayed attached go on."""
        self.require_running()
        await _bounded(self.engine.resume(sandbox.sandbox_id))
        self.attached[sandbox.sandbox_id] = sandbox

    def rested(self, sandbox: Sandbox) -> None:
        """Note that a sandbox stands still: nobody need watch it."""
        self.attached.pop(sandbox.sandbox_id, None)

    async def end(self, sandbox_id: str, why: str) -> None:
        """End an environment that broke a rule; the next use learns why and gets a new one."""
        self._ended[sandbox_id] = why
        await _bounded(self.engine.remove(sandbox_id))

    async def end_quarantined(self) -> None:
        """End the attached ones that are quarantined."""
        for sandbox_id in list(self.attached):
            why = self.homes.why_quarantined(sandbox_id)
            if why and sandbox_id not in self._ended:
                await self.end(sandbox_id, why)

    async def remove(self, sandbox_id: str) -> None:
        """End an environment and remove all it left. A missing one is fine."""
        await self.way_out.close(sandbox_id)
        self._ended.pop(sandbox_id, None)
        await _bounded(self.engine.remove(sandbox_id))
        await asyncio.to_thread(self.remove_directories, sandbox_id)

    async def memory_bytes(self, sandbox_id: str) -> int:
        """Give what a sandbox takes of the host's memory, with its uploads; 1: nobody knows."""
        found = None
        with contextlib.suppress(Unavailable):
            found = (await _bounded(self.engine.usage(sandbox_id))).memory_bytes
        plain = await asyncio.to_thread(self.settings.plaintext.size_bytes, sandbox_id)
        return max(1, (found or 0) + plain)

    async def why_gone(self, sandbox_id: str) -> str:
        """Give a sentence on what became of an environment, for the model."""
        if why := self._ended.get(sandbox_id) or self.homes.why_quarantined(sandbox_id):
            return why
        try:
            found = await _bounded(self.engine.inspect(sandbox_id))
        except Unavailable:
            return "its engine does not answer"
        if found is None:
            return "it had been removed"
        if found.out_of_memory:
            return "it ran out of memory"
        if found.ends_at_limits and found.exit_code not in (None, 0, _TERMINATED):
            return "it had most likely reached its limit of memory or of processes"
        return "it had stopped"

    async def why_it_ends(self, sandbox_id: str) -> str:
        """Give what ``why_gone`` gives, of one whose guest has just closed all connections.

        "" where it has not ended within a moment.
        """
        for _ in range(_END_LOOKS):
            if sandbox_id in self._ended:
                return self._ended[sandbox_id]
            found = await _bounded(self.engine.inspect(sandbox_id))
            if found is None or found.state is EngineState.EXITED:
                return await self.why_gone(sandbox_id)
            await asyncio.sleep(_END_LOOK_SECONDS)
        return ""

    async def list(self) -> list[EngineSandbox]:
        """Give all environments of this installation."""
        return await _bounded(self.engine.list(self.settings.server_id))

    async def running(self) -> set[str]:
        """Give the ids of those that run."""
        return {each.sandbox_id for each in await self.list() if each.state is EngineState.RUNNING}

    async def sweep_engine(self) -> Sequence[str]:
        """Remove what crashes have left between two steps of the engine; give a word for each."""
        return await _bounded(self.engine.sweep(self.settings.server_id), _SWEEP_SECONDS)

    def directories(self) -> set[str]:
        """Give the first 12 characters of the ids of all that have a directory here. Blocks."""
        return {*self.homes.ours(), *self.settings.plaintext.sandboxes()}

    def remove_directories(self, sandbox_id: str) -> None:
        """Remove the directories of a sandbox that is gone. Blocks."""
        self.settings.plaintext.remove(sandbox_id)
        self.homes.remove(sandbox_id)

    async def enforcement(self, sandbox_id: str = "") -> tuple[Enforced, ...]:
        """Give what holds a running sandbox; of any that runs when none is named, () for none."""
        if not sandbox_id:
            running = [each for each in await self.list() if each.state is EngineState.RUNNING]
            if not running:
                return ()
            sandbox_id = running[0].sandbox_id
        return await _bounded(self.engine.enforcement(sandbox_id))

    async def _create(self, sandbox_id: str, conversation_id: str) -> Sandbox:
        self.require_running()
        sandbox: Sandbox | None = None
        try:
            sandbox = await self._open(sandbox_id, conversation_id)
            spec = await self._spec(sandbox_id)
            seconds = self.settings.start_timeout_seconds
            await _bounded(self.engine.start(spec), seconds)
            await sandbox.link.wait_connected(seconds)
            await self.way_out.wait_opened(sandbox_id)
            sandbox.is_new = True
            assert sandbox.limits is not None
            sandbox.limits.is_new = True
            self.attached[sandbox_id] = sandbox
        except BaseException as exc:
            if sandbox is not None:
                await asyncio.shield(sandbox.detach())
            await asyncio.shield(self._abandon(sandbox_id))
            if isinstance(exc, OSError):
                raise Unavailable(
                    "the sandbox's directories could not be made", detail=repr(exc)
                ) from exc
            raise
        self._log.info("sandbox %s: started on %s", sandbox_id, self.engine.name)
        return sandbox

    async def _open(self, sandbox_id: str, conversation_id: str) -> Sandbox:
        home = self.homes.make(sandbox_id)
        dial, egress, private = home / "dial", home / "egress", home / "private"
        for directory, mode in {dial: 0o755, egress: 0o755, private: 0o700}.items():
            directory.mkdir(exist_ok=True)
            os.chmod(directory, mode)
        await asyncio.to_thread(self.settings.plaintext.make, sandbox_id)
        # Of server processes that are gone: the guest stops dialling them.
        await asyncio.to_thread(self.homes.remove_dead_sockets, sandbox_id)
        if conversation_id:
            self.way_out.open(sandbox_id, conversation_id, egress, self._socket_name)
        link = GuestLink(dial, self._socket_name, self._log)
        await link.start()
        settings = self.settings
        sandbox = Sandbox(
            sandbox_id, link, private, self.way_out, self._log, settings.workspace_path
        )
        sandbox.why_it_ends = partial(self.why_it_ends, sandbox_id)
        sandbox.silence = Silence(
            self.engine, sandbox_id, link, lambda: not self.paused_because, self._log
        )
        sandbox.limits = LimitHits(
            self.engine,
            sandbox_id,
            sandbox.files,
            settings.resources,
            (settings.workspace_path, settings.outputs_path),
        )
        return sandbox

    async def _spec(self, sandbox_id: str) -> SandboxSpec:
        settings = self.settings
        home = self.homes.of(sandbox_id)
        if self._bundle is None or not self._bundle.is_dir():
            self._bundle = await asyncio.to_thread(prepare_bundle, settings.runtime_dir)
        return SandboxSpec(
            sandbox_id=sandbox_id,
            server_id=settings.server_id,
            dial_dir=home / "dial",
            mounts=(
                Mount(self._bundle, GUEST_TARGET),
                Mount(home / "egress", EGRESS_TARGET),
                Mount(settings.site_files, SITE_TARGET),
                Mount(settings.plaintext.uploads(sandbox_id), settings.uploads_path),
            ),
            writable_dirs=(settings.workspace_path, settings.outputs_path),
            workdir=settings.workspace_path,
            guest_argv=(*GUEST_ARGV, "--dial-dir", DIAL_TARGET, "--egress-dir", EGRESS_TARGET),
            env={"PYTHONPATH": GUEST_TARGET, **settings.env, **await self.way_out.mirrors()},
            resources=settings.resources,
            etc_dir=self._bundle / "etc",
        )

    async def _abandon(self, sandbox_id: str) -> None:
        await self.way_out.close(sandbox_id)
        with contextlib.suppress(Unavailable):
            # What a hanging engine leaves is removed when the conversation provisions again, or is
            # reaped before.
            await _bounded(self.engine.remove(sandbox_id), _ABANDON_SECONDS)
        await asyncio.to_thread(self.remove_directories, sandbox_id)


async def _bounded(work: Awaitable[T], seconds: float = _ENGINE_SECONDS) -> T:
    """Give what an engine's verb gives, or raise ``Unavailable`` when it takes too long."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise Unavailable("the sandbox engine does not answer", status=504) from None
