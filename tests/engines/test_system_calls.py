"""System calls that a hostile program tries, and those that software needs.

On every engine whose system calls the host's kernel answers. gVisor answers them itself, from its
own code; what must work, works there too.
"""

import errno
import platform

import pytest
from engine_lab import Lab
from test_conformance import host_pid

from jupyter_sandbox.engines.seccomp_bpf import numbers
from tests.attacks import attack

NUMBERS = numbers()[platform.machine()]
CALL = """
import ctypes, os, subprocess, sys
code = '''
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
number, *given = map(int, sys.argv[1:])
if number == {clone_number} and given[0] & 0x7E020000 == 0:
    given[0] |= 17
found = libc.syscall(*(ctypes.c_long(each) for each in (number, *given)))
if number in ({clone_number}, {fork_number}) and found == 0:
    os._exit(0)
print(0 if found >= 0 else ctypes.get_errno())
'''
result = []
for words in {calls!r}:
    done = subprocess.run([sys.executable, '-I', '-S', '-c', code, *map(str, words)],
                          capture_output=True, text=True)
    result.append(int(done.stdout) if done.returncode == 0 else -abs(done.returncode))
"""

NOWHERE = 0  # a null pointer: a call that got through says EFAULT, EINVAL or succeeds
REFUSED = {
    "unshare a user namespace": ("unshare", 0x10000000),
    "unshare a network namespace": ("unshare", 0x40000000),
    "clone a user namespace": ("clone", 0x10000011, 0, 0, 0, 0),
    "clone a mount namespace": ("clone", 0x00020011, 0, 0, 0, 0),
    "setns": ("setns", 0, 0),
    "mount": ("mount", NOWHERE, NOWHERE, NOWHERE, 0, NOWHERE),
    "umount": ("umount2", NOWHERE, 0),
    "pivot_root": ("pivot_root", NOWHERE, NOWHERE),
    "fsopen": ("fsopen", NOWHERE, 0),
    "open_tree": ("open_tree", -100, NOWHERE, 0),
    "bpf": ("bpf", 0, NOWHERE, 0),
    "perf": ("perf_event_open", NOWHERE, 0, -1, -1, 0),
    "keyctl": ("keyctl", 0, -3, 0, 0, 0),
    "add_key": ("add_key", NOWHERE, NOWHERE, NOWHERE, 0, -2),
    "io_uring": ("io_uring_setup", 1, NOWHERE),
    "userfaultfd": ("userfaultfd", 1),
    "memfd_secret": ("memfd_secret", 0),
    "name_to_handle_at": ("name_to_handle_at", -100, NOWHERE, NOWHERE, NOWHERE, 0),
    "open_by_handle_at": ("open_by_handle_at", -1, NOWHERE, 0),
    "fanotify": ("fanotify_init", 0, 0),
    "load a module": ("init_module", NOWHERE, 0, NOWHERE),
    "kexec": ("kexec_load", 0, 0, NOWHERE, 0),
    "read the kernel's log": ("syslog", 3, NOWHERE, 0),
    "set the clock": ("adjtimex", NOWHERE),
    "reboot": ("reboot", 0, 0, 0, NOWHERE),
    "swap": ("swapon", NOWHERE, 0),
    "chroot": ("chroot", NOWHERE),
    "AF_VSOCK": ("socket", 40, 1, 0),
    "AF_ALG": ("socket", 38, 5, 0),
    "AF_PACKET": ("socket", 17, 3, 0),
    "AF_KEY": ("socket", 15, 3, 2),
    "AF_RXRPC": ("socket", 33, 2, 0),
    "AF_TIPC": ("socket", 30, 1, 0),
    "AF_XDP": ("socket", 44, 3, 0),
    "netlink for IPsec": ("socket", 16, 3, 6),
    "netlink for packet filters": ("socket", 16, 3, 12),
    "a raw socket": ("socket", 2, 3, 1),
    "SCTP": ("socket", 2, 1, 132),
    "DCCP": ("socket", 2, 6, 33),
    "type into a terminal": ("ioctl", 0, 0x5412, NOWHERE),
    "type into a terminal, disguised": ("ioctl", 0, 0x1_0000_5412, NOWHERE),
    "TIOCLINUX": ("ioctl", 0, 0x541C, NOWHERE),
    "a line discipline": ("ioctl", 0, 0x5423, NOWHERE),
    "a lease": ("fcntl", 0, 1024, 0),
    "a delegation": ("fcntl", 0, 1040, NOWHERE),
}
NEEDED = {
    "clone": ("clone", 0, 0, 0, 0, 0),
    "audit, for useradd": ("socket", 16, 3, 9),
    "routes, for libc": ("socket", 16, 3, 0),
    "TCP": ("socket", 2, 1, 6),
    "UDP by IPv6": ("socket", 10, 2, 0),
    "shared memory": ("shmget", 0, 4096, 0o600),
    "inotify": ("inotify_init1", 0),
}


