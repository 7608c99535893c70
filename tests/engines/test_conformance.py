"""What every engine does, the fake one included (engines/base.py)."""

import asyncio
import os
import secrets
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from engine_lab import Lab, traces
from other_user_engine import OtherUserEngine

from jupyter_sandbox.engines import process_table
from jupyter_sandbox.engines.base import EngineState
from jupyter_sandbox.errors import Unavailable
from jupyter_sandbox.models import LIMITS, Strength

WAIT = ("{python}", "-I", "-S", "-c", "import time; time.sleep(1000)")


async def host_pid(lab: Lab, sandbox_id: str) -> int:
    """Give PID 1 of a sandbox as the host numbers it."""
    found = await lab.engine.inspect(sandbox_id)
    if not lab.has_containers:
        return int(found.handle)
    import docker

    with docker.APIClient(version="auto", **docker.utils.kwargs_from_env()) as client:
        return client.inspect_container(found.handle)["State"]["Pid"]


async def test_says_that_it_works_here(lab: Lab):
    health = await lab.engine.check()
    assert health.available, health.reason
    assert health.version
    assert str(lab.root) not in health.reason


async def test_a_started_sandbox_runs_its_guest(lab: Lab):
    async with lab.running() as (spec, probe):
        assert await probe.run("import os; result = os.environ['GREETING']") == "hello"
        found = await lab.engine.inspect(spec.sandbox_id)
        assert found.state is EngineState.RUNNING
        assert (found.sandbox_id, found.server_id) == (spec.sandbox_id, lab.server_id)
        assert found.exit_code is None
        assert not found.out_of_memory


async def test_the_guest_begins_in_its_working_directory_and_can_write_there(lab: Lab):
    async with lab.running() as (spec, probe):
        code = "import os; open('here', 'w').write('x'); result = [os.getcwd(), os.listdir()]"
        directory, names = await probe.run(code)
        assert directory.endswith(spec.workdir)
        assert names == ["here"]


async def test_starting_twice_gives_the_same_sandbox(lab: Lab):
    async with lab.running() as (spec, _):
        first = await lab.engine.inspect(spec.sandbox_id)
        again = await lab.engine.start(spec)
        assert (again.handle, again.state) == (first.handle, EngineState.RUNNING)


async def test_starting_one_sandbox_several_times_at_once_makes_one(lab: Lab):
    spec = lab.spec(guest_argv=WAIT)
    started = await asyncio.gather(*(lab.engine.start(spec) for _ in range(4)))
    assert len({each.handle for each in started}) == 1
    assert len(await lab.engine.list(lab.server_id)) == 1


async def test_five_sandboxes_start_at_once(lab: Lab):
    specs = [lab.spec(guest_argv=WAIT) for _ in range(5)]
    await asyncio.gather(*(lab.engine.start(spec) for spec in specs))
    found = await lab.engine.list(lab.server_id)
    assert {each.sandbox_id for each in found} == {spec.sandbox_id for spec in specs}
    assert {each.state for each in found} == {EngineState.RUNNING}
    await asyncio.gather(*(lab.engine.remove(spec.sandbox_id) for spec in specs))
    assert await lab.engine.list(lab.server_id) == []


async def test_a_new_server_process_finds_running_sandboxes(lab: Lab):
    spec = lab.spec()
    async with lab.listen(spec) as dialled:
        await lab.engine.start(spec)
        before = await (await dialled()).run("import os; result = os.getpid()")
    if isinstance(lab.engine, OtherUserEngine):
        await lab.engine.crash()
    else:
        await lab.engine.close()
    lab.engine = lab.new_engine()
    found = await lab.engine.list(lab.server_id)
    assert [(each.sandbox_id, each.state) for each in found] == [
        (spec.sandbox_id, EngineState.RUNNING)
    ]
    async with lab.listen(spec) as dialled:  # and the guest is still the same
        assert await (await dialled()).run("import os; result = os.getpid()") == before
    await lab.engine.remove(spec.sandbox_id)
    assert await lab.engine.inspect(spec.sandbox_id) is None


async def test_lists_only_what_belongs_to_the_installation(lab: Lab):
    await lab.engine.start(lab.spec(guest_argv=WAIT))
    assert await lab.engine.list(secrets.token_hex(8)) == []


