"""A bubblewrap engine that runs as an ordinary user, driven from tests that run as root.

The user cannot pass through directories such as /root, where Python or this repository may lie.
In a mount namespace of its own it finds those at the same paths, below otherwise empty directories.
"""

import asyncio
import dataclasses
import itertools
import json
import os
import shlex
import sys
from datetime import datetime
from pathlib import Path

from jupyter_sandbox.engines.base import (
    Engine,
    EngineHealth,
    EngineSandbox,
    EngineState,
    EngineUsage,
    SandboxSpec,
)
from jupyter_sandbox.engines.staging import is_reachable
from jupyter_sandbox.errors import Unavailable
from jupyter_sandbox.models import Enforced, Strength

UID = 12345
HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent


class OtherUserEngine(Engine):
    """Each object is a server process of its own, which ends by ``crash`` or ``close``."""

    name = "bubblewrap"

    def __init__(self, root: Path) -> None:
        self._state_dir = root / "state"
        if not self._state_dir.exists():
            self._state_dir.mkdir()
            os.chown(self._state_dir, UID, UID)
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[dict]] = {}
        self._ids = itertools.count()

    async def check(self) -> EngineHealth:
        shape = await self._call("check")
        return EngineHealth(**{**shape, "warnings": tuple(shape["warnings"])})

    async def start(self, spec: SandboxSpec) -> EngineSandbox:
        found = _to_sandbox(await self._call("start", dataclasses.asdict(spec)))
        assert found is not None
        return found

    async def inspect(self, sandbox_id: str) -> EngineSandbox | None:
        return _to_sandbox(await self._call("inspect", sandbox_id))

    async def list(self, server_id: str) -> list[EngineSandbox]:
        return [_to_sandbox(each) for each in await self._call("list", server_id)]

    async def pause(self, sandbox_id: str) -> None:
        await self._call("pause", sandbox_id)

    async def resume(self, sandbox_id: str) -> None:
        await self._call("resume", sandbox_id)

    async def remove(self, sandbox_id: str) -> None:
        await self._call("remove", sandbox_id)

    async def enforcement(self, sandbox_id: str) -> tuple[Enforced, ...]:
        shapes = await self._call("enforcement", sandbox_id)
        return tuple(Enforced(**{**s, "strength": Strength(s["strength"])}) for s in shapes)

    async def usage(self, sandbox_id: str, *, disk: bool = False) -> EngineUsage:
        return EngineUsage(**await self._call("usage", sandbox_id, {"disk": disk}))

    def disk_paths(self) -> tuple[Path, ...]:
        return (self._state_dir,)

    async def close(self) -> None:
        if self._process is not None:
            self._process.stdin.close()
            await self._ended()

    async def crash(self) -> None:
        """Kill the server process."""
        self._process.kill()
        await self._ended()

    async def _ended(self) -> None:
        async with asyncio.timeout(20):
            await self._process.wait()
            await self._reading
        self._process = None

    async def _call(self, verb: str, *arguments: object) -> dict:
        async with self._starting:
            if self._process is None:
                await self._launch()
        number = next(self._ids)
        self._answers[number] = asyncio.get_running_loop().create_future()
        request = {"id": number, "verb": verb, "arguments": arguments}
        self._process.stdin.write(json.dumps(request, default=str).encode() + b"\n")
        answer = await asyncio.wait_for(self._answers[number], 60)
        if "unavailable" in answer:
            message, detail = answer["unavailable"]
            raise Unavailable(message, detail=detail)
        return answer["result"]

    async def _launch(self) -> None:
        environment = {
            "PATH": os.defpath + ":/usr/sbin:/sbin",
            "HOME": "/nonexistent",
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "kernels/guest")]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SECRET_TOKEN": "of-the-server",
        }
        command = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--"]
        command += [sys.executable, str(HERE / "engine_server.py"), str(self._state_dir)]
        self._process = await asyncio.create_subprocess_exec(
            *("unshare", "--mount", "--propagation", "private", "sh", "-ec"),
            _open_way([REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)]) + 'exec "$@"',
            "sh",
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
            cwd="/",
            limit=2**20,
        )
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            self._answers.pop(answer["id"]).set_result(answer)
        for future in self._answers.values():
            if not future.done():
                future.set_exception(ConnectionError("the engine's process has ended"))
        self._answers.clear()


def _open_way(paths: list[Path]) -> str:
    """Give shell lines that make ``paths`` reachable for everybody, in this mount namespace."""
    hidden = [path for path in dict.fromkeys(paths) if not is_reachable(path)]
    closed = {path: _first_closed(path) for path in hidden}
    lines = ["mount -t tmpfs none /mnt"]
    for number, path in enumerate(hidden):
        lines += [f"mkdir /mnt/{number}", f"mount --bind {shlex.quote(str(path))} /mnt/{number}"]
    for directory in dict.fromkeys(closed.values()):
        lines.append(f"mount -t tmpfs -o mode=755 none {shlex.quote(str(directory))}")
    for number, path in enumerate(hidden):
        quoted = shlex.quote(str(path))
        lines += [f"mkdir -p {quoted}", f"mount --move /mnt/{number} {quoted}"]
    return "\n".join([*lines, "umount /mnt"]) + "\n" if hidden else ""


def _first_closed(path: Path) -> Path:
    return next(parent for parent in reversed(path.parents) if not parent.stat().st_mode & 0o001)


def _to_sandbox(shape: dict | None) -> EngineSandbox | None:
    if shape is None:
        return None
    return EngineSandbox(
        **{
            **shape,
            "state": EngineState(shape["state"]),
            "created_at": datetime.fromisoformat(shape["created_at"]),
        }
    )
