"""Executions of commands: run, bound, keep what may be shown, end in time.

An execution does not belong to a stream: it goes on when the host goes away, and a host that comes
back attaches to it by its id. What it keeps for that is bounded by the output limit.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import threading
import time
from collections import OrderedDict
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from ..output import BoundedOutput, spool_namer
from ..threads import Started, start_thread
from ..trees import Process
from .background import BackgroundOutput
from .shells import Shell, Shells

_READ_BYTES = 64 * 1024
_PIECE_BYTES = 48 * 1024
_KEPT_EXECUTIONS = 32
_KEPT_BYTES = 16 * 1024 * 1024
_GRACE_SECONDS = 2.0
_MOMENT_SECONDS = 0.003  # most commands end within: one waking brings their output and their end
_MAX_RUNNING = 128


class TooMany(Exception):
    """More executions at once than the guest allows."""


class Execution:
    """One command and what it gave so far."""

    def __init__(self, execution_id: str, limit_bytes: int) -> None:
        self.id = execution_id
        self.limit_bytes = limit_bytes
        self.report: Optional[Dict[str, Any]] = None
        self.kept_bytes = 0
        self._pieces: List[str] = []
        self._changed = threading.Condition()  # guards the pieces and the report
        self._stop: List[str] = []
        self._wake_read, self._wake_write = os.pipe()

    @property
    def running(self) -> bool:
        """Whether the command has not ended."""
        return self.report is None

    def add(self, text: str) -> None:
        """Keep a piece of output and wake who follows."""
        if not text:
            return
        with self._changed:
            self._pieces.append(text)
            self.kept_bytes += len(text)
            self._changed.notify_all()

    def finish(self, report: Dict[str, Any]) -> None:
        """Set the result; followers end after the last piece."""
        with self._changed:
            self._pieces = _merge(self._pieces)
            self.report = report
            os.close(self._wake_write)
            self._wake_write = -1
            self._changed.notify_all()

    def follow(self, sent: int = 0) -> Iterator[str]:
        """Give all pieces, as they come, until the command has ended.

        Parameters
        ----------
        sent : int
            Characters to leave out, because they were given before (pieces may be merged).
        """
        while True:
            with self._changed:
                while True:
                    text = _after(self._pieces, sent)
                    if text or self.report is not None:
                        break
                    self._changed.wait()
            if not text:
                return
            sent += len(text)
            for start in range(0, len(text), _PIECE_BYTES):
                yield text[start : start + _PIECE_BYTES]

    def stop(self, why: str) -> None:
        """Ask the runner to end the command; ``why`` is "interrupted" or "shutdown"."""
        with self._changed:
            if self.report is None:
                self._stop.append(why)
                os.write(self._wake_write, b"x")

    def take_stop(self) -> str:
        """Give why the command is to be ended ("" if it is not); for the runner."""
        with self._changed:
            if not self._stop:
                return ""
            os.read(self._wake_read, 1)
            return self._stop.pop(0)

    def fileno(self) -> int:
        """Give a descriptor that is readable when ``take_stop`` has something."""
        return self._wake_read

    def close(self) -> None:
        """Release the runner's descriptor."""
        os.close(self._wake_read)


class Follower:
    """Whoever shows a command's output from the runner's own thread; this one shows it to nobody.

    The rule: no method waits. What would wait is left to a thread that uses ``Execution.follow``.
    """

    #: When to call ``flush``, on the monotonic clock; None: there is nothing to flush.
    due: Optional[float] = None

    def fileno(self) -> int:
        """Give a descriptor at whose readability ``read_on`` is to be called once, or -1."""
        return -1

    def read_on(self) -> None:
        """See to what has come on the descriptor; called at most once."""

    def add(self, text: str) -> None:
        """Take a piece of output."""

    def flush(self) -> None:
        """Show what was taken."""

    def finish(self, report: Dict[str, Any]) -> None:
        """Show the end."""


