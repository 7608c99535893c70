"""Reads a cell that an earlier server process has sent from what the kernel has kept of it.

The kernel writes down what its cells give (``sandbox_python.records``) and is asked on the control
channel for what has come since; so nothing depends on who was subscribed when. The rule: all that
is read is a claim of the sandbox, as its messages are; it is bounded here, and ``CellResult``
bounds it once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from ..errors import SandboxError, Unavailable
from ..fair_turns import NOBODY, in_thread
from ..policy.json_bounds import MESSAGE_DEEPEST, MESSAGE_VALUES, check_json
from .dispatcher import Dispatcher, Execution

_ATTACH = "sandbox_attach_request"
_PAUSE_SECONDS = 0.3
_ASK_AGAIN_SECONDS = 60.0  # a cell may hold the interpreter for long: nobody answers then
_MAX_PIECE = 1024 * 1024  # characters
_MAX_LINE = 8 * 1024 * 1024 + 1024
_MAX_DISPLAYS = 32 * 1024 * 1024  # in all; an honest kernel keeps half of it


_UNKNOWN = "The Python kernel does not know this cell."


class UnknownCell(SandboxError):
    """The kernel has no record of it: it is another kernel, or the cell never reached it."""


class CellReader:
    """The reading of one execution of ``Dispatcher.expect``.

    Parameters
    ----------
    owner : str
        Whose turns reading large lines takes.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        execution: Execution,
        limit_bytes: int,
        owner: str = NOBODY,
    ) -> None:
        self._dispatcher = dispatcher
        self._execution = execution
        self._owner = owner
        self._position = 0
        self._most = _MAX_DISPLAYS + 4 * limit_bytes
        self._line: list[str] = []
        self._line_length = 0

    async def read(self) -> None:
        """Read until the cell is over; the execution fails with ``UnknownCell`` if there is none.

        The caller cancels it when the cell's time is over, or its kernel.
        """
        execution = self._execution
        try:
            await self._find()
            while not execution.done.done():
                if not await self._read_piece():
                    await asyncio.sleep(_PAUSE_SECONDS)
        except (UnknownCell, Unavailable) as exc:
            execution.fail(exc)

    async def _find(self) -> None:
        """Wait until the kernel has begun with the cell, which may stand behind others."""
        reply = await self._first_reply()
        while reply.get("known") is not True:
            # The kernel takes requests in order: after the answer to one that is sent now, a cell
            # that was sent before has begun, or never will.
            fence = asyncio.ensure_future(self._dispatcher.ask("shell", "kernel_info_request", {}))
            try:
                while not fence.done() and reply.get("known") is not True:
                    await asyncio.wait([fence], timeout=_PAUSE_SECONDS)
                    reply = await self._ask()
            finally:
                fence.cancel()
            if reply.get("known") is not True:
                reply = await self._ask()
                if reply.get("known") is not True:
                    raise UnknownCell(_UNKNOWN)
        seconds = reply.get("seconds")
        if isinstance(seconds, int | float) and 0 <= seconds < 1e7:
            if reply.get("ended") is True:  # then its time is no longer to be watched
                self._execution.ran_seconds = float(seconds)
            else:
                self._execution.earlier_seconds = float(seconds)
        self._execution.start()

    async def _first_reply(self) -> dict[str, Any]:
        """Ask for the first time: the kernel may come from a package that knew no such request."""
        asked = asyncio.ensure_future(self._ask())
        other = asyncio.ensure_future(self._dispatcher.ask("control", "kernel_info_request", {}))
        try:
            await asyncio.wait((asked, other), return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():  # answered in order: that would have been first
                await asyncio.wait((asked,), timeout=1.0)
            if not asked.done():
                raise UnknownCell(_UNKNOWN)
            return await asked
        finally:
            for task in (asked, other):
                task.cancel()
            await asyncio.gather(asked, other, return_exceptions=True)

    async def _ask(self) -> dict[str, Any]:
        content = {"execution_id": self._execution.msg_id, "position": self._position}
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ASK_AGAIN_SECONDS):
                    return await self._dispatcher.ask("control", _ATTACH, content)

    async def _read_piece(self) -> bool:
        """Take what has come since; say whether there may be more at once."""
        reply = await self._ask()
        if reply.get("known") is not True:
            raise UnknownCell(_UNKNOWN)
        data = reply.get("data")
        if not isinstance(data, str) or len(data) > _MAX_PIECE or not data.isascii():
            raise Unavailable("the Python kernel's records are malformed")
        self._position += len(data)
        *lines, rest = data.split("\n")
        for line in lines:
            self._line.append(line)
            text, self._line, self._line_length = "".join(self._line), [], 0
            await self._take(text)
        self._line.append(rest)
        self._line_length += len(rest)
        if self._line_length > _MAX_LINE or self._position > self._most:
            raise Unavailable("the Python kernel's records are malformed")
        if reply.get("over") is True and not self._execution.done.done():
            raise Unavailable("the Python kernel's records have no end")
        if reply.get("cut") is True and not self._execution.result.truncated:
            self._execution.result.truncated = True
        return bool(data)

    async def _take(self, line: str) -> None:
        execution = self._execution
        if execution.done.done():
            return
        try:
            message = (
                await in_thread(_parse, line, owner=self._owner)
                if len(line) > 65536
                else _parse(line)
            )
        except ValueError:
            raise Unavailable("the Python kernel's records are malformed") from None
        msg_type, content, metadata = message
        if msg_type == "execute_reply":
            execution.end(content, metadata)
        else:
            execution.result.add(msg_type, content, len(line))


def _parse(line: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Give type, content and metadata of a line; ``ValueError`` for what is none."""
    check_json(line.encode("ascii"), MESSAGE_VALUES, MESSAGE_DEEPEST)
    message = json.loads(line)
    if not isinstance(message, list) or not 2 <= len(message) <= 3:
        raise ValueError("not a message")
    msg_type, content, metadata = (*message, {})[:3]
    if not isinstance(msg_type, str) or not isinstance(content, dict):
        raise ValueError("not a message")
    return msg_type[:64], content, metadata if isinstance(metadata, dict) else {}
