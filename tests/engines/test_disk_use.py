"""What a sandbox takes is measured from outside, whatever it does to hide it."""

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ISOLATING
from engine_lab import Lab

from jupyter_sandbox.engines.base import EngineUsage
from jupyter_sandbox.engines.bubblewrap import BubblewrapEngine
from jupyter_sandbox.engines.disk_use import deleted_use, tree_use
from jupyter_sandbox.engines.docker_disk import has_project_quota

MIB = 1024**2


def _without_images(root: Path) -> BubblewrapEngine:
    engine = BubblewrapEngine(state_dir=root / "state")
    engine._images = None  # as where loop devices cannot be mounted
    return engine


WATCHED = [
    *(each for each in ISOLATING if each.id != "bubblewrap"),
    pytest.param(
        ("bubblewrap", _without_images), id="bubblewrap-watched", marks=pytest.mark.bubblewrap
    ),
]


@pytest.fixture(params=WATCHED)
def watched_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    loop = request.getfixturevalue("jp_asyncio_loop")
    lab = Lab(*request.param)
    yield lab
    loop.run_until_complete(lab.close())


HIDE = {
    "a file": ("write('/workspace/f')", 20),
    "in the home": ("write(os.path.expanduser('~/f'))", 20),
    "in /var/tmp": ("write('/var/tmp/f')", 20),
    "two names": ("write('/workspace/f'); os.link('/workspace/f', '/workspace/g')", 20),
    "allocated (as far as the filter lets it)": (
        "os.posix_fallocate(os.open('/workspace/f', os.O_RDWR | os.O_CREAT), 0, 20 << 20)",
        20,
    ),
    "sparse": ("open('/workspace/f', 'w').truncate(60 << 20)", 0),
    "deleted but open": (
        "write('/workspace/f'); import builtins; builtins.kept = open('/workspace/f');"
        "os.unlink('/workspace/f')",
        20,
    ),
    "a closed directory": (
        "os.mkdir('/workspace/d'); write('/workspace/d/f'); os.chmod('/workspace/d', 0)",
        20,
    ),
    "very deep": (
        "os.chdir('/workspace')\n"
        "for _ in range(300):\n    os.mkdir('d' * 60); os.chdir('d' * 60)\n"
        "write('f'); os.chdir('/')",
        20,
    ),
    "in memory": ("write('/tmp/f')", 0),
}


@pytest.mark.parametrize("how", HIDE)
async def test_what_is_written_is_measured(watched_lab: Lab, how: str):
    code, expected_mib = HIDE[how]
    write = (
        "import os\ndef write(path):\n    with open(path, 'wb') as file:\n"
        "        file.write(os.urandom(20 << 20)); os.fsync(file.fileno())\n"
    )
    async with watched_lab.running() as (spec, probe):
        before = await usage(watched_lab, spec.sandbox_id)
        await probe.run(write + code)
        after = await usage(watched_lab, spec.sandbox_id)
        grown = (after.disk_bytes - before.disk_bytes) / MIB
        assert expected_mib - 1 < grown < expected_mib + 5


async def test_files_are_counted_and_gone_when_they_are_deleted(watched_lab: Lab):
    make = "for i in range(3000):\n    open(f'/workspace/{i}', 'w').close()\n"
    remove = "import os\nfor i in range(3000):\n    os.unlink(f'/workspace/{i}')\n"
    async with watched_lab.running() as (spec, probe):
        before = await usage(watched_lab, spec.sandbox_id)
        await probe.run(make)
        full = await usage(watched_lab, spec.sandbox_id)
        assert full.disk_entries >= before.disk_entries + 3000
        await probe.run(remove)
        after = await usage(watched_lab, spec.sandbox_id)
        assert after.disk_entries < before.disk_entries + 10


async def usage(lab: Lab, sandbox_id: str) -> EngineUsage:
    found = await lab.engine.usage(sandbox_id, disk=True)
    assert found.disk_bytes is not None
    assert found.disk_entries is not None
    return found


async def test_where_the_kernel_limits_the_disk_nothing_is_measured(bubblewrap_lab: Lab):
    async with bubblewrap_lab.running() as (spec, _):
        found = await bubblewrap_lab.engine.usage(spec.sandbox_id, disk=True)
        assert (found.disk_bytes is None) is (os.geteuid() == 0)
    assert await bubblewrap_lab.engine.usage("0" * 24, disk=True) == EngineUsage()


async def test_kills_for_memory_and_refused_processes_are_counted(grouped_lab: Lab):
    code = (
        "import os, subprocess, sys\n"
        "subprocess.run([sys.executable, '-S', '-c', 'x = bytearray(600 << 20)'])\n"
        "children = []\n"
        "try:\n    while len(children) < 200:\n        pid = os.fork()\n"
        "        if not pid:\n            import time; time.sleep(30); os._exit(0)\n"
        "        children.append(pid)\n"
        "except OSError as exc:\n    result = exc.errno\n"
        "for pid in children:\n    os.kill(pid, 9); os.waitpid(pid, 0)\n"
    )
    async with grouped_lab.running() as (spec, probe):
        before = await grouped_lab.engine.usage(spec.sandbox_id)
        assert replace(before, cpu_seconds=None, memory_bytes=None) == EngineUsage()
        await probe.run(code, 60)
        found = await grouped_lab.engine.usage(spec.sandbox_id)
        assert found.memory_kills >= 1
        assert found.processes_refused >= 1


@pytest.mark.alone
async def test_sixty_thousand_files_are_measured_in_a_moment_and_off_the_loop(tmp_path: Path):
    for d in range(60):
        (tmp_path / str(d)).mkdir()
        for f in range(1000):
            os.close(os.open(tmp_path / str(d) / str(f), os.O_CREAT | os.O_WRONLY))
    began = time.monotonic()
    found = await asyncio.to_thread(tree_use, tmp_path, as_owner=False)
    assert found.entries == 60 * 1001 + 1
    assert time.monotonic() - began < 20  # 0.2 s on an idle machine
    assert deleted_use([os.getpid(), 2**22 + 1], os.stat(tmp_path).st_dev).entries >= 0


@pytest.mark.parametrize(
    ("options", "root", "has"),
    [
        ("xfs /dev/b rw,prjquota", "/var/lib/docker", True),
        ("xfs /dev/b rw,pquota", "/var/lib/docker/x", True),
        ("xfs /dev/b rw,noquota", "/var/lib/docker", False),
        ("ext4 /dev/b rw,prjquota", "/var/lib/docker", False),
        ("xfs /dev/b rw,prjquota", "/var/lib/dockers", False),
    ],
)
def test_a_project_quota_is_asked_for_only_where_the_service_takes_it(options, root, has):
    table = "22 1 8:1 / / rw - ext4 /dev/a rw\n"
    table += f"23 22 8:2 / /var/lib/docker rw shared:1 - {options}\n"
    assert has_project_quota(root, table) is has
