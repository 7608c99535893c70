"""What every engine can do: nine idempotent verbs over isolated environments.

An engine makes containers and knows nothing else: no kernels, users, conversations or tools. It
starts the *guest* as PID 1 of the environment (``spec.guest_argv``) with ``spec.dial_dir`` mounted
read-only; the guest dials the unix sockets in it. Engines never exec into a container, never copy
into or out of it and never open a path that the container can write.

Whoever calls an engine calls it from the event loop; blocking clients hide behind an executor of
the engine's own. Every verb may be called again after a crash at any point: ``start`` of a running
environment gives that one, ``remove`` of a missing one succeeds.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ..models import Enforced


class EngineState(enum.StrEnum):
    """What an engine says of one environment."""

    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"


@dataclass(frozen=True)
class Resources:
    """Limits of one environment, enforced by the kernel.

    ``memory_bytes`` includes tmpfs; there is no swap beyond it. ``cpus`` may be a fraction.
    ``processes`` counts threads too. ``open_files`` is per process. ``disk_bytes`` and
    ``disk_entries`` (files and directories) are of all it writes on a disk; where the kernel cannot
    limit them, ``Engine.usage`` says what it takes and somebody above must watch.
    """

    memory_bytes: int = 2 * 1024**3
    cpus: float = 2.0
    processes: int = 512
    open_files: int = 8192
    file_bytes: int = 5 * 1024**3
    shm_bytes: int = 256 * 1024**2
    tmp_bytes: int = 1024**3
    disk_bytes: int = 10 * 1024**3
    disk_entries: int = 500_000

    @property
    def socket_bytes(self) -> int:
        """What its sockets may hold where the kernel does not count that as memory."""
        return self.memory_bytes // 8


@dataclass(frozen=True)
class Mount:
    """A host directory seen inside. Everything the host mounts is read-only inside."""

    source: Path
    target: str


@dataclass(frozen=True)
class SandboxSpec:
    """All that an engine needs to make one environment.

    Attributes
    ----------
    sandbox_id : str
        12 to 32 characters ``[0-9a-f]``; unique; the engine derives its own names from it.
    server_id : str
        Which installation it belongs to, for ``list`` (a label; ``[0-9a-f]``).
    dial_dir : Path
        Host directory with the host's sockets, mounted read-only at ``DIAL_TARGET``. Mode 0755:
        the sandbox's user is another; a directory above it keeps others out.
    mounts : sequence of Mount
        Further read-only mounts: the guest bundle at ``GUEST_TARGET``, uploads. Sources are
        directories that exist, also 0755.
    writable_dirs : sequence of str
        Absolute paths inside that must exist and be private and writable (workspace, outputs).
    workdir : str
        Working directory of the guest; one of ``writable_dirs``.
    guest_argv : sequence of str
        The command of PID 1. ``{python}`` stands for the interpreter the engine offers inside.
    env : mapping
        The whole environment of PID 1, but for ``PATH``, ``HOME`` and what the engine must add so
        that the software inside works (virtual environment, certificates). Nothing is inherited
        from the server.
    etc_dir : Path, optional
        A copy of ``ETC_DIR`` in a place whose name may be known inside: mounts name their sources
        (``/proc/self/mountinfo``). None: that directory itself.
    """

    sandbox_id: str
    server_id: str
    dial_dir: Path
    guest_argv: Sequence[str]
    mounts: Sequence[Mount] = ()
    writable_dirs: Sequence[str] = ("/workspace", "/mnt/user-data/outputs")
    workdir: str = "/workspace"
    env: dict[str, str] = field(default_factory=dict)
    hostname: str = "sandbox"
    resources: Resources = field(default_factory=Resources)
    etc_dir: Path | None = None


@dataclass(frozen=True)
class EngineSandbox:
    """One environment as the engine sees it.

    ``handle`` is the engine's own id (container id, process id) for log lines; callers use
    ``sandbox_id`` everywhere. ``exit_code`` is of PID 1, 128 + n for signal n; None while it runs
    or when nobody knows. ``out_of_memory`` means that the kernel has killed a process in it for
    memory, as far as the engine learns of it: with docker when PID 1 has ended, with bubblewrap
    at once. It stays true until the environment is removed. ``ends_at_limits``: at its limit of
    memory or processes the whole of it ends, not the process that wanted more.
    """

    sandbox_id: str
    server_id: str
    state: EngineState
    handle: str
    created_at: datetime
    exit_code: int | None = None
    out_of_memory: bool = False
    ends_at_limits: bool = False


@dataclass(frozen=True)
class EngineHealth:
    """Whether an engine can be used here, and why or why not (``reason`` is safe to show)."""

    available: bool
    reason: str
    version: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineUsage:
    """What an environment takes, and how often it has met a limit since it was started.

    Attributes
    ----------
    disk_bytes, disk_entries : int or None
        What it has written on a disk and is still there, files that are deleted but open too. None:
        not asked for, not known, or limited by the kernel, so that nobody needs to watch.
    memory_kills : int
        Processes that the kernel has killed for memory.
    processes_refused : int
        New processes and threads that the limit has refused.
    cpu_seconds : float or None
        Processor time of all its processes, also of those that have ended; None: not known.
    memory_bytes : int or None
        What it takes of the host's memory; None: not known.
    """

    disk_bytes: int | None = None
    disk_entries: int | None = None
    memory_kills: int = 0
    processes_refused: int = 0
    cpu_seconds: float | None = None
    memory_bytes: int | None = None


ETC_DIR = Path(__file__).parent / "etc"
"""``hosts``, ``hostname`` and ``resolv.conf`` of a container."""

DIAL_TARGET = "/run/jupyter-sandbox/dial"
GUEST_TARGET = "/opt/jupyter-sandbox"


class Engine(ABC):
    """The interface. Raises ``Unavailable`` when the engine does not answer or refuses."""

    name: str

    @abstractmethod
    async def check(self) -> EngineHealth:
        """Say whether this engine works here. For start-up and health checks; never raises."""

    @abstractmethod
    async def start(self, spec: SandboxSpec) -> EngineSandbox:
        """Create and start the environment; give the one that is there already if it runs.

        A paused one is given as it is; one that has exited is removed and made anew, empty. Does
        not wait for the guest. When it raises, nothing is left behind. Called once per
        provisioning, under a lock.
        """

    @abstractmethod
    async def inspect(self, sandbox_id: str) -> EngineSandbox | None:
        """Give the present state, or None when there is no such environment."""

    @abstractmethod
    async def list(self, server_id: str) -> list[EngineSandbox]:
        """Give all environments of one installation, also those of an earlier server process."""

    @abstractmethod
    async def pause(self, sandbox_id: str) -> None:
        """Freeze all processes. Twice is once. ``Unavailable`` when there is none."""

    @abstractmethod
    async def resume(self, sandbox_id: str) -> None:
        """Let a frozen environment go on. Twice is once. ``Unavailable`` when there is none."""

    @abstractmethod
    async def remove(self, sandbox_id: str) -> None:
        """End it and remove all it left on the host. A missing one is fine."""

    @abstractmethod
    async def enforcement(self, sandbox_id: str) -> tuple[Enforced, ...]:
        """Say what holds each of ``LIMITS`` (in their order) for a running sandbox.

        Reads it back from the kernel wherever that can be seen from here: for health checks, so
        that no limit is on paper only. ``Unavailable`` when there is no running sandbox.
        """

    async def usage(self, sandbox_id: str, *, disk: bool = False) -> EngineUsage:
        """Give what the environment takes; nothing is known of a missing one.

        Without ``disk`` it costs a few small files to read: for the end of a command. With it the
        tree may have to be walked, in a process of its own: 0.15 s for 60,000 files.
        """
        return EngineUsage()

    async def recipe(self) -> str:
        """Give of what and how this engine makes environments: another text, other environments.

        For who keeps some ready: the image as it is now, and the engine's own settings.
        """
        return self.name

    async def sweep(self, server_id: str) -> Sequence[str]:
        """Remove what crashes have left between two steps, that no environment has; name it.

        Of one installation, and what cannot be anybody's. What is under way is left alone, also
        of other server processes and installations.
        """
        return ()

    def disk_paths(self) -> Sequence[Path]:
        """Give a path on each file system of this host that environments write to."""
        return ()

    async def close(self) -> None:  # noqa: B027 - most engines have nothing to close
        """Release clients and threads; environments go on running. Twice is once."""
