"""The one Jupyter kernel of a conversation, as Jupyter clients see it, with their sessions.

It knows models and clients, no HTTP. The rules: looking starts and wakes nothing; the kernel
belongs to the conversation, so many notebooks share it, and closing one of them ends a session and
not the kernel; kernels and sessions have the same ids on every server, before and after a restart.
A suspended sandbox has its kernel still: clients stay connected, and a cell wakes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
import weakref
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ..errors import InvalidRequest, LimitExceeded, NotFound, SandboxError
from ..models import Limits
from ..previews.rendering import Renderer
from ..sandbox.kernel_manager import KERNEL_NAME, kernel_spec
from ..sandbox.output_gate import OutputGate
from ..sandbox.python_kernel import PythonKernel, kernel_id_of
from ..sandbox.sandbox import Sandbox
from ..stores.session_records import SessionRecord, SessionRecords
from .conversation import Conversation
from .kernel_client import KernelClient, Send

_ALIASES = frozenset(("", KERNEL_NAME, "python3", "python"))  # notebooks made elsewhere say python3
_MOST_CLIENTS = 12  # of the 64 connections that the relay takes, each needs four
_SHORT_LIFE_SECONDS = 5.0
_MOST_SHORT_LIVES = 3


@dataclass(frozen=True)
class KernelModel:
    """A kernel; ``state`` is one of Jupyter's execution states."""

    kernel_id: str
    state: str
    last_activity: datetime
    connections: int
    name: str = KERNEL_NAME


class Kernels:
    """The kernels of all conversations of this process."""

    def __init__(
        self,
        limits: Limits,
        trusted: bool,
        sessions: SessionRecords,
        renderer: Renderer,
        log: logging.Logger,
    ) -> None:
        self._limits = limits
        self._trusted = trusted
        self._sessions = sessions
        self._log = log
        # One object for a conversation, as long as anybody holds it; those in use are held here.
        self._known: weakref.WeakValueDictionary[str, ConversationKernel] = (
            weakref.WeakValueDictionary()
        )
        self._kernels: dict[str, ConversationKernel] = {}
        self._renderer = renderer

    def __repr__(self) -> str:
        return f"<Kernels {len(self._kernels)}>"

    def of(self, conversation: Conversation) -> ConversationKernel:
        """Give the kernel of a conversation whose owner was checked."""
        known = self._known.get(conversation.conversation_id)
        if known is None or known.conversation is not conversation:
            known = ConversationKernel(
                *(conversation, self._limits, self._trusted),
                *(self._sessions, self._renderer, self._log),
            )
            self._known[conversation.conversation_id] = known
        self._kernels[conversation.conversation_id] = known
        return known

    async def forget_idle(self) -> None:
        """Let go of those without clients; what they knew can be asked for again."""
        for conversation_id, kernel in list(self._kernels.items()):
            if not kernel.is_used:
                del self._kernels[conversation_id]

    async def release(self, conversation_id: str) -> None:
        """Let the clients of a conversation go whose sandbox has ended."""
        known = self._known.get(conversation_id)
        if known is not None:
            await known.close()

    async def forget(self, conversation_id: str) -> None:
        """Let go of a conversation that was deleted."""
        self._kernels.pop(conversation_id, None)
        known = self._known.pop(conversation_id, None)
        if known is not None:
            await known.close()

    async def close(self) -> None:
        """Let go of all clients; the kernels run on. Twice is once."""
        kernels, self._kernels = list(self._kernels.values()), {}
        for kernel in kernels:
            await kernel.close()


