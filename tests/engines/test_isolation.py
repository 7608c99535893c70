"""What a sandbox sees, and what holds it, on every engine that isolates."""

import asyncio
import json
import os
import time
from pathlib import Path

import pytest
from engine_lab import SMALL, Lab
from test_conformance import host_pid

from jupyter_sandbox.engines.base import DIAL_TARGET, GUEST_TARGET, EngineState, Mount
from jupyter_sandbox.engines.cgroups import find_cgroups
from tests.attacks import attack

MARKER = "jsbx-host-secret"


def by_user(lab: Lab) -> bool:
    """Whether the limits come without control groups here."""
    here = lab.name == "bubblewrap" and bool(find_cgroups().missing)
    return here or lab.name == "bubblewrap-ordinary-user"


async def test_nothing_of_the_host_is_visible(isolating_lab: Lab):
    private = isolating_lab.directory("private")
    (private / MARKER).write_text("secret")
    home = os.path.expanduser("~")
    paths = [
        str(private),
        str(isolating_lab.root),
        f"{home}/.local",
        f"{home}/.bashrc",
        f"{home}/.jupyter",
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/run/containerd",
        "/etc/shadow-",
        "/etc/machine-id",
        "/proc/1/root/home/ubuntu",
        str(Path(__file__)),
    ]
    async with isolating_lab.running() as (_, probe):
        code = f"import os; result = [p for p in {paths!r} if os.path.lexists(p)]"
        seen = await probe.run(code)
        if isolating_lab.has_containers:  # the image has a machine of its own to show
            seen = [path for path in seen if not path.startswith(("/etc/", f"{home}/."))]
        assert seen == []


