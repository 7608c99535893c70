"""A filter of system calls where the engine could set none: gVisor takes no filter from outside.

What it refuses is ``fallocate``: it would take the whole disk of the host before anybody could
look, where a disk limit is watched and not the kernel's. Programs write instead, which is slower.

The rule: called by PID 1 before it starts anything; what runs inside inherits it and cannot drop
it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
# machine -> (AUDIT_ARCH_*, number of fallocate). Source: linux/audit.h, asm/unistd.h
_MACHINES = {"x86_64": (0xC000003E, 285), "aarch64": (0xC00000B7, 47)}
_LOAD_WORD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER_AT, _MACHINE_AT = 0, 4  # in struct seccomp_data
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_READ_ALL, _LOG_BYTES = 3, 1 << 16  # syslog(2)


def refuse_allocation() -> bool:
    """Have ``fallocate`` say that it is not supported; False where this is not gVisor's kernel.

    On another kernel a filter that is missing is a fault of the engine's settings: one of ours in
    its place would hide that from whoever reads back whether there is one.
    """
    machine = _MACHINES.get(os.uname().machine)
    if machine is None or _is_filtered() or not _is_gvisor():
        return False
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (_LOAD_WORD, 0, 0, _MACHINE_AT),
            (_EQUAL, 0, 3, machine[0]),
            (_LOAD_WORD, 0, 0, _NUMBER_AT),
            (_EQUAL, 0, 1, machine[1]),
            (_RETURN, 0, 0, _ERROR | errno.EOPNOTSUPP),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
    held = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    given = Program(len(program) // 8, ctypes.addressof(held))
    libc = ctypes.CDLL(None)
    return bool(libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(given), 0, 0) == 0)


def _is_gvisor() -> bool:
    """Find the kernel by its own log; others say other things there, or nothing."""
    log = ctypes.create_string_buffer(_LOG_BYTES)
    length = ctypes.CDLL(None).klogctl(_READ_ALL, log, len(log) - 1)
    return length > 0 and b"Starting gVisor" in log.raw[:length]


def _is_filtered() -> bool:
    try:
        with open("/proc/self/status") as file:
            return any(line.split() == ["Seccomp:", "2"] for line in file)
    except OSError:
        return False
