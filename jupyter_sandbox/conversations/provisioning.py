"""Gives a conversation its sandbox: one of the warm pool, or one that is made for it.

It works by the claim that the conversation's server has taken in the database, and keeps it as long
as it works. The rule: what it could not give is gone when it raises, or its id is in the record for
the next use to remove.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets

from .. import metrics
from ..errors import SandboxError, Unavailable
from ..models import ConversationRecord
from ..sandbox.sandbox import Sandbox
from .notices import first_sandbox, lost_files
from .righting import ended_claim
from .surroundings import Surroundings

_CLAIM_SECONDS = 30.0


class Provisioning:
    """The provisionings of one conversation; whoever calls holds its lock."""

    def __init__(self, conversation_id: str, around: Surroundings) -> None:
        self._conversation_id = conversation_id
        self._around = around
        self._server = around.marks.process_id

    def __repr__(self) -> str:
        return f"<Provisioning {self._conversation_id}>"

    async def claim(self, record: ConversationRecord) -> bool:
        """Take the right to provision, with a place for it; False: somebody else has it.

        Raises
        ------
        LimitExceeded, Unavailable
            There is no place for it now.
        """
        around = self._around
        ended = ended_claim(record, around.marks)
        return await around.places.claim(record, self._server, _CLAIM_SECONDS, ended=ended)

    async def provision(self, record: ConversationRecord) -> Sandbox:
        """Give the sandbox that the conversation has from now on, with its files in place.

        Raises
        ------
        Unavailable
            There is none to be had now, or the claim was lost; the state says so.
        """
        holder = asyncio.ensure_future(self._hold_claim())
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            sandbox, lost, was_spare = await self._get(record)
        except BaseException as exc:
            metrics.PROVISION_SECONDS.labels("failed").observe(loop.time() - started)
            await asyncio.shield(self._note_failure(exc))
            raise
        finally:
            holder.cancel()
        seconds = loop.time() - started
        metrics.PROVISION_SECONDS.labels("given" if was_spare else "made").observe(seconds)
        notices = [first_sandbox()] if record.generation == 0 else []
        if lost:
            notices.append(lost_files(lost))
        try:
            await self._record(record, sandbox, "\n".join(notices))
        except BaseException:
            await asyncio.shield(self._discard(sandbox))
            raise
        self._around.audit.note(
            "sandbox_started", "", self._conversation_id, seconds=round(seconds, 3)
        )
        for notice in notices:
            self._around.tell(self._conversation_id, notice)
        return sandbox

    async def _get(self, record: ConversationRecord) -> tuple[Sandbox, list[str], bool]:
        """Give a sandbox, what could not be put into it, and whether the pool had it."""
        around, conversation_id = self._around, self._conversation_id
        if record.sandbox_id:
            await around.sandboxes.remove(record.sandbox_id)
        taken = await around.pool.take(conversation_id)
        if taken is not None:
            try:
                lost = await around.placing.fill(conversation_id, taken.sandbox, taken.has_files)
            except BaseException:  # it was somebody's: it is not given to anybody else
                await asyncio.shield(self._discard(taken.sandbox))
                raise
            return taken.sandbox, lost, True
        sandbox_id = secrets.token_hex(12)
        if not await around.database.set_intent(conversation_id, self._server, sandbox_id):
            raise Unavailable("another server took over the provisioning; try again")
        sandbox, lost = await around.placing.create(conversation_id, sandbox_id)
        return sandbox, lost, False

    async def _record(self, record: ConversationRecord, sandbox: Sandbox, notice: str) -> None:
        kept = await self._around.database.set_running(
            self._conversation_id,
            server=self._server,
            sandbox_id=sandbox.sandbox_id,
            engine=self._around.sandboxes.engine.name,
            generation=record.generation + 1,
            notice=notice,
        )
        if not kept:
            raise Unavailable("the conversation was deleted, or taken over, meanwhile")

    async def _discard(self, sandbox: Sandbox) -> None:
        await sandbox.detach()
        with contextlib.suppress(Unavailable):  # its id is in the record: the next use tries again
            await self._around.sandboxes.remove(sandbox.sandbox_id)

    async def _hold_claim(self) -> None:
        while True:
            await asyncio.sleep(_CLAIM_SECONDS / 3)
            with contextlib.suppress(Unavailable):
                await self._around.database.extend_claim(
                    self._conversation_id, self._server, _CLAIM_SECONDS
                )

    async def _note_failure(self, exc: BaseException) -> None:
        around, detail = self._around, exc.detail if isinstance(exc, SandboxError) else repr(exc)
        around.audit.note("sandbox_failed", "", self._conversation_id)
        around.log.warning("conversation %s: no sandbox: %s %s", self._conversation_id, exc, detail)
        with contextlib.suppress(SandboxError):
            await around.database.give_up_claim(self._conversation_id, self._server)