async def test_no_environment_is_inherited(isolating_lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET_TOKEN", "of-the-server")
    async with isolating_lab.running() as (_, probe):
        environment = await probe.run("import os; result = dict(os.environ)")
        assert "of-the-server" not in json.dumps(environment)
        assert "JUPYTER_SANDBOX_ID" not in environment  # bubblewrap's own
        assert environment["GREETING"] == "hello"
        assert set(environment) & {"PATH", "HOME"} == {"PATH", "HOME"}


async def test_only_its_own_processes_exist(isolating_lab: Lab):
    async with isolating_lab.running() as (_, probe):
        code = (
            "import os\nresult = [os.getpid(), sorted(p for p in os.listdir('/proc')"
            " if p.isdigit())]"
        )
        assert await probe.run(code) == [1, ["1"]]


@attack("T05")
async def test_loopback_is_the_only_interface_and_works(isolating_lab: Lab):
    code = (
        "import socket\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(server.getsockname()).close()\n"
        "result = [name for _, name in socket.if_nameindex()]\n"
        "try:\n    socket.create_connection(('192.0.2.1', 80), 2)\n"
        "except OSError as exc:\n    result.append(exc.errno)\n"
    )
    async with isolating_lab.running() as (_, probe):
        *names, error = await probe.run(code)
        assert [name for name in names if not name.startswith(("tunl", "sit", "ip6tnl"))] == ["lo"]
        assert error in (101, 113)  # network (gVisor: host) is unreachable


async def test_no_file_of_the_hosts_disk_can_be_written(isolating_lab: Lab):
    """Docker's own /etc/hosts and two more are files beside the container, which no limit counts."""
    code = (
        "import errno, os\nresult = {}\n"
        "for line in open('/proc/self/mountinfo'):\n"
        "    target = line.split()[4]\n"
        "    if os.path.isfile(target) and not target.startswith('/proc'):\n"
        "        try:\n            open(target, 'ab').close(); result[target] = 0\n"
        "        except OSError as exc:\n            result[target] = exc.errno\n"
        "names = open('/etc/hosts').read(), open('/etc/hostname').read()\n"
        "assert 'localhost' in names[0] and names[1] == 'sandbox\\n', names\n"
        "import socket; socket.getaddrinfo('localhost', 80)\n"
    )
    async with isolating_lab.running() as (_, probe):
        writable = await probe.run(code)
        assert {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} <= set(writable)
        assert {target for target, error in writable.items() if error == 0} == set()


@attack("T26")
async def test_two_sandboxes_share_nothing(isolating_lab: Lab):
    write = (
        "import os\n"
        "for d in ('/workspace', '/mnt/user-data/outputs', '/tmp', '/var/tmp', '/dev/shm',"
        " os.environ['HOME']):\n    open(os.path.join(d, 'jsbx-mine'), 'w').write('x')\n"
        "import socket; s = socket.socket(socket.AF_UNIX); s.bind('\\0jsbx-abstract'); s.listen()\n"
        "import builtins; builtins.kept = s\n"
    )
    read = (
        "import os, socket\n"
        "result = [os.path.join(d, 'jsbx-mine') for d in ('/workspace', '/mnt/user-data/outputs',"
        " '/tmp', '/var/tmp', '/dev/shm', os.environ['HOME'])"
        " if os.path.exists(os.path.join(d, 'jsbx-mine'))]\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "try:\n    s.connect('\\0jsbx-abstract'); result.append('abstract socket')\n"
        "except ConnectionRefusedError: pass\n"
    )
    async with (
        isolating_lab.running() as (_, one),
        isolating_lab.running() as (_, other),
    ):
        await one.run(write)
        assert len(await one.run(read)) == 7
        assert await other.run(read) == []


@attack("T01", "T27")
async def test_mounts_are_really_read_only(isolating_lab: Lab):
    uploads = isolating_lab.directory("uploads")
    (uploads / "data.csv").write_text("1,2\n")
    (uploads / "data.csv").chmod(0o666)
    uploads.chmod(0o777)
    spec = isolating_lab.spec()
    mounts = (*spec.mounts, Mount(uploads, "/mnt/user-data/uploads"))
    paths = ["/mnt/user-data/uploads/data.csv", "/mnt/user-data/uploads/new"]
    paths += [f"{GUEST_TARGET}/new", f"{DIAL_TARGET}/new", f"{DIAL_TARGET}/probe.sock"]
    code = (
        "import errno, os\nresult = []\n"
        f"for path in {paths!r}:\n"
        "    for act in (lambda: os.open(path, os.O_RDWR | os.O_CREAT), lambda: os.unlink(path),\n"
        "                lambda: os.rename(path, path + '2'), lambda: os.mknod(path + '3')):\n"
        "        try:\n            act(); result.append(path)\n"
        "        except OSError as exc:\n"
        "            if exc.errno not in (errno.EROFS, errno.ENOENT, errno.ENXIO, errno.EPERM):\n"
        "                result.append([path, str(exc)])\n"
    )
    async with isolating_lab.running(mounts=mounts) as (_, probe):
        assert await probe.run(f"result = open({paths[0]!r}).read()") == "1,2\n"
        assert await probe.run(code) == []
    assert (uploads / "data.csv").read_text() == "1,2\n"


async def test_software_can_be_run_and_written_where_it_should(isolating_lab: Lab):
    code = (
        "import os, subprocess\nresult = []\n"
        "for d in ('/tmp', '/var/tmp', '/workspace', os.environ['HOME']):\n"
        "    path = os.path.join(d, 'program')\n"
        "    open(path, 'w').write('#!/bin/sh\\necho ran\\n'); os.chmod(path, 0o755)\n"
        "    result.append(subprocess.run([path], capture_output=True, text=True).stdout)\n"
        "open('/dev/null', 'w').write('x'); open('/dev/shm/x', 'w').write('x')\n"
        "result.append(subprocess.run('python3 -c \"print(6*7)\"', shell=True,"
        " capture_output=True, text=True).stdout)\n"
        "import pty; os.close(pty.openpty()[0])\n"
    )
    async with isolating_lab.running() as (_, probe):
        assert await probe.run(code) == ["ran\n"] * 4 + ["42\n"]


async def test_pip_installs_into_private_space(isolating_lab: Lab):
    wheel = isolating_lab.directory("wheel")
    (wheel / "jsbxtoy.py").write_text("answer = 42\n")
    (wheel / "setup.cfg").write_text("")
    code = (
        "import subprocess, sys, zipfile, os\n"
        "name = '/workspace/jsbxtoy-1.0-py3-none-any.whl'\n"
        "with zipfile.ZipFile(name, 'w') as z:\n"
        "    z.write('/mnt/wheel/jsbxtoy.py', 'jsbxtoy.py')\n"
        "    i = 'jsbxtoy-1.0.dist-info/'\n"
        "    z.writestr(i + 'METADATA', 'Metadata-Version: 2.1\\nName: jsbxtoy\\n'\n"
        "               'Version: 1.0\\n')\n"
        "    z.writestr(i + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\n"
        "Tag: py3-none-any\\n')\n"
        "    z.writestr(i + 'RECORD', '')\n"
        "done = subprocess.run('pip install --no-index ' + name, shell=True,"
        " capture_output=True, text=True)\n"
        "ran = subprocess.run('python -c \"import jsbxtoy, ipykernel; print(jsbxtoy.answer)\"',"
        " shell=True, capture_output=True, text=True)\n"
        "result = [done.returncode, ran.stdout, done.stderr[-500:] + ran.stderr[-500:]]\n"
    )
    spec = isolating_lab.spec()
    mounts = (*spec.mounts, Mount(wheel, "/mnt/wheel"))
    async with isolating_lab.running(mounts=mounts) as (_, probe):
        code_of_pip, printed, said = await probe.run(code, 60)
        assert (code_of_pip, printed) == (0, "42\n"), said


@attack("T12", "T13")
async def test_it_is_not_the_hosts_root_and_can_gain_nothing(filtered_lab: Lab):
    isolating_lab = filtered_lab
    async with isolating_lab.running() as (spec, probe):
        pid = await host_pid(isolating_lab, spec.sandbox_id)
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert status["NoNewPrivs"] == "1"
        if isolating_lab.name == "docker":
            assert int(status["CapBnd"], 16) == 0x800000FB
        else:
            assert "0" not in status["Uid"].split()
            assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}
            assert await probe.run("import os; result = os.getuid()") == 1000
            # In a process with one thread: with more, the kernel refuses in any case.
            unshare = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x10000000) + 1)"
            code = (
                "import subprocess, sys\n"
                f"result = subprocess.run([sys.executable, '-c', {unshare!r}]).returncode\n"
            )
            assert await probe.run(code) == 0  # -1 + 1: no user namespace inside


