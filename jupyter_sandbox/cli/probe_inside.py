"""The attacks of ``jupyter sandbox doctor --probe``, as they run inside a fresh sandbox.

Sent as text, run by the sandbox's own Python: standard library only, Python 3.9, imports nothing of
ours. The rule: each does no harm where it succeeds. What would write opens only, what makes
something removes it, nothing is sent to another machine, and numbers are bounded. Prints one line
of JSON: ``[[number, attack, expected, got, contained], …]``.

Arguments: the port that the Jupyter Server listens on at the host's 127.0.0.1, and "own" where the
host knows that gVisor answers the system calls here, else "shared"; "couriers" where processes of
their own read for the server. Or "processes": only that one.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import resource
import signal
import socket
import stat
import struct
import sys
from typing import Callable, FrozenSet, List, Tuple

DIAL = "/run/jupyter-sandbox/dial"
GUEST = "/opt/jupyter-sandbox"
UPLOADS = "/mnt/user-data/uploads"
MOST_PROCESSES = 3000
MOST_TERMINALS = 100
MOST_TIMERS = 4096
HARMLESS_DEVICES = frozenset(
    {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"}
)
# Of gVisor's own kernel: a network and a file system that end inside it.
GVISOR_DEVICES = frozenset({"fuse", "tun"})
ALLOWED_CAPABILITIES = 0x800000FB
REFUSED = (errno.EPERM, errno.ENOSYS, errno.EACCES)

libc = ctypes.CDLL(None, use_errno=True)
found: List[Tuple[str, str, str, str, bool]] = []
# Of system calls; on another machine these attacks are left out.
NUMBERS = {
    "x86_64": {
        "add_key": 248,
        "io_setup": 206,
        "bpf": 321,
        "perf_event_open": 298,
        "userfaultfd": 323,
        "mknodat": 259,
        "mount": 165,
        "unshare": 272,
    },
    "aarch64": {
        "add_key": 217,
        "io_setup": 0,
        "bpf": 280,
        "perf_event_open": 241,
        "userfaultfd": 282,
        "mknodat": 33,
        "mount": 40,
        "unshare": 97,
    },
}.get(platform.machine(), {})


def attack(number: str, what: str, expected: str, run: Callable[[], Tuple[str, bool]]) -> None:
    """Run one; an exception is a refusal that names itself."""
    try:
        got, contained = run()
    except OSError as exc:
        got, contained = errno.errorcode.get(exc.errno or 0, str(exc)), True
    found.append((number, what, expected, got, contained))


def status(name: str) -> str:
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(name + ":"):
                return line.split(":", 1)[1].strip()
    return ""


def writes(path: str) -> Tuple[str, bool]:
    """Make a file; gone again at once where that works."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    os.unlink(path)
    return "a file was made", False


def opens(path: str, flags: int = os.O_WRONLY) -> Tuple[str, bool]:
    """Open what exists; nothing is written."""
    if not os.path.exists(path):
        return "is not there", True
    os.close(os.open(path, flags))
    return "was opened", False


