"""What is done with a sandbox that stands in the records: look at it, freeze, end, clear away.

For engines whose sandboxes are processes of this host. Whoever calls holds the sandbox's lock, but
for looking. The rule: a process is known by its number and its start, never by its number alone.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import Unavailable
from . import children, process_table
from .base import EngineSandbox, EngineState
from .process_table import ProcessId
from .records import SandboxRecord

MARKER = "JUPYTER_SANDBOX_ID"
"""In the environment of each launcher: finds one that was not written down any more."""

SERVER_MARKER = "JUPYTER_SANDBOX_SERVER"
"""Likewise: of which installation it is."""

EXIT_SECONDS = 10.0
_LAUNCHER_SECONDS = 1.0
_REMOVE_SECONDS = 300.0
_QUIET_LOOKS = 5
_LOOK_SECONDS = 0.01


def to_sandbox(record: SandboxRecord) -> EngineSandbox:
    """Give what an engine says of it now."""
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


def freeze(record: SandboxRecord, init: ProcessId) -> None:
    """Stop all its processes, by a freezer where there is one; ``Unavailable`` if they go on."""
    if record.groups.can_freeze:
        done = record.groups.freeze(EXIT_SECONDS)
    else:
        done = process_table.stop_tree(init)
    if not done:
        thaw(record, init)
        raise Unavailable("the sandbox could not be paused", status=504)


def thaw(record: SandboxRecord, init: ProcessId) -> None:
    """Let all its processes go on."""
    if record.groups.can_freeze:
        record.groups.thaw()
    else:
        process_table.continue_tree(init)


def end(record: SandboxRecord) -> None:
    """Kill PID 1, with which the kernel ends all others, and wait for the launcher."""
    left = [process for process in (record.init, record.launcher) if process is not None]
    if not left:  # the server died between starting bubblewrap and writing it down
        _end_unrecorded(f"{MARKER}={record.sandbox_id}")
    for process in left:
        process_table.signal_kill(process)
        with contextlib.suppress(OSError):
            record.groups.thaw()  # a frozen process takes its KILL when it is thawed
        # The launcher is killed only after it could reap PID 1 and end: an init that was left to
        # the host's PID 1 can stay a zombie for long.
        if not process_table.wait(process, EXIT_SECONDS):
            raise Unavailable("the sandbox's processes could not be ended", status=504)
        if process == record.init and record.launcher is not None:
            process_table.wait(record.launcher, _LAUNCHER_SECONDS)
    if record.launcher is not None:
        children.forget(record.launcher)


def _end_unrecorded(marker: str) -> None:
    """Kill what was on its way to its gate, and what that has started meanwhile.

    The launcher forks on its way, so a process can be born while we look: one that is left waits
    for ever, with the sandbox's mounts. Hence looks until some in a row find none.
    """
    deadline = time.monotonic() + EXIT_SECONDS
    quiet = 0
    while quiet < _QUIET_LOOKS:
        found = process_table.find_by_environment(marker)
        for process in found:
            process_table.kill_tree(process)
        quiet = 0 if found else quiet + 1
        if time.monotonic() > deadline:
            raise Unavailable("the sandbox's processes could not be ended", status=504)
        time.sleep(_LOOK_SECONDS)


def delete(root: Path) -> None:
    """Remove a tree that a sandbox wrote: by ``rm``, for which no tree is too deep."""
    command = ["rm", "-rf", "--one-file-system", "--", str(root)]
    with translated("the sandbox's files could not be removed"):
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
def translated(message: str) -> Iterator[None]:
    """Raise ``Unavailable`` with this message for an error of the system."""
    try:
        yield
    except (OSError, subprocess.SubprocessError) as exc:
        raise Unavailable(message, detail=str(exc)) from exc
