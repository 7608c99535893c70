"""One conversation in this server process: its sandbox on demand, provisioned once.

``use()`` is the only way to a sandbox. The database decides who provisions (a claim that one of
many callers wins, also in other processes); the lock here spares it the callers of this process.
The lock is never held while a tool runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime

from ..errors import InvalidRequest, NotFound, SandboxError, Unavailable
from ..models import ConversationRecord, IdleTimes
from ..sandbox.sandbox import Sandbox
from ..sandbox.sandboxes import SilentGuest
from ..sandbox.silence import PATIENCE_SECONDS
from .attachment import Attachment, Followers
from .notices import replaced_sandbox, resumed_sandbox
from .provisioning import Provisioning
from .resting import BY_HAND
from .righting import Righted, give_up_start, keep_still
from .states import PROVISIONABLE, State
from .surroundings import Surroundings
from .use_notes import UseNotes

_POLL_SECONDS = 0.05


class Conversation:
    """A conversation that somebody used since the server started."""

    def __init__(self, conversation_id: str, around: Surroundings) -> None:
        self.conversation_id = conversation_id
        self.users = 0
        self.has_notice = False  # this process may have written one that waits in the database
        self.found: ConversationRecord | None = None  # as it was looked up last
        self._around = around
        self._lock = asyncio.Lock()  # guards _attached; held while one is provisioned
        self._attached = Attachment(around.sandboxes)
        self._provisioning = Provisioning(conversation_id, around)
        self._uses = UseNotes(conversation_id, around.resting.records, around.log)
        self._deleted = False

    def __repr__(self) -> str:
        return f"<Conversation {self.conversation_id} users={self.users} {self._attached}>"

    @property
    def owner(self) -> str:
        """Whose it is; "" as long as its record was not read."""
        return self._attached.owner

    @property
    def is_attached(self) -> bool:
        """Whether there is a sandbox that could be lent at once."""
        return self._attached.is_running and not self._deleted

    @property
    def rests_since(self) -> float | None:
        """The loop's time since when what is attached stands still; None: it runs."""
        return self._attached.rests_since

    @property
    def sandbox(self) -> Sandbox | None:
        """The attached sandbox, if any: for looking, not for use."""
        return self._attached.sandbox

    @property
    def followers(self) -> Followers | None:
        """Whoever is told what becomes of the sandbox."""
        return self._attached.followers

    @followers.setter
    def followers(self, followers: Followers) -> None:
        self._attached.followers = followers

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Sandbox]:
        """Lend the sandbox: provision, attach or wake it as needed; count the use.

        Raises
        ------
        Unavailable
            There is no sandbox to be had now.
        NotFound
            The conversation was deleted meanwhile.
        """
        self._around.sandboxes.require_running()
        self.users += 1
        sandbox = self._attached.sandbox
        try:
            if sandbox is None or not self._attached.is_running:
                async with self._lock:
                    sandbox = await self._ensure()
            while not await self._touch(sandbox):
                async with self._lock:
                    if self._attached.sandbox is sandbox:
                        self._attached.rest()  # another server has moved it: look what it is now
                    sandbox = await self._ensure()
            with sandbox.watched():
                yield sandbox
        finally:
            self.users -= 1
            if sandbox is not None and sandbox.silence is not None and sandbox.silence.resumed:
                sandbox.silence.resumed = False
                await asyncio.shield(self._note_resumed())
            if not self.users and not self._deleted:
                await self._uses.note_end()

    @contextlib.asynccontextmanager
    async def use_running(self) -> AsyncIterator[Sandbox | None]:
        """Lend the sandbox if it runs, else None: for looking. It is no use, and starts nothing."""
        with self._attached.looked_at():
            if not self.is_attached:
                async with self._lock:
                    await self._attach_running()
            yield self._attached.sandbox if self.is_attached else None

    async def suspended_sandbox(self) -> str:
        """Give the id of the sandbox if it is suspended, else ""; wakes nothing."""
        record = await self._record()
        return record.sandbox_id if record.state == State.SUSPENDED else ""

    def note_times(self, times: IdleTimes | None) -> None:
        """Remember what applies to its user's groups; stored at the next use."""
        self._uses.set_times(times)

    async def note_in_flight(self) -> None:
        """Note in the database what runs here; what another server has suspended goes on."""
        if not self._attached.is_there or not self._runs_something:
            return
        record = await self._uses.note_in_flight()
        if record is not None and record.state == State.SUSPENDED:
            self._uses.forget()
            async with self.use():
                pass

    async def compare(self, record: ConversationRecord | None) -> bool:
        """Compare what is attached here, and not in use, with a record that was just read.

        What another server has suspended rests from now on; what has ended is let go: then False.
        """
        if self._agrees(record):
            return True
        async with self._lock:
            record = await self._around.database.conversation(self.conversation_id)
            if self._agrees(record):
                return True
            if record is not None and self._is_attached_to(record):
                self._attached.rest()
                return True
            await self._attached.let_go()
        return False

    def _agrees(self, record: ConversationRecord | None) -> bool:
        if self._attached.sandbox is None or self._runs_something:
            return True
        if record is None or not self._is_attached_to(record):
            return False
        return record.state == State.RUNNING or self.rests_since is not None

    def _is_attached_to(self, record: ConversationRecord) -> bool:
        sandbox = self._attached.sandbox
        is_there = record.state in (State.RUNNING, State.SUSPENDED)
        return is_there and sandbox is not None and record.sandbox_id == sandbox.sandbox_id

    async def interrupt(self) -> int:
        """End what runs in the sandbox; give how many commands and cells that were."""
        sandbox = self._attached.sandbox
        if not self.is_attached:
            async with self._lock:
                sandbox = await self._attach_running()
        return 0 if sandbox is None else await sandbox.interrupt()

    async def put_right(self) -> Righted:
        """Adopt a sandbox that runs; mend what a crash left between its record and its engine.

        It is no use, and wakes nothing.

        Raises
        ------
        Unavailable
            The engine or the guest does not answer; nothing is lost by that.
        NotFound
            The conversation is gone.
        """
        database, sandboxes = self._around.database, self._around.sandboxes
        async with self._lock:
            if self.is_attached:
                return Righted.NOTHING
            record = await self._record()
            if record.state == State.STARTING:
                return await give_up_start(record, database, sandboxes, self._around.marks)
            if record.state == State.SUSPENDED:
                done = await keep_still(record, database, sandboxes)
                if done is Righted.LOST:
                    await self._lose(record)
                return done
            if record.state != State.RUNNING:
                return Righted.NOTHING
            await self._attached.let_go()
            sandbox = await self._attach(record, is_patient=True)
            if sandbox is None:
                return Righted.LOST
            self._attached.run(sandbox)
            return Righted.ADOPTED

    async def detach(self) -> None:
        """Let go of the sandbox; it runs on."""
        async with self._lock:
            await self._attached.let_go()

    @property
    def is_busy(self) -> bool:
        """Whether this process runs something in the sandbox, or is about to, or moves it."""
        return self._lock.locked() or self._runs_something

    async def let_go_if_resting(self) -> None:
        """Let go of a suspended sandbox: its next use takes a quarter of a second more."""
        async with self._lock:
            if self.rests_since is not None:
                await self._attached.let_go()

    async def suspend(
        self, actor: str = "", because: str = BY_HAND, unused_since: datetime | None = None
    ) -> None:
        """Let the sandbox stand still, with all that runs in it; the next use wakes it.

        This side stays connected, so that it goes on as soon as its engine lets it.

        Parameters
        ----------
        because : str
            Half a sentence for the next result.
        unused_since : datetime, optional
            Only if no use was noted after that.

        Raises
        ------
        InvalidRequest
            409: a call or a cell runs, or there is no sandbox that runs.
        Unavailable
            The engine did not freeze it.
        """
        async with self._lock:
            record = await self._record()
            if record.state == State.SUSPENDED:
                return
            self._require_state(record, State.RUNNING)
            self._require_idle()
            if unused_since is not None and record.used_at > unused_since:
                raise InvalidRequest("The sandbox was used meanwhile.", status=409)
            self._attached.rest()  # from here on, new uses wait for the lock
            notice = ""
            try:
                await self._attached.await_lookers()
                if self._attached.sandbox is not None and self._attached.is_there:
                    await self._attached.sandbox.python.trim()
                notice = await self._around.resting.suspend(record, because)
            finally:
                if not notice:  # also if the engine failed: what it is now, the next use finds out
                    await asyncio.shield(self._attached.let_go())
            if not notice:
                raise InvalidRequest("The sandbox changed meanwhile; look again.", status=409)
        self._around.tell(self.conversation_id, notice)
        self._around.audit.note("sandbox_suspended", actor, self.conversation_id)

    async def wake(self) -> None:
        """Let a suspended sandbox go on; ``InvalidRequest`` (409) if there is none to wake."""
        record = await self._record()
        if record.state != State.RUNNING:
            self._require_state(record, State.SUSPENDED)
            async with self.use():
                pass

    async def terminate(
        self,
        actor: str = "",
        why: str = "it was ended by hand",
        unused_since: datetime | None = None,
    ) -> None:
        """End the sandbox with all that runs in it; the next call makes a new one and says so.

        Uploads and shared files stay. Without a sandbox there is nothing to do.

        Parameters
        ----------
        why : str
            Half a sentence for the next result.
        unused_since : datetime, optional
            Only if nothing runs in it and no use was noted after that.

        Raises
        ------
        InvalidRequest
            409: one is being made just now, or it is in use.
        """
        around = self._around
        async with self._lock:
            record = await self._record()
            if record.state in (State.ABSENT, State.TERMINATED):
                return
            endable = (State.RUNNING, State.SUSPENDED, State.ERROR)
            self._require_state(record, *endable)
            if unused_since is not None:
                self._require_idle()
            await self._attached.let_go()
            if not await around.database.set_state(
                *(self.conversation_id, endable, State.TERMINATED), unused_since=unused_since
            ):
                raise InvalidRequest("The sandbox changed meanwhile; look again.", status=409)
            if record.state != State.ERROR:
                await self._note(replaced_sandbox(why))
            around.audit.note("sandbox_terminated", actor, self.conversation_id)
            if record.sandbox_id:  # kept in the record: what fails here is done at the next use
                await around.sandboxes.remove(record.sandbox_id)

    async def delete(self) -> None:
        """Delete its record, then end the sandbox; later uses raise ``NotFound``.

        In this order: a server that dies in between leaves a sandbox without a conversation, which
        is reaped, and never a conversation that has lost its sandbox. So does an engine that fails.
        """
        self._deleted = True
        async with self._lock:
            await self._attached.let_go()
            try:
                record = await self._around.database.conversation(self.conversation_id)
                await self._around.database.delete_conversation(self.conversation_id)
            except BaseException:
                self._deleted = False
                raise
            if record is not None and record.sandbox_id:
                try:
                    await self._around.sandboxes.remove(record.sandbox_id)
                except Unavailable as exc:
                    self._around.log.warning(
                        "conversation %s: deleted; its sandbox is removed later: %s %s",
                        *(self.conversation_id, exc, exc.detail),
                    )

    async def _ensure(self) -> Sandbox:
        """Give an attached sandbox; the lock is held."""
        attached = self._attached
        if attached.sandbox is not None:
            if attached.is_running or (attached.is_there and await self._rouse(attached.sandbox)):
                return attached.sandbox
            await attached.let_go()
        while True:
            record = await self._record()
            if record.state in (State.RUNNING, State.SUSPENDED):
                sandbox = await self._attach(record)
                if sandbox is None:
                    continue  # the state says now what became of it
            elif record.state in PROVISIONABLE or record.state == State.STARTING:
                if not await self._provisioning.claim(record):
                    await asyncio.sleep(_POLL_SECONDS)  # somebody else does it: wait for theirs
                    continue
                sandbox = await self._provisioning.provision(await self._record())
                self.has_notice = True
                self._uses.noted()  # with the record
            else:
                raise Unavailable("the conversation is in an unknown state", detail=record.state)
            self.has_notice = self.has_notice or bool(record.notice)  # of another process
            if self._around.sandboxes.settings.starts_python:
                sandbox.warm_up()
            attached.run(sandbox)
            return sandbox

    async def _rouse(self, sandbox: Sandbox) -> bool:
        """Let the sandbox that rests, and is attached, go on; False: it is to be let go."""
        resting = self._around.resting
        while True:
            record = await self._record()
            if record.sandbox_id != sandbox.sandbox_id:
                return False
            if record.state == State.RUNNING:  # another server has woken it
                break
            if record.state != State.SUSPENDED:
                return False
            if await resting.begin_wake(record):
                break
            await asyncio.sleep(_POLL_SECONDS)
        try:
            await self._around.sandboxes.go_on(sandbox)
        except BaseException as exc:
            if record.state == State.SUSPENDED:
                await resting.undo_wake(record)
            if isinstance(exc, Unavailable):
                return False
            raise
        if record.state == State.SUSPENDED:
            await self._note_woken(record)
        self._attached.run(sandbox)
        return True

    async def _attach_running(self) -> Sandbox | None:
        """Attach if it runs; the lock is held. Another may have attached while it was awaited."""
        attached = self._attached
        if attached.is_running:
            return attached.sandbox
        record = await self._record()
        if record.state == State.RUNNING:
            resting = attached.sandbox if attached.is_there else None  # another has woken it
            if resting is None or not await self._rouse(resting):
                await attached.let_go()
                sandbox = await self._attach(record, is_patient=True)
                if sandbox is not None:
                    attached.run(sandbox)
        return attached.sandbox if attached.is_running else None

    async def _note_woken(self, record: ConversationRecord) -> None:
        self._uses.noted()
        await self._note(self._around.resting.told(record))
        self._around.audit.note("sandbox_woken", "", self.conversation_id)

    async def _attach(self, record: ConversationRecord, is_patient: bool = False) -> Sandbox | None:
        """Attach to the recorded sandbox; None, with the loss recorded, when it is gone.

        A suspended one is recorded as running before it is let go on, as it is recorded as
        suspended before it stands: whoever finds the engine at odds with the record, after a crash
        or in the middle of it, lets the engine follow the record. With ``is_patient`` one that
        runs and does not answer is not lost: ``SilentGuest``.
        """
        around = self._around
        why, woken = "", record.state == State.SUSPENDED
        if woken and not await around.resting.begin_wake(record):
            await asyncio.sleep(_POLL_SECONDS)
            return None  # somebody else was first, or freezes it just now: look again
        try:
            sandbox = await around.sandboxes.attach(record.sandbox_id, self.conversation_id)
        except SilentGuest:  # any other error is the engine's: nothing is known to be lost
            now = asyncio.get_running_loop().time()
            since = self._attached.silent_since = self._attached.silent_since or now
            if is_patient or now - since < PATIENCE_SECONDS:
                if woken:
                    await around.resting.undo_wake(record)
                raise
            sandbox, why = None, "it did not answer any more"
        except BaseException:
            if woken:
                await around.resting.undo_wake(record)
            raise
        self._attached.silent_since = None
        if sandbox is None:
            await self._lose(record, why)
            return None
        try:
            if woken:
                await self._note_woken(record)
            # A server that was killed may have recorded an upload that it did not get to place.
            await around.placing.place_all(self.conversation_id, record.sandbox_id)
        except BaseException:
            await asyncio.shield(sandbox.detach())
            raise
        return sandbox

    async def _lose(self, record: ConversationRecord, why: str = "") -> None:
        """Record that the sandbox is gone, for the next call to say; remove what is left of it."""
        around = self._around
        if not why and record.engine not in ("", around.sandboxes.engine.name):
            why = f"it was made by {record.engine}, which this server does not use now"
        why = why or await around.sandboxes.why_gone(record.sandbox_id)
        around.log.warning("conversation %s: sandbox lost: %s", self.conversation_id, why)
        if await around.database.lose_sandbox(self.conversation_id, record.sandbox_id):
            await self._note(replaced_sandbox(why))
            if around.sandboxes.homes.why_quarantined(record.sandbox_id):
                around.audit.note("sandbox_quarantined", "", self.conversation_id)
            else:
                around.audit.note("sandbox_lost", "", self.conversation_id)
            await around.sandboxes.remove(record.sandbox_id)

    async def _note_resumed(self) -> None:
        """Remember that somebody else had paused the sandbox, for the next result."""
        database = self._around.database
        with contextlib.suppress(SandboxError):
            await database.set_state(self.conversation_id, State.SUSPENDED, State.RUNNING)
            await self._note(resumed_sandbox())

    async def _note(self, notice: str) -> None:
        """Say what happened to the sandbox: in the next result, and to those who follow."""
        await self._around.database.add_notice(self.conversation_id, notice)
        self.has_notice = True
        self._around.tell(self.conversation_id, notice)

    async def _record(self) -> ConversationRecord:
        record = await self._around.database.conversation(self.conversation_id)
        if record is None or self._deleted:
            raise NotFound("There is no such conversation.")
        self._attached.owner = record.owner
        return record

    @property
    def _runs_something(self) -> bool:
        sandbox = self._attached.sandbox
        return bool(self.users or (self.is_attached and sandbox and sandbox.python.is_busy))

    def _require_idle(self) -> None:
        if self._runs_something:
            raise InvalidRequest(
                "Something runs in this sandbox; wait for its end, or cancel it.", status=409
            )

    def _require_state(self, record: ConversationRecord, *states: State) -> None:
        if record.state not in states:
            raise InvalidRequest(f"The sandbox is {record.state}.", status=409)

    async def _touch(self, sandbox: Sandbox) -> bool:
        """Note the use; False when another server has suspended or ended the sandbox meanwhile."""
        record = await self._uses.note_begin()
        if self._deleted:
            raise NotFound("There is no such conversation.")
        return record is None or (
            record.state == State.RUNNING and record.sandbox_id == sandbox.sandbox_id
        )