async def test_each_sandbox_of_root_has_a_host_user_of_its_own(bubblewrap_lab: Lab):
    lab = bubblewrap_lab
    async with lab.running() as (one, _), lab.running() as (other, _):
        pids = [await host_pid(lab, spec.sandbox_id) for spec in (one, other)]
        users = {os.stat(f"/proc/{pid}").st_uid for pid in pids}
    if os.geteuid() == 0:
        assert len(users) == 2
        assert min(users) >= 2_000_000
    else:
        assert users == {os.geteuid()}


async def test_no_descriptor_of_the_host_is_inherited(filtered_lab: Lab):
    isolating_lab = filtered_lab
    waits = ("{python}", "-I", "-S", "-c", "import time; time.sleep(1000)")
    spec = isolating_lab.spec(guest_argv=waits)
    await isolating_lab.engine.start(spec)
    pid = await host_pid(isolating_lab, spec.sandbox_id)
    ends_at = time.monotonic() + 10
    while True:  # Python opens files of its own while it starts; what is inherited stays
        found = sorted(os.listdir(f"/proc/{pid}/fd"))
        if found == ["0", "1", "2"]:
            break
        assert time.monotonic() < ends_at, found
        await asyncio.sleep(0.05)


@attack("T15")
async def test_a_fork_bomb_ends_at_the_process_limit(filtered_lab: Lab):
    isolating_lab = filtered_lab
    code = (
        "import os, signal\nchildren = []\n"
        "try:\n"
        "    while len(children) < 500:\n"
        "        pid = os.fork()\n"
        "        if pid == 0:\n            signal.pause()\n"
        "        children.append(pid)\n"
        "except OSError as exc:\n    pass\n"
        "result = len(children)\n"
        "for pid in children:\n    os.kill(pid, 9); os.waitpid(pid, 0)\n"
    )
    async with isolating_lab.running() as (_, probe):
        made = await probe.run(code, 60)
        assert SMALL.processes // 2 < made < SMALL.processes
        assert await probe.run("import os; result = os.getpid()") == 1  # and it goes on


@attack("T15")
async def test_too_much_memory_ends_the_process_that_takes_it(filtered_lab: Lab):
    isolating_lab = filtered_lab
    take = "x = bytearray(600 << 20); import sys; sys.exit(0)"
    code = (
        "import subprocess, sys\n"
        f"result = subprocess.run([sys.executable, '-S', '-c', {take!r}],"
        " stderr=subprocess.DEVNULL).returncode\n"
    )
    async with isolating_lab.running() as (spec, probe):
        assert await probe.run(code, 60) == (1 if by_user(isolating_lab) else -9)
        assert await probe.run("result = 'alive'") == "alive"
        found = await isolating_lab.engine.inspect(spec.sandbox_id)
        assert found.state is EngineState.RUNNING
        if isolating_lab.name == "bubblewrap":
            assert found.out_of_memory


