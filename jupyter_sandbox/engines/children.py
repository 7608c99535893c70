"""The processes this server has started and must reap, over all engine objects.

A child that ended stays a zombie until its parent asks for its exit code. Whoever notices the end
of one asks here. The rule: an exit code is kept until ``forget``.
"""

from __future__ import annotations

import subprocess
import threading

from . import process_table
from .process_table import ProcessId

_children: dict[ProcessId, subprocess.Popen[bytes]] = {}
_lock = threading.Lock()  # guards the dict and each poll(); never held while waiting


def adopt(child: subprocess.Popen[bytes]) -> ProcessId:
    """Take a process that was started just now and not waited for."""
    process = process_table.identify(child.pid)
    assert process is not None  # not reaped yet: at least a zombie is there
    with _lock:
        _children[process] = child
    return process


def exit_code(process: ProcessId) -> int | None:
    """Give the exit code of a child of ours that has ended (128 + n for signal n), else None."""
    with _lock:
        child = _children.get(process)
        code = None if child is None else child.poll()
    return code if code is None or code >= 0 else 128 - code


def forget(process: ProcessId) -> None:
    """Reap it if it has ended, and remember its exit code no longer."""
    with _lock:
        child = _children.get(process)
        if child is not None and child.poll() is not None:
            del _children[process]
