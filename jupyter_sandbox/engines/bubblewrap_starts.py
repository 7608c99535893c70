"""How a bubblewrap sandbox is started: what is prepared for it, in which order, and why so.

Its record is written before anything is made for it, so that what a crash leaves can be found; its
PID 1 waits at the gate of ``bubblewrap_launch`` until it is recorded and limited. Knows nothing of
looking, pausing and ending. The rule: nothing of the sandbox runs before its limits hold.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..errors import Unavailable
from . import bubblewrap_flags, bubblewrap_launch, process_limits, recorded, seccomp_bpf, uids
from .base import SandboxSpec
from .bubblewrap_bounds import TERMINALS_PLACE, own_bounds_command
from .bubblewrap_program import Bubblewrap
from .cgroups import Cgroups
from .disk_images import DiskImages
from .host_view import HostView
from .private_files import PrivateFiles, etc_files, make_root, write_writable
from .records import Records, SandboxRecord
from .seccomp_rules import ALLOCATING
from .staging import Stage, StagedDisk, plan_stage


@dataclass(frozen=True)
class BubblewrapStarts:
    """What of the engine and of this host decides how sandboxes are started.

    Attributes
    ----------
    data_dir, stage_dir : Path
    uid_base : int
        Settings of the engine, as are the seconds.
    images : DiskImages or None
        Makes a disk for each sandbox; None: its files lie in ``data_dir``.
    is_root : bool
        Whether each sandbox gets a host user of its own.
    has_bounds : bool
        Whether what the kernel counts for more than one sandbox can be bounded here.
    """

    records: Records
    data_dir: Path
    stage_dir: Path
    uid_base: int
    timeout_seconds: float
    cgroups: Cgroups
    view: HostView
    images: DiskImages | None
    is_root: bool
    has_bounds: bool

    def root_of(self, sandbox_id: str) -> Path:
        """Give the directory of a sandbox's files."""
        return Path(os.path.realpath(self.data_dir)) / sandbox_id

    def start(self, spec: SandboxSpec, program: Bubblewrap) -> None:
        """Make everything for it and start it; the lock is held, and nothing of it is there.

        Raises
        ------
        LaunchFailed, OSError, Unavailable
            What was made so far is left for the engine to remove.
        """
        spec = _with_real_paths(spec)
        record = SandboxRecord(spec.sandbox_id, spec.server_id, datetime.now(UTC))
        record = dataclasses.replace(record, groups=self.cgroups.groups_of(spec.sandbox_id))
        self.records.write(record)  # before there is anything of it, so that all of it is found
        uid = self._claim_uid(spec)
        if uid is not None:
            record = dataclasses.replace(record, uid=uid)
            self.records.write(record)
        view = self.view
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = self._write_files(spec, view, uid)
        unsupported = frozenset() if self.images is not None else ALLOCATING
        groups = self.cgroups.create(spec.sandbox_id, spec.resources)
        limits = process_limits.choose(spec.resources, self.cgroups.missing, self.is_root)
        stage = Stage(Path())
        if uid is not None:
            stage = self._stage(spec, view, files, program, uid)
        terminals, prefix = stage.terminals, self._staged(stage, spec.sandbox_id)
        if uid is None and self.has_bounds:
            terminals, prefix = TERMINALS_PLACE, own_bounds_command()
        arguments = bubblewrap_flags.create_arguments(
            *(spec, view, files),
            version=program.version,
            relocate=stage.relocate,
            terminals=terminals,
        )
        with bubblewrap_launch.launch(
            [*prefix, *_as_user(uid, limits)],
            str(stage.relocate(program.path)),
            arguments,
            bubblewrap_flags.guest_command(spec),
            seccomp=seccomp_bpf.program(os.uname().machine, unsupported),
            texts={f"/etc/{name}": text for name, text in etc_files(spec.hostname).items()},
            environment={
                "PATH": os.defpath + ":/usr/sbin:/sbin",
                recorded.MARKER: spec.sandbox_id,
                recorded.SERVER_MARKER: spec.server_id,
            },
            timeout_seconds=self.timeout_seconds,
        ) as launched:
            record = dataclasses.replace(record, init=launched.init, launcher=launched.launcher)
            self.records.write(record)
            groups.add(launched.init.pid)
            if uid is None:  # earlier, nproc would count all processes of this user
                process_limits.apply(launched.init.pid, limits)
            # When the host itself runs out of memory, a sandbox goes before the server.
            with contextlib.suppress(OSError):
                Path(f"/proc/{launched.init.pid}/oom_score_adj").write_text("500")
            launched.open_gate(self.timeout_seconds)

    def _claim_uid(self, spec: SandboxSpec) -> int | None:
        if not self.is_root:
            return None
        for source in (spec.dial_dir, *(mount.source for mount in spec.mounts)):
            if stat.S_IMODE(os.stat(source).st_mode) & 0o005 != 0o005:
                raise Unavailable(
                    "a directory to be mounted cannot be read by the sandbox's user",
                    detail=f"{source} must have mode 0755; a directory above it may be private",
                )
        self.stage_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        return uids.claim(self.stage_dir / "uids", spec.sandbox_id, self.uid_base)

    def _write_files(self, spec: SandboxSpec, view: HostView, uid: int | None) -> PrivateFiles:
        """Write what the sandbox starts with, its disk into an image where that can be."""
        files = PrivateFiles.beneath(self.root_of(spec.sandbox_id), self.images is not None)
        make_root(files)
        if self.images is None:
            write_writable(files, spec.writable_dirs, view.python, uid)
            return files

        def fill(directory: Path) -> None:
            write_writable(
                PrivateFiles(directory, directory), spec.writable_dirs, view.python, None
            )

        self.images.create(files.image, spec.resources, tuple(spec.writable_dirs), fill)
        return files

    def _stage(
        self, spec: SandboxSpec, view: HostView, files: PrivateFiles, program: Bubblewrap, uid: int
    ) -> Stage:
        mounts = [mount.source for mount in spec.mounts]
        sources = [files.root, spec.dial_dir, *mounts, *view.read_only, program.path.parents[2]]
        in_image = files.disk != files.root
        disk = StagedDisk(files.image, files.disk, uid) if in_image else None
        return plan_stage(self.stage_dir, sources, disk, bounds_terminals=self.has_bounds)

    def _staged(self, stage: Stage, sandbox_id: str) -> Sequence[str]:
        if not stage.is_needed:
            return []
        table = self.records.directory(sandbox_id) / "fstab"
        table.write_text(stage.table())
        return stage.command(table)


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
