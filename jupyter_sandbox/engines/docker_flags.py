"""The container of one sandbox as the Docker Engine API wants it, each setting with its why.

Pure: looks at nothing, calls nothing. Source of the fields:
https://docs.docker.com/reference/api/engine/version/v1.41/#operation/ContainerCreate (Podman serves
the same); of the choices: the project's security reference, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..models import JsonValue
from .base import DIAL_TARGET, ETC_DIR, Resources, SandboxSpec
from .host_counters import DEVPTS_OPTIONS, MESSAGE_QUEUE_BYTES, PENDING_SIGNALS
from .seccomp_json import PROFILE_FILE, profile_text
from .seccomp_rules import ALLOCATING

LABEL_ID = "jupyter-sandbox.id"
LABEL_SERVER = "jupyter-sandbox.server"
PYTHON = "python3"

# What apt, dpkg and servers that drop their privileges need inside the container, and no more: with
# these, installs behave as with Docker's own set. Left out: NET_RAW, NET_BIND_SERVICE, MKNOD,
# SYS_CHROOT, AUDIT_WRITE, SETPCAP.
CAPABILITIES = (
    "CHOWN",  # packages' files get their owners
    "DAC_OVERRIDE",  # root reads and writes files of the other users inside
    "FOWNER",  # ... and changes their modes and times
    "SETUID",  # apt fetches as _apt, servers drop to their user
    "SETGID",
    "FSETID",  # setgid programs keep their bit when they are installed
    "KILL",  # the guest ends what runs as another user inside
    "SETFCAP",  # packages that set file capabilities (ping)
)


_OWN_KERNELS = {
    "runsc": "gVisor: system calls go to a kernel of its own",
    "kata": "Kata: a virtual machine",
}
_KERNEL_TASKS = 256
_TASKS_PER_PROCESS = 8


@dataclass(frozen=True)
class DockerSettings:
    """What of the daemon and of the engine's traits decides how containers are made.

    Attributes
    ----------
    image : str
        Name or digest; never pulled.
    oci_runtime : str
        ``"runsc"`` for gVisor; "" for the daemon's default.
    has_own_kernel : bool
        Whether that runtime puts a kernel of its own between (``own_kernel``).
    api_version : tuple of int
        That both sides speak, e.g. ``(1, 41)``.
    reads_profile_files : bool
        Whether a seccomp profile is named by its path (Podman), not given as text (Docker).
    user_processes : int
        Resource limit for processes to ask for; 0: the service's own. It is no bound of the
        sandbox: root counts with all of the host's.
    limits_swap : bool
        Whether the kernel accounts for swap. Without it a swap limit is refused or ignored.
    limits_disk : bool
        Whether the service can limit a container's layer (overlay2 on XFS with project quotas).
        Elsewhere it refuses to make one with a limit.
    """

    image: str
    oci_runtime: str = ""
    has_own_kernel: bool = False
    api_version: tuple[int, ...] = (1, 41)
    reads_profile_files: bool = False
    user_processes: int = 0
    limits_swap: bool = True
    limits_disk: bool = False


def own_kernel(runtime: str) -> str:
    """Say in words which kernel of its own a runtime of this name has; "" for none."""
    return next((text for name, text in _OWN_KERNELS.items() if name in runtime), "")


def container_name(sandbox_id: str) -> str:
    """Give the container's name: making a second one of the same name is refused (409)."""
    return f"jsbx-{sandbox_id}"


def create_config(spec: SandboxSpec, settings: DockerSettings) -> dict[str, JsonValue]:
    """Give the body of ``POST /containers/create``."""
    return {
        "Image": settings.image,
        # As entrypoint, so that nothing of the image's own runs. The guest is PID 1 and reaps.
        "Entrypoint": [PYTHON if part == "{python}" else part for part in spec.guest_argv],
        "Cmd": [],
        # The spec's and no more; PATH and HOME are the image's.
        "Env": [f"{name}={value}" for name, value in spec.env.items()],
        "WorkingDir": spec.workdir,  # a fixed path, never a link to a descriptor (CVE-2024-21626)
        "Hostname": spec.hostname,
        "Labels": {LABEL_ID: spec.sandbox_id, LABEL_SERVER: spec.server_id},
        "Tty": False,
        "OpenStdin": False,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "StopTimeout": 0,  # Podman takes it for removing too, where Docker kills at once
        # The writable directories need no volumes: they are in the container's own layer.
        "HostConfig": _host_config(spec, settings),
    }


