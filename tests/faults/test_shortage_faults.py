"""The server itself runs out of descriptors or threads: a server process of the test's own."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import time
from pathlib import Path

import pytest

from benchmarks.server import running_server
from jupyter_sandbox.shortages import shortage_of

from .table import fault

pytestmark = [pytest.mark.bubblewrap]
_PIDS = Path("/sys/fs/cgroup/pids")
_BOUND_SECONDS = 75.0


@pytest.fixture(autouse=True)
def jp_asyncio_loop():
    """Take the place of pytest-jupyter's: no server runs in this process."""


@pytest.fixture(autouse=True)
def jp_server_cleanup():
    """Likewise."""


@pytest.fixture(scope="module")
def server():
    with running_server("bubblewrap") as server:
        yield server


def call(client, conversation: str, command: str) -> tuple[bool, str]:
    path = f"conversations/{conversation}/tools/bash"
    result = client.json("POST", path, {"command": command})
    return result["is_error"], "".join(part.get("text", "") for part in result["content"])


@contextlib.contextmanager
def no_descriptors(pid: int):
    """Lower the limit of a running process to what it holds, and put it back."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, hard))
    # Below the highest there may be holes; they are few.
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def no_threads(pid: int):
    """Put a process into a control group that is full, and back."""
    home = next(
        line.rsplit(":", 1)[1]
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        if ":pids:" in line
    )
    group = _PIDS / f"jsbx-faults-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(pid))
        (group / "pids.max").write_text((group / "pids.current").read_text())
        yield
    finally:
        (group / "pids.max").write_text("max")
        for left in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (_PIDS / home.lstrip("/") / "cgroup.procs").write_text(left)
        group.rmdir()


@fault("no-descriptors", "no-threads")
@pytest.mark.parametrize("short", [no_descriptors, no_threads], ids=["descriptors", "threads"])
def test_a_first_call_says_so_in_time_and_whoever_has_a_sandbox_goes_on(server, short):
    with contextlib.closing(server.client()) as client:
        conversation, others = client.create(), [client.create() for _ in range(6)]
        call(client, conversation, "echo kept > file")
        call(client, conversation, "cat file")
        with short(server.pid):
            refused = []
            for other in others:
                started = time.monotonic()
                is_error, text = call(client, other, "echo hello")
                assert time.monotonic() - started < _BOUND_SECONDS
                if is_error:
                    refused.append(text)
                    assert text.startswith("exec failed: "), text
                    assert "internal error" not in text
                    break
            assert refused, "none of the calls has met the shortage"
            is_error, text = call(client, conversation, "cat file")
            assert not is_error, text
            assert "kept\n[exit code 0" in text
        is_error, text = call(client, others[-1], "echo hello")
        assert "hello\n[exit code 0" in text
        for each in (conversation, *others):
            client.delete(each)


@fault("no-descriptors", "no-threads", "disk-full-data")
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EMFILE, "x"), "open files"),
        (OSError(errno.ENOSPC, "x"), "disk"),
        (OSError(errno.EDQUOT, "x"), "disk"),
        (MemoryError(), "memory"),
        (RuntimeError("can't start new thread"), "threads"),
        (OSError(errno.EPERM, "x"), None),
        (RuntimeError("another"), None),
        (ValueError("can't start new thread"), None),
    ],
)
def test_a_shortage_is_told_from_a_mistake(error, words):
    found = shortage_of(error)
    assert (found is None) == (words is None)
    if found is not None:
        assert words in found.message
        assert found.status == (507 if words == "disk" else 503)
