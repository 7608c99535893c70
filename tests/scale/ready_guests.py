"""An engine whose sandboxes cost next to nothing: guests that are there already, used again.

A server extension that gives the server this engine. A guest looks for its hosts in a directory
that is a link; making a sandbox points the link of a free guest at the sandbox's own directory. For
counting what a server keeps over thousands of sandboxes; nothing is isolated, or new.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jupyter_sandbox.engines.base import (
    GUEST_TARGET,
    Engine,
    EngineHealth,
    EngineSandbox,
    EngineState,
    SandboxSpec,
)
from jupyter_sandbox.errors import Unavailable
from jupyter_sandbox.models import Enforced


def end_all(root: Path) -> None:
    """Kill all processes whose home lies under ``root``."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                home = b"HOME=" + os.fsencode(root)
                words = (entry / "environ").read_bytes().split(b"\0")
                if any(each == home or each.startswith(home + b"/") for each in words):
                    os.kill(int(entry.name), signal.SIGKILL)


class _Guest:
    def __init__(self, directory: Path, spec: SandboxSpec) -> None:
        directory.mkdir(parents=True)
        self.dial = directory / "dial"
        bundle = next(mount.source for mount in spec.mounts if mount.target == GUEST_TARGET)
        # A guest outlives its sandboxes, and so would their Python kernels: they end as they start.
        kernel = directory / "modules" / "sandbox_python"
        kernel.mkdir(parents=True)
        (kernel / "__init__.py").touch()
        (kernel / "__main__.py").write_text("raise SystemExit(1)\n")
        (directory / "modules" / "sandbox_guest").symlink_to(bundle / "sandbox_guest")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-S", "-s", "-m", "sandbox_guest", "--no-init"),
                *("--dial-dir", str(self.dial)),
            ],
            cwd=directory,
            env={
                "PYTHONPATH": str(directory / "modules"),
                "PATH": os.environ["PATH"],
                "HOME": str(directory),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


class ReadyGuests(Engine):
    """The engine; its ``close`` ends the guests."""

    name = "ready-guests"

    def __init__(self, root: Path) -> None:
        self._root = root
        self._free: list[_Guest] = []
        self._all: list[_Guest] = []
        self._used: dict[str, tuple[_Guest, EngineSandbox]] = {}

    async def check(self) -> EngineHealth:
        return EngineHealth(True, "no isolation: for tests only", "0")

    async def start(self, spec: SandboxSpec) -> EngineSandbox:
        if spec.sandbox_id not in self._used:
            if not self._free:
                guest = _Guest(self._root / f"guest{len(self._all)}", spec)
                self._all.append(guest)
                self._free.append(guest)
            guest = self._free.pop(0)
            guest.dial.symlink_to(spec.dial_dir)
            self._used[spec.sandbox_id] = (
                guest,
                EngineSandbox(
                    *(spec.sandbox_id, spec.server_id, EngineState.RUNNING),
                    *("ready", datetime.now(UTC)),
                ),
            )
        return self._used[spec.sandbox_id][1]

    async def inspect(self, sandbox_id: str) -> EngineSandbox | None:
        return self._used[sandbox_id][1] if sandbox_id in self._used else None

    async def list(self, server_id: str) -> list[EngineSandbox]:
        return [sandbox for _, sandbox in self._used.values()]

    async def pause(self, sandbox_id: str) -> None:
        self._move(sandbox_id, signal.SIGSTOP, EngineState.PAUSED)

    async def resume(self, sandbox_id: str) -> None:
        self._move(sandbox_id, signal.SIGCONT, EngineState.RUNNING)

    async def remove(self, sandbox_id: str) -> None:
        guest, _ = self._used.pop(sandbox_id, (None, None))
        if guest is not None:
            guest.process.send_signal(signal.SIGCONT)
            guest.dial.unlink()
            self._free.append(guest)

    async def enforcement(self, sandbox_id: str) -> tuple[Enforced, ...]:
        return ()

    async def close(self) -> None:
        await asyncio.to_thread(end_all, self._root)
        for guest in self._all:
            guest.process.wait()
        self._all.clear()

    def _move(self, sandbox_id: str, number: signal.Signals, state: EngineState) -> None:
        if sandbox_id not in self._used:
            raise Unavailable("there is no such sandbox")
        guest, sandbox = self._used[sandbox_id]
        guest.process.send_signal(number)
        self._used[sandbox_id] = (guest, replace(sandbox, state=state))


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "tests.scale.ready_guests"}]


def _load_jupyter_server_extension(app: Any) -> None:
    sandbox = app.web_app.settings["jupyter_sandbox"]
    sandbox._sandbox_engine = ReadyGuests(Path(sandbox.runtime_dir).parent / "guests")