async def tried(lab: Lab, calls: list[tuple]) -> list[int]:
    """Give the errno (0: it worked) of each call, made in a process of its own inside."""
    numbered = [(NUMBERS[name], *arguments) for name, *arguments in calls]
    code = CALL.format(
        calls=numbered, clone_number=NUMBERS["clone"], fork_number=NUMBERS.get("fork", -1)
    )
    async with lab.running() as (_, probe):
        return await probe.run(code, 60)


async def test_the_filter_is_in_force_for_whatever_runs_inside(filtered_lab: Lab):
    async with filtered_lab.running() as (spec, _):
        pid = await host_pid(filtered_lab, spec.sandbox_id)
        with open(f"/proc/{pid}/status") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        assert status["Seccomp"] == "2"
        assert status["NoNewPrivs"] == "1"


@attack("T06", "T13")
async def test_what_reaches_for_the_host_is_refused(filtered_lab: Lab):
    calls = [each for each in REFUSED.values() if each[0] in NUMBERS]
    answers = await tried(filtered_lab, calls)
    got = dict(zip(calls, answers, strict=True))
    assert {call: code for call, code in got.items() if code != errno.EPERM} == {}


async def test_what_software_needs_works(isolating_lab: Lab):
    answers = dict(zip(NEEDED, await tried(isolating_lab, [*NEEDED.values()]), strict=True))
    if isolating_lab.name == "gvisor":  # a kernel without audit: useradd goes on without it
        assert answers.pop("audit, for useradd") == errno.EPROTONOSUPPORT
    assert set(answers.values()) == {0}, answers


async def test_clone3_is_answered_like_an_old_kernel_so_that_libc_uses_clone(filtered_lab: Lab):
    assert await tried(filtered_lab, [("clone3", NOWHERE, 0)]) == [errno.ENOSYS]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the other conventions are x86's")
async def test_the_machines_other_calling_conventions_are_no_way_around(filtered_lab: Lab):
    """``int 0x80`` has other numbers (and socketcall); x32 has a bit in the number."""
    x32 = (0x4000_0000 + 165, 0, 0, 0, 0, 0)
    compat = (
        "import ctypes, mmap\n"
        "m = mmap.mmap(-1, 4096, prot=7)\n"
        "m.write(bytes([0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3]))\n"  # mov eax, 20; int 0x80; ret
        "f = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n"
        "print(f())\n"
    )
    code = CALL.format(calls=[x32], clone_number=-1, fork_number=-1) + (
        f"done = subprocess.run([sys.executable, '-c', {compat!r}], capture_output=True)\n"
        "result.append(done.returncode)\n"
    )
    async with filtered_lab.running() as (_, probe):
        by_x32, by_int_80 = await probe.run(code)
    assert by_x32 in (errno.ENOSYS, errno.EPERM, -31)  # SIGSYS with libseccomp
    assert by_int_80 == -31  # SIGSYS


@attack("T12")
async def test_another_user_inside_gains_nothing_by_a_setuid_program_of_root(container_lab: Lab):
    code = (
        "import os, shutil, subprocess\n"
        "shutil.copy('/usr/bin/id', '/workspace/as-root'); os.chmod('/workspace/as-root', 0o4755)\n"
        "done = subprocess.run(['/workspace/as-root', '-u'], user=65534, capture_output=True,"
        " text=True)\n"
        "result = done.stdout.strip()\n"
    )
    async with container_lab.running() as (_, probe):
        assert await probe.run(code) == "65534"