class Executions:
    """All executions, running and lately ended."""

    def __init__(self, shells: Shells, spool_dir: str) -> None:
        self._shells = shells
        self._new_spool = spool_namer(spool_dir)
        self._background = BackgroundOutput()
        self._lock = threading.Lock()  # guards the table
        self._table: "OrderedDict[str, Execution]" = OrderedDict()

    def start(
        self, execution_id: str, command: str, timeout_seconds: float, limit_bytes: int
    ) -> Tuple[Execution, Optional[Callable[[Follower], None]]]:
        """Give a new execution and the function that runs it, for a thread of the caller's choice.

        An id that is known gives that execution and None: nothing runs twice.
        """
        with self._lock:
            known = self._table.get(execution_id)
            if known is not None:
                return known, None
            if sum(e.running for e in self._table.values()) >= _MAX_RUNNING:
                raise TooMany("%d commands are running already" % _MAX_RUNNING)
            execution = Execution(execution_id, limit_bytes)
            self._table[execution_id] = execution
            self._trim()

        def run(follower: Follower) -> None:
            self._run(execution, command, timeout_seconds, follower)

        return execution, run

    def get(self, execution_id: str) -> Optional[Execution]:
        """Give an execution, or None when it is not known (any more)."""
        with self._lock:
            return self._table.get(execution_id)

    def running(self) -> List[Execution]:
        """Give those that have not ended."""
        with self._lock:
            return [e for e in self._table.values() if e.running]

    def summary(self) -> List[Dict[str, Any]]:
        """Give ids and states, for ``status``."""
        with self._lock:
            return [{"id": e.id, "running": e.running} for e in self._table.values()]

    def _trim(self) -> None:
        """Forget the oldest ended ones beyond the bounds; the lock is held."""
        ended = [e for e in self._table.values() if not e.running]
        kept = sum(e.kept_bytes for e in ended)
        while ended and (len(ended) > _KEPT_EXECUTIONS or kept > _KEPT_BYTES):
            oldest = ended.pop(0)
            kept -= oldest.kept_bytes
            del self._table[oldest.id]

    def _run(
        self, execution: Execution, command: str, timeout_seconds: float, follower: Follower
    ) -> None:
        started = time.monotonic()
        report: Dict[str, Any] = {}
        shell: Optional[Shell] = None
        try:
            shell = self._shells.take()
            while not shell.run(command):
                self._shells.retire(shell)
                shell = self._shells.take()
            report = _Runner(execution, shell, follower, started + timeout_seconds).run(
                self._shells, self._new_spool, self._background
            )
        except OSError as exc:
            text = "the command could not be started: %s\n" % (exc.strerror or exc)
            execution.add(text)
            follower.add(text)
            report = {"exit_code": None, "failed": str(exc)[:200]}
        finally:
            report.setdefault("cwd", self._shells.cwd)
            report["duration_seconds"] = round(time.monotonic() - started, 6)
            execution.finish(report)
            follower.finish(report)
            execution.close()
            if shell is not None:
                self._shells.give_back(shell)


