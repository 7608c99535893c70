"""Starts Jupyter servers that end themselves by SIGKILL at a named point, without help of theirs.

A program of its own: everything is imported once, the methods that ``points`` names are wrapped,
and each server is a fork of it (a start costs half a second in place of three). The rule: product
code knows nothing of this; a wrapped method behaves as ever until the file that ``$JSBX_KILL_AT``
names holds the name of its point.

On stdin: one JSON object a line, ``{"argv": [...], "env": {...}, "log": "..."}``; on stdout: the
process id of the server.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from .points import POINTS, Point

ARMED = "JSBX_KILL_AT"
"""Variable with the path of a file: the name of the point to die at; ``{path}.hit`` says it did."""

SANDBOX_IDS = "JSBX_SANDBOX_IDS"
"""Variable with the path of a file that gets the id of each sandbox that an engine is asked for."""

_hits: dict[str, int] = {}


def main() -> None:
    for point in POINTS:
        _wrap(point)
    _note_sandboxes()
    _import_servers()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if not pid:
            _become_server(**order)
        print(pid, flush=True)


def _become_server(argv: list[str], env: dict[str, str], log: str) -> None:
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        nothing, out = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(nothing, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.environ.clear()
        os.environ.update(env)
        sys.argv = ["jupyter-server", *argv]

        from jupyter_server.serverapp import ServerApp

        ServerApp.launch_instance(argv)
    except SystemExit as exc:
        os._exit(exc.code if isinstance(exc.code, int) else 1)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def _import_servers() -> None:
    """Import what a server would when it starts and is used."""
    for name in ("alembic.command", "docker", "jupyter_server.serverapp", "jupyter_sandbox.app"):
        importlib.import_module(name)


def _wrap(point: Point) -> None:
    owner, name = _owner_of(point.target)
    original = inspect.getattr_static(owner, name)
    is_static = isinstance(original, staticmethod)
    function: Callable[..., Any] = original.__func__ if is_static else original

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            is_here = _is_here(point, sys._getframe(1))
            if point.when == "before" and is_here:
                _die(point)
            given = await function(*args, **kwargs)
            if point.when == "after" and is_here:
                _die(point)
            return given

    else:

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            is_here = _is_here(point, sys._getframe(1))
            if point.when == "before" and is_here:
                _die(point)
            given = function(*args, **kwargs)
            if point.when == "after" and is_here:
                _die(point)
            return given

    setattr(owner, name, staticmethod(wrapped) if is_static else wrapped)


def _owner_of(target: str) -> tuple[Any, str]:
    module, _, path = target.partition(":")
    owner: Any = importlib.import_module(module)
    *classes, name = path.split(".")
    for each in classes:
        owner = getattr(owner, each)
    return owner, name


def _is_here(point: Point, frame: Any) -> bool:
    """Say whether this is the call to die at; the file is only looked at by those that could be."""
    if point.within:
        while frame is not None and frame.f_code.co_name in ("wrapped", "__call__"):
            frame = frame.f_back
        if frame is None or frame.f_code.co_name != point.within:
            return False
    try:
        with open(os.environ.get(ARMED, ""), encoding="utf-8") as file:
            if file.read() != point.name:
                return False
    except OSError:
        return False
    _hits[point.name] = _hits.get(point.name, 0) + 1
    return _hits[point.name] == point.nth


def _die(point: Point) -> None:
    path = os.environ[ARMED]
    with open(f"{path}.hit", "w", encoding="utf-8") as file:
        file.write(point.name)
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # in a thread: until the signal has come


def _note_sandboxes() -> None:
    """Write down each sandbox that an engine is about to make: no trace of it may stay."""
    for target in ("docker:DockerEngine", "bubblewrap:BubblewrapEngine"):
        owner, _ = _owner_of(f"jupyter_sandbox.engines.{target}.start")
        owner.start = _noting(owner.start)


def _noting(start: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(start)
    async def noted(self: Any, spec: Any) -> Any:
        with open(os.environ[SANDBOX_IDS], "a", encoding="utf-8") as file:
            file.write(f"{spec.sandbox_id}\n")
        return await start(self, spec)

    return noted


if __name__ == "__main__":
    main()