def _host_config(spec: SandboxSpec, settings: DockerSettings) -> dict[str, JsonValue]:
    config: dict[str, JsonValue] = {
        **_isolation(settings),
        **_limits(spec, settings),
        "Mounts": [*_mounts(spec), *_terminals(settings)],
        "Tmpfs": {
            # Python, npm and others run programs from /tmp; Docker's default would be noexec.
            "/tmp": f"rw,exec,nosuid,nodev,size={spec.resources.tmp_bytes},mode=1777",
            # Pid files and sockets of servers; the dial directory is mounted above it.
            "/run": "rw,nosuid,nodev,size=16m,mode=755",
        },
        # A container's stdout would fill the host's disk (4 MiB as json-file became 144 MB).
        "LogConfig": {"Type": "none", "Config": {}},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},  # we decide when to start anew
        "AutoRemove": False,  # how it ended must be readable afterwards
        "Init": False,  # the guest is the init
    }
    if settings.limits_disk:
        config["StorageOpt"] = {"size": str(spec.resources.disk_bytes)}
    if settings.oci_runtime:
        config["Runtime"] = settings.oci_runtime
    if settings.api_version >= (1, 41):
        config["CgroupnsMode"] = "private"  # the host's cgroup paths are not visible
    return config


def _isolation(settings: DockerSettings) -> dict[str, JsonValue]:
    unsupported = frozenset() if settings.limits_disk else ALLOCATING
    profile = profile_text(unsupported)
    if settings.reads_profile_files:
        profile = str(PROFILE_FILE)
    return {
        "NetworkMode": "none",  # loopback only; the way out is a unix socket
        "IpcMode": "private",  # no shared memory with others
        "CapDrop": ["ALL"],
        "CapAdd": list(CAPABILITIES),
        # setuid programs gain nothing. Our own list of system calls: the daemon's is that of its
        # age. Its AppArmor or SELinux profile stays in force.
        "SecurityOpt": ["no-new-privileges", f"seccomp={profile}"],
        "Privileged": False,
        # Never "UsernsMode": "host": on a remapping daemon it would give the host's root back and
        # make the control groups writable.
    }


def _limits(spec: SandboxSpec, settings: DockerSettings) -> dict[str, JsonValue]:
    resources = spec.resources
    limits: dict[str, JsonValue] = {
        "Memory": resources.memory_bytes,
        "NanoCpus": int(resources.cpus * 1_000_000_000),
        "PidsLimit": _processes(spec, settings),
        "OomScoreAdj": 500,  # when the host runs out of memory, a sandbox goes before the server
        "ShmSize": resources.shm_bytes,
        "Ulimits": _ulimits(resources, settings),
    }
    if settings.limits_swap:
        limits["MemorySwap"] = resources.memory_bytes  # memory and swap together: no swap
    return limits


def _ulimits(resources: Resources, settings: DockerSettings) -> list[JsonValue]:
    limits = {
        "nofile": resources.open_files,
        "core": 0,
        "fsize": resources.file_bytes,  # one file; also stops sparse files of many terabytes
        # Counted for root of the host: it keeps the rest.
        "sigpending": PENDING_SIGNALS,
        "msgqueue": MESSAGE_QUEUE_BYTES,
    }
    if settings.user_processes:
        # The user's own. Podman would ask for 2**20, which a host whose root has not
        # CAP_SYS_RESOURCE refuses.
        limits["nproc"] = settings.user_processes
    return [{"Name": name, "Soft": most, "Hard": most} for name, most in limits.items()]


def _processes(spec: SandboxSpec, settings: DockerSettings) -> int:
    """Give the number of the host's tasks; threads count too: a fork bomb ends here."""
    if not settings.has_own_kernel:
        return spec.resources.processes
    # gVisor has some 50 tasks itself and, on its ptrace platform, 7 for each process inside; it
    # ends when it gets no more, and the sandbox with it: so these must do for what is allowed.
    return _KERNEL_TASKS + _TASKS_PER_PROCESS * spec.resources.processes


def _terminals(settings: DockerSettings) -> list[JsonValue]:
    """Give the mount that bounds the terminals: the service's own has all of the host's.

    A volume without a name, which the service mounts, and removes with the container. gVisor has
    terminals of its own; Podman was not tried.
    """
    if settings.has_own_kernel or settings.reads_profile_files:
        return []
    options: dict[str, JsonValue] = {"type": "devpts", "device": "devpts", "o": DEVPTS_OPTIONS}
    return [
        {
            "Type": "volume",
            "Target": "/dev/pts",
            "VolumeOptions": {
                "NoCopy": True,
                "DriverConfig": {"Name": "local", "Options": options},
            },
        }
    ]


def _mounts(spec: SandboxSpec) -> list[JsonValue]:
    # Instead of these three the service would mount writable files of the host's disk, which no
    # limit on the container's layer counts.
    etc = spec.etc_dir or ETC_DIR
    mounts = {f"/etc/{name}": etc / name for name in ("hosts", "hostname", "resolv.conf")}
    mounts |= {mount.target: mount.source for mount in spec.mounts}
    mounts |= {DIAL_TARGET: spec.dial_dir}
    return [
        {
            # Unlike "Binds", a mount whose source is missing is refused, not made by root.
            "Type": "bind",
            "Source": str(source),
            "Target": target,
            "ReadOnly": True,  # connecting to a socket works, replacing one does not
            "BindOptions": {"Propagation": "rprivate"},
        }
        for target, source in mounts.items()
    ]
