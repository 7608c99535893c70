"""What the kernel counts for a user or for the host: one sandbox cannot take it from all others.

Bounded where it succeeds: a few hundred terminals, 5,000 timers, 120 MB of buffers, for a moment.
"""

import ctypes
import errno
import os
import platform
from pathlib import Path

import pytest
from engine_lab import SMALL, Lab
from test_conformance import host_pid

from jupyter_sandbox.engines import host_counters
from jupyter_sandbox.engines.base import Resources
from jupyter_sandbox.engines.docker import _warnings
from jupyter_sandbox.engines.docker_sockets import can_limit_sockets, limit_sockets
from jupyter_sandbox.engines.seccomp_bpf import numbers
from tests.attacks import attack

NUMBERS = numbers()[platform.machine()]

ASYNCHRONOUS = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
context = ctypes.c_ulong(0)
done = libc.syscall({NUMBERS["io_setup"]}, 5000, ctypes.byref(context))
result = 0 if done == 0 else ctypes.get_errno()
"""
TERMINALS = """
import builtins, os
builtins.terminals = []
try:
    while len(builtins.terminals) < 300:
        builtins.terminals.append(os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY))
except OSError:
    pass
result = len(builtins.terminals)
"""
TIMERS = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
result, timer = 0, ctypes.c_void_p()
while result < 5000:
    if libc.syscall({NUMBERS["timer_create"]}, 0, 0, ctypes.byref(timer)) != 0:
        break
    result += 1
"""
WATCHERS = """
import builtins, ctypes
libc = ctypes.CDLL(None)
builtins.watchers = []
while len(builtins.watchers) < 128:
    made = libc.inotify_init1(0)
    if made < 0:
        break
    builtins.watchers.append(made)
result = len(builtins.watchers)
"""
QUEUES = """
import resource
result = resource.getrlimit(resource.RLIMIT_MSGQUEUE)[1]
"""
BUFFERS = """
import builtins, socket
kept = builtins.kept = []
server = socket.create_server(('127.0.0.1', 0))
server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
result = 0
while result < 120 << 20 and len(kept) < 200:
    client = socket.socket()
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        client.setsockopt(socket.SOL_SOCKET, option, 8 << 20)
    client.connect(server.getsockname())
    for end in (client, server.accept()[0]):
        end.setblocking(False)
        kept.append(end)
        try:
            while result < 120 << 20:
                result += end.send(bytes(1 << 18))
        except OSError:
            pass
"""


def host_number(name: str) -> int:
    return int(Path("/proc/sys", name).read_text())


@attack("T60")
async def test_the_hosts_asynchronous_requests_are_not_taken(isolating_lab: Lab):
    before = host_number("fs/aio-nr")
    async with isolating_lab.running() as (_, probe):
        answer = await probe.run(ASYNCHRONOUS)
        assert host_number("fs/aio-nr") - before < 5000
        assert answer == (0 if isolating_lab.name == "gvisor" else errno.ENOSYS)


@attack("T61")
async def test_terminals_timers_and_watchers_are_left_for_others(isolating_lab: Lab):
    lab = isolating_lab
    before = host_number("kernel/pty/nr")
    async with lab.running() as (_, probe):
        terminals = await probe.run(TERMINALS)
        assert host_number("kernel/pty/nr") - before < 250
        timers, watchers = await probe.run(TIMERS), await probe.run(WATCHERS)
        queues = await probe.run(QUEUES)
        assert await probe.run("import pty; result = 1") == 1
    if lab.name == "gvisor":  # all of these are its own kernel's
        return
    assert 10 < terminals <= host_counters.TERMINALS
    assert 500 < timers <= host_counters.PENDING_SIGNALS
    assert queues <= host_counters.MESSAGE_QUEUE_BYTES
    if lab.name == "bubblewrap-ordinary-user":
        assert watchers <= host_number("fs/inotify/max_user_instances") // 4
    elif lab.name == "docker":  # not held, and said
        assert "inotify instances" in " ".join((await lab.engine.check()).warnings)
    # ... and of bubblewrap with a server that is root each sandbox has a user of its own
    assert can_make_a_watcher()


def can_make_a_watcher() -> bool:
    """Whether this process, whose user is not the sandbox's, may still watch files."""
    libc = ctypes.CDLL(None)
    made = libc.inotify_init1(0)
    if made >= 0:
        os.close(made)
    return made >= 0


