"""The engine of a measured server, asked directly: what it does by itself is the floor."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from jupyter_sandbox.engines.base import Engine
from jupyter_sandbox.engines.bubblewrap import BubblewrapEngine
from jupyter_sandbox.engines.docker import DockerEngine

from .client import CaseFailed
from .server import BenchServer


class EngineVerbs:
    """Verbs that block until they are done."""

    def __init__(self, engine: Engine, runner: asyncio.Runner) -> None:
        self._engine = engine
        self._runner = runner
        self.name = engine.name

    def pause(self, sandbox_id: str) -> None:
        """Freeze a sandbox."""
        self._runner.run(self._engine.pause(sandbox_id))

    def resume(self, sandbox_id: str) -> None:
        """Let it go on."""
        self._runner.run(self._engine.resume(sandbox_id))

    def handle(self, sandbox_id: str) -> str:
        """Give the engine's own id of it."""
        found = self._runner.run(self._engine.inspect(sandbox_id))
        if found is None:
            raise CaseFailed("the engine does not know the sandbox")
        return found.handle


@contextlib.contextmanager
def verbs_of(server: BenchServer) -> Iterator[EngineVerbs]:
    """Give the verbs of a server's engine."""
    engine: Engine = DockerEngine()
    if server.engine == "bubblewrap":
        engine = BubblewrapEngine(state_dir=str(server.directory / "data" / "bubblewrap"))
    with asyncio.Runner() as runner:
        try:
            yield EngineVerbs(engine, runner)
        finally:
            runner.run(engine.close())
