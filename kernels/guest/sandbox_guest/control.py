"""The ``control`` target: what the host asks of kernels and processes.

One function per operation; each takes the request and gives the ``ok`` object. A malformed request
is ``bad_request``; nothing here ends the guest.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any, Callable, Dict, List, Type

from .kernels import KernelError, Kernels, valid_signal
from .streams import Stream
from .trees import snapshot

_MAX_PROCESSES = 512
_TICKS = os.sysconf("SC_CLK_TCK")


class Control:
    """Answers requests on any number of streams at once."""

    def __init__(
        self,
        kernels: Kernels,
        executions: Callable[[], List[Dict[str, Any]]],
        boot_id: str,
    ) -> None:
        self._kernels = kernels
        self._executions = executions
        self._boot_id = boot_id
        self._started = time.monotonic()
        self._ops: Dict[str, Callable[[Dict[str, Any]], Dict[str, Any]]] = {
            "ping": lambda request: {},
            "status": self._status,
            "kernel_start": self._kernel_start,
            "kernel_signal": self._kernel_signal,
            "kernel_wait": self._kernel_wait,
            "kernel_kill": self._kernel_kill,
            "processes": self._processes,
            "end_all": self._end_all,
        }

    def serve(self, stream: Stream) -> None:
        """Answer requests until the stream ends."""
        while True:
            request = stream.receive().body
            op = self._ops.get(str(request.get("op")))
            try:
                if op is None:
                    raise KernelError("unknown_op", "unknown operation")
                answer: Dict[str, Any] = {"ok": op(request)}
            except KernelError as exc:
                answer = {"error": {"code": exc.code, "message": str(exc)}}
            except Exception as exc:  # a bug of ours must not end the guest
                answer = {"error": {"code": "failed", "message": type(exc).__name__}}
            stream.send(answer)

    def _status(self, request: Dict[str, Any]) -> Dict[str, Any]:
        return {
            "boot_id": self._boot_id,
            "uptime_seconds": time.monotonic() - self._started,
            "processes": len(snapshot()),
            "kernels": self._kernels.records(),
            "executions": self._executions(),
        }

    def _kernel_start(self, request: Dict[str, Any]) -> Dict[str, Any]:
        argv = _get(request, "argv", list)
        env = _get(request, "env", dict)
        if not argv or not all(isinstance(word, str) for word in argv):
            raise KernelError("bad_request", "argv is a list of strings")
        if not all(isinstance(value, str) for value in env.values()):
            raise KernelError("bad_request", "env maps strings to strings")
        return self._kernels.start(
            _get(request, "kernel_id", str),
            argv,
            env,
            _get(request, "cwd", str),
            _get(request, "connection", dict),
        )

    def _kernel_signal(self, request: Dict[str, Any]) -> Dict[str, Any]:
        number = _get(request, "signum", int)
        if not valid_signal(number):
            raise KernelError("bad_request", "no such signal")
        group = _get(request, "group", bool)
        self._kernels.signal(_get(request, "kernel_id", str), number, group)
        return {}

    def _kernel_wait(self, request: Dict[str, Any]) -> Dict[str, Any]:
        seconds = request.get("timeout_seconds", 0)
        if not isinstance(seconds, (int, float)) or not 0 <= seconds <= 60:
            raise KernelError("bad_request", "timeout_seconds is 0 to 60")
        return self._kernels.wait(_get(request, "kernel_id", str), float(seconds))

    def _kernel_kill(self, request: Dict[str, Any]) -> Dict[str, Any]:
        return self._kernels.kill(_get(request, "kernel_id", str))

    def _end_all(self, request: Dict[str, Any]) -> Dict[str, Any]:
        """End everything but the guest: `kill(-1)` reaches all at once, whoever forks meanwhile."""
        with open("/proc/1/cmdline", "rb") as file:
            own = b"sandbox_guest" in file.read()
        if not own or os.getppid() != 1:  # not alone: these would be somebody else's processes
            raise KernelError("bad_request", "the guest is not PID 1 here")
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        return {}

    def _processes(self, request: Dict[str, Any]) -> Dict[str, Any]:
        rows = [
            {
                "pid": process.pid,
                "ppid": process.ppid,
                "name": process.name,
                "cpu_seconds": process.cpu_ticks / _TICKS,
            }
            for process in snapshot().values()
        ]
        return {"processes": rows[:_MAX_PROCESSES]}


def _get(request: Dict[str, Any], name: str, kind: Type[Any]) -> Any:
    value = request.get(name)
    if not isinstance(value, kind):
        raise KernelError("bad_request", "%s is missing or of a wrong type" % name)
    return value
