"""What a sandbox reads of the host's names in its own table of mounts."""

import shutil
from pathlib import Path

from engine_lab import Lab

import jupyter_sandbox
from jupyter_sandbox.engines.base import ETC_DIR
from jupyter_sandbox.engines.private_files import etc_files
from tests.attacks import attack

MOUNTS = """
result = [line.split() for line in open('/proc/self/mountinfo')]
"""
PACKAGE = str(Path(jupyter_sandbox.__file__).parent)


@attack("T65")
async def test_the_table_of_mounts_tells_neither_the_servers_data_nor_its_package(
    isolating_lab: Lab,
):
    lab = isolating_lab
    etc = lab.root / "etc"
    shutil.copytree(ETC_DIR, etc)
    for path in (etc, *etc.iterdir()):
        path.chmod(path.stat().st_mode | 0o555 if path.is_dir() else 0o644)
    async with lab.running(etc_dir=etc) as (spec, probe):
        mounts = await probe.run(MOUNTS)
        told = {fields[4] for fields in mounts if str(lab.root / "state") in " ".join(fields)}
        packages = {f[4] for f in mounts if PACKAGE in " ".join(f) and f[4] != PACKAGE}
        assert spec.server_id not in str(mounts)
        hosts = await probe.run("result = open('/etc/hosts').read()")
    assert hosts == etc_files("sandbox")["hosts"] or lab.has_containers
    assert packages == set()
    writable = {"/home/sandbox", "/var/tmp", "/workspace", "/mnt/user-data/outputs"}
    # An ordinary user has no other place for them: documented.
    assert told == (writable if lab.name == "bubblewrap-ordinary-user" else set())
