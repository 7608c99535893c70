"""The text of an execution's result, in a fixed order.

What a restart has cost; the output (plain, bounded); what the network refused; what became of the
processes; the status line, last and never cut. Shared by ``bash`` and ``python``.
"""

from __future__ import annotations

from collections.abc import Callable

from ..fair_turns import in_thread
from ..models import Limits, Outcome, TextContent, ToolResult
from .ansi import plain
from .bounds import bound
from .limit_texts import limit_notes
from .texts import NO_OUTPUT

_LARGE_CHARACTERS = 64 * 1024  # a MiB of control characters takes half a second


async def off_loop(outcome: Outcome, make: Callable[[], ToolResult]) -> ToolResult:
    """Give what ``make`` gives; of a large outcome it is made in a thread."""
    if len(outcome.text) <= _LARGE_CHARACTERS and not outcome.images:
        return make()
    return await in_thread(make)


def outcome_result(outcome: Outcome, limits: Limits, notes: list[str], status: str) -> ToolResult:
    """Give the result of an execution: its text, and how it ended.

    A non-zero exit or an exception is data. A timeout and a cancelled call are errors: what was
    asked for did not come to its end.
    """
    body, cut = bound(plain(outcome.text), limits.output_bytes)
    body = body.removesuffix("\n")
    parts = [outcome.lost] if outcome.lost else []
    if body.strip():
        parts.append(body)
    elif not outcome.images:
        parts.append(NO_OUTPUT)
    # Many clients show no more of a refusal than its number; one that shows the text says it once.
    notes = [text for text in outcome.refusals if text not in body] + notes
    code = "timeout" if outcome.timed_out else "cancelled" if outcome.interrupted else "ok"
    return ToolResult(
        content=(TextContent("\n".join([*parts, *notes, *limit_notes(outcome.hits), status])),),
        is_error=code != "ok",
        code=code,
        exit_code=outcome.exit_code,
        truncated=cut or outcome.truncated,
    )