class ConversationKernel:
    """The kernel of one conversation."""

    def __init__(
        self,
        conversation: Conversation,
        limits: Limits,
        trusted: bool,
        sessions: SessionRecords,
        renderer: Renderer,
        log: logging.Logger,
    ) -> None:
        self.conversation = conversation
        conversation.followers = self
        self._limits = limits
        self._trusted = trusted
        self._renderer = renderer
        self._log = log
        self._sessions = sessions
        self._clients: set[KernelClient] = set()
        self._active_at = datetime.now(UTC)
        self._watching: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()  # two sessions of one path in order
        self._connecting = 0
        self._following: asyncio.Task[None] | None = None
        self.info: Mapping[str, Any] | None = None  # as the kernel told it last
        self._on_request = 0  # restarts and ends that a client asked for: no news to the others

    def __repr__(self) -> str:
        return f"<ConversationKernel {self.conversation!r} clients={len(self._clients)}>"

    @property
    def is_used(self) -> bool:
        """Whether clients are connected."""
        return bool(self._clients or self._connecting)

    # The kernel

    async def look(self) -> KernelModel | None:
        """Give the kernel, None if there is none; starts nothing."""
        # Twice: one that was woken between the two questions is neither at the first time, and
        # JupyterLab lets go of a kernel that is missing from one list.
        for _ in range(2):
            async with self.conversation.use_running() as sandbox:
                if sandbox is not None:
                    state = await sandbox.python.look()
                    if state == "absent":
                        return None
                    return self._model(sandbox.python.kernel_id, state)
            sandbox_id = await self.conversation.suspended_sandbox()
            if sandbox_id:
                return self._model(kernel_id_of(sandbox_id), "idle")
        return None

    async def start(self, name: str = "") -> KernelModel:
        """Give the kernel; provisions, starts or adopts as needed."""
        require_kernel_name(name)
        self.note_activity()
        async with self.conversation.use() as sandbox:
            await sandbox.python.ensure_started()
            return self._model(sandbox.python.kernel_id, sandbox.python.state)

    async def require(self, kernel_id: str) -> KernelModel:
        """Give the kernel of this id; ``NotFound`` for another one's, or an earlier sandbox's."""
        model = await self.look()
        if model is None or model.kernel_id != kernel_id:
            raise NotFound("There is no such kernel.")
        return model

    async def interrupt(self, kernel_id: str) -> None:
        """Interrupt the running cell."""
        async with self._using(kernel_id) as python:
            await python.interrupt()

    async def restart(self, kernel_id: str) -> KernelModel:
        """End the kernel with all it started; start a new one."""
        async with self._using(kernel_id) as python:
            self._on_request += 1
            try:
                await python.restart()
            finally:
                self._on_request -= 1
            return self._model(python.kernel_id, python.state)

    async def shut_down(self, kernel_id: str) -> None:
        """End the kernel with all it started; the next use starts a new one."""
        async with self._using(kernel_id) as python:
            self._on_request += 1
            try:
                await python.shutdown()
            finally:
                self._on_request -= 1
        await self._sessions.clear(self.conversation.conversation_id)
        for client in list(self._clients):
            await client.tell_state("dead")
            await client.close()

    def note_activity(self) -> None:
        """Note that somebody did something."""
        self._active_at = datetime.now(UTC)

    # Clients

    async def connect(self, kernel_id: str, send: Send) -> KernelClient:
        """Connect a client to the kernel; the caller closes what it gets.

        Raises
        ------
        NotFound
            There is no such kernel.
        LimitExceeded
            So many clients are connected already.
        """
        await self.require(kernel_id)
        if len(self._clients) + self._connecting >= _MOST_CLIENTS:
            raise LimitExceeded(
                f"{_MOST_CLIENTS} clients are connected to this kernel; close one.",
                retry_after_seconds=5,
            )
        self._connecting += 1
        try:
            return await self._connect(kernel_id, send)
        finally:
            self._connecting -= 1

    async def _connect(self, kernel_id: str, send: Send) -> KernelClient:
        gate = OutputGate(self._limits.output_bytes, self._trusted)
        client = KernelClient(self, kernel_id, send, gate, self._renderer)
        async with self.conversation.use_running() as sandbox:
            if sandbox is not None:
                await sandbox.python.ensure_started()
                try:
                    await client.connect(sandbox.python)
                except BaseException:
                    await asyncio.shield(client.close())
                    raise
            elif not await self.conversation.suspended_sandbox():
                raise NotFound("There is no such kernel.")
            self._clients.add(client)
            if sandbox is not None:
                self._begin_watch(sandbox)
            # JupyterLab forgets the state with its websocket, and learns it from no answer to what
            # it asks by itself.
            await client.tell_state("idle" if sandbox is None else sandbox.python.state)
        return client

    def disconnected(self, client: KernelClient) -> None:
        """Note that a client has gone."""
        self._clients.discard(client)
        if not self._clients and self._watching is not None:
            self._watching.cancel()

    def note_info(self, info: Mapping[str, Any]) -> None:
        """Remember what the kernel says of itself, for those who ask while it stands still."""
        if info.get("status") == "ok":
            self.info = info

    async def close(self) -> None:
        """Let go of all clients. Twice is once."""
        self.rested()
        for client in list(self._clients):
            await client.close()
        for task in (self._watching, self._following):
            if task is not None:
                await asyncio.wait([task])

    # The sandbox's rest

    def rested(self) -> None:
        """Watch the kernel no more: it cannot answer, and that is no end of it."""
        for task in (self._watching, self._following):
            if task is not None:
                task.cancel()

    def attached(self, sandbox: Sandbox) -> None:
        """Connect the clients that were not, and watch the kernel again."""
        if self._clients:
            self._following = asyncio.ensure_future(self._follow(sandbox))

    async def let_go(self) -> None:
        """Disconnect all clients from the kernel; they stay, for its return."""
        await asyncio.gather(*(client.disconnect() for client in list(self._clients)))

    async def _follow(self, sandbox: Sandbox) -> None:
        python = sandbox.python
        clients = [client for client in self._clients if client.kernel_id == python.kernel_id]
        try:
            if clients:
                await python.ensure_started()
                await asyncio.gather(*(client.connect(python) for client in clients))
                self._begin_watch(sandbox)
        except SandboxError as exc:  # the next cell tries again, and is told
            self._log.warning("%r: not connected again: %s %s", self, exc, exc.detail)

    def _begin_watch(self, sandbox: Sandbox) -> None:
        if self._watching is None or self._watching.done() or self._watching.cancelling():
            self._watching = asyncio.ensure_future(self._watch(sandbox))

    async def _watch(self, sandbox: Sandbox) -> None:
        """Start the kernel again when it ends while clients are connected, and tell them."""
        loop = asyncio.get_running_loop()
        python, short_lives = sandbox.python, 0
        while self._clients and not sandbox.gone:
            begun = loop.time()
            await python.ended()
            if sandbox.gone:
                break
            if self._on_request:
                await asyncio.sleep(0.1)
                continue
            is_short = loop.time() - begun < _SHORT_LIFE_SECONDS
            short_lives = short_lives + 1 if is_short else 0
            try:
                if short_lives >= _MOST_SHORT_LIVES:
                    break
                await python.ensure_started()
                await asyncio.gather(*(client.restarted() for client in list(self._clients)))
            except SandboxError as exc:
                self._log.warning("%r: not started again: %s %s", self, exc, exc.detail)
                break
        for client in list(self._clients):
            await client.tell_state("dead")

    # Sessions

    async def sessions(self) -> tuple[list[SessionRecord], KernelModel | None]:
        """Give the sessions, none if there is no kernel that they could use."""
        model = await self.look()
        return [] if model is None else await self._sessions_of(model), model

    async def session(self, session_id: str) -> tuple[SessionRecord, KernelModel]:
        """Give one session."""
        sessions, model = await self.sessions()
        for session in sessions:
            if session.session_id == session_id and model is not None:
                return session, model
        raise NotFound("There is no such session.")

    async def open_session(
        self, path: str, name: str, kind: str, kernel_name: str, kernel_id: str
    ) -> tuple[SessionRecord, KernelModel]:
        """Give the session of a path, a new one if there is none; starts the kernel."""
        model = await self.require(kernel_id) if kernel_id else await self.start(kernel_name)
        async with self._opening:
            for session in await self._sessions_of(model):
                if session.path == path:
                    return session, model
            session = SessionRecord(str(uuid.uuid4()), path, name, kind)
            await self._sessions.add(self.conversation.conversation_id, model.kernel_id, session)
        return session, model

    async def change_session(
        self, session_id: str, path: str | None, name: str | None, kind: str | None
    ) -> tuple[SessionRecord, KernelModel]:
        """Change what is given of a session."""
        session, model = await self.session(session_id)
        changed = replace(
            session,
            path=session.path if path is None else path,
            name=session.name if name is None else name,
            kind=session.kind if kind is None else kind,
        )
        if not await self._sessions.change(self.conversation.conversation_id, changed):
            raise NotFound("There is no such session.")
        return changed, model

    async def close_session(self, session_id: str) -> None:
        """Forget a session; the kernel runs on."""
        await self.session(session_id)
        await self._sessions.remove(self.conversation.conversation_id, session_id)

    # Parts of the above

    @contextlib.asynccontextmanager
    async def _using(self, kernel_id: str) -> AsyncIterator[PythonKernel]:
        await self.require(kernel_id)
        self.note_activity()
        async with self.conversation.use() as sandbox:
            if sandbox.python.kernel_id != kernel_id:
                raise NotFound("There is no such kernel.")
            yield sandbox.python

    async def _sessions_of(self, model: KernelModel) -> list[SessionRecord]:
        return await self._sessions.all(self.conversation.conversation_id, model.kernel_id)

    def _model(self, kernel_id: str, state: str) -> KernelModel:
        return KernelModel(kernel_id, state, self._active_at, len(self._clients))


def require_kernel_name(name: str) -> None:
    """Raise ``InvalidRequest`` for a kernel that there is not."""
    if name not in _ALIASES:
        raise InvalidRequest(
            f"There is no kernel {name[:60]!r} here; the only one is {KERNEL_NAME}."
        )


def describe_kernel() -> dict[str, str]:
    """Give what a client may know of the kernelspec: nothing of how it is started."""
    spec = kernel_spec()
    return {
        "name": KERNEL_NAME,
        "display_name": spec.display_name,
        "language": spec.language,
        "interrupt_mode": spec.interrupt_mode,
    }
