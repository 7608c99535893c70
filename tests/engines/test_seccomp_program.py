"""The list of system calls as a program and as Docker's JSON: both decide alike, call by call.

The program runs in a small machine here; the JSON is asked by the rules of libseccomp. What the
kernel makes of them is tests/isolation/test_system_calls.py.
"""

import ctypes
import errno
import itertools
import struct

import pytest

from jupyter_sandbox.engines import seccomp_bpf, seccomp_json
from jupyter_sandbox.engines.seccomp_rules import ABSENT, ALLOWED, CONDITIONAL, AllBut

MACHINES = ["x86_64", "aarch64"]
ALLOW, KILL = "allow", "kill"
NO_ARGUMENTS = (0, 0, 0, 0, 0, 0)


def run(program: bytes, number: int, architecture: int, arguments=NO_ARGUMENTS):
    """Run a program as the kernel would; give "allow", "kill" or an errno."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments)
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator = at = 0
    for _ in range(len(instructions)):
        code, if_true, if_false, constant = instructions[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, constant)
        elif code == 0x54:
            accumulator &= constant
        elif code == 0x05:
            at += constant
        elif code == 0x15:
            at += if_true if accumulator == constant else if_false
        elif code == 0x35:
            at += if_true if accumulator >= constant else if_false
        elif code == 0x06:
            kinds = {0x7FFF_0000: ALLOW, 0x8000_0000: KILL}
            action = constant & 0xFFFF_0000
            return constant & 0xFFFF if action == 0x5_0000 else kinds[action]
        else:
            raise AssertionError(f"no such instruction: {code:#x}")
    raise AssertionError("the program does not end")


def decide(machine: str, name: str, *arguments: int):
    """Give what the program says of a call by name."""
    padded = (*arguments, *NO_ARGUMENTS)[:6]
    return run(
        seccomp_bpf.program(machine),
        seccomp_bpf.numbers()[machine][name],
        seccomp_bpf.ARCHITECTURES[machine],
        padded,
    )


def decide_by_json(name: str, *arguments: int):
    """Give what libseccomp makes of the profile: one matching rule allows."""
    padded = (*arguments, *NO_ARGUMENTS)[:6]
    for rule in seccomp_json.profile()["syscalls"]:
        if name in rule["names"] and all(
            padded[each["index"]] & each["value"] == each["valueTwo"]
            for each in rule.get("args", ())
        ):
            return ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else rule["errnoRet"]
    return errno.EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_the_program_decides_every_call_as_the_list_does(machine):
    for name in seccomp_bpf.numbers()[machine]:
        if name in CONDITIONAL:
            continue
        wanted = ALLOW if name in ALLOWED else errno.ENOSYS if name in ABSENT else errno.EPERM
        assert decide(machine, name) == wanted, name
        assert decide_by_json(name) == wanted, name


REFUSED = """unshare setns mount umount2 pivot_root fsopen move_mount open_tree bpf perf_event_open keyctl
    add_key request_key io_uring_setup io_uring_enter io_uring_register userfaultfd memfd_secret
    fanotify_init name_to_handle_at open_by_handle_at init_module finit_module kexec_load reboot
    swapon settimeofday clock_settime adjtimex clock_adjtime syslog acct quotactl chroot
    sethostname vmsplice kcmp"""


@pytest.mark.parametrize("name", REFUSED.split())
def test_what_reaches_for_the_host_is_refused(name):
    assert decide("x86_64", name) == decide("aarch64", name) == errno.EPERM


NEW_NAMESPACES = {
    "time and signal": (0x80, True),  # CLONE_NEWTIME is a signal's bit for clone()
    "mount": (0x0002_0000, False),
    "cgroup": (0x0200_0000, False),
    "uts": (0x0400_0000, False),
    "ipc": (0x0800_0000, False),
    "user": (0x1000_0000, False),
    "pid": (0x2000_0000, False),
    "net": (0x4000_0000, False),
}
STREAM, DATAGRAM, RAW, SEQUENCE = 1, 2, 3, 5
CASES = [
    *(("clone", (flag | 17,), fine) for flag, fine in NEW_NAMESPACES.values()),
    ("clone", (0x3D0F00,), True),  # a thread
    ("clone", (0x1_0000_0000 | 17,), True),  # the kernel ignores the upper half
    ("clone", (0x1_1000_0000,), False),
    ("socket", (1, STREAM, 0), True),
    ("socket", (1, SEQUENCE | 0x80000, 0), True),
    ("socket", (2, STREAM, 0), True),
    ("socket", (2, STREAM | 0x80800, 6), True),
    ("socket", (10, DATAGRAM, 17), True),
    ("socket", (2, DATAGRAM, 1), True),  # ping
    ("socket", (10, DATAGRAM, 58), True),
    ("socket", (0xFFFF_FFFF_0000_0002, STREAM, 0), True),  # rubbish above an int
    ("socket", (2, RAW, 1), False),
    ("socket", (2, STREAM, 132), False),  # SCTP
    ("socket", (2, 6, 33), False),  # DCCP
    ("socket", (2, STREAM, 262), False),  # MPTCP
    ("socket", (16, RAW, 0), True),
    ("socket", (16, RAW, 9), True),
    ("socket", (16, RAW, 6), False),  # XFRM
    ("socket", (16, RAW, 12), False),  # netfilter
    ("socket", (16, RAW, 16), False),  # generic netlink
    *(("socket", (family, DATAGRAM, 0), False) for family in range(46) if family not in (1, 2, 10, 16)),
    ("socketpair", (1, STREAM, 0), True),
    ("socketpair", (30, STREAM, 0), False),  # TIPC
    ("ioctl", (0, 0x5401), True),
    ("ioctl", (0, 0x5413), True),
    ("ioctl", (0, 0x5412), False),
    ("ioctl", (0, 0x541C), False),
    ("ioctl", (0, 0x5423), False),
    ("ioctl", (0, 0x1_0000_5412), False),  # CVE-2019-10063
    ("ioctl", (0, 0xFFFF_FFFF_0000_541C), False),
    ("ioctl", (0, 0x4000_5412), True),
    ("fcntl", (3, 1), True),
    ("fcntl", (3, 1025), True),  # F_GETLEASE
    ("fcntl", (3, 1030), True),  # F_DUPFD_CLOEXEC
    ("fcntl", (3, 1024), False),  # F_SETLEASE
    ("fcntl", (3, 0xFFFF_FFFF_0000_0400), False),
    ("fcntl", (3, 1040), False),  # F_SETDELEG
    ("personality", (0,), True),
    ("personality", (0xFFFF_FFFF,), True),
    ("personality", (0x40000,), True),
    ("personality", (0x0400_0000,), False),
]  # fmt: skip


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("name", "arguments", "fine"), CASES)
def test_arguments_are_looked_at(machine, name, arguments, fine):
    wanted = ALLOW if fine else errno.EPERM
    assert decide(machine, name, *arguments) == wanted
    assert decide_by_json(name, *arguments) == wanted


LINGERS = [(3, 1, 13), (3, 0xFFFF_FFFF_0000_0001, 0x1_0000_000D), (0, 1, 13, 0, 8)]
SETS_ANOTHER = [(3, 1, 12), (3, 1, 13 | 0x4000_0000), (3, 6, 13), (3, 0, 0), (3, 0x8000_0001, 13)]


@pytest.mark.parametrize("machine", MACHINES)
def test_a_close_that_would_wait_is_answered_with_success_and_not_set(machine):
    for arguments in LINGERS:
        assert decide(machine, "setsockopt", *arguments) == 0
        assert decide_by_json("setsockopt", *arguments) == 0
    for arguments in SETS_ANOTHER:
        assert decide(machine, "setsockopt", *arguments) == ALLOW
        assert decide_by_json("setsockopt", *arguments) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_of_another_architecture_end_the_process(machine):
    program = seccomp_bpf.program(machine)
    others = {0x4000_0003, 0xC000_003E, 0xC000_00B7, 0} - {seccomp_bpf.ARCHITECTURES[machine]}
    assert {run(program, 1, other) for other in others} == {KILL}


@pytest.mark.parametrize("number", [467, 511, 0x4000_0000, 0x4000_0029, 0xFFFF_FFFF])
def test_what_no_table_knows_does_not_exist(number):
    for machine in MACHINES:
        architecture = seccomp_bpf.ARCHITECTURES[machine]
        assert run(seccomp_bpf.program(machine), number, architecture) == errno.ENOSYS


def test_a_machine_without_a_table_has_no_program():
    with pytest.raises(KeyError):
        seccomp_bpf.program("s390x")


@pytest.mark.parametrize("values", [(0,), (0xFFFF_FFFF,), (0x5412, 0x541C), (1, 2, 3, 2**31)])
def test_the_complement_is_everything_but_the_values(values):
    conditions = list(seccomp_json.complement(AllBut(1, values)))
    near = {(value ^ (1 << bit)) for value in values for bit in range(32)}
    for number in {*values, *near, 0, 7, 0xFFFF_FFFF, 0x1234_5678}:
        held = [each for each in conditions if number & each.mask == each.value]
        assert len(held) == (number not in values), hex(number)


def test_every_name_is_on_one_list_only_and_known_on_some_machine():
    lists = [ALLOWED, ABSENT, frozenset(CONDITIONAL)]
    assert not any(one & other for one, other in itertools.combinations(lists, 2))
    known = set().union(*seccomp_bpf.numbers().values())
    assert frozenset().union(*lists) <= known


@pytest.mark.docker  # which brings libseccomp
@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_those_of_libseccomp(machine):
    library = ctypes.CDLL("libseccomp.so.2")
    unknown = 0
    for name, number in seccomp_bpf.numbers()[machine].items():
        found = library.seccomp_syscall_resolve_name_arch(
            ctypes.c_uint32(seccomp_bpf.ARCHITECTURES[machine]), name.encode()
        )
        unknown += found < 0  # younger than the library
        assert found in (number, -1), name
    assert unknown < 30
