"""The conversation's Python kernel: started or adopted on demand, cells one after the other.

The kernel belongs to the sandbox, not to this object: ``detach`` leaves it running and the next
server process adopts it under the same id, variables and all. When it has died it is started again
by the next call, in the same sandbox, and the result of that call says what was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import uuid
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from sandbox_guest import protocol

from .. import metrics
from ..errors import SandboxError, ToolError, Unavailable
from ..fair_turns import NOBODY
from ..models import Emit, Outcome
from .cell_reader import CellReader, UnknownCell
from .cell_result import error_line
from .dispatcher import Dispatcher, Execution
from .kernel_channels import KernelChannels
from .kernel_manager import SandboxKernelManager
from .link import GuestLink, closed
from .provisioner import KernelEnd, SandboxAccess

State = Literal["absent", "starting", "idle", "busy", "dead"]

_START_SECONDS = 60.0
_QUICK_SECONDS = 0.25  # a cell that ends within costs no watching
_LOOK_SECONDS = 20.0
_INTERRUPT_SECONDS = 5.0
_LAST_WORDS_SECONDS = 0.3
_EXIT_SECONDS = 3.0
_DIAL_SECONDS = 2.0
_RESENDS = 3
_LAST_OUTPUT = 4000
_TRIM_SECONDS = 2.0
_NEXT = "Variables and imports are lost; files are kept."
_prefixes = itertools.count(1)


class PythonKernel:
    """The Python kernel of one sandbox.

    Parameters
    ----------
    link : GuestLink
        To the sandbox.
    sandbox_id : str
        The kernel's id is derived from it, so that a later process finds the kernel.
    private_dir : Path
        Of this sandbox, never mounted in it; the kernel's sockets on this side lie there.
    cwd, python_path, env
        Inside; see `SandboxAccess`.
    """

    def __init__(
        self,
        link: GuestLink,
        *,
        sandbox_id: str,
        private_dir: Path,
        log: logging.Logger | None = None,
        cwd: str = "/workspace",
        python_path: str = protocol.GUEST_DIR,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.kernel_id = kernel_id_of(sandbox_id)
        self.owner = NOBODY  # whose turns its large messages take
        self._log = log or logging.getLogger(__name__)
        self._link = link
        prefix = private_dir / f"k{os.getpid()}.{next(_prefixes)}"
        access = SandboxAccess(link, prefix, python_path, cwd, dict(env or {}))
        self.manager = SandboxKernelManager(access, kernel_id=self.kernel_id, log=self._log)
        self._dispatcher: Dispatcher | None = None
        self._lock = asyncio.Lock()  # one start, restart or end at a time; no cell waits in it
        self._state: State = "absent"
        self._why = ""  # how the running kernel will have ended, if we end it
        self._how = ""  # how the kernel ended that is dead now
        self._lost = ""  # sentence for the next result
        self._detached = False
        self._leaves_cells = False
        self._stops: set[asyncio.Task[None]] = set()  # of cells and kernels nobody waits for

    def __repr__(self) -> str:
        return f"<PythonKernel {self.kernel_id[:8]} {self.state}>"

    @property
    def state(self) -> State:
        """What is known of it without asking the sandbox."""
        if self._state == "idle" and self.is_busy:
            return "busy"
        return self._state

    @property
    def is_busy(self) -> bool:
        """Whether a cell runs or waits, of whichever client."""
        return self._dispatcher is not None and self._dispatcher.is_busy

    async def look(self) -> State:
        """Ask the sandbox what the kernel is; starts and adopts nothing.

        Raises
        ------
        Unavailable
            The sandbox does not answer.
        """
        if self._state == "starting":
            return "starting"
        end = await self.manager.sandbox_provisioner.look()
        if not end.alive:
            return "absent" if self._state == "absent" else "dead"
        return "idle" if self._dispatcher is None else self.state

    def channels(self) -> KernelChannels:
        """Give a client's own connection to the kernel, which must have been started."""
        manager = self.manager
        names = ("shell", "control", "iopub", "stdin")
        urls = {name: manager._make_url(name) for name in names}
        session = manager.session.clone()
        session.digest_history_size = 4096
        return KernelChannels(manager.context, urls, session, lambda: self.owner, self._log)

    async def ended(self) -> None:
        """Wait until the kernel has ended or its sandbox is gone; one that is silent is awaited."""
        while self.manager.sandbox_access.link.connected and not self._detached:
            try:
                if not (await self.manager.sandbox_provisioner.look(_LOOK_SECONDS)).alive:
                    return
            except Unavailable:
                await asyncio.sleep(1.0)

    async def ensure_started(self) -> None:
        """Start the kernel, or adopt it, unless it runs already; callers share one start.

        Raises
        ------
        Unavailable
            The sandbox does not answer, or the kernel does not start.
        """
        async with self._lock:
            await self._ensure_started()

    async def execute(
        self, code: str, timeout_seconds: float, emit: Emit, limit_bytes: int, call_id: str = ""
    ) -> Outcome:
        """Run a cell after those that were sent before; give what came of it.

        Parameters
        ----------
        timeout_seconds : float
            Counted from the cell's start, not from its place in the queue.
        emit : callable
            Is given the text while it comes.
        limit_bytes : int
            Of text.
        call_id : str
            Under which ``follow`` finds it, in a later server process.

        Raises
        ------
        ToolError
            ``kernel_died``: the kernel ended while the cell ran. ``kernel_busy``: another client's
            cell kept it from starting.
        Unavailable
            The sandbox does not answer, or the kernel does not start.
        """
        for _ in range(_RESENDS):
            await self.ensure_started()
            dispatcher = self._dispatcher
            if dispatcher is None:
                raise Unavailable("the Python kernel was stopped")
            lost, self._lost = self._lost, ""
            execution = dispatcher.submit(code, limit_bytes, emit, call_id, timeout_seconds)
            try:
                outcome = await self._follow(execution, timeout_seconds)
            except ToolError as exc:
                raise ToolError(f"{lost} {exc.message}".strip(), code=exc.code) from None
            except BaseException:
                self._lost = self._lost or lost
                raise
            if outcome is not None:
                return _with_lost(outcome, lost)
            self._lost = self._lost or lost
        raise ToolError(
            "The cell was not run: other cells were cancelled at the same time. Send it again.",
            code="aborted",
        )

    async def follow(
        self, call_id: str, timeout_seconds: float, emit: Emit, limit_bytes: int
    ) -> Outcome | None:
        """Wait for a cell that an earlier server process has sent; None if there is none.

        Its output is given from its beginning, and its time counts from its start. Raises as
        ``execute`` does.
        """
        end = await self.manager.sandbox_provisioner.look()
        if not end.alive:
            if not end.known:
                return None
            how = self._note_death(end)
            raise ToolError(
                f"The Python kernel ended while this cell ran, or after it: {how}. What the cell "
                f"gave is lost. {_NEXT} The next call starts a new kernel.",
                code="kernel_died",
            )
        await self.ensure_started()
        dispatcher = self._dispatcher
        if dispatcher is None:
            raise Unavailable("the Python kernel was stopped")
        execution = dispatcher.expect(call_id, limit_bytes, emit)
        reader = CellReader(dispatcher, execution, limit_bytes, self.owner)
        reading = asyncio.ensure_future(reader.read())
        try:
            return await self._follow(execution, timeout_seconds)
        except UnknownCell:
            return None
        finally:
            await _cancel(reading)
            execution.fail(Unavailable("nobody waits for this cell"))

    def leave_cells(self) -> None:
        """Let cells go on when those who wait for them go: the next server will follow them."""
        self._leaves_cells = True

    async def interrupt(self) -> None:
        """Interrupt the running cell, as Ctrl-C does."""
        await self.manager.sandbox_provisioner.send_signal(signal.SIGINT)

    async def trim(self) -> None:
        """Let an idle kernel give memory back that its code has freed: before it stands still.

        Bounded, and no matter if it fails. A kernel that is not connected here is not asked.
        """
        dispatcher = self._dispatcher
        if dispatcher is not None and self._state == "idle" and not self.is_busy:
            with contextlib.suppress(TimeoutError, SandboxError):
                async with asyncio.timeout(_TRIM_SECONDS):
                    await dispatcher.ask("control", "sandbox_trim_request", {})

    async def restart(self) -> None:
        """End the kernel with all it started and start a new one."""
        async with self._lock:
            self._why = "it was restarted on request"
            await self.manager.sandbox_provisioner.kill()
            await self._ensure_started()

    async def shutdown(self) -> None:
        """End the kernel with all it started."""
        async with self._lock:
            await self.manager.sandbox_provisioner.kill()
            await self._disconnect()
            self._state = "absent"

    async def detach(self) -> None:
        """Close this side and leave the kernel running. Twice is once."""
        self._detached = True
        await _cancel(*self._stops)
        async with self._lock:
            await self._disconnect()

    # Start and end

    async def _ensure_started(self) -> None:
        if self._detached:
            raise Unavailable("the Python kernel was detached")
        end = await self.manager.sandbox_provisioner.look()
        if end.alive and self._dispatcher is not None:
            return
        error: SandboxError | None = None
        if not end.alive and (end.known or self._state == "idle"):
            how = self._note_death(end)
            error = ToolError(  # for cells that learn of the end here first
                f"The Python kernel ended while this cell ran: {how}. {_NEXT} The next call "
                "starts a new kernel.",
                code="kernel_died",
            )
        await self._disconnect(error)
        self._state = "starting"
        try:
            await self._start()
        except BaseException:
            self._state = "absent"
            await asyncio.shield(self._disconnect())
            raise
        self._state, self._why = "idle", ""

    async def _start(self) -> None:
        manager = self.manager
        await manager.start_kernel()
        relay = manager.sandbox_provisioner.relay
        assert relay is not None
        urls = {name: manager._make_url(name) for name in ("shell", "control", "iopub")}
        session = manager.session.clone()
        session.digest_history_size = 4096
        self._dispatcher = Dispatcher(manager.context, urls, session, lambda: self.owner, self._log)
        self._dispatcher.start()
        relay.on_broken = self._dispatcher.suspect
        relay.on_violation = self._dispatcher.on_violation = self._cut_off
        await self._await_ready(self._dispatcher)

    async def _await_ready(self, dispatcher: Dispatcher) -> None:
        ready = asyncio.ensure_future(dispatcher.ready())
        ended = asyncio.ensure_future(self._ended(_QUICK_SECONDS))
        try:
            await asyncio.wait(
                (ready, ended), timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if ready.done():
                return await ready
            if ended.done():
                how = describe_end((await ended).exit_code)
                raise Unavailable(f"the Python kernel did not start: {how}")
            raise Unavailable("the Python kernel did not answer after its start", status=504)
        finally:
            await _cancel(ready, ended)

    async def _disconnect(self, error: SandboxError | None = None) -> None:
        dispatcher, self._dispatcher = self._dispatcher, None
        if dispatcher is not None:
            error = error or Unavailable("the connection to the Python kernel was closed")
            await dispatcher.close(error)
        await self.manager.sandbox_provisioner.cleanup()

    async def _ended(self, after_seconds: float) -> KernelEnd:
        """Give the kernel's end when it has come; a sandbox that does not answer is asked again.

        Raises
        ------
        Unavailable
            The sandbox has closed all connections and opens no new one: it has ended.
        """
        await asyncio.sleep(after_seconds)
        while True:
            try:
                end = await self.manager.sandbox_provisioner.look(_LOOK_SECONDS)
            except Unavailable as exc:
                if not self._link.connected:  # a guest that begins anew dials at once
                    await asyncio.sleep(_DIAL_SECONDS)
                    if not self._link.connected:
                        raise closed(self._link.why) from exc
                await asyncio.sleep(1.0)
                continue
            if not end.alive:
                return end

    def _cut_off(self, why: str) -> None:
        """End a kernel that sends what no kernel sends: the next call starts a new one."""
        if not self._why:
            self._log.warning("%r: it is ended: %s", self, why)
            metrics.KERNEL_CUT_OFFS.inc()
            self._why = "it sent what is no kernel's message and was cut off"
            self._keep(self._kill())

    async def _kill(self) -> None:
        with contextlib.suppress(SandboxError):
            await self.manager.sandbox_provisioner.kill()

    def _note_death(self, end: KernelEnd) -> str:
        """Remember, once a death, why the next kernel is a new one; give how the old one ended."""
        if self._state != "dead":
            self._state = "dead"
            self._how = self._why or describe_end(end.exit_code)
            self._lost = f"The Python kernel was restarted: {self._how}. {_NEXT}"
        return self._how

    # Cells

    async def _follow(self, execution: Execution, timeout_seconds: float) -> Outcome | None:
        """Wait for a cell's end, whichever it is; None when the kernel put it aside unrun."""
        begun = asyncio.get_running_loop().time()
        done = execution.done
        try:
            await asyncio.wait((done,), timeout=min(_QUICK_SECONDS, timeout_seconds))
            if not done.done():
                rest = max(0.0, timeout_seconds - _QUICK_SECONDS)
                timed_out = await self._watch(execution, rest, timeout_seconds)
                if timed_out is not None:
                    return timed_out
            reply = await done
            if _asks_exit(reply):  # exit() and quit(): the process ends a moment after the reply
                self._why = "the code had called exit() or quit()"
                if (await self.manager.sandbox_provisioner.look(_EXIT_SECONDS)).alive:
                    self._why = ""
            return self._outcome(execution, reply, begun)
        except asyncio.CancelledError:
            self._abandon(execution)
            raise

    async def _watch(
        self, execution: Execution, rest_seconds: float, timeout_seconds: float
    ) -> Outcome | None:
        """Wait for the cell, the kernel's death and the time; give an outcome if time was first."""
        begun = asyncio.get_running_loop().time() - _QUICK_SECONDS
        ended = asyncio.ensure_future(self._ended(0))
        clock = asyncio.ensure_future(_clock(execution, rest_seconds, timeout_seconds))
        try:
            await asyncio.wait((execution.done, ended, clock), return_when=asyncio.FIRST_COMPLETED)
            if execution.done.done():
                return None
            if ended.done():
                await self._raise_death(execution, await ended)
                return None
            if not await clock:
                raise ToolError(
                    f"The Python kernel has been busy with another client's cell for "
                    f"{timeout_seconds:g} s. This cell waits and will run after it; interrupt the "
                    "kernel to have it sooner.",
                    code="kernel_busy",
                )
            return await self._time_out(execution, timeout_seconds, begun)
        finally:
            await _cancel(ended, clock)

    async def _raise_death(self, execution: Execution, end: KernelEnd) -> None:
        """Raise what the kernel's end means for a cell, unless the cell had ended before it."""
        await asyncio.wait((execution.done,), timeout=_LAST_WORDS_SECONDS)
        if execution.done.done():
            return
        how = self._note_death(end)
        last = execution.result.text[-_LAST_OUTPUT:].strip()
        said = f" The last it printed:\n{last}" if last else ""
        # A sudden end can take the message with it that the cell has begun.
        ran = execution.started.is_set() or execution.first.is_set()
        what = "while this cell ran" if ran else "before this cell was run"
        error = ToolError(
            f"The Python kernel ended {what}: {how}. {_NEXT} The next call starts a new "
            f"kernel.{said}",
            code="kernel_died",
        )
        execution.fail(error)
        raise error

    async def _time_out(
        self, execution: Execution, timeout_seconds: float, begun: float
    ) -> Outcome | None:
        with contextlib.suppress(Unavailable):
            await self.interrupt()
        await asyncio.wait((execution.done,), timeout=_INTERRUPT_SECONDS)
        if execution.done.done():
            reply = await execution.done
            what = "It was interrupted; the Python kernel and its variables are kept."
        else:
            reply = {}
            what = (
                "It did not react to an interrupt, so the Python kernel was ended with all it "
                f"had started. {_NEXT} The next call starts a new kernel."
            )
            self._why = "a cell had run into its timeout and did not react to an interrupt"
            await self.manager.sandbox_provisioner.kill()
            execution.fail(Unavailable("the Python kernel was ended"))
        execution.result.add_line(f"[cell timed out after {timeout_seconds:g} s]\n{what}")
        return self._outcome(execution, reply, begun, timed_out=True)

    def _outcome(
        self, execution: Execution, reply: dict[str, Any], begun: float, timed_out: bool = False
    ) -> Outcome | None:
        status = reply.get("status")
        if status == "aborted" or (status == "error" and reply.get("ename") == "aborted"):
            return None
        result = execution.result
        if status == "error" and result.error is None:
            result.add("error", reply, 0)  # the message was lost on its way
        facts = execution.metadata.get("sandbox")
        facts = facts if isinstance(facts, dict) else {}
        spool = facts.get("spool")
        is_path = isinstance(spool, str) and len(spool) < 4096 and spool.isprintable()
        return Outcome(
            text=result.text,
            duration_seconds=execution.earlier_seconds + asyncio.get_running_loop().time() - begun
            if execution.ran_seconds is None
            else execution.ran_seconds,
            truncated=result.truncated or facts.get("truncated") is True,
            spool=spool if is_path else None,
            timed_out=timed_out or facts.get("timed_out") is True,
            interrupted=error_line(reply).startswith("KeyboardInterrupt"),
            images=tuple(result.images),
            error=result.error,
        )

    def _abandon(self, execution: Execution) -> None:
        """Interrupt a cell nobody waits for any more, once it runs."""
        if execution.done.done() or self._leaves_cells:
            return
        if execution.started.is_set():
            self._stop_soon(execution)
        else:
            execution.on_start = lambda: self._stop_soon(execution)

    def _stop_soon(self, execution: Execution) -> None:
        self._keep(self._stop(execution))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)

    async def _stop(self, execution: Execution) -> None:
        with contextlib.suppress(Unavailable, ToolError):
            for _ in range(3):  # a cell may catch the first
                await self.interrupt()
                await asyncio.wait((execution.done,), timeout=_INTERRUPT_SECONDS / 3)
                if execution.done.done():
                    return