def call(number: int, *arguments: object) -> Tuple[str, bool]:
    """Make a system call in a child, whatever becomes of that."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        ctypes.set_errno(0)
        done = libc.syscall(ctypes.c_long(number), *arguments)
        os.write(writing, b"%d" % (0 if done != -1 else ctypes.get_errno()))
        os._exit(0)
    os.close(writing)
    code = os.read(reading, 16)
    os.close(reading)
    os.waitpid(pid, 0)
    if not code:
        return "the caller was killed", True
    if int(code) == 0:
        return "it was done", False
    name = errno.errorcode.get(int(code), code.decode())
    return name, int(code) in REFUSED


def makes_socket(family: int, kind: int, protocol: int = 0) -> Tuple[str, bool]:
    socket.socket(family, kind, protocol).close()
    return "a socket was made", False


def connects(family: int, address: Tuple[str, int]) -> Tuple[str, bool]:
    """Connect, but only where nothing but loopback is there: nothing may leave this machine."""
    if [name for name in interfaces() if name != "lo"] and not address[0].startswith("127."):
        return "not tried: there is a way out", False
    with socket.socket(family, socket.SOCK_STREAM) as peer:
        peer.settimeout(2)
        peer.connect(address)
    return "connected", False


def interfaces() -> List[str]:
    """Give the interfaces that carry traffic; tunnels that the kernel makes by itself do not."""
    idle = ("tunl", "sit", "ip6tnl", "gre", "erspan", "ip_vti", "ip6_vti", "ip6gre")
    return [name for _, name in socket.if_nameindex() if not name.startswith(idle)]


def only_loopback() -> Tuple[str, bool]:
    names = interfaces()
    with open("/proc/net/route") as file:
        routes = len(file.readlines()) - 1
    return "%s, %d routes" % (" ".join(names) or "none", routes), names in (
        [],
        ["lo"],
    ) and not routes


def resolves() -> Tuple[str, bool]:
    if not only_loopback()[1]:
        return "not tried: there is a way out", False
    return "resolved to " + socket.gethostbyname("name.example.com"), False


def no_host_sockets() -> Tuple[str, bool]:
    with open("/proc/net/unix") as file:
        names = [line.split()[-1] for line in file.readlines()[1:] if "@" in line]
    return (names[0] if names else "none"), not names


def writable_groups() -> Tuple[str, bool]:
    for root, _, names in os.walk("/sys/fs/cgroup"):
        for name in names:
            path = os.path.join(root, name)
            if os.access(path, os.W_OK):
                try:
                    os.close(os.open(path, os.O_WRONLY))
                except OSError:
                    continue
                return path + " was opened", False
    return "none", True


def devices(harmless: FrozenSet[str] = HARMLESS_DEVICES) -> Tuple[str, bool]:
    names = []
    for root, _, entries in os.walk("/dev"):
        for name in entries:
            try:
                mode = os.lstat(os.path.join(root, name)).st_mode
            except OSError:
                continue
            is_terminal = root.startswith("/dev/pts")
            is_other = stat.S_ISCHR(mode) and name not in harmless and not is_terminal
            if stat.S_ISBLK(mode) or is_other:
                names.append(name)
    return " ".join(names[:5]) or "none", not names


def capabilities() -> Tuple[str, bool]:
    sets = [int(status(name) or "0", 16) for name in ("CapEff", "CapPrm", "CapBnd")]
    return "%x" % sets[2], not any(each & ~ALLOWED_CAPABILITIES for each in sets)


def processes() -> Tuple[str, bool]:
    """Make children that wait, until it is refused or there are far more than any default."""
    children: List[int] = []
    refused = ""
    try:
        while len(children) < MOST_PROCESSES:
            pid = os.fork()
            if pid == 0:
                signal.pause()
                os._exit(0)
            children.append(pid)
    except OSError as exc:
        refused = errno.errorcode.get(exc.errno or 0, "?")
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    for pid in children:
        os.waitpid(pid, 0)
    return "%s after %d" % (refused or "no refusal", len(children)), bool(refused)


def environment() -> Tuple[str, bool]:
    names = [n for n in os.environ if "TOKEN" in n or "SECRET" in n or n.startswith("JUPYTERHUB")]
    return " ".join(names) or "none", not names


def first_process() -> Tuple[str, bool]:
    with open("/proc/1/cmdline", "rb") as file:
        line = file.read().replace(b"\0", b" ").decode("utf-8", "replace")
    return line[:60].strip() or "hidden", "sandbox_guest" in line or not line


def limit(which: int) -> Tuple[str, bool]:
    hard = resource.getrlimit(which)[1]
    return "unlimited" if hard == resource.RLIM_INFINITY else str(
        hard
    ), hard != resource.RLIM_INFINITY


def dial_directory() -> Tuple[str, bool]:
    os.symlink("/etc/passwd", DIAL + "/probe")
    os.unlink(DIAL + "/probe")
    return "a link was made", False


def dial_sockets() -> Tuple[str, bool]:
    names = [name for name in os.listdir(DIAL) if name.endswith(".sock")]
    os.rename(DIAL + "/" + names[0], DIAL + "/" + names[0])  # onto itself: nothing where it works
    return "a socket was renamed", False


def passes_descriptor(is_taken: bool) -> Tuple[str, bool]:
    """Pass a descriptor that does nothing to the server; fine where a courier takes it."""
    names = [name for name in os.listdir(DIAL) if name.endswith(".sock")]
    with socket.socket(socket.AF_UNIX) as door, open(os.devnull, "rb") as nothing:
        door.connect(DIAL + "/" + names[0])
        passed = struct.pack("i", nothing.fileno())
        door.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
    return "it was taken" + (" by a courier" if is_taken else ""), is_taken


def lets_a_close_wait() -> Tuple[str, bool]:
    """Set that the last close of a socket waits; this one has nothing to wait for."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1))
        waits = struct.unpack("ii", sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))[0]
    return "it was set" if waits else "it does not wait", not waits


def set_user() -> Tuple[str, bool]:
    value = libc.prctl(39, 0, 0, 0, 0)  # PR_GET_NO_NEW_PRIVS; not every kernel has it in /proc
    return "no new privileges: %d" % value, value == 1


def filtered() -> Tuple[str, bool]:
    value = status("Seccomp")
    return "Seccomp " + (value or "?"), value == "2"


