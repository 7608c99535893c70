"""Which system calls a sandbox may make: one list for all engines, each group with its why.

Data only; ``seccomp_json`` writes it for Docker and Podman, ``seccomp_bpf`` as a program for
bubblewrap. The rule: what is not listed is refused (EPERM). Own data, because a service's default
profile is that of its age: Docker 20.10's lets io_uring and AF_VSOCK through, AF_ALG went in 2026.
Only the machine's own calling convention exists: 32-bit programs would need a second list.
Sources: https://man7.org/linux/man-pages/man2/syscalls.2.html and the project's security reference.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

LOW_WORD = 0xFFFF_FFFF


@dataclass(frozen=True)
class Condition:
    """``(argument & mask) == value``, on the low 32 bits: the kernel takes these as an int.

    A comparison of all 64 bits would let ``value + 2**32`` pass a list of refusals
    (CVE-2019-10063), and refuse correct callers that leave the upper half of a register as it was.
    """

    argument: int
    value: int
    mask: int = LOW_WORD


@dataclass(frozen=True)
class AnyOf:
    """Allowed when all conditions of one alternative hold."""

    alternatives: tuple[tuple[Condition, ...], ...]


@dataclass(frozen=True)
class AllBut:
    """Allowed unless the argument, as an int, is one of ``values``."""

    argument: int
    values: tuple[int, ...]


@dataclass(frozen=True)
class DoneNothing:
    """Answered with success, and not done, when all conditions hold; else allowed."""

    conditions: tuple[Condition, ...]


_GROUPS = {
    "processes": """
        arch_prctl capget capset execve execveat exit exit_group fork getpgid getpgrp getpid
        getppid getpriority getrlimit getrusage getsid gettid getcpu ioprio_get ioprio_set kill
        membarrier pidfd_getfd pidfd_open pidfd_send_signal prctl prlimit64 process_mrelease
        restart_syscall rseq sched_get_priority_max sched_get_priority_min sched_getaffinity
        sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity
        sched_setattr sched_setparam sched_setscheduler sched_yield set_robust_list
        get_robust_list set_tid_address setpgid setpriority setrlimit setsid tgkill times tkill
        umask uname vfork wait4 waitid""",
    "users, bounded by the capabilities": """
        getegid geteuid getgid getgroups getresgid getresuid getuid setfsgid setfsuid setgid
        setgroups setregid setresgid setresuid setreuid setuid""",
    # Only what runs in the same sandbox, as the same user: strace, gdb.
    "debugging": "ptrace process_vm_readv process_vm_writev process_madvise",
    "memory": """
        brk madvise map_shadow_stack memfd_create mincore mlock mlock2 mlockall mmap mprotect
        mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect""",
    "signals": """
        alarm pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
        rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sigaltstack signalfd signalfd4""",
    "time": """
        clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer
        time timer_create timer_delete timer_getoverrun timer_gettime timer_settime
        timerfd_create timerfd_gettime timerfd_settime""",
    "locks and waiting": """
        epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd
        eventfd2 futex futex_requeue futex_wait futex_waitv futex_wake poll ppoll pselect6
        select""",
    "files": """
        access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat
        faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat
        fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstatfs fsync
        ftruncate futimesat getcwd getdents getdents64 getxattr getxattrat lchown lgetxattr link
        linkat listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat mkdir mkdirat
        mknod mknodat newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64
        pwritev pwritev2 read readahead readlink readlinkat readv removexattr removexattrat
        rename renameat renameat2 rmdir sendfile setxattr setxattrat splice stat statfs statx
        symlink symlinkat sync sync_file_range syncfs tee truncate unlink unlinkat utime
        utimensat utimes write writev""",
    "watching files": """
        inotify_add_watch inotify_init inotify_init1 inotify_rm_watch""",
    "sockets, once made": """
        accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg
        recvmsg sendmmsg sendmsg sendto shutdown""",
    "System V and POSIX messages, of the sandbox's own namespace": """
        mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget
        msgrcv msgsnd semctl semget semop semtimedop shmat shmctl shmdt shmget""",
    "giving up rights": """
        landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp""",
    "the rest": "getrandom sysinfo",
}

ALLOWED = frozenset(name for names in _GROUPS.values() for name in names.split())

# All that makes a namespace: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
_CLONE_NEW = 0x7E02_0000

_SOL_SOCKET, _SO_LINGER = 1, 13
_F_SETLEASE, _F_SETDELEG = 1024, 1040
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_SOCK_STREAM, _SOCK_DGRAM, _SOCK_KIND = 1, 2, 0xF  # above the kind are CLOEXEC and NONBLOCK
_NETLINK_ROUTE, _NETLINK_AUDIT = 0, 9


def _internet(family: int, icmp: int) -> tuple[tuple[Condition, ...], ...]:
    # Naming any other protocol (SCTP, DCCP, MPTCP, L2TP …) would make the host load its module.
    pairs = ((_SOCK_STREAM, 0), (_SOCK_STREAM, 6), (_SOCK_DGRAM, 0), (_SOCK_DGRAM, 17))
    return tuple(
        (Condition(0, family), Condition(1, kind, _SOCK_KIND), Condition(2, protocol))
        for kind, protocol in (*pairs, (_SOCK_DGRAM, icmp))
    )


CONDITIONAL: dict[str, AnyOf | AllBut | DoneNothing] = {
    "clone": AnyOf(((Condition(0, 0, _CLONE_NEW),),)),
    "socket": AnyOf(
        (
            (Condition(0, _AF_UNIX),),
            *_internet(_AF_INET, icmp=1),
            *_internet(_AF_INET6, icmp=58),
            # libc lists interfaces with ROUTE; Debian's useradd does not work without AUDIT.
            (Condition(0, _AF_NETLINK), Condition(2, _NETLINK_ROUTE)),
            (Condition(0, _AF_NETLINK), Condition(2, _NETLINK_AUDIT)),
        )
    ),
    "socketpair": AnyOf(((Condition(0, _AF_UNIX),),)),
    # The last close of a socket waits as long as this says, whoever makes it: a process of the host
    # that was passed the socket, or a thread of the kernel's. Programs that set it go on without.
    "setsockopt": DoneNothing((Condition(1, _SOL_SOCKET), Condition(2, _SO_LINGER))),
    # Whoever changes a file, or what a directory has, waits for the holder of a lease: 45 s, in a
    # thread of the server's. Root of a container is the owner of what the server mounts there.
    "fcntl": AllBut(1, (_F_SETLEASE, _F_SETDELEG)),
    # TIOCSTI and TIOCLINUX type into a terminal; TIOCSETD makes the host load a line discipline.
    "ioctl": AllBut(1, (0x5412, 0x541C, 0x5423)),
    # Linux, Linux with 32-bit names (uname26 both), without address randomisation, only asking.
    "personality": AnyOf(
        tuple((Condition(0, value),) for value in (0, 8, 0x20000, 0x20008, 0x40000, LOW_WORD))
    ),
}

# Answered like a kernel that has not got them: their callers then go another way. clone3 because
# its flags lie in memory, where no filter can read them; asynchronous input and output (databases
# go without) because all of a host share one number of requests, fs.aio-max-nr, and one sandbox
# could take it.
_ABSENT = """
    clone3 cachestat listmount statmount lsm_get_self_attr lsm_list_modules lsm_set_self_attr
    io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit"""
ABSENT = frozenset(_ABSENT.split())

# Takes all of a disk in a moment, faster than anybody who watches it. Answered like a file system
# that cannot do it: its callers, the C library first, write instead.
ALLOCATING = frozenset({"fallocate"})

REFUSED_ERRNO = errno.EPERM
ABSENT_ERRNO = errno.ENOSYS
UNSUPPORTED_ERRNO = errno.EOPNOTSUPP
