"""The line that ends every result of a command or a cell, and is never cut.

``[exit code 1 · 12.4 s · cwd /workspace/app]``: how it ended, how long it took, where the next one
starts, what still runs. All of it is claimed by the sandbox: one printable line of bounded length.
"""

from __future__ import annotations

import signal

from ..models import Outcome

_MOST_JOBS = 8
_CWD_CHARACTERS = 400
_NAME_CHARACTERS = 40


def command_status(outcome: Outcome) -> str:
    """Give the status line of a shell command."""
    parts = [_exit(outcome.exit_code), _seconds(outcome.duration_seconds)]
    if outcome.cwd:
        parts.append(f"cwd {_line(outcome.cwd, _CWD_CHARACTERS)}")
    if outcome.jobs:
        parts.append(_jobs(outcome.jobs))
    return f"[{' · '.join(parts)}]"


def cell_status(outcome: Outcome) -> str:
    """Give the status line of a Python cell."""
    if outcome.timed_out:
        how = "timed out"
    elif outcome.interrupted:
        how = "cancelled"
    elif outcome.error is not None:
        how = f"error {_line(outcome.error.partition(':')[0].strip(), 80)}".rstrip()
    else:
        how = "ok"
    return f"[{how} · {_seconds(outcome.duration_seconds)}]"


def _exit(exit_code: int | None) -> str:
    if exit_code is None:
        return "no exit code"
    name = _signal_name(exit_code - 128)
    return f"exit code {exit_code}" + (f" ({name})" if name else "")


def _signal_name(number: int) -> str:
    if not 0 < number < 65:
        return ""
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s"


def _jobs(jobs: tuple[tuple[int, str], ...]) -> str:
    named = [f"{_line(name, _NAME_CHARACTERS)} (pid {pid})" for pid, name in jobs[:_MOST_JOBS]]
    if len(jobs) > _MOST_JOBS:
        named.append(f"and {len(jobs) - _MOST_JOBS} more")
    noun = "1 background job" if len(jobs) == 1 else f"{len(jobs)} background jobs"
    return f"{noun} running: {', '.join(named)}"


def _line(text: str, length: int) -> str:
    shown = "".join(c if c.isprintable() else "\ufffd" for c in text[:length])
    return shown + ("…" if len(text) > length else "")
