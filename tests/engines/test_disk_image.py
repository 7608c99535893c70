"""Where the server is root, a sandbox's disk under bubblewrap ends where the kernel says so."""

import asyncio
import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from engine_lab import SMALL, Lab

from jupyter_sandbox.engines.base import EngineState
from jupyter_sandbox.engines.disk_images import DiskImages, used_bytes
from jupyter_sandbox.models import Enforced, Strength
from tests.attacks import attack

MIB = 1024**2
DISK = replace(SMALL, disk_bytes=64 * MIB, disk_entries=2000, file_bytes=1024 * MIB)

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts; others are watched"),
]

FILL = """
import errno
import json, os
def fill(path, most=1 << 30):
    size, why = 0, 0
    with open(path, 'wb', 0) as file:
        try:
            while size < most:
                size += file.write(bytes(1 << 20))
            os.fsync(file.fileno())
        except OSError as exc:
            why = exc.errno
    return size, why
"""


def image_of(lab: Lab, sandbox_id: str) -> Path:
    return lab.root / "state" / "data" / sandbox_id / "disk.img"


@pytest.mark.parametrize("place", ["/workspace", "/mnt/user-data/outputs", "~", "/var/tmp"])
@attack("T16")
async def test_writing_ends_at_the_limit_wherever_it_is(bubblewrap_lab: Lab, place: str):
    async with bubblewrap_lab.running(resources=DISK) as (_, probe):
        code = FILL + (
            f"path = os.path.expanduser({place + '/x'!r})\n"
            "result = [fill(path)]\n"
            "os.unlink(path)\n"
            "result.append(fill(path))\n"
        )
        (size, why), (again, why_again) = await probe.run(code)
        assert why == why_again == errno.ENOSPC
        assert 0.9 * DISK.disk_bytes < size <= DISK.disk_bytes * 1.02
        assert again >= 0.95 * size


async def test_a_deleted_file_gives_the_host_its_room_back(bubblewrap_lab: Lab):
    async with bubblewrap_lab.running(resources=DISK) as (spec, probe):
        image = image_of(bubblewrap_lab, spec.sandbox_id)
        empty = used_bytes(image)
        await probe.run(FILL + "fill('/workspace/x', 40 << 20); os.sync()")
        assert used_bytes(image) > empty + 35 * MIB
        await probe.run("import os; os.unlink('/workspace/x'); os.sync()")
        deadline = time.monotonic() + 20
        while used_bytes(image) > empty + 8 * MIB:
            assert time.monotonic() < deadline, used_bytes(image)
            await asyncio.sleep(0.05)


@attack("T16")
async def test_fallocate_many_files_and_deleted_open_ones_are_counted(bubblewrap_lab: Lab):
    code = """
import errno
import json, os
def reason(call):
    try:
        call()
    except OSError as exc:
        return errno.errorcode[exc.errno]
result = {}
fd = os.open('/workspace/a', os.O_RDWR | os.O_CREAT)
result['fallocate'] = reason(lambda: os.posix_fallocate(fd, 0, 200 << 20))
os.ftruncate(fd, 0)
os.posix_fallocate(fd, 0, 50 << 20)
os.unlink('/workspace/a')
other = os.open('/workspace/b', os.O_RDWR | os.O_CREAT)
result['deleted but open'] = reason(lambda: os.posix_fallocate(other, 0, 30 << 20))
os.close(fd)
result['closed'] = reason(lambda: os.posix_fallocate(other, 0, 30 << 20))
os.ftruncate(other, 0)
os.truncate('/workspace/b', 900 << 20)
result['sparse'] = os.stat('/workspace/b').st_blocks
def many():
    for number in range(100000):
        open('/workspace/f%d' % number, 'w').close()
result['entries'] = reason(many)
result['how many'] = len(os.listdir('/workspace'))
"""
    async with bubblewrap_lab.running(resources=DISK) as (_, probe):
        result = await probe.run(code)
        assert result["fallocate"] == "ENOSPC"
        assert result["deleted but open"] == "ENOSPC"
        assert result["closed"] is None
        assert result["sparse"] < 100
        assert result["entries"] == "ENOSPC"
        assert 0.8 * DISK.disk_entries < result["how many"] < 1.1 * DISK.disk_entries + 100


async def test_a_full_neighbour_is_not_noticed(bubblewrap_lab: Lab):
    async with (
        bubblewrap_lab.running(resources=DISK) as (_, full),
        bubblewrap_lab.running(resources=DISK) as (_, other),
    ):
        await full.run(FILL + "fill('/workspace/x')")
        size, why = await other.run(FILL + "result = fill('/workspace/x', 32 << 20)")
        assert (size, why) == (32 * MIB, 0)


