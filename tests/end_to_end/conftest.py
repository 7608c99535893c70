"""While a test of a whole server runs, a blocking call on its loop is an error."""

from __future__ import annotations

import asyncio
import http.client
import sqlite3
import subprocess
import time
import traceback

import pytest

_BLOCKING = (
    (time, "sleep"),
    (subprocess.Popen, "wait"),
    (subprocess.Popen, "communicate"),
    (sqlite3, "connect"),
    (http.client.HTTPConnection, "request"),  # the docker SDK
)


@pytest.fixture(autouse=True)
def no_blocking_call_on_the_loop(monkeypatch):
    for owner, name in _BLOCKING:
        _guard(monkeypatch, owner, name)


def _is_ours() -> bool:
    frames = traceback.extract_stack(limit=12)
    return any("/jupyter_sandbox/" in frame.filename for frame in frames)


def _guard(monkeypatch, owner, name: str) -> None:
    original = getattr(owner, name)

    def checked(*args, **kwargs):
        if asyncio._get_running_loop() is not None and _is_ours():
            raise AssertionError(f"{name} was called on the event loop")
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, checked)
