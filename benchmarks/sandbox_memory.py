"""What sandboxes take of the host's memory: the proportional share of all their processes.

The tree from a sandbox's first process on, and what the engine keeps beside it for that sandbox
alone (containerd's shim, bubblewrap's own process).
Source: https://man7.org/linux/man-pages/man5/proc_pid_smaps_rollup.5.html (Pss).
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from pathlib import Path

from .client import CaseFailed, SandboxClient
from .engine_verbs import EngineVerbs

_PROC = Path("/proc")
_KEEPERS = ("containerd-shim", "bwrap")


def memory_of(engine: EngineVerbs, client: SandboxClient, conversation: str) -> int:
    """Give what the conversation's sandbox takes, in bytes."""
    handle = engine.handle(sandbox_of(client, conversation))
    first = int(handle) if engine.name == "bubblewrap" else _container_pid(handle)
    children = _children()
    roots = [first]
    keeper = _parent(first)
    if keeper and _name(keeper).startswith(_KEEPERS):
        roots = [keeper]
    total = 0
    while roots:
        process = roots.pop()
        total += _pss(process)
        roots += children.get(process, [])
    if not total:
        raise CaseFailed("a sandbox without memory: its processes were not found")
    return total


def sandbox_of(client: SandboxClient, conversation: str) -> str:
    """Give the id of a conversation's sandbox."""
    found: str = client.json("GET", f"sandboxes/{conversation}")["sandbox_id"]
    return found


def _container_pid(handle: str) -> int:
    words = ["docker", "inspect", "-f", "{{.State.Pid}}", handle]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            found.setdefault(_parent(int(entry.name)), []).append(int(entry.name))
    return found


def _parent(process: int) -> int:
    with contextlib.suppress(OSError):
        stat = (_PROC / str(process) / "stat").read_text()
        return int(stat.rpartition(")")[2].split()[1])
    return 0


def _name(process: int) -> str:
    with contextlib.suppress(OSError):
        return (_PROC / str(process) / "comm").read_text().strip()
    return ""


def _pss(process: int) -> int:
    with contextlib.suppress(OSError):
        found = re.search(r"^Pss:\s*(\d+) kB", _rollup(process), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0


def _rollup(process: int) -> str:
    return (_PROC / str(process) / "smaps_rollup").read_text()