def is_gvisor() -> Tuple[str, bool]:
    """Find the kernel inside by its own log: the host's says other things, or nothing."""
    log = ctypes.create_string_buffer(1 << 16)
    length = libc.klogctl(3, log, len(log) - 1)
    is_its_log = length > 0 and b"Starting gVisor" in log.raw[:length]
    return "answered by gVisor" if is_its_log else "not gVisor's kernel", is_its_log


def gvisors_own(run: Callable[[], Tuple[str, bool]]) -> Tuple[str, bool]:
    """Make a call that may be done where it is gVisor's kernel that does it, for itself."""
    got, contained = run()
    return (got, True) if contained else (got + ", by gVisor", is_gvisor()[1])


def system_call(name: str) -> Tuple[str, bool]:
    """Make the system call of this name, with arguments that do no harm where it is allowed."""
    if name not in NUMBERS:
        return "not known on " + platform.machine(), True
    whole = ctypes.c_long
    if name == "mount":
        return mounts()
    if name == "mknodat":
        return makes_device()
    zeros, event = ctypes.create_string_buffer(72), ctypes.create_string_buffer(b"\1", 0x70)
    event[4] = b"\x70"
    arguments: "dict[str, Tuple[object, ...]]" = {
        "add_key": (b"user", b"probe", b"x", whole(1), whole(-2)),
        "bpf": (whole(0), zeros, whole(72)),
        "io_setup": (whole(1), zeros),
        "perf_event_open": (event, whole(0), whole(-1), whole(-1), whole(0)),
        "unshare": (whole(0x10000000),),
        "userfaultfd": (whole(1),),
    }
    return call(NUMBERS[name], *arguments[name])


def terminals() -> Tuple[str, bool]:
    """Open terminals, until it is refused or there are more than a sandbox gets; then close all."""
    opened: List[int] = []
    refused = ""
    try:
        while len(opened) < MOST_TERMINALS:
            opened.append(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))
    except OSError as exc:
        refused = errno.errorcode.get(exc.errno or 0, "?")
    for each in opened:
        os.close(each)
    return "%s after %d" % (refused or "no refusal", len(opened)), bool(refused)


def timers() -> Tuple[str, bool]:
    """Ask for the limit: a host's usual one, some 95,000, would let it take all of its user's."""
    hard = resource.getrlimit(resource.RLIMIT_SIGPENDING)[1]
    return str(hard), 0 < hard <= MOST_TIMERS


def io_uring() -> Tuple[str, bool]:
    return call(425, ctypes.c_long(1), ctypes.create_string_buffer(240))  # the same on all machines


def watch_by_perf() -> Tuple[str, bool]:
    return system_call("perf_event_open")


def mounts() -> Tuple[str, bool]:
    where = "/tmp/probe-mount"
    os.makedirs(where, exist_ok=True)
    try:
        done = call(
            NUMBERS["mount"], b"none", where.encode(), b"tmpfs", ctypes.c_long(0), b"size=4096"
        )
        if not done[1]:
            libc.umount2(where.encode(), 2)
        return done
    finally:
        os.rmdir(where)


def makes_device() -> Tuple[str, bool]:
    path = b"/tmp/probe-device"
    whole = ctypes.c_long
    try:
        return call(NUMBERS["mknodat"], whole(-100), path, whole(0o60600), whole(0xFE00))
    finally:
        if os.path.lexists(path):
            os.unlink(path)


def uses_device() -> Tuple[str, bool]:
    """Make a block device where gVisor lets anybody make one, and open it: there is none behind."""
    path = "/tmp/probe-device"
    os.mknod(path, 0o60600, 0xFE00)
    try:
        return opens(path, os.O_RDONLY)
    finally:
        os.unlink(path)


