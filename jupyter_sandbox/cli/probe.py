"""Attacks on a fresh sandbox of this host, from inside, and whether they were contained.

What ``jupyter sandbox doctor --probe`` runs: a safe part of the attacks of ``tests/isolation``.
They do no harm where they succeed, and nothing leaves the sandbox. What comes back is claimed by
the sandbox: it is fresh, so nobody had a reason to lie yet.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from ..demo.assistant import DemoFailed, Server

_PATH = "/workspace/probe.py"
_MARK = "PROBE "
_FEWEST = 20
_LOST = "previous sandbox"


class ProbeFailed(Exception):
    """The attacks could not be run."""


@dataclass(frozen=True)
class Attempt:
    """One attack: its number in the catalogue, what was tried, and what came of it."""

    number: str
    attack: str
    expected: str
    got: str
    contained: bool


def probe(server: Server, *, has_own_kernel: bool, has_couriers: bool) -> list[Attempt]:
    """Run all attacks in a sandbox of their own, which is removed afterwards.

    Parameters
    ----------
    has_own_kernel : bool
        Whether system calls are gVisor's to answer, as the host knows it. Some that are refused
        elsewhere are harmless then; the sandbox must show that it is so.
    has_couriers : bool
        Whether processes of their own read for the server (``proxies.guest_sockets``).

    Raises
    ------
    ProbeFailed
        There is no sandbox, or it gave no report.
    """
    port = urlsplit(server.url).port or 0
    try:
        conversation = server.request("POST", "conversations", {})["id"]
        try:
            tools = f"conversations/{conversation}/tools"
            for tool, arguments in calls(port, has_own_kernel, has_couriers):
                result = server.request("POST", f"{tools}/{tool}", arguments)
            found = attempts(_text(result))
            if has_own_kernel:
                found.append(_make_processes(server, f"{tools}/bash"))
        finally:
            server.request("DELETE", f"conversations/{conversation}")
    except DemoFailed as exc:
        raise ProbeFailed(str(exc)) from exc
    return found


def calls(
    port: int, has_own_kernel: bool = False, has_couriers: bool = False
) -> list[tuple[str, dict[str, object]]]:
    """Give the tool calls that run the attacks; the text of the last one is the report."""
    script = (files(__package__) / "probe_inside.py").read_text(encoding="utf-8")
    words = f"{port} {'own' if has_own_kernel else 'shared'}{' couriers' if has_couriers else ''}"
    return [
        ("create_file", {"path": _PATH, "file_text": script, "overwrite": True}),
        ("bash", {"command": f"python3 {_PATH} {words}", "timeout_seconds": 120}),
    ]


def _make_processes(server: Server, bash: str) -> Attempt:
    """Make processes without number where gVisor counts them: it may end the sandbox, no more.

    What the host limits there is gVisor as a whole. The next call must work and say what was lost.
    """
    command = {"command": f"python3 {_PATH} 0 processes", "timeout_seconds": 120}
    shown = _text(server.request("POST", bash, command))
    if _MARK in shown:
        return attempts(shown, fewest=1)[0]
    after = _text(server.request("POST", bash, {"command": "echo it is; echo back"}))
    is_back = "it is\nback" in after
    is_told = _LOST in after
    return Attempt(
        "T15",
        "make processes without number",
        "EAGAIN or the sandbox's end",
        "it ended; the next call " + (("works" if is_told else "hides it") if is_back else "fails"),
        is_back and is_told,
    )


def attempts(text: str, fewest: int = _FEWEST) -> list[Attempt]:
    """Read the report out of a command's output.

    Raises
    ------
    ProbeFailed
        There is none, or it is not whole.
    """
    lines = [line for line in text.splitlines() if line.startswith(_MARK)]
    try:
        rows = json.loads(lines[-1][len(_MARK) :]) if lines else None
        found = [
            Attempt(_cell(number), _cell(attack), _cell(expected), _cell(got), contained is True)
            for number, attack, expected, got, contained in rows or ()
        ]
    except (ValueError, TypeError):
        found = []
    if len(found) < fewest:
        raise ProbeFailed(f"the attacks gave no report: {text[-500:]}")
    return found


def to_rows(found: list[Attempt]) -> Iterator[str]:
    """Give the table as lines for people."""
    yield f"\n{'':<9} {'':<4} {'attack':<42} {'expected':<24} got"
    for each in found:
        sign = "ok" if each.contained else "FAILED"
        yield f"{sign:<9} {each.number:<4} {each.attack:<42} {each.expected:<24} {each.got}"
    failed = sum(not each.contained for each in found)
    if failed:
        yield f"\n{failed} of {len(found)} attacks were NOT contained: run no untrusted code here"
    else:
        yield f"\nall {len(found)} attacks were contained"


def _text(result: dict[str, Any]) -> str:
    return "\n".join(part.get("text", "") for part in result["content"])


def _cell(value: object) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(value)[:100])
