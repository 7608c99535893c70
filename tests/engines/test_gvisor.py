"""What is different when sandboxes have a kernel of their own: gVisor as the OCI runtime."""

import asyncio

from engine_lab import SMALL, Lab
from test_conformance import host_pid

from jupyter_sandbox.engines.base import EngineState
from jupyter_sandbox.engines.group_limits import read_group_limits
from jupyter_sandbox.models import Strength
from tests.attacks import attack


async def test_the_kernel_inside_is_not_the_hosts(gvisor_lab: Lab):
    async with gvisor_lab.running() as (_, probe):
        said = await probe.run(
            "import subprocess\n"
            "result = subprocess.run(['dmesg'], capture_output=True, text=True).stdout"
        )
        assert "gVisor" in said


async def test_what_holds_it_is_said_as_it_is(gvisor_lab: Lab):
    async with gvisor_lab.running() as (spec, _):
        found = {e.limit: e for e in await gvisor_lab.engine.enforcement(spec.sandbox_id)}
        health = await gvisor_lab.engine.check()
    assert (found["kernel"].strength, found["kernel"].value) == (Strength.ENFORCED, "runsc")
    assert found["memory"].read_back
    assert found["memory"].value == f"{SMALL.memory_bytes} bytes"
    assert found["memory"].strength is Strength.WEAKER  # it ends the sandbox, not the process
    assert not found["system_calls"].read_back
    assert not any("root" in warning for warning in health.warnings)


@attack("T14")
async def test_inside_are_the_capabilities_and_resource_limits_that_were_asked_for(gvisor_lab: Lab):
    code = (
        "import resource\n"
        "status = dict(l.split(':\\t', 1) for l in open('/proc/self/status').read().splitlines())\n"
        "kinds = (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE)\n"
        "result = [status['CapBnd'], *(resource.getrlimit(kind)[1] for kind in kinds)]"
    )
    async with gvisor_lab.running() as (_, probe):
        capabilities, *limits = await probe.run(code)
    assert int(capabilities, 16) == 0x800000FB
    assert limits == [SMALL.open_files, SMALL.file_bytes, 0]


@attack("T15")
async def test_a_fork_bomb_ends_the_sandbox_and_stays_within_the_hosts_limit(gvisor_lab: Lab):
    bomb = (
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
    )
    async with gvisor_lab.running() as (spec, probe):
        pid = await host_pid(gvisor_lab, spec.sandbox_id)
        assert read_group_limits(pid)["processes"].value == 256 + 8 * SMALL.processes
        probe.send(bomb)
        await asyncio.wait_for(gvisor_lab.until_state(spec.sandbox_id, EngineState.EXITED), 60)
    async with gvisor_lab.running() as (_, other):  # and the next one starts
        assert await other.run("result = 1") == 1