async def test_a_guest_that_is_killed_for_memory_says_so(grouped_lab: Lab):
    take = ("{python}", "-I", "-S", "-c", "x = bytearray(600 << 20)")
    spec = grouped_lab.spec(guest_argv=take)
    await grouped_lab.engine.start(spec)
    found = await grouped_lab.until_state(spec.sandbox_id, EngineState.EXITED)
    assert found.out_of_memory is not by_user(grouped_lab)


@attack("T14")
async def test_limits_read_back_from_the_host_are_those_that_were_asked_for(filtered_lab: Lab):
    isolating_lab = filtered_lab
    async with isolating_lab.running() as (spec, _):
        pid = await host_pid(isolating_lab, spec.sandbox_id)
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        hard = {line[:26].strip(): line[26:].split()[1] for line in limits[1:]}
        assert hard["Max open files"] == str(SMALL.open_files)
        assert hard["Max file size"] == str(SMALL.file_bytes)
        assert hard["Max core file size"] == "0"
        if by_user(isolating_lab):
            assert hard["Max processes"] == str(SMALL.processes)
            assert hard["Max data size"] == str(SMALL.memory_bytes)
        else:
            assert _group_limits(pid) == {
                "memory": SMALL.memory_bytes,
                "pids": SMALL.processes,
                "cpu": SMALL.cpus,
            }


@attack("T16")
async def test_small_memory_file_systems_are_bounded(isolating_lab: Lab):
    code = (
        "import os\nresult = []\n"
        "for path in ('/tmp/x', '/dev/shm/x'):\n"
        "    size = 0\n"
        "    try:\n"
        "        with open(path, 'wb', 0) as f:\n"
        "            while size < 100 << 20:\n                size += f.write(bytes(1 << 20))\n"
        "    except OSError as exc:\n        pass\n"
        "    os.unlink(path); result.append(size)\n"
    )
    async with isolating_lab.running() as (_, probe):
        tmp, shm = await probe.run(code)
        assert SMALL.tmp_bytes * 0.9 < tmp <= SMALL.tmp_bytes
        assert SMALL.shm_bytes * 0.9 < shm <= SMALL.shm_bytes


async def test_a_warning_tells_which_limits_nobody_enforces(isolating_lab: Lab):
    warnings = (await isolating_lab.engine.check()).warnings
    if by_user(isolating_lab):
        assert any("memory" in warning for warning in warnings)
    elif isolating_lab.name == "bubblewrap":
        assert [each for each in warnings if "fs.file-max" not in each] == []  # of this host


@attack("T24")
async def test_a_sandbox_busy_with_files_is_removed_whole(isolating_lab: Lab):
    code = (
        "import os\nos.chdir('/workspace')\n"
        "for i in range(500):\n    os.mkdir('d' * 40); os.chdir('d' * 40)\n"
        "os.mkdir('locked'); open('locked/file', 'w').close(); os.chmod('locked', 0)\n"
        "os.chdir('/workspace'); os.symlink('/etc', 'link'); os.mkfifo('fifo')\n"
    )
    async with isolating_lab.running() as (spec, probe):
        await probe.run(code)
        await asyncio.wait_for(isolating_lab.engine.remove(spec.sandbox_id), 30)
    assert not list(isolating_lab.root.rglob(spec.sandbox_id))
    assert os.path.exists("/etc/passwd")


def _group_limits(pid: int) -> dict[str, float]:
    """Read the limits of a process's control groups, whichever version."""
    paths = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(",") if names else ("unified",):
            paths[name] = path.lstrip("/")
    base = Path("/sys/fs/cgroup")
    if "memory" in paths:
        cpu = base / "cpu" / paths["cpu"]
        quota = int((cpu / "cpu.cfs_quota_us").read_text())
        return {
            "memory": int(
                (base / "memory" / paths["memory"] / "memory.limit_in_bytes").read_text()
            ),
            "pids": int((base / "pids" / paths["pids"] / "pids.max").read_text()),
            "cpu": quota / int((cpu / "cpu.cfs_period_us").read_text()),
        }
    group = base / paths["unified"]
    quota, period = (group / "cpu.max").read_text().split()
    return {
        "memory": int((group / "memory.max").read_text()),
        "pids": int((group / "pids.max").read_text()),
        "cpu": int(quota) / int(period),
    }
