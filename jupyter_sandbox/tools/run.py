"""Runs a prepared call and turns what goes wrong into a result that the model can act on.

The rule: an error never looks like a success, and no text holds a host path or a stack trace of
ours. What is no ``SandboxError`` is a bug and passes.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace

from ..errors import LimitExceeded, SandboxError, ToolError, Unavailable
from ..models import Content, TextContent, ToolResult
from ..sandbox.link import GuestError
from ..shortages import shortage_of
from .ansi import plain
from .context import ToolContext
from .limit_texts import limit_notes
from .registry import Prepared, prepare


async def run_tool(context: ToolContext, name: str, body: object) -> ToolResult:
    """Check and run a call; whatever the caller did wrong is in the result."""
    try:
        prepared = prepare(name, body, context.limits)
    except ToolError as exc:
        return error_result(exc)
    return await run_prepared(context, prepared)


async def run_prepared(context: ToolContext, prepared: Prepared) -> ToolResult:
    """Run a call whose arguments are valid.

    Raises
    ------
    AccessError
        The conversation is gone: for the caller, not for the model.
    """
    try:
        if context.check_capacity is not None:
            await context.check_capacity()
        return await prepared.start(context)
    except (ToolError, GuestError, LimitExceeded, Unavailable) as exc:
        return error_result(exc)


def error_result(error: SandboxError) -> ToolResult:
    """Give the result for an error."""
    message = plain(error.message).strip() or "the call failed"  # may quote output
    if isinstance(error, Unavailable):
        message = f"exec failed: {_sentence(message)} A retry may succeed."
    elif isinstance(error, GuestError):
        message = f"Nothing was done: {_sentence(message)}"
    elif isinstance(error, ToolError) and error.hits:
        message = "\n".join([message, *limit_notes(error.hits)])
    return ToolResult((TextContent(message),), is_error=True, code=error.code)


def unforeseen_result(error: Exception, call_id: str, log: logging.Logger) -> ToolResult:
    """Give the result for what the server lacks, or for a mistake of ours, which is logged."""
    if (shortage := shortage_of(error)) is not None:
        log.error("call %s: %s (%s)", call_id, shortage, shortage.detail)
        return error_result(shortage)
    error_id = uuid.uuid4().hex[:12]
    log.error("call %s: internal error %s", call_id, error_id, exc_info=error)
    message = f"exec failed: internal error {error_id}."
    return error_result(ToolError(message, code="internal_error"))


def with_notice(result: ToolResult, notice: str) -> ToolResult:
    """Give the result with a notice (new sandbox, restart …) at the head of its first text."""
    if not notice:
        return result
    content: list[Content] = list(result.content)
    for at, part in enumerate(content):
        if isinstance(part, TextContent):
            content[at] = TextContent(f"{notice}\n\n{part.text}")
            break
    else:
        content.insert(0, TextContent(notice))
    return replace(result, content=tuple(content))


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
