"""The named failing engines fail in the way their names say."""

import asyncio
import secrets
from pathlib import Path

import pytest

from jupyter_sandbox.engines.base import EngineState, SandboxSpec
from jupyter_sandbox.errors import Unavailable
from jupyter_sandbox.testing import (
    EngineThatFailsToStart,
    EngineThatHangs,
    EngineThatIsDown,
    EngineThatStartsNoGuest,
    EngineWhoseSandboxDies,
    FakeEngine,
)


@pytest.fixture
def spec(short_dir: Path) -> SandboxSpec:
    return SandboxSpec(
        sandbox_id=secrets.token_hex(8),
        server_id="fe",
        dial_dir=short_dir,
        guest_argv=("{python}", "-I", "-S", "-c", "import time; time.sleep(1000)"),
    )


async def test_one_that_is_down_refuses_every_verb(spec: SandboxSpec):
    engine = EngineThatIsDown()
    assert not (await engine.check()).available
    for verb in (engine.start(spec), engine.inspect(""), engine.list(""), engine.remove("")):
        with pytest.raises(Unavailable, match="does not answer"):
            await verb
    await engine.close()


async def test_one_that_fails_to_start_can_recover(spec: SandboxSpec):
    engine = EngineThatFailsToStart(failures=1)
    with pytest.raises(Unavailable, match="could not start"):
        await engine.start(spec)
    assert await engine.list("fe") == []
    assert (await engine.start(spec)).state is EngineState.RUNNING
    await engine.remove(spec.sandbox_id)
    await engine.close()
    assert not engine.root.exists()


async def test_one_that_fails_always_leaves_nothing(spec: SandboxSpec):
    engine = EngineThatFailsToStart()
    for _ in range(3):
        with pytest.raises(Unavailable):
            await engine.start(spec)
    await engine.close()
    assert not engine.root.exists()


async def test_one_without_guest_runs_but_nobody_dials(spec: SandboxSpec):
    engine = EngineThatStartsNoGuest()
    dialled = asyncio.Event()
    server = await asyncio.start_unix_server(lambda r, w: dialled.set(), spec.dial_dir / "h.sock")
    assert (await engine.start(spec)).state is EngineState.RUNNING
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(dialled.wait(), 0.3)
    await engine.remove(spec.sandbox_id)
    await engine.close()
    server.close()


async def test_one_that_hangs_can_be_cancelled_and_released(spec: SandboxSpec):
    engine = EngineThatHangs()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(engine.start(spec), 0.05)
    assert engine.waiting == 0
    hanging = asyncio.ensure_future(engine.remove(""))
    await asyncio.sleep(0)
    assert engine.waiting == 1
    engine.release()
    with pytest.raises(Unavailable):
        await hanging


@pytest.mark.parametrize("out_of_memory", [False, True])
async def test_one_whose_sandbox_dies_says_so_afterwards(spec: SandboxSpec, out_of_memory: bool):
    engine = EngineWhoseSandboxDies(out_of_memory=out_of_memory)
    assert (await engine.start(spec)).state is EngineState.RUNNING
    found = await engine.inspect(spec.sandbox_id)
    assert (found.state, found.exit_code) == (EngineState.EXITED, 137)
    assert found.out_of_memory is out_of_memory
    await engine.remove(spec.sandbox_id)
    await engine.close()
    assert not engine.root.exists()


async def test_the_fake_engine_runs_the_real_guest(spec: SandboxSpec, short_dir: Path):
    from dataclasses import replace

    from jupyter_sandbox.engines.base import DIAL_TARGET, GUEST_TARGET, Mount

    bundle = Path(__file__).parent.parent.parent / "kernels" / "guest"
    spec = replace(
        spec,
        mounts=(Mount(bundle, GUEST_TARGET),),
        guest_argv=("{python}", "-S", "-m", "sandbox_guest", "--dial-dir", DIAL_TARGET),
        env={"PYTHONPATH": GUEST_TARGET, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    hello: asyncio.Queue[bytes] = asyncio.Queue()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hello.put(await reader.read(4096))
        writer.close()

    server = await asyncio.start_unix_server(accept, short_dir / "h.sock")
    engine = FakeEngine()
    await engine.start(spec)
    assert b"jupyter-sandbox-guest" in await asyncio.wait_for(hello.get(), 20)
    await engine.remove(spec.sandbox_id)
    await engine.close()
    server.close()
    assert not engine.root.exists()
