"""The check that a whole sandbox works: five steps in a new conversation, which is then removed.

Start a conversation, run ``echo hello``, create a file, share it, download it: the way that an
assistant and its user go. Knows no HTTP. The rule: each step says how it went, a failed one what to
do next, and nothing of the check stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..conversations.conversations import Conversations
from ..errors import LimitExceeded, SandboxError
from ..models import ConversationRecord, Enforced, JsonValue
from ..stores.database import Database
from ..stores.file_store import FileStore
from .calls import Calls

_STEP_SECONDS = 90.0
_SAID = 500  # characters of an answer that a message repeats
_PATH = "/mnt/user-data/outputs/hello.txt"
_TEXT = "hello from the health check\n"

_ADVICE = {
    "start": "see the server's log for the engine's answer; with docker: is the service up, and "
    "the image there (`jupyter sandbox build-image`)?",
    "echo": "the sandbox started, but its shell does not answer: does its image have bash and "
    "Python 3.9 or newer, and can the host spare memory and processes?",
    "create_file": "is /mnt/user-data/outputs writable in the image, and is there room on the disk "
    "that sandboxes write to?",
    "share_files": "is there room in SandboxApp.data_dir, and may the server write there?",
    "download": "the stored file cannot be read back: is SandboxApp.data_dir whole, and the master "
    "key the one that it was made with?",
}


@dataclass(frozen=True)
class Step:
    """How one step went; ``message`` and ``advice`` are empty when it went well."""

    name: str
    ok: bool
    seconds: float
    message: str = ""
    advice: str = ""


@dataclass(frozen=True)
class FiveStepsResult:
    """The steps until the first that failed, and what held the sandbox meanwhile."""

    steps: tuple[Step, ...]
    limits: tuple[Enforced, ...]

    @property
    def ok(self) -> bool:
        """Whether all went well."""
        return len(self.steps) == len(_ADVICE) and all(step.ok for step in self.steps)


class FiveSteps:
    """Makes the check; one at a time, because each takes a sandbox."""

    def __init__(
        self,
        conversations: Conversations,
        calls: Calls,
        database: Database,
        files: FileStore,
        log: logging.Logger,
    ) -> None:
        self._conversations = conversations
        self._calls = calls
        self._database = database
        self._files = files
        self._log = log
        self._running = False

    async def run(self, owner: str) -> FiveStepsResult:
        """Go the five steps as this owner.

        Raises
        ------
        LimitExceeded
            A check runs already.
        """
        if self._running:
            raise LimitExceeded("A health check runs already.", retry_after_seconds=10)
        self._running = True
        try:
            record, _ = await self._conversations.create(owner, "health check")
            try:
                return await self._go(record)
            finally:
                await asyncio.shield(self._forget(record))
        finally:
            self._running = False

    async def _go(self, record: ConversationRecord) -> FiveStepsResult:
        limits: tuple[Enforced, ...] = ()
        steps: list[Step] = []
        work: dict[str, Callable[[ConversationRecord], Awaitable[str]]] = {
            "start": self._start,
            "echo": self._echo,
            "create_file": self._create_file,
            "share_files": self._share_files,
            "download": self._download,
        }
        for name, step in work.items():
            steps.append(await _take(name, step(record)))
            if not steps[-1].ok:
                break
            if name == "start":
                with contextlib.suppress(SandboxError):  # then no limit is known to hold
                    limits = await self._conversations.enforcement(record.conversation_id)
        return FiveStepsResult(tuple(steps), limits)

    async def _start(self, record: ConversationRecord) -> str:
        async with self._conversations.live(record.conversation_id).use():
            return ""

    async def _echo(self, record: ConversationRecord) -> str:
        return await self._call(record, "bash", {"command": "echo hello"}, "hello\n")

    async def _create_file(self, record: ConversationRecord) -> str:
        body: dict[str, JsonValue] = {"path": _PATH, "file_text": _TEXT}
        return await self._call(record, "create_file", body)

    async def _share_files(self, record: ConversationRecord) -> str:
        return await self._call(record, "share_files", {"paths": [_PATH]}, "hello.txt")

    async def _download(self, record: ConversationRecord) -> str:
        share = await self._database.share(record.conversation_id, "hello.txt", 0)
        if share is None:
            return "the shared file is not in the database"
        async with self._files.reading(share.stored) as reader:
            data = b"".join([piece async for piece in reader.pieces()])
        return "" if data == _TEXT.encode() else "the file is not what was shared"

    async def _call(
        self, record: ConversationRecord, tool: str, body: dict[str, JsonValue], wanted: str = ""
    ) -> str:
        """Make a tool call; give "" when it went well and says what is wanted."""
        call = await self._calls.start(record, tool, body)
        await call.done
        result = call.result or {}
        content = json.dumps(result.get("content"))
        if result.get("is_error") or json.dumps(wanted)[1:-1] not in content:
            return f"{tool} answered {content[:_SAID]}"
        return ""

    async def _forget(self, record: ConversationRecord) -> None:
        try:
            await self._conversations.delete(record.owner, record.conversation_id)
        except SandboxError as exc:
            self._log.warning(
                "conversation %s of a health check could not be removed: %s (%s)",
                *(record.conversation_id, exc.message, exc.detail),
            )


async def _take(name: str, work: Awaitable[str]) -> Step:
    started = time.monotonic()
    try:
        async with asyncio.timeout(_STEP_SECONDS):
            message = await work
    except SandboxError as exc:
        message = exc.message
    except TimeoutError:
        message = f"no answer within {_STEP_SECONDS:g} s"
    seconds = round(time.monotonic() - started, 3)
    return Step(name, not message, seconds, message, _ADVICE[name] if message else "")
