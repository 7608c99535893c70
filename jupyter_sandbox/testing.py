"""Engines for tests: a fake one without isolation, and failing ones with names.

They pass the same conformance suite as the real engines, where it applies. ``FakeEngine`` runs the
guest as an ordinary process of this host, with this user's rights: for fast tests of trusted code,
never for sandboxes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from .engines import children, process_table
from .engines.base import (
    DIAL_TARGET,
    Engine,
    EngineHealth,
    EngineSandbox,
    EngineState,
    SandboxSpec,
)
from .engines.blocking import BlockingCalls
from .engines.read_back import in_order
from .engines.records import Records, SandboxRecord
from .errors import Unavailable
from .models import Enforced

_MARKER = "JUPYTER_FAKE_SANDBOX"
_EXIT_SECONDS = 5.0
_Sandboxes = list[EngineSandbox]  # inside the class, "list" is the verb


class FakeEngine(Engine):
    """Runs the guest as a plain process in a directory of its own.

    The absolute paths of a spec do not exist here: mounts, writable directories and the dial
    directory are replaced by where they really are, in the command and the environment. A command
    inside that names ``/workspace`` itself finds nothing.

    Parameters
    ----------
    root : Path, optional
        Where sandboxes and their records lie; an engine with the same root finds them again. By
        default a new temporary directory, removed with the last sandbox.
    """

    name = "fake"

    def __init__(self, root: Path | None = None) -> None:
        self._temporary = root is None
        self.root = root or Path(tempfile.mkdtemp(prefix="jsbx-fake-"))
        self._records = Records(self.root / "records")
        self._calls = BlockingCalls("jsbx-fake", 4)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.root}>"

    async def check(self) -> EngineHealth:
        """Say what it is; it always works."""
        return EngineHealth(True, "no isolation: for tests only", "0")

    async def start(self, spec: SandboxSpec) -> EngineSandbox:
        """See ``Engine.start``."""
        return await self._calls.run_or_undo(
            lambda: self._start(spec), lambda: self._remove(spec.sandbox_id)
        )

    async def inspect(self, sandbox_id: str) -> EngineSandbox | None:
        """See ``Engine.inspect``."""
        return await self._calls.run(self._inspect, sandbox_id)

    async def list(self, server_id: str) -> _Sandboxes:
        """See ``Engine.list``."""
        found = [await self.inspect(sandbox_id) for sandbox_id in self._records.ids()]
        return [each for each in found if each is not None and each.server_id == server_id]

    async def pause(self, sandbox_id: str) -> None:
        """See ``Engine.pause``."""
        await self._calls.run(self._pause, sandbox_id)

    async def resume(self, sandbox_id: str) -> None:
        """See ``Engine.resume``."""
        await self._calls.run(self._resume, sandbox_id)

    async def remove(self, sandbox_id: str) -> None:
        """See ``Engine.remove``."""
        await self._calls.run(self._remove, sandbox_id)

    async def enforcement(self, sandbox_id: str) -> tuple[Enforced, ...]:
        """Say that nothing holds it."""
        self._require_running(sandbox_id)
        return in_order(())

    async def close(self) -> None:
        """See ``Engine.close``."""
        await self._calls.close()
        if self._temporary and not self._records.ids():
            await asyncio.to_thread(shutil.rmtree, self.root, True)

    async def kill(self, sandbox_id: str) -> None:
        """Kill the guest as the kernel would for memory; what it started lives on."""
        record = self._records.read(sandbox_id)
        assert record is not None
        assert record.init is not None
        process_table.signal_kill(record.init)
        await self._calls.run(process_table.wait, record.init, _EXIT_SECONDS)

    def command(self, spec: SandboxSpec) -> Sequence[str]:
        """Give the command of the guest on this host."""
        words = [sys.executable if word == "{python}" else word for word in spec.guest_argv]
        if "sandbox_guest" in words and "--no-init" not in words:
            words += ["--no-init"]
            words += [] if "--dial-dir" in words else ["--dial-dir", DIAL_TARGET]
        return [self._localised(spec, word) for word in words]

    def _start(self, spec: SandboxSpec) -> EngineSandbox:
        with self._records.lock(spec.sandbox_id, _EXIT_SECONDS):
            there = self._inspect(spec.sandbox_id)
            if there is not None and there.state is not EngineState.EXITED:
                return there
            self._end(spec.sandbox_id)
            for target in (*spec.writable_dirs, "/tmp"):
                self._place(spec, target).mkdir(parents=True, exist_ok=True)
            environment = {k: self._localised(spec, v) for k, v in spec.env.items()}
            environment |= {
                _MARKER: spec.sandbox_id,
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": str(self._place(spec, "/tmp")),
                "TMPDIR": str(self._place(spec, "/tmp")),
            }
            try:
                process = subprocess.Popen(
                    self.command(spec),
                    cwd=self._place(spec, spec.workdir),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError as exc:
                self._end(spec.sandbox_id)
                self._records.remove(spec.sandbox_id)
                raise Unavailable("the fake sandbox could not be started", detail=str(exc)) from exc
            init = children.adopt(process)
            created_at = datetime.now(UTC)
            self._records.write(
                SandboxRecord(spec.sandbox_id, spec.server_id, created_at, init=init)
            )
        started = self._inspect(spec.sandbox_id)
        assert started is not None
        return started

    def _inspect(self, sandbox_id: str) -> EngineSandbox | None:
        record = self._records.read(sandbox_id)
        if record is None or record.init is None:
            return None
        letter = process_table.state_of(record.init)
        states = {"": EngineState.EXITED, "Z": EngineState.EXITED, "T": EngineState.PAUSED}
        state = states.get(letter, EngineState.RUNNING)
        ended = state is EngineState.EXITED
        if ended:  # a zombie can be reaped when its last thread is gone too
            process_table.wait(record.init, _EXIT_SECONDS)
        return EngineSandbox(
            sandbox_id=sandbox_id,
            server_id=record.server_id,
            state=state,
            handle=str(record.init.pid),
            created_at=record.created_at,
            exit_code=children.exit_code(record.init) if ended else None,
        )

    def _pause(self, sandbox_id: str) -> None:
        record = self._require_running(sandbox_id)
        assert record.init is not None
        if not process_table.stop_tree(record.init):
            raise Unavailable("the fake sandbox could not be paused")

    def _resume(self, sandbox_id: str) -> None:
        record = self._require_running(sandbox_id)
        assert record.init is not None
        process_table.continue_tree(record.init)

    def _require_running(self, sandbox_id: str) -> SandboxRecord:
        record = self._records.read(sandbox_id)
        if record is None or record.init is None or not process_table.is_alive(record.init):
            raise Unavailable("there is no running sandbox")
        return record

    def _remove(self, sandbox_id: str) -> None:
        if self._records.directory(sandbox_id).exists():
            with self._records.lock(sandbox_id, _EXIT_SECONDS):
                self._end(sandbox_id)
                self._records.remove(sandbox_id)

    def _end(self, sandbox_id: str) -> None:
        """Kill whatever has the marker in its environment, also what called setsid."""
        marker = f"{_MARKER}={sandbox_id}"
        while left := self._living(marker):
            for process in left:
                process_table.signal_kill(process)
            for process in left:
                process_table.wait(process, _EXIT_SECONDS)
        record = self._records.read(sandbox_id)
        if record is not None and record.init is not None:
            children.forget(record.init)
        shutil.rmtree(self.root / sandbox_id, ignore_errors=True)

    def _living(self, marker: str) -> Sequence[process_table.ProcessId]:
        found = process_table.find_by_environment(marker)
        return [process for process in found if process_table.is_alive(process)]

    def _place(self, spec: SandboxSpec, target: str) -> Path:
        return self.root / spec.sandbox_id / target.lstrip("/")

    def _localised(self, spec: SandboxSpec, text: str) -> str:
        places = {mount.target: mount.source for mount in spec.mounts}
        places[DIAL_TARGET] = spec.dial_dir
        places |= {target: self._place(spec, target) for target in spec.writable_dirs}
        for target in sorted(places, key=len, reverse=True):
            if text == target or text.startswith(f"{target}/"):
                return str(places[target]) + text[len(target) :]
        return text


class EngineThatIsDown(Engine):
    """Its service does not answer: every verb raises ``Unavailable``."""

    name = "down"

    async def check(self) -> EngineHealth:
        """Say that it is down."""
        return EngineHealth(False, "the engine does not answer")

    async def start(self, spec: SandboxSpec) -> EngineSandbox:
        """Raise."""
        raise self._down()

    async def inspect(self, sandbox_id: str) -> EngineSandbox | None:
        """Raise."""
        raise self._down()

    async def list(self, server_id: str) -> _Sandboxes:
        """Raise."""
        raise self._down()

    async def pause(self, sandbox_id: str) -> None:
        """Raise."""
        raise self._down()

    async def resume(self, sandbox_id: str) -> None:
        """Raise."""
        raise self._down()

    async def remove(self, sandbox_id: str) -> None:
        """Raise."""
        raise self._down()

    async def enforcement(self, sandbox_id: str) -> tuple[Enforced, ...]:
        """Raise."""
        raise self._down()

    def _down(self) -> Unavailable:
        return Unavailable("the engine does not answer", detail="connection refused")


class EngineThatFailsToStart(FakeEngine):
    """Works but for ``start``, which raises the first ``failures`` times (always by default)."""

    name = "fails-to-start"

    def __init__(self, root: Path | None = None, failures: int | None = None) -> None:
        super().__init__(root)
        self.failures = failures

    async def start(self, spec: SandboxSpec) -> EngineSandbox:
        """Raise, and leave nothing behind."""
        if self.failures is None or self.failures > 0:
            self.failures = None if self.failures is None else self.failures - 1
            raise Unavailable("the engine could not start the sandbox", detail="no space left")
        return await super().start(spec)


class EngineThatStartsNoGuest(FakeEngine):
    """Its environments run, but nothing in them ever dials."""

    name = "starts-no-guest"

    def command(self, spec: SandboxSpec) -> Sequence[str]:
        """Give a command that only waits."""
        return [sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"]


class EngineThatHangs(Engine):
    """No verb but ``close`` ends before ``release`` is called; then each raises ``Unavailable``.

    Attributes
    ----------
    waiting : int
        How many calls hang now.
    """

    name = "hangs"

    def __init__(self) -> None:
        self.waiting = 0
        self._released = asyncio.Event()

    def release(self) -> None:
        """Let all calls end."""
        self._released.set()

    async def check(self) -> EngineHealth:
        """Hang."""
        await self._hang()
        return EngineHealth(False, "the engine did not answer in time")

    async def start(self, spec: SandboxSpec) -> EngineSandbox:
        """Hang."""
        raise await self._hang()

    async def inspect(self, sandbox_id: str) -> EngineSandbox | None:
        """Hang."""
        raise await self._hang()

    async def list(self, server_id: str) -> _Sandboxes:
        """Hang."""
        raise await self._hang()

    async def pause(self, sandbox_id: str) -> None:
        """Hang."""
        raise await self._hang()

    async def resume(self, sandbox_id: str) -> None:
        """Hang."""
        raise await self._hang()

    async def remove(self, sandbox_id: str) -> None:
        """Hang."""
        raise await self._hang()

    async def enforcement(self, sandbox_id: str) -> tuple[Enforced, ...]:
        """Hang."""
        raise await self._hang()

    async def _hang(self) -> Unavailable:
        self.waiting += 1
        try:
            await self._released.wait()
        finally:
            self.waiting -= 1
        return Unavailable("the engine did not answer in time", status=504)


class EngineWhoseSandboxDies(FakeEngine):
    """Each of its sandboxes is dead when ``start`` returns, though that succeeds.

    Parameters
    ----------
    out_of_memory : bool
        Whether the engine says that it was for memory.
    """

    name = "sandbox-dies"

    def __init__(self, root: Path | None = None, out_of_memory: bool = False) -> None:
        super().__init__(root)
        self.out_of_memory = out_of_memory

    async def start(self, spec: SandboxSpec) -> EngineSandbox:
        """Start the guest and kill it."""
        started = await super().start(spec)
        await self.kill(spec.sandbox_id)
        return started

    async def inspect(self, sandbox_id: str) -> EngineSandbox | None:
        """See ``Engine.inspect``."""
        found = await super().inspect(sandbox_id)
        if found is None or not self.out_of_memory:
            return found
        return dataclasses.replace(found, out_of_memory=True)