def main(port: int, has_own_kernel: bool, has_couriers: bool) -> None:
    """Run all and print what came of them."""
    tcp, udp = socket.AF_INET, socket.SOCK_DGRAM
    attack("T01", "put a link among the server's sockets", "EROFS", dial_directory)
    attack("T01", "rename the server's socket", "EROFS", dial_sockets)
    attack("T01", "write to the guest's own code", "EROFS", lambda: writes(GUEST + "/probe"))
    attack(
        "T01",
        "find the container service's socket",
        "is not there",
        lambda: opens("/var/run/docker.sock", os.O_RDONLY),
    )
    attack("T05", "find a network", "lo, 0 routes", only_loopback)
    attack(
        "T05",
        "reach the Jupyter Server at 127.0.0.1",
        "ECONNREFUSED",
        lambda: connects(tcp, ("127.0.0.1", port)),
    )
    attack(
        "T05", "reach cloud metadata", "ENETUNREACH", lambda: connects(tcp, ("169.254.169.254", 80))
    )
    attack(
        "T05",
        "reach an address of a private network",
        "ENETUNREACH",
        lambda: connects(tcp, ("10.0.0.1", 80)),
    )
    attack("T05", "reach another network", "ENETUNREACH", lambda: connects(tcp, ("192.0.2.1", 443)))
    attack("T06", "resolve a name", "refused", resolves)
    attack("T06", "open a raw socket", "EPERM", lambda: makes_socket(tcp, socket.SOCK_RAW, 1))
    attack("T06", "open a packet socket", "EPERM", lambda: makes_socket(17, socket.SOCK_RAW))
    attack("T06", "open a socket to the hypervisor", "EPERM", lambda: makes_socket(40, 1))
    attack("T06", "open a socket of the kernel's ciphers", "EPERM", lambda: makes_socket(38, 5))
    attack("T06", "open a Bluetooth socket", "EPERM", lambda: makes_socket(31, udp))
    attack("T06", "find abstract sockets of the host", "none", no_host_sockets)
    attack("T12", "gain rights by a setuid program", "no new privileges: 1", set_user)
    attack("T13", "have capabilities of the host's root", "at most 800000fb", capabilities)
    attack("T13", "mount a file system", "EPERM", lambda: system_call("mount"))
    attack("T13", "use the kernel's keys", "EPERM", lambda: system_call("add_key"))
    attack("T13", "load a BPF program", "EPERM", lambda: system_call("bpf"))
    attack("T13", "handle page faults", "EPERM", lambda: system_call("userfaultfd"))
    if has_own_kernel:
        attacks_on_gvisor()
    else:
        attacks_on_the_hosts_kernel()
    attack(
        "T14",
        "change what handles crashes on the host",
        "refused",
        lambda: opens("/proc/sys/kernel/core_pattern"),
    )
    attack(
        "T14", "reach the host's emergency keys", "refused", lambda: opens("/proc/sysrq-trigger")
    )
    attack("T14", "read the host's memory", "refused", lambda: opens("/proc/kcore", os.O_RDONLY))
    attack("T14", "change a control group", "none", writable_groups)
    attack("T16", "make a file without end", "a limit", lambda: limit(resource.RLIMIT_FSIZE))
    attack("T16", "leave a memory image", "0", lambda: limit(resource.RLIMIT_CORE))
    attack("T03", "open files without number", "a limit", lambda: limit(resource.RLIMIT_NOFILE))
    attack("T26", "see processes of the host", "the guest as process 1", first_process)
    attack("T26", "see the server's environment", "none", environment)
    attack(
        "T44",
        "pass a descriptor to the server",
        "EPERM, or to a courier",
        lambda: passes_descriptor(has_couriers),
    )
    attack("T27", "write to the uploads", "EROFS", lambda: writes(UPLOADS + "/probe"))


def attacks_on_the_hosts_kernel() -> None:
    attack("T13", "make system calls that are not needed", "Seccomp 2", filtered)
    attack("T13", "make a user namespace", "EPERM", lambda: system_call("unshare"))
    attack("T13", "make a block device", "EPERM", lambda: system_call("mknodat"))
    attack("T13", "watch the kernel by perf", "EPERM", watch_by_perf)
    attack("T13", "make an io_uring", "EPERM", io_uring)
    attack("T14", "find devices", "none", devices)
    attack("T44", "let the last close of a socket wait", "it does not wait", lets_a_close_wait)
    attack("T60", "take asynchronous requests", "ENOSYS", lambda: system_call("io_setup"))
    attack("T61", "open terminals without number", "ENOSPC after 64", terminals)
    attack("T61", "make timers without number", "a limit of its own", timers)
    processes_without_number()


def attacks_on_gvisor() -> None:
    """Make those that its kernel answers otherwise; processes without number come by themselves."""
    attack("T13", "make system calls that are not needed", "answered by gVisor", is_gvisor)
    own = "refused, or gVisor's own"
    attack("T13", "make a user namespace", own, lambda: gvisors_own(lambda: system_call("unshare")))
    attack("T13", "watch the kernel by perf", own, lambda: gvisors_own(watch_by_perf))
    attack("T13", "make an io_uring", own, lambda: gvisors_own(io_uring))
    attack("T13", "use a block device", "ENXIO", uses_device)
    attack(
        "T44", "let the last close of a socket wait", own, lambda: gvisors_own(lets_a_close_wait)
    )
    known = HARMLESS_DEVICES | GVISOR_DEVICES
    attack("T14", "find devices", "none but gVisor's own", lambda: devices(known))


def processes_without_number() -> None:
    attack("T15", "make processes without number", "EAGAIN", processes)


if __name__ == "__main__":
    if sys.argv[2] == "processes":
        processes_without_number()
    else:
        main(int(sys.argv[1]), sys.argv[2] == "own", sys.argv[3:] == ["couriers"])
    print("\nPROBE " + json.dumps(found))