async def test_no_mount_is_seen_on_the_host_and_no_loop_device_outlives_a_sandbox(
    bubblewrap_lab: Lab,
):
    async with bubblewrap_lab.running(resources=DISK) as (spec, probe):
        assert any(spec.sandbox_id in line for line in loops())
        assert spec.sandbox_id not in Path("/proc/self/mountinfo").read_text()
        assert str(bubblewrap_lab.root) not in Path("/proc/self/mountinfo").read_text()
        # It ends by itself, as after a crash; nobody removes it.
        with pytest.raises(ConnectionError):
            await probe.run("import os; os._exit(1)")
        await bubblewrap_lab.until_state(spec.sandbox_id, EngineState.EXITED)
        deadline = time.monotonic() + 20
        while any(spec.sandbox_id in line for line in loops()):
            assert time.monotonic() < deadline, loops()
            await asyncio.sleep(0.05)


async def test_programs_of_the_host_stay_its_own(bubblewrap_lab: Lab):
    before = os.stat("/usr/bin/env").st_uid, os.stat(os.path.realpath("/usr/bin/python3")).st_uid
    async with bubblewrap_lab.running(resources=DISK) as (_, probe):
        code = "import os; s = os.stat(os.path.expanduser('~/venv')); result = [s.st_uid, s.st_gid]"
        assert await probe.run(code) == [1000, 1000]
    after = os.stat("/usr/bin/env").st_uid, os.stat(os.path.realpath("/usr/bin/python3")).st_uid
    assert after == before == (0, 0)


async def test_where_loop_devices_cannot_be_mounted_the_engine_works_and_says_so(
    bubblewrap_lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    async with bubblewrap_lab.running(resources=DISK) as (spec, _):
        disk = disk_of(await bubblewrap_lab.engine.enforcement(spec.sandbox_id))
        assert (disk.strength, disk.read_back) == (Strength.ENFORCED, True)
        assert DISK.disk_bytes < int(disk.value.split()[0]) < DISK.disk_bytes * 1.1
    # What mount(8) would read is no file system, as where the kernel has no ext4.
    monkeypatch.setattr(DiskImages, "create", lambda self, path, *rest: path.write_bytes(b"x"))
    bubblewrap_lab.engine = bubblewrap_lab.new_engine()
    assert (await bubblewrap_lab.engine.check()).available
    async with bubblewrap_lab.running(resources=DISK) as (spec, _):
        disk = disk_of(await bubblewrap_lab.engine.enforcement(spec.sandbox_id))
        assert disk.strength is not Strength.ENFORCED


def disk_of(limits: tuple[Enforced, ...]) -> Enforced:
    return next(each for each in limits if each.limit == "disk")


def loops() -> list[str]:
    return subprocess.run(["losetup", "-a"], capture_output=True, text=True).stdout.splitlines()


@pytest.mark.parametrize("after_seconds", [0.0, 0.03, 0.06, None])
async def test_a_server_killed_at_any_time_leaves_no_mount_and_no_loop_device(
    bubblewrap_lab: Lab, after_seconds: float | None
):
    spec = bubblewrap_lab.spec(resources=DISK)
    shape = {**asdict(spec), "mounts": [asdict(mount) for mount in spec.mounts]}
    request = {"id": 1, "verb": "start", "arguments": [shape]}
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("engine_server.py")),
        str(bubblewrap_lab.root / "state"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    server.stdin.write(json.dumps({"id": 0, "verb": "check", "arguments": []}).encode() + b"\n")
    await asyncio.wait_for(server.stdout.readline(), 60)
    server.stdin.write(json.dumps(request, default=str).encode() + b"\n")
    await server.stdin.drain()
    if after_seconds is None:  # it runs, and goes on running
        assert b"running" in await asyncio.wait_for(server.stdout.readline(), 60)
    else:
        await asyncio.sleep(after_seconds)
    server.kill()
    await server.wait()
    await bubblewrap_lab.engine.remove(spec.sandbox_id)  # as the next server does
    assert spec.sandbox_id not in Path("/proc/self/mountinfo").read_text()
    assert not image_of(bubblewrap_lab, spec.sandbox_id).exists()
    deadline = time.monotonic() + 20
    while any(spec.sandbox_id in line for line in loops()):
        assert time.monotonic() < deadline, loops()
        await asyncio.sleep(0.05)
