"""Asks the worker to render a text, and bounds it: time, number at once, size of the answer.

The rule: whatever the text does to the worker, the caller gets an answer soon; None means that the
text can only be shown as it is.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

Kind = Literal["markdown", "html", "text"]

WORKER = ("-P", "-m", "jupyter_sandbox.previews.worker")
"""What Python runs; -P: nothing of the directory it starts in."""

_SECONDS = 8.0
_AT_ONCE = 2
_WAITING = 16
_MOST_OUTPUT_BYTES = 24 * 1024**2
_NOTHING_BETTER = 3


class Renderer:
    """Renders texts, each in a process of its own."""

    def __init__(self, log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        self._log = log
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="sandbox-preview")
        self._waiting = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"<Renderer waiting={self._waiting}>"

    async def render(self, kind: Kind, name: str, text: str) -> str | None:
        """Give the text as HTML that is safe to show, or None."""
        if self._closed or self._waiting >= _WAITING:
            return None
        self._waiting += 1
        work = asyncio.get_running_loop().run_in_executor(
            self._threads, self._run, kind, name, text
        )
        work.add_done_callback(self._done)
        return await asyncio.shield(work)

    async def close(self) -> None:
        """Start no further process; those under way end by their bounds. Twice is once."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _done(self, _work: asyncio.Future[str | None]) -> None:
        self._waiting -= 1

    def _run(self, kind: Kind, name: str, text: str) -> str | None:
        request = json.dumps({"kind": kind, "name": name}).encode() + b"\n"
        try:
            done = subprocess.run(
                [sys.executable, *WORKER],
                input=request + text.encode("utf-8", "replace"),
                capture_output=True,
                timeout=_SECONDS,
                check=False,
                cwd="/",
                env=_environment(),
            )
        except (subprocess.TimeoutExpired, OSError) as exc:
            self._log.info("preview: not rendered as %s: %s", kind, type(exc).__name__)
            return None
        if done.returncode == 0 and len(done.stdout) <= _MOST_OUTPUT_BYTES:
            return done.stdout.decode("utf-8", "replace")
        if done.returncode != _NOTHING_BETTER:
            self._log.warning("preview: not rendered as %s: worker gave %d", kind, done.returncode)
        return None


def _environment() -> dict[str, str]:
    """Give what Python needs to find its packages; none of the server's secrets."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return {**kept, "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
