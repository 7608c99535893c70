"""The check of what may be called on the event loop only.

An object that starts a task when it has none works in a thread as long as it has one: the mistake
shows on an idle server, and not in a test that has just done something else. With this check it
raises at the first call from a thread, whatever else goes on.
"""

from __future__ import annotations

import asyncio


def require_loop() -> None:
    """Raise ``RuntimeError`` where no event loop runs, as in a thread."""
    asyncio.get_running_loop()
