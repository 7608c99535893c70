"""What the cap on a sandbox's disk costs: its file system, measuring it, the capacity check.

``python -m benchmarks.disk`` (as root; 20 s). Needs no server: the engine, `find`, and a database
in a temporary directory. Nothing of it stays.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from jupyter_sandbox.engines.base import SandboxSpec
from jupyter_sandbox.engines.bubblewrap import BubblewrapEngine
from jupyter_sandbox.engines.disk_use import tree_use
from jupyter_sandbox.sandbox.disk_guard import Space
from jupyter_sandbox.stores import schema
from jupyter_sandbox.stores.database import Database
from jupyter_sandbox.tools.capacity import Capacity

from .arms import Arm, Sample, alternate, timed

_ROUNDS = 15
_FILES = 60_000
_CONVERSATION_FILES = 1000
_GIB = 1024**3


def main() -> None:
    """Measure and print a table."""
    with tempfile.TemporaryDirectory(prefix="jsbx-disk-") as temporary:
        directory = Path(temporary)
        _print("start with a disk of its own", *_image(directory), "a start without it")
        _print("measuring 60,000 files", *_tree(directory), "asking for the free space")
        _print("capacity check of 5 GiB", *asyncio.run(_capacity(directory)), "its known answer")


def _print(what: str, ours: Sample, floor: Sample, against: str) -> None:
    print(
        f"{what:28} {ours.median * 1e3:9.3f} ms (p90 {ours.p90 * 1e3:.3f})"
        f"   {against}: {floor.median * 1e3:.3f} ms"
    )


def _image(directory: Path) -> tuple[Sample, Sample]:
    """Give the time that the engine takes to start a sandbox, with and without an image."""
    engines = [BubblewrapEngine(state_dir=directory / name) for name in ("with", "without")]
    engines[1]._images = None
    dial = directory / "dial"
    dial.mkdir(mode=0o755)
    directory.chmod(0o755)
    with asyncio.Runner() as loop:

        def arm(engine: BubblewrapEngine) -> Arm:
            loop.run(engine.check())

            def start() -> float:
                argv = ("{python}", "-I", "-S", "-c", "import time; time.sleep(60)")
                spec = SandboxSpec(secrets.token_hex(8), "bec4", dial, argv)
                began = time.perf_counter()
                loop.run(engine.start(spec))
                seconds = time.perf_counter() - began
                loop.run(engine.remove(spec.sandbox_id))
                return seconds

            return start

        try:
            return alternate(arm(engines[0]), arm(engines[1]), _ROUNDS)
        finally:
            for engine in engines:
                loop.run(engine.close())


def _tree(directory: Path) -> tuple[Sample, Sample]:
    tree = directory / "tree"
    for d in range(_FILES // 1000):
        (tree / str(d)).mkdir(parents=True)
        for f in range(1000):
            (tree / str(d) / str(f)).touch()
    return alternate(
        timed(lambda: tree_use(tree, as_owner=False)), timed(lambda: Space.of(tree)), _ROUNDS
    )


async def _capacity(directory: Path) -> tuple[Sample, Sample]:
    """Give the check that asks the database (1,000 uploads and 1,000 shares) and one that knows."""
    database = Database(f"sqlite:///{directory / 'bench.db'}")
    await database.open()
    try:
        record, _ = await database.create_conversation("bench")
        await database.connections.run(lambda c: _fill(c, record.conversation_id))
        assert (await database.usage(record.conversation_id)).total_bytes > 4.9 * _GIB
        asked: list[float] = []
        known: list[float] = []
        for _ in range(_ROUNDS * 10):
            capacity = Capacity(database, 6 * _GIB)
            for into in (asked, known):
                began = asyncio.get_running_loop().time()
                await capacity.check(record.conversation_id)
                into.append(asyncio.get_running_loop().time() - began)
        return Sample(tuple(asked)), Sample(tuple(known))
    finally:
        await database.close()


def _fill(connection: sa.Connection, conversation_id: str) -> None:
    size = 5 * _GIB // (2 * _CONVERSATION_FILES)
    common: dict[str, Any] = {
        "conversation_id": conversation_id,
        "size_bytes": size,
        "sha256": "0" * 64,
        "media_type": "text/plain",
        "preview": "text",
        "created_at": schema.to_microseconds(datetime.now(UTC)),
    }
    for number in range(_CONVERSATION_FILES):
        own_id, name = f"{number:032x}", f"{number}.txt"
        connection.execute(schema.uploads.insert().values(upload_id=own_id, name=name, **common))
        connection.execute(
            schema.shares.insert().values(
                share_id=own_id, path=name, name=name, version=1, stored_name=own_id, **common
            )
        )


if __name__ == "__main__":
    main()
