"""What every engine test needs: an engine, specs for it, a way to talk to what runs inside."""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

from jupyter_sandbox.engines.base import (
    DIAL_TARGET,
    GUEST_TARGET,
    Engine,
    EngineSandbox,
    EngineState,
    Mount,
    Resources,
    SandboxSpec,
)

HERE = Path(__file__).parent
SMALL = Resources(
    memory_bytes=256 * 1024**2,
    cpus=1.0,
    processes=64,
    open_files=1024,
    file_bytes=64 * 1024**2,
    shm_bytes=16 * 1024**2,
    tmp_bytes=32 * 1024**2,
)


class Probe:
    """The guest's stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def run(self, code: str, timeout_seconds: float = 20.0) -> object:
        """Give what ``code`` bound to ``result`` inside."""
        self.send(code)
        return await self.answer(timeout_seconds)

    def send(self, code: str) -> None:
        self._writer.write(json.dumps({"code": code}).encode() + b"\n")

    async def answer(self, timeout_seconds: float) -> object:
        async with asyncio.timeout(timeout_seconds):
            line = await self._reader.readline()
        if not line:
            raise ConnectionError("the guest is gone")
        answer = json.loads(line)
        if "error" in answer:
            raise AssertionError("inside: " + answer["error"])
        return answer["result"]

    def close(self) -> None:
        self._writer.close()


class Lab:
    """One engine under test.

    Parameters
    ----------
    make_engine : callable
        Gives an engine object for a root directory, as a new server process would make it.
    """

    def __init__(self, name: str, make_engine: Callable[[Path], Engine]) -> None:
        self.name = name
        self.server_id = secrets.token_hex(8)
        # Short (a socket path has 107 bytes) and open: some engines are other users.
        self.root = Path(tempfile.mkdtemp(prefix="jsbx-", dir="/tmp"))
        self.root.chmod(0o755)
        self._make_engine = make_engine
        self._engines: list[Engine] = []
        self._ids: list[str] = []
        self.bundle = self.directory("bundle")
        shutil.copy(HERE / "probe_guest.py", self.bundle / "probe_guest.py")
        (self.bundle / "probe_guest.py").chmod(0o644)
        self.engine = self.new_engine()

    @property
    def has_containers(self) -> bool:
        """Whether its sandboxes are containers of an image, not processes with the host's files."""
        return self.name in ("docker", "gvisor")

    def directory(self, name: str) -> Path:
        path = self.root / name
        path.mkdir()
        path.chmod(0o755)
        return path

    def new_engine(self) -> Engine:
        engine = self._make_engine(self.root)
        self._engines.append(engine)
        return engine

    def spec(self, **changes: object) -> SandboxSpec:
        sandbox_id = secrets.token_hex(8)
        self._ids.append(sandbox_id)
        spec = SandboxSpec(
            sandbox_id=sandbox_id,
            server_id=self.server_id,
            dial_dir=self.directory(f"d{len(self._ids)}"),
            mounts=(Mount(self.bundle, GUEST_TARGET),),
            guest_argv=(
                *("{python}", "-I", "-S", f"{GUEST_TARGET}/probe_guest.py"),
                *("--dial-dir", DIAL_TARGET),
            ),
            env={"GREETING": "hello"},
            resources=SMALL,
        )
        return replace(spec, **changes)  # type: ignore[arg-type]

    @contextlib.asynccontextmanager
    async def listen(
        self, spec: SandboxSpec
    ) -> AsyncIterator[Callable[[], "asyncio.Future[Probe]"]]:
        """Listen where the guest dials; gives a function that waits for a stream."""
        dialled: asyncio.Queue[Probe] = asyncio.Queue()
        probes: list[Probe] = []

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            probes.append(Probe(reader, writer))
            dialled.put_nowait(probes[-1])

        path = spec.dial_dir / "probe.sock"
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(accept, path)
        path.chmod(0o666)
        try:
            yield lambda: asyncio.ensure_future(asyncio.wait_for(dialled.get(), 20))
        finally:
            server.close()
            for probe in probes:
                probe.close()

    @contextlib.asynccontextmanager
    async def running(self, **changes: object) -> AsyncIterator[tuple[SandboxSpec, Probe]]:
        """Start a sandbox and give its stream; remove it in the end."""
        spec = self.spec(**changes)
        async with self.listen(spec) as dialled:
            await self.engine.start(spec)
            try:
                yield spec, await dialled()
            finally:
                await self.engine.remove(spec.sandbox_id)

    async def until_state(self, sandbox_id: str, state: EngineState) -> EngineSandbox:
        """Wait until the engine says so."""
        deadline = time.monotonic() + 20
        while True:
            found = await self.engine.inspect(sandbox_id)
            assert found is not None
            if found.state is state:
                return found
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Remove everything, then look that nothing is left."""
        try:
            for sandbox_id in self._ids:
                await self.engine.remove(sandbox_id)
            assert await self.engine.list(self.server_id) == []
            for engine in self._engines:
                await engine.close()
            left = [path for i in self._ids for path in traces(self.root, i)]
            if left:
                raise AssertionError(f"left behind: {left}")  # here assert would not say what
        finally:
            shutil.rmtree(self.root, ignore_errors=True)


def traces(root: Path, sandbox_id: str) -> list[str]:
    """Give what of a sandbox is on this host: files, control groups, user claims, processes."""
    found = [str(path) for path in root.rglob(sandbox_id)]
    for directory in ("/sys/fs/cgroup", "/run/jupyter-sandbox-stage"):
        found += [str(path) for path in Path(directory).glob(f"*/jupyter-sandbox/{sandbox_id}")]
    claims = Path("/run/jupyter-sandbox-stage/uids")
    if os.access(claims, os.R_OK):
        for path in claims.iterdir():
            with contextlib.suppress(FileNotFoundError):  # of another run, which lets go of it
                if os.readlink(path) == sandbox_id:
                    found.append(str(path))
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            if sandbox_id.encode() in environ:
                found.append(f"/proc/{pid}")
    return found