class _Runner:
    """The loop of one command: its output, its end, its timeout, requests to stop it."""

    def __init__(
        self, execution: Execution, shell: Shell, follower: Follower, deadline: float
    ) -> None:
        self._execution = execution
        self._shell = shell
        self._follower = follower
        self._deadline = deadline
        self._killed = 0
        self._timed_out = False
        self._stopped = ""
        self._small_reads = 0
        self._at_end = False
        self._ender: Optional[Started] = None

    def run(self, shells: Shells, new_spool: Any, background: BackgroundOutput) -> Dict[str, Any]:
        output = BoundedOutput(self._execution.limit_bytes, new_spool)
        shell = self._shell
        self._read_until_end(output)
        if self._ender is not None:
            self._ender.join()
        self._drain(output)
        self._add(output.finish())
        shells.save(shell, keep=not (self._timed_out or self._stopped == "shutdown"))
        jobs: List[Process] = []
        if not shell.is_clean and self._stopped != "shutdown":
            jobs = shell.tree.members()
        spool = None
        if self._at_end:
            os.close(shell.output_fd)
        else:  # a background process holds it: go on reading, so that it does not stop or die
            spool = background.take(shell.output_fd, new_spool)
        code = shell.exit_code
        return {
            "exit_code": code if code is None or code >= 0 else 128 - code,
            "cwd": shells.cwd,
            "jobs": [{"pid": p.pid, "name": p.name} for p in jobs][:20],
            "jobs_output": spool if jobs else None,
            "truncated": output.truncated,
            "omitted_bytes": output.omitted_bytes,
            "total_bytes": output.total_bytes,
            "spool": output.spool_path,
            "timed_out": self._timed_out,
            "interrupted": self._stopped == "interrupted",
            "killed": self._killed,
        }

    def _add(self, text: str) -> None:
        self._execution.add(text)
        self._follower.add(text)

    def _read_until_end(self, output: BoundedOutput) -> None:
        shell, execution, follower = self._shell, self._execution, self._follower
        poll = select.poll()
        poll.register(shell.fileno(), select.POLLIN)
        poll.register(execution.fileno(), select.POLLIN)
        if not poll.poll(_MOMENT_SECONDS * 1000):  # else its end is there, or somebody ends it
            poll.register(shell.output_fd, select.POLLIN)
            if follower.fileno() >= 0:
                poll.register(follower.fileno(), select.POLLIN)
        while shell.alive:
            now = time.monotonic()
            if now >= self._deadline and not self._timed_out:
                self._timed_out = True
                self._end_in_background()
            until = now + 1.0 if self._timed_out else self._deadline
            if follower.due is not None:
                until = min(until, follower.due)
            # Rounded up: a poll that ends too early would only be repeated.
            ready = dict(poll.poll(math.ceil(max(0.0, until - now) * 1000)))
            if follower.due is not None and time.monotonic() >= follower.due:
                follower.flush()
            if execution.fileno() in ready:
                self._interrupt(execution.take_stop())
            if shell.output_fd in ready and not self._read(output):
                poll.unregister(shell.output_fd)
            if shell.fileno() in ready:
                shell.take_end()
            if follower.fileno() in ready:
                poll.unregister(follower.fileno())
                follower.read_on()

    def _read(self, output: BoundedOutput) -> bool:
        """Take one piece; say whether more may come."""
        if self._at_end:
            return False
        if self._small_reads > 16:  # many small writes: let them gather
            time.sleep(0.003)
        try:
            data = os.read(self._shell.output_fd, _READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            self._at_end = True
            return False
        self._small_reads = self._small_reads + 1 if len(data) < 8192 else 0
        self._add(output.feed(data))
        return True

    def _drain(self, output: BoundedOutput) -> None:
        """Take what was written when the shell ended; bounded, others may still write."""
        deadline = time.monotonic() + 1.0
        while not self._at_end and time.monotonic() < deadline:
            try:
                data = os.read(self._shell.output_fd, _READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._at_end = True
                return
            self._add(output.feed(data))

    def _interrupt(self, why: str) -> None:
        if not why:
            return
        self._stopped = why
        if why == "interrupted":
            with contextlib.suppress(OSError):
                os.killpg(self._shell.pid, signal.SIGINT)
            start_thread(self._end_after_grace)
        else:
            self._end_in_background()

    def _end_after_grace(self) -> None:
        if not self._shell.ended.wait(_GRACE_SECONDS):
            self._end_in_background()

    def _end_in_background(self) -> None:
        """End the tree; the loop goes on reading, so that nothing blocks on its output."""

        def end() -> None:
            self._killed += self._shell.tree.end(_GRACE_SECONDS)
            self._shell.keeper.wake()

        self._ender = start_thread(end)


def _merge(pieces: List[str]) -> List[str]:
    return ["".join(pieces)] if pieces else []


def _after(pieces: List[str], sent: int) -> str:
    """Give the text after the first ``sent`` characters."""
    found: List[str] = []
    position = 0
    for piece in pieces:
        end = position + len(piece)
        if end > sent:
            found.append(piece[max(0, sent - position) :])
        position = end
    return "".join(found)


def bounds(content: Dict[str, Any]) -> Tuple[float, int]:
    """Give timeout and output limit of a request, within what the guest allows."""
    timeout = content.get("timeout_seconds")
    limit = content.get("limit_bytes")
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or timeout <= 0:
        timeout = 600.0
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1024:
        limit = 1024 * 1024
    return min(float(timeout), 7 * 86400.0), min(limit, 16 * 1024 * 1024)
