"""What is written down of each local sandbox, so that a new server process finds it again.

``{state_dir}/{sandbox_id}/sandbox.json``, for engines whose sandboxes are processes of this host.
Knows no engine. The rule: a record is replaced whole or not at all, and whoever changes a sandbox
holds its lock, which ends with the process that held it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ..errors import Unavailable
from .cgroups import SandboxGroups
from .process_table import ProcessId

_NAME = "sandbox.json"
_ALSO = {f"{_NAME}.new", "fstab"}  # what can be there without a record: a server was killed
_ID = re.compile(r"[0-9a-f]{12,32}")


@dataclass(frozen=True)
class SandboxRecord:
    """One sandbox on disk.

    Attributes
    ----------
    init : ProcessId or None
        PID 1 of the sandbox as the host numbers it; None while it is being started.
    launcher : ProcessId or None
        The process that waits for it outside.
    uid : int or None
        Host user that was claimed for it.
    """

    sandbox_id: str
    server_id: str
    created_at: datetime
    init: ProcessId | None = None
    launcher: ProcessId | None = None
    uid: int | None = None
    groups: SandboxGroups = field(default_factory=SandboxGroups)

    def to_json(self) -> str:
        """Give the text of the file."""
        return json.dumps(
            {
                "sandbox_id": self.sandbox_id,
                "server_id": self.server_id,
                "created_at": self.created_at.isoformat(),
                "init": _process_to_json(self.init),
                "launcher": _process_to_json(self.launcher),
                "uid": self.uid,
                "cgroups": self.groups.to_json(),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> SandboxRecord:
        """Read the text of the file. ``ValueError`` when it is none of ours."""
        try:
            shape = json.loads(text)
            return cls(
                sandbox_id=shape["sandbox_id"],
                server_id=shape["server_id"],
                created_at=datetime.fromisoformat(shape["created_at"]),
                init=_process_from_json(shape["init"]),
                launcher=_process_from_json(shape["launcher"]),
                uid=shape["uid"],
                groups=SandboxGroups.from_json(shape["cgroups"]),
            )
        except (KeyError, TypeError) as exc:
            raise ValueError(f"not a sandbox record: {exc!r}") from exc


class Records:
    """The records of one state directory (made when it is first written to, mode 0700)."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir

    def __repr__(self) -> str:
        return f"<Records {self.state_dir}>"

    def directory(self, sandbox_id: str) -> Path:
        """Give the sandbox's directory for small files of the engine."""
        if not _ID.fullmatch(sandbox_id):
            raise ValueError(f"not a sandbox id: {sandbox_id!r}")
        return self.state_dir / sandbox_id

    def read(self, sandbox_id: str) -> SandboxRecord | None:
        """Give the record; None when there is none (or none that was written whole)."""
        try:
            return SandboxRecord.from_json((self.directory(sandbox_id) / _NAME).read_text())
        except (OSError, ValueError):
            return None

    def has(self, sandbox_id: str) -> bool:
        """Say whether there is a record, whether it can be read or not."""
        return bool(_ID.fullmatch(sandbox_id)) and (self.state_dir / sandbox_id / _NAME).exists()

    def write(self, record: SandboxRecord) -> None:
        """Write it, whole. The lock is held."""
        directory = self.directory(record.sandbox_id)
        new = directory / f"{_NAME}.new"
        new.write_text(record.to_json())
        new.replace(directory / _NAME)

    def remove(self, sandbox_id: str) -> None:
        """Remove the record and its directory. The lock is held. A missing one is fine."""
        directory = self.directory(sandbox_id)
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(directory):
                (directory / name).unlink(missing_ok=True)
            directory.rmdir()

    def ids(self) -> list[str]:
        """Give the ids of all sandboxes that have a directory."""
        try:
            return sorted(name for name in os.listdir(self.state_dir) if _ID.fullmatch(name))
        except FileNotFoundError:
            return []

    def find_foreign(self) -> Path | None:
        """Give something in a sandbox's place that is not of ours; None if there is none.

        What has no record is swept away, so it must not be somebody else's.
        """
        for sandbox_id in self.ids():
            directory = self.directory(sandbox_id)
            try:
                names = set(os.listdir(directory))
            except FileNotFoundError:  # its sandbox was removed just now
                continue
            except OSError:
                return directory
            if _NAME not in names and not names <= _ALSO:
                return directory
        return None

    @contextlib.contextmanager
    def lock(self, sandbox_id: str, timeout_seconds: float) -> Iterator[None]:
        """Hold the sandbox against all other threads and server processes.

        Guards whatever changes a sandbox; reading a record needs no lock. Blocks: not for the
        event loop. ``Unavailable`` when it is not free in time.
        """
        directory = self.directory(sandbox_id)
        deadline = time.monotonic() + timeout_seconds
        while True:
            self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):  # `exist_ok` looks again, and it may be gone
                directory.mkdir(mode=0o700)
            try:
                fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:  # removed by the holder before us
                continue
            try:
                if _flock(fd, deadline) and _is_still(fd, directory):
                    yield
                    return
            finally:
                os.close(fd)
            if time.monotonic() > deadline:
                raise Unavailable("the sandbox is busy starting or ending", status=504)


def _flock(fd: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)


def _is_still(fd: int, directory: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(directory))
    except FileNotFoundError:
        return False


def _process_to_json(process: ProcessId | None) -> list[int] | None:
    return None if process is None else [process.pid, process.started]


def _process_from_json(shape: list[int] | None) -> ProcessId | None:
    return None if shape is None else ProcessId(int(shape[0]), int(shape[1]))
