"""``bash``: a command in a fresh shell whose directory and variables carry over."""

from __future__ import annotations

from dataclasses import dataclass

from ..models import Limits, Outcome, ToolResult
from .arguments import number, text, why
from .context import ToolContext
from .outcome_text import off_loop, outcome_result
from .status_line import command_status
from .tool import Tool

_SIGKILL = 137
MAX_COMMAND_BYTES = 1024 * 1024

DESCRIPTION = """\
Run a shell command (bash) in the sandbox of this conversation.
Gives stdout and stderr in the order written, then one status line: exit code, wall time, working \
directory, background jobs still running.
- Each command runs in a fresh shell; the working directory and exported variables carry over from \
the previous command. The first one starts in /workspace.
- stdin is empty and nothing waits for input: use flags such as -y, pass input with a pipe or a \
heredoc.
- A command may take {command_seconds:g} s; then its whole process tree is ended. Start what takes \
longer in the background, with its output in a file: `cmd > /tmp/out.log 2>&1 &`. It goes on after \
the call returns.
- Of long output the beginning and the end are shown; the notice names the file that holds all of \
it."""


@dataclass(frozen=True, kw_only=True)
class BashArguments:
    """What ``bash`` takes."""

    description: str = why()
    command: str = text(
        "The command; may have several lines.",
        max_bytes=MAX_COMMAND_BYTES,
        nul=False,
        instead="put long text into a file with create_file",
    )
    timeout_seconds: float | None = number(
        "Seconds after which the command is ended.",
        minimum=0.1,
        maximum="command_seconds",
        instead="start longer work in the background, with its output in a file, and look at that "
        "file in later calls",
    )


async def run(context: ToolContext, arguments: BashArguments) -> ToolResult:
    """Run the command and give what came out."""
    seconds = arguments.timeout_seconds or context.limits.command_seconds
    outcome = await context.sandbox.run_bash(
        context.call_id,
        arguments.command,
        seconds,
        context.emit,
        context.limits.output_bytes,
    )
    return await off_loop(outcome, lambda: bash_result(outcome, context.limits, seconds))


def bash_result(
    outcome: Outcome, limits: Limits, timeout_seconds: float | None = None
) -> ToolResult:
    """Give the result of a command that has ended.

    Parameters
    ----------
    timeout_seconds : float, optional
        That the command had; None is that of ``limits``.
    """
    seconds = limits.command_seconds if timeout_seconds is None else timeout_seconds
    notes: list[str] = []
    if outcome.timed_out:
        notes += [f"[command timed out after {seconds:g} s]", _ended(outcome)]
        notes.append(
            "Start longer work in the background, with its output in a file "
            "(`cmd > /tmp/out.log 2>&1 &`), and look at that file in later calls."
        )
    elif outcome.interrupted:
        notes += ["[command was cancelled]", _ended(outcome)]
    elif outcome.exit_code == _SIGKILL and not outcome.hits:
        notes.append(
            "[ended by SIGKILL: if nobody sent it, the memory limit of the sandbox was hit; "
            "work in smaller pieces]"
        )
    if outcome.jobs and outcome.jobs_output:
        notes.append(f"[what the background jobs still write goes to {outcome.jobs_output}]")
    return outcome_result(outcome, limits, notes, command_status(outcome))


def _ended(outcome: Outcome) -> str:
    """Give what was ended, lost and kept."""
    what = "The command and all processes it had started"
    if outcome.killed > 1:
        what = f"The command's {outcome.killed} processes"
    still = "nothing of it still runs"
    if outcome.jobs:
        still = "background jobs of earlier commands still run (below)"
    return (
        f"{what} were ended; {still}. Lost: what it had not yet written. Kept: files, and the "
        "working directory and exported variables from before the command."
    )


TOOL = Tool("bash", "Run a command", DESCRIPTION, BashArguments, run)