async def test_an_unknown_sandbox_is_none(lab: Lab):
    assert await lab.engine.inspect(secrets.token_hex(8)) is None


async def test_pausing_freezes_and_resuming_goes_on_twice_as_once(lab: Lab):
    async with lab.running() as (spec, probe):
        await lab.engine.pause(spec.sandbox_id)
        await lab.engine.pause(spec.sandbox_id)
        found = await lab.engine.inspect(spec.sandbox_id)
        assert found.state is EngineState.PAUSED
        probe.send("result = 'thawed'")
        early = asyncio.ensure_future(probe.answer(20))
        assert not (await asyncio.wait([early], timeout=0.3))[0], "it answered while paused"
        again = await lab.engine.start(spec)
        assert again.state is EngineState.PAUSED
        await lab.engine.resume(spec.sandbox_id)
        await lab.engine.resume(spec.sandbox_id)
        assert await early == "thawed"
        assert (await lab.engine.inspect(spec.sandbox_id)).state is EngineState.RUNNING


async def test_pausing_freezes_what_the_guest_has_started(lab: Lab):
    loop_forever = "import itertools; all(True for _ in itertools.count())"
    code = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {loop_forever!r}], "
        "start_new_session=True)\nresult = child.pid"
    )
    async with lab.running() as (spec, probe):
        await probe.run(code)
        root = process_table.identify(await host_pid(lab, spec.sandbox_id))
        pids = process_table.tree(root)
        assert len(pids) >= 2
        await lab.engine.pause(spec.sandbox_id)
        ticks = [_cpu_ticks(pid) for pid in pids]
        await asyncio.to_thread(_use_cpu, 0.2)
        assert [_cpu_ticks(pid) for pid in pids] == ticks


async def test_a_paused_sandbox_can_be_removed(lab: Lab):
    async with lab.running() as (spec, _):
        await lab.engine.pause(spec.sandbox_id)
        await lab.engine.remove(spec.sandbox_id)
        assert await lab.engine.inspect(spec.sandbox_id) is None


async def test_pausing_or_resuming_a_missing_sandbox_is_unavailable(lab: Lab):
    for verb in (lab.engine.pause, lab.engine.resume):
        with pytest.raises(Unavailable, match="no running sandbox"):
            await verb(secrets.token_hex(8))


async def test_pausing_an_exited_sandbox_is_unavailable(lab: Lab):
    spec = lab.spec(guest_argv=("{python}", "-I", "-S", "-c", "pass"))
    await lab.engine.start(spec)
    await lab.until_state(spec.sandbox_id, EngineState.EXITED)
    with pytest.raises(Unavailable, match="no running sandbox"):
        await lab.engine.pause(spec.sandbox_id)


async def test_it_accounts_for_every_limit_of_a_running_sandbox(lab: Lab):
    async with lab.running() as (spec, _):
        found = await lab.engine.enforcement(spec.sandbox_id)
        assert tuple(each.limit for each in found) == LIMITS
        assert all(each.mechanism for each in found)
        if lab.name == "fake":
            assert {each.strength for each in found} == {Strength.NOT_ENFORCED}
        await lab.engine.pause(spec.sandbox_id)
        assert await lab.engine.enforcement(spec.sandbox_id) == found


async def test_it_accounts_for_nothing_where_nothing_runs(lab: Lab):
    with pytest.raises(Unavailable, match="no running sandbox"):
        await lab.engine.enforcement(secrets.token_hex(8))
    spec = lab.spec(guest_argv=("{python}", "-I", "-S", "-c", "pass"))
    await lab.engine.start(spec)
    await lab.until_state(spec.sandbox_id, EngineState.EXITED)
    with pytest.raises(Unavailable, match="no running sandbox"):
        await lab.engine.enforcement(spec.sandbox_id)


async def test_removing_twice_or_a_missing_one_is_fine(lab: Lab):
    spec = lab.spec(guest_argv=WAIT)
    await lab.engine.start(spec)
    await asyncio.gather(*(lab.engine.remove(spec.sandbox_id) for _ in range(3)))
    await lab.engine.remove(spec.sandbox_id)
    await lab.engine.remove(secrets.token_hex(8))
    assert await lab.engine.inspect(spec.sandbox_id) is None


