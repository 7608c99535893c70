"""A real guest as a plain local process, for tests of what the host does with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import sandbox_guest
import sandbox_python

from jupyter_sandbox.sandbox.link import GuestLink
from jupyter_sandbox.sandbox.python_kernel import PythonKernel

PACKAGES = [str(Path(p.__file__).parent.parent) for p in (sandbox_guest, sandbox_python)]
PYTHON_PATH = os.pathsep.join(PACKAGES)


class LocalGuest:
    """A sandbox that isolates nothing: directories and a guest process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.dial = directory / "dial"
        self.private = directory / "private"
        self.work = directory / "work"
        self.spools = directory / "spools"
        for each in (self.dial, self.private, self.work):
            each.mkdir()
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sandbox_guest", "--dial-dir", str(self.dial), "--no-init"],
            env={**env, "PYTHONPATH": PYTHON_PATH, "HOME": str(directory)},
            cwd=self.work,
        )

    @contextlib.asynccontextmanager
    async def link(self, name: str = "h1") -> AsyncIterator[GuestLink]:
        """A link as a server process has it."""
        link = GuestLink(self.dial, name)
        await link.start()
        try:
            await link.wait_connected(20)
            yield link
        finally:
            await link.close()

    def kernel(self, link: GuestLink, **env: str) -> PythonKernel:
        """The Python kernel of this sandbox, as one server process sees it."""
        return PythonKernel(
            link,
            sandbox_id="0123456789ab",
            private_dir=self.private,
            log=logging.getLogger("test"),
            cwd=str(self.work),
            python_path=PYTHON_PATH,
            env={"SANDBOX_SPOOL_DIR": str(self.spools), **env},
        )

    @contextlib.asynccontextmanager
    async def python(self, **env: str) -> AsyncIterator[PythonKernel]:
        """A link and the Python kernel on it; both are closed afterwards."""
        async with self.link() as link:
            kernel = self.kernel(link, **env)
            try:
                yield kernel
            finally:
                await kernel.detach()

    def close(self) -> None:
        """End the guest with all it started."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise


async def eventually(condition, seconds: float = 10.0) -> None:
    """Wait until a condition holds; fail when it does not in time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
