"""What an engine says of its limits is what the kernel says: read back, and never more."""

import os
from pathlib import Path

import pytest
from engine_lab import SMALL, Lab
from test_isolation import by_user

from jupyter_sandbox.engines.docker_enforcement import enforcement, is_visible
from jupyter_sandbox.engines.group_limits import read_group_limits
from jupyter_sandbox.engines.read_back import in_order, read_back
from jupyter_sandbox.models import LIMITS, Enforced, Strength

HELD = {
    "memory": f"{SMALL.memory_bytes} bytes",
    "swap": "0 bytes",
    "processors": f"{SMALL.cpus:g}",
    "processes": str(SMALL.processes),
    "file_size": f"{SMALL.file_bytes} bytes",
    "open_files": str(SMALL.open_files),
}
WITHOUT_GROUPS = {"memory": Strength.WEAKER, "processors": Strength.NOT_ENFORCED}


async def test_the_limits_that_were_asked_for_are_read_back_from_the_kernel(filtered_lab: Lab):
    isolating_lab = filtered_lab
    async with isolating_lab.running() as (spec, _):
        found = {
            each.limit: each for each in await isolating_lab.engine.enforcement(spec.sandbox_id)
        }
    grouped = not by_user(isolating_lab)
    for limit, value in HELD.items():
        strength = Strength.ENFORCED if grouped else WITHOUT_GROUPS.get(limit, Strength.ENFORCED)
        assert (found[limit].strength, found[limit].read_back) == (strength, True), found[limit]
        if strength is not Strength.NOT_ENFORCED:
            assert found[limit].value == value
    assert found["system_calls"].strength is Strength.ENFORCED
    assert found["network"] == Enforced(
        *("network", Strength.ENFORCED, "a namespace of its own, loopback only", "", True)
    )
    assert found["capabilities"].strength is Strength.ENFORCED
    assert found["kernel"].strength is Strength.WEAKER
    if isolating_lab.has_containers:
        assert found["capabilities"].value == "0x800000fb"
        assert found["user"].strength is Strength.WEAKER
    else:
        assert found["capabilities"].value == "0x0"
        assert found["user"].strength is Strength.ENFORCED


def test_a_process_that_nothing_holds_is_said_to_be_free():
    found = {each.limit: each for each in read_back(os.getpid())}
    assert found["system_calls"].strength is Strength.NOT_ENFORCED
    assert found["capabilities"].strength is Strength.WEAKER  # it could gain rights
    assert found["processors"].strength is Strength.NOT_ENFORCED
    assert found["network"].strength is Strength.NOT_ENFORCED


def test_what_nobody_knows_of_is_not_enforced():
    found = in_order([Enforced("memory", Strength.ENFORCED, "a control group", "1")])
    assert tuple(each.limit for each in found) == LIMITS
    assert [each.limit for each in found if each.strength is Strength.ENFORCED] == ["memory"]


INSPECTED = {
    "Id": "ab" * 32,
    "State": {"Pid": 1},  # of another machine: here it is somebody else's process
    "HostConfig": {"Memory": 2**30, "MemorySwap": 2**30, "NanoCpus": 15 * 10**8, "PidsLimit": 100,
                   "Ulimits": [{"Name": "nofile", "Hard": 5}], "NetworkMode": "none"},
}  # fmt: skip


def test_a_container_out_of_sight_is_reported_as_it_was_asked_for():
    found = {each.limit: each for each in enforcement(INSPECTED, "runc")}
    assert not any(each.read_back for each in found.values())
    assert found["memory"].value == "1073741824 bytes"
    assert found["swap"].value == "0 bytes"
    assert found["processors"].value == "1.5"
    assert found["file_size"].strength is Strength.NOT_ENFORCED  # nobody asked for one
    assert found["system_calls"].strength is Strength.NOT_ENFORCED
    assert found["user"].strength is Strength.NOT_ENFORCED


@pytest.mark.parametrize(("runtime", "shares"), [("runc", True), ("crun", True), ("runsc", False)])
def test_a_kernel_of_its_own_is_told_from_the_hosts(runtime, shares):
    inspected = {**INSPECTED, "HostConfig": {"Runtime": runtime}}
    kernel = {each.limit: each for each in enforcement(inspected, "runc")}["kernel"]
    assert (kernel.strength is Strength.WEAKER) is shares
    assert kernel.value == runtime


def test_podmans_name_for_every_runtime_tells_nothing():
    inspected = {**INSPECTED, "HostConfig": {"Runtime": "oci"}}
    kernel = {each.limit: each for each in enforcement(inspected, "crun")}["kernel"]
    assert (kernel.strength, kernel.value) == (Strength.WEAKER, "crun")


def test_a_process_of_another_name_space_is_not_taken_for_the_containers():
    assert not is_visible(os.getpid(), "ab" * 32)
    assert not is_visible(0, "")


def fake_host(root: Path, cgroup: str, mountinfo: str, files: dict[str, str]) -> Path:
    """Write what the kernel would show; paths in ``mountinfo`` are below ``root``."""
    for pid in ("7", "self"):
        (root / "proc" / pid).mkdir(parents=True)
    (root / "proc/7/cgroup").write_text(cgroup)
    (root / "proc/self/mountinfo").write_text(mountinfo.replace("ROOT", str(root)))
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root / "proc"


def test_version_2_is_read_as_one_hierarchy(tmp_path: Path):
    proc = fake_host(
        tmp_path,
        "0::/system.slice/docker-ab.scope\n",
        "30 1 0:26 / ROOT/cg rw - cgroup2 cgroup2 rw\n",
        {
            "cg/system.slice/docker-ab.scope/memory.max": "1000\n",
            "cg/system.slice/docker-ab.scope/memory.swap.max": "0\n",
            "cg/system.slice/docker-ab.scope/pids.max": "max\n",
            "cg/system.slice/docker-ab.scope/cpu.max": "150000 100000\n",
        },
    )
    found = read_group_limits(7, proc)
    assert {name: limit.value for name, limit in found.items()} == {
        "memory": 1000,
        "swap": 0,
        "processes": None,
        "processors": 1.5,
    }


def test_version_1_counts_swap_with_memory_and_is_found_below_a_mounts_root(tmp_path: Path):
    proc = fake_host(
        tmp_path,
        "4:memory:/docker/ab\n3:cpu,cpuacct:/docker/ab\n2:pids:/elsewhere\n",
        "30 1 0:26 /docker ROOT/m rw - cgroup cgroup rw,memory\n"
        "31 1 0:27 / ROOT/c rw - cgroup cgroup rw,cpu,cpuacct\n"
        "32 1 0:28 /docker ROOT/p rw - cgroup cgroup rw,pids\n",
        {
            "m/ab/memory.limit_in_bytes": "1000",
            "m/ab/memory.memsw.limit_in_bytes": "1500",
            "c/docker/ab/cpu.cfs_quota_us": "-1",
            "c/docker/ab/cpu.cfs_period_us": "100000",
        },
    )
    found = read_group_limits(7, proc)
    assert {name: limit.value for name, limit in found.items()} == {
        "memory": 1000,
        "swap": 500,
        "processors": None,
    }


def test_the_largest_number_of_version_1_means_no_limit(tmp_path: Path):
    proc = fake_host(
        tmp_path,
        "4:memory:/\n",
        "30 1 0:26 / ROOT/m rw - cgroup cgroup rw,memory\n",
        {"m/memory.limit_in_bytes": "9223372036854771712"},
    )
    assert read_group_limits(7, proc)["memory"].value is None
