"""The kernels of this sandbox: start, signal, wait, kill, and tell a new host what runs.

A kernel's sockets live inside (``ipc``, in a directory of the guest's). Its connection file and
record outlive the server process: ``init`` keeps the record and gives it to the next one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from typing import Any, Dict, List, Mapping, Optional

from .orphans import Orphans
from .spawn import Child, Spawner
from .trees import MARK, Tree


class KernelError(Exception):
    """A request that cannot be carried out; ``code`` goes on the wire."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Kernels:
    """All kernels, by id.

    Parameters
    ----------
    directory : str
        For connection files and sockets; private to the sandbox.
    python : str
        What ``{python}`` stands for.
    base_env : mapping
        Environment of every kernel; a request adds to it.
    orphans : Orphans, optional
        Where the kernel of the system has no subreapers.
    """

    def __init__(
        self,
        spawner: Spawner,
        directory: str,
        python: str,
        base_env: Mapping[str, str],
        orphans: Optional[Orphans] = None,
    ) -> None:
        self._spawner = spawner
        self._orphans = orphans
        self._directory = directory
        self._python = python
        self._base_env = dict(base_env)
        self._lock = threading.Lock()  # guards _kernels and makes `start` happen once per id
        self._kernels: Dict[str, Child] = {}
        for child in spawner.kept:
            if child.tag.get("kind") == "kernel":
                if orphans is not None:
                    orphans.begin(child.tag["stamp"])
                self._kernels[child.tag["kernel_id"]] = child

    def start(
        self,
        kernel_id: str,
        argv: List[str],
        env: Dict[str, str],
        cwd: str,
        connection: Dict[str, Any],
    ) -> Dict[str, Any]:
        """Start a kernel, or give the record of the living one with that id."""
        if not kernel_id or not all(c.isalnum() or c == "-" for c in kernel_id):
            raise KernelError("bad_request", "a kernel id is letters, digits and dashes")
        with self._lock:
            known = self._kernels.get(kernel_id)
            if known is not None and known.alive:
                return self.record(known)
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            stem = os.path.join(self._directory, kernel_id[:18])
            prefix = "%s.%d" % (stem, time.monotonic_ns() % 10**9)
            full = dict(connection)
            full.update(transport="ipc", ip=prefix)
            for number, name in enumerate(
                ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port"), start=1
            ):
                full[name] = number
            path = prefix + ".json"
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
                json.dump(full, f)
            words = {"{python}": self._python, "{connection_file}": path}
            child = self._spawn(
                [_replace(word, words) for word in argv], env, cwd, kernel_id, full, stem + ".log"
            )
            self._forget(known)
            self._kernels[kernel_id] = child
            return self.record(child)

    def record(self, child: Child) -> Dict[str, Any]:
        """Give what the host is told of a kernel."""
        tag = child.tag
        return {
            "kernel_id": tag["kernel_id"],
            "pid": child.pid,
            "alive": child.alive,
            "exit_code": child.exit_code,
            "started_at": tag["started_at"],
            "connection": tag["connection"],
        }

    def records(self) -> List[Dict[str, Any]]:
        """Give the records of all kernels."""
        with self._lock:
            return [self.record(child) for child in self._kernels.values()]

    def signal(self, kernel_id: str, signum: int, group: bool) -> None:
        """Send a signal to a kernel's process, or to its process group."""
        child = self._get(kernel_id)
        if not child.alive:
            raise KernelError("not_found", "the kernel is not running")
        try:
            (os.killpg if group else os.kill)(child.pid, signum)
        except OSError as exc:
            raise KernelError("not_found", str(exc)) from None

    def wait(self, kernel_id: str, seconds: float) -> Dict[str, Any]:
        """Wait for a kernel's end for a bounded time."""
        child = self._get(kernel_id)
        child.wait(seconds)
        return {"alive": child.alive, "exit_code": child.exit_code}

    def kill(self, kernel_id: str) -> Dict[str, Any]:
        """End a kernel with all that it started."""
        child = self._get(kernel_id)
        if child.alive:
            stamp = child.tag["stamp"]
            Tree(child.pid, child.tag["mark"], 0, self._orphans, stamp).end(grace_seconds=0.0)
            child.wait(5.0)
        return {"exit_code": child.exit_code}

    def _get(self, kernel_id: str) -> Child:
        with self._lock:
            child = self._kernels.get(kernel_id)
        if child is None:
            raise KernelError("not_found", "there is no such kernel")
        return child

    def _spawn(
        self,
        argv: List[str],
        env: Dict[str, str],
        cwd: str,
        kernel_id: str,
        connection: Dict[str, Any],
        log: str,
    ) -> Child:
        mark = "kernel-" + kernel_id
        stamp = 0
        if self._orphans is not None:
            stamp = self._orphans.new_stamp()
            self._orphans.begin(stamp)
        tag = {
            "keep": True,
            "kind": "kernel",
            "kernel_id": kernel_id,
            "mark": mark,
            "stamp": stamp,
            "started_at": time.time(),
            "connection": connection,
        }
        full_env = dict(self._base_env)
        full_env.update(env)
        full_env[MARK] = mark
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            errors = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                targets = {0: null, 1: null, 2: errors}
                return self._spawner.spawn(argv, full_env, cwd, targets, tag, stamp)
            finally:
                os.close(errors)
        except OSError as exc:
            raise KernelError("failed", "the kernel did not start: %s" % exc) from None
        finally:
            os.close(null)

    def _forget(self, child: "Child | None") -> None:
        """Remove what a dead kernel left."""
        if child is None:
            return
        child.forget()
        prefix = child.tag["connection"]["ip"]
        for name in [prefix + ".json"] + ["%s-%d" % (prefix, n) for n in range(1, 6)]:
            with contextlib.suppress(OSError):
                os.unlink(name)


def _replace(word: str, words: Mapping[str, str]) -> str:
    for name, value in words.items():
        word = word.replace(name, value)
    return word


def valid_signal(number: int) -> bool:
    """Say whether the kernel has such a signal."""
    return 0 < number < signal.NSIG