@attack("T62")
async def test_socket_buffers_are_counted_to_the_sandbox(isolating_lab: Lab):
    lab = isolating_lab
    async with lab.running() as (spec, probe):
        pid = None if lab.name == "gvisor" else await host_pid(lab, spec.sandbox_id)
        tcp_before = tcp_bytes()
        taken = await probe.run(BUFFERS, 60)
        if lab.name == "gvisor":  # its own network: nothing of it is the host's TCP
            assert tcp_bytes() - tcp_before < 32 << 20
        elif lab.name == "bubblewrap-ordinary-user":  # not held, and said
            assert "TCP and UDP" in " ".join((await lab.engine.check()).warnings)
        else:
            assert taken < 2 * SMALL.socket_bytes or counted_bytes(pid) > taken // 2


def tcp_bytes() -> int:
    """Give what all sockets of TCP on this host hold, whatever their network namespace."""
    words = Path("/proc/net/sockstat").read_text().partition("TCP:")[2].split()
    return int(words[words.index("mem") + 1]) * 4096


def counted_bytes(pid: int) -> int:
    """Give what a control group of version 2 has counted, which counts sockets too."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            current = Path(f"/sys/fs/cgroup/{line[3:]}/memory.current")
            return int(current.read_text()) if current.exists() else 0
    return 0


# Parts, without a sandbox


def sysctls(root: Path, **values: int) -> Path:
    for name, value in values.items():
        path = root / "sys" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return root


def test_a_quarter_of_a_users_inotify_is_for_one_sandbox(tmp_path: Path):
    proc = sysctls(tmp_path, fs__inotify__max_user_instances=128, fs__inotify__max_user_watches=3)
    assert host_counters.inotify_limits(proc) == {
        "max_inotify_instances": 32,
        "max_inotify_watches": 1,
    }
    assert host_counters.inotify_limits(tmp_path / "none") == {}


@pytest.mark.parametrize(
    ("watches", "bounds_inotify", "said"),
    [
        (5_000_000, False, ["128 inotify instances", "5000000 epoll watches"]),
        (5_000_000, True, ["5000000 epoll watches"]),
        (10_737_418, True, ["10737418 epoll watches"]),  # times 200 bytes is 2 GiB less 48 bytes
        (10_737_419, True, []),  # two gigabytes of memory end first
    ],
)
def test_numbers_that_one_sandbox_could_use_up_are_said(tmp_path, watches, bounds_inotify, said):
    proc = sysctls(
        tmp_path, fs__inotify__max_user_instances=128, fs__epoll__max_user_watches=watches
    )
    resources = Resources(memory_bytes=2 * 1024**3)
    found = host_counters.warnings("root", resources, bounds_inotify=bounds_inotify, proc=proc)
    assert len(found) == len(said)
    assert all(words in sentence for words, sentence in zip(said, found, strict=True))


@pytest.mark.parametrize(("most", "warns"), [(2_466_177, True), (3000, True), (3001, False)])
def test_a_host_whose_files_one_sandbox_can_open_is_told(tmp_path: Path, most: int, warns: bool):
    proc = sysctls(tmp_path, **{"fs__file-max": most})
    resources = Resources(processes=30, open_files=100)
    if most > 10_000:
        resources = Resources()
    assert bool(host_counters.files_warning(resources, proc)) is warns


def test_the_buffers_of_a_container_are_limited_by_either_name_of_its_group(tmp_path: Path):
    name = "memory.kmem.tcp.limit_in_bytes"
    for group in ("", "docker/ab", "system.slice/docker-cd.scope"):
        (tmp_path / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / group / name).write_text("9")
    for container in ("ab", "cd", "ef"):
        limit_sockets(container, 4096, tmp_path)
    assert (tmp_path / "docker/ab" / name).read_text() == "4096"
    assert (tmp_path / "system.slice/docker-cd.scope" / name).read_text() == "4096"
    assert (tmp_path / name).read_text() == "9"
    assert can_limit_sockets(tmp_path)
    assert not can_limit_sockets(tmp_path / "none")


@pytest.mark.parametrize(
    ("options", "runtime", "user"),
    [
        ([], "runc", "root of this host"),
        (["name=userns"], "runc", "the user that their root is on the host"),
        ([], "runsc", ""),
    ],
)
def test_dockers_warnings_name_who_shares_the_numbers(options, runtime, user):
    said = " ".join(_warnings({"SecurityOptions": options, "DefaultRuntime": runtime}, ""))
    assert ("inotify instances" in said) is bool(user)
    assert user in said
