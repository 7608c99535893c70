"""Tests in two processes at once, and those that must be alone.

A plugin beside pytest-xdist. A test that is marked ``alone`` measures, floods or looks at the whole
machine: while it runs the other workers wait. The rule: who waits to be alone comes next, so nobody
waits for more than the tests that run; waiting does not count against a test's time-out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item):
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", "")
    if not run:
        return (yield)
    with _turn(run, alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextlib.contextmanager
def _turn(run: str, alone: bool) -> Iterator[None]:
    how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    with _locked(run, "next", fcntl.LOCK_EX) as gate, _locked(run, "runs", how):
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


@contextlib.contextmanager
def _locked(run: str, name: str, how: int) -> Iterator[int]:
    path = Path(tempfile.gettempdir()) / f"jsb-turns-{os.getuid()}-{run}-{name}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, how)
        yield fd
    finally:
        os.close(fd)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the locks of a run, by the process that all workers were started by."""
    run = getattr(session.config, "workerinput", None)
    if run is None:
        for path in Path(tempfile.gettempdir()).glob(f"jsb-turns-{os.getuid()}-*"):
            if _is_free(path):
                path.unlink(missing_ok=True)


def _is_free(path: Path) -> bool:
    with contextlib.suppress(OSError), path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