def kernel_id_of(sandbox_id: str) -> str:
    """Give the id of the Python kernel of a sandbox."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"jupyter-sandbox:{sandbox_id}"))


def describe_end(exit_code: int | None) -> str:
    """Give in words how a kernel process ended; ``exit_code`` as ``Popen.returncode``."""
    if exit_code is None:
        return "it had ended"
    if exit_code >= 0:
        return f"it had exited with code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    if name == "SIGKILL":
        return "it had been killed (SIGKILL, often out of memory)"
    if name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL"):
        return f"it had crashed ({name}, often a fault in a native library)"
    return f"it had been ended by {name}"


def _asks_exit(reply: dict[str, Any]) -> bool:
    payload = reply.get("payload")
    items = payload if isinstance(payload, list) else []
    return any(isinstance(i, dict) and i.get("source") == "ask_exit" for i in items[:20])


async def _clock(execution: Execution, rest_seconds: float, timeout_seconds: float) -> bool:
    """Wait until the cell's time is over; False when it never began though its turn had come."""
    await execution.first.wait()
    try:
        async with asyncio.timeout(timeout_seconds):
            await execution.started.wait()
    except TimeoutError:
        return False
    await asyncio.sleep(max(0.0, rest_seconds - execution.earlier_seconds))
    return True


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _with_lost(outcome: Outcome, lost: str) -> Outcome:
    return replace(outcome, lost=lost) if lost else outcome