async def test_removing_ends_what_left_its_session(lab: Lab):
    code = (
        "import os, subprocess, sys\n"
        "subprocess.Popen(['sh', '-c', 'setsid sleep 1000 & exit']).wait()\n"
        "subprocess.Popen(['sleep', '1000'], start_new_session=True)"
    )
    async with lab.running() as (spec, probe):
        await probe.run(code)
        root = process_table.identify(await host_pid(lab, spec.sandbox_id))
        processes = [process_table.identify(pid) for pid in process_table.tree(root)]
        await lab.engine.remove(spec.sandbox_id)
        assert not any(process_table.is_alive(each) for each in processes)


async def test_a_sandbox_killed_from_outside_has_exited(lab: Lab):
    async with lab.running() as (spec, _):
        os.kill(await host_pid(lab, spec.sandbox_id), signal.SIGKILL)
        found = await lab.until_state(spec.sandbox_id, EngineState.EXITED)
        assert found.exit_code == 137
        assert [each.state for each in await lab.engine.list(lab.server_id)] == [EngineState.EXITED]


async def test_a_guest_that_ends_by_itself_has_exited_with_its_code(lab: Lab):
    spec = lab.spec(guest_argv=("{python}", "-I", "-S", "-c", "raise SystemExit(3)"))
    await lab.engine.start(spec)
    found = await lab.until_state(spec.sandbox_id, EngineState.EXITED)
    assert found.exit_code == 3


async def test_starting_an_exited_sandbox_makes_a_new_empty_one(lab: Lab):
    async with lab.running() as (spec, probe):
        await probe.run("open('left', 'w').close()")
        os.kill(await host_pid(lab, spec.sandbox_id), signal.SIGKILL)
        await lab.until_state(spec.sandbox_id, EngineState.EXITED)
        async with lab.listen(spec) as dialled:
            again = await lab.engine.start(spec)
            assert again.state is EngineState.RUNNING
            assert await (await dialled()).run("import os; result = os.listdir()") == []


async def test_a_command_that_is_not_there_fails_safely_and_leaves_nothing(lab: Lab):
    spec = lab.spec(guest_argv=("/no/such/command",))
    with pytest.raises(Unavailable) as caught:
        await lab.engine.start(spec)
    assert "/no/such" not in caught.value.message
    assert "/no/such" in caught.value.detail
    assert await lab.engine.inspect(spec.sandbox_id) is None
    assert traces(lab.root, spec.sandbox_id) == []


async def test_a_mount_that_is_not_there_fails_and_leaves_nothing(isolating_lab: Lab):
    lab = isolating_lab
    spec = replace(lab.spec(), dial_dir=lab.root / "missing")
    with pytest.raises(Unavailable) as caught:
        await lab.engine.start(spec)
    assert str(lab.root) not in caught.value.message
    assert not (lab.root / "missing").exists()
    assert await lab.engine.inspect(spec.sandbox_id) is None
    assert traces(lab.root, spec.sandbox_id) == []


async def test_a_cancelled_start_leaves_nothing(local_lab: Lab):
    lab = local_lab
    spec = lab.spec(guest_argv=WAIT)
    starting = asyncio.ensure_future(lab.engine.start(spec))
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await lab.engine.close()  # waits for what was begun
    lab.engine = lab.new_engine()
    assert await lab.engine.list(lab.server_id) == []


async def test_closing_leaves_no_thread_and_no_descriptor(lab: Lab):
    await lab.engine.check()  # what is imported once is imported
    await lab.engine.close()
    threads, descriptors = _own_threads(), _descriptors()
    engine = lab.engine = lab.new_engine()
    spec = lab.spec(guest_argv=WAIT)
    await engine.start(spec)
    await engine.pause(spec.sandbox_id)
    await engine.remove(spec.sandbox_id)
    await engine.close()
    await engine.close()
    assert _own_threads() == threads
    assert _descriptors() <= descriptors


def _own_threads() -> list[str]:
    return sorted(t.name for t in threading.enumerate() if t.name.startswith("jsbx"))


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _cpu_ticks(pid: int) -> list[str]:
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") :].split()[12:14]


def _use_cpu(seconds: float) -> None:
    """Let time pass in which others could run."""
    threading.Event().wait(seconds)
