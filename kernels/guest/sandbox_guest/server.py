"""The guest's server: everything but reaping, in one process with a thread per stream.

Started by ``init`` and started again by it after a crash; kernels survive that, running commands
do not.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from typing import Callable, Dict, NamedTuple

from . import __version__, protocol
from .bash.executions import Executions
from .bash.kernel import serve_bash
from .bash.shells import Shells
from .control import Control
from .dial import Dialer
from .kernels import Kernels
from .orphans import find_orphans
from .output import SPOOL_DIR
from .spawn import Spawner
from .splice import serve_socket
from .streams import Stream
from .threads import reserve

_THREAD_STACK_BYTES = 512 * 1024
_LOAD_FILES_SECONDS = 0.5

# What makes programs not wait for somebody at a terminal (SPEC.md 3).
NON_INTERACTIVE = {
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "MANPAGER": "cat",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_EDITOR": "true",
    "EDITOR": "true",
    "DEBIAN_FRONTEND": "noninteractive",
    "PIP_PROGRESS_BAR": "off",
    "PIP_NO_INPUT": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "NPM_CONFIG_PROGRESS": "false",
    "NPM_CONFIG_FUND": "false",
    "NPM_CONFIG_AUDIT": "false",
    "NPM_CONFIG_UPDATE_NOTIFIER": "false",
    "CI": "1",
    "TERM": "dumb",
    "NO_COLOR": "1",
    "COLUMNS": "160",
}


class Settings(NamedTuple):
    """Where things are; ``__main__`` makes it from the arguments."""

    dial_dir: str = protocol.DIAL_DIR
    runtime_dir: str = "/run/jupyter-sandbox/guest"
    spool_dir: str = SPOOL_DIR
    boot_id: str = ""


def serve(sock: socket.socket, settings: Settings) -> None:
    """Dial the hosts and answer them, for ever."""
    threading.stack_size(_THREAD_STACK_BYTES)
    runtime_dir = _writable_dir(settings.runtime_dir, "/tmp/.jupyter-sandbox")
    env = base_env(dict(os.environ))
    cwd = os.getcwd()
    spawner = Spawner(sock)
    orphans = find_orphans()
    kernels = Kernels(spawner, os.path.join(runtime_dir, "k"), sys.executable, env, orphans)
    shells = Shells(spawner, runtime_dir, env, cwd, orphans)
    executions = Executions(shells, settings.spool_dir)
    control = Control(kernels, executions.summary, settings.boot_id)

    def serve_target(stream: Stream, target: str) -> None:
        if target.startswith((protocol.UNIX, protocol.TCP)):
            serve_socket(stream, target)
        elif target in services:
            stream.send({"opened": target})
            services[target](stream)
        else:
            stream.send({"error": {"code": "unknown_target", "message": "unknown target"}})

    services: Dict[str, Callable[[Stream], None]] = {
        protocol.CONTROL: control.serve,
        protocol.FILES: _serve_files,
        protocol.BASH: lambda stream: serve_bash(stream, executions),
    }
    hello = {
        "hello": protocol.NAME,
        "protocol": protocol.VERSION,
        "version": __version__,
        "python": "%d.%d.%d" % sys.version_info[:3],
        "boot_id": settings.boot_id,
        "pid": os.getppid(),
    }
    threading.Thread(target=_load_later, name="files", daemon=True).start()
    Dialer(settings.dial_dir, hello, serve_target).run()


def _serve_files(stream: Stream) -> None:
    from .files import serve_files  # a third of all imports: the first command need not wait

    serve_files(stream)


def _load_later() -> None:
    """Import the file service, and more, when the first command has had its time."""
    reserve()
    time.sleep(_LOAD_FILES_SECONDS)
    from . import files  # noqa: F401


def _writable_dir(*candidates: str) -> str:
    """Give the first directory that can be made, or is there: a root may be read-only."""
    for path in candidates[:-1]:
        try:
            os.makedirs(path, mode=0o700, exist_ok=True)
            return path
        except OSError:
            continue
    os.makedirs(candidates[-1], mode=0o700, exist_ok=True)
    return candidates[-1]


def base_env(own: Dict[str, str]) -> Dict[str, str]:
    """Give the environment of commands and kernels: the guest's own, made non-interactive."""
    env = dict(NON_INTERACTIVE)
    env.update(own)
    env.pop("PYTHONPATH", None)
    env.setdefault("HOME", "/root")
    env.setdefault("LANG", "C.UTF-8")
    env.setdefault("SHELL", "/bin/bash")
    env.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    return env
