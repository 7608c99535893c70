"""A kernel that hangs with the interpreter's lock held: ended in time, in nobody's way."""

from __future__ import annotations

import asyncio
import time

from tests.conftest import text_of

from .table import fault

# A loop in C that never lets the lock go: no signal handler runs, no other thread of the kernel. It
# begins a moment after the cell, so that the thread that tells of the cell's beginning gets to it.
_HOLDS_THE_LOCK = (
    "import itertools, time\ntime.sleep(0.5)\nopen('begun', 'w').close()\nmax(itertools.repeat(1))"
)


@fault("kernel-hung")
async def test_a_cell_that_holds_the_lock_ends_with_its_time_and_keeps_nobody_waiting(api):
    conversation = await api.conversation()
    await api.text(conversation, "python", code="kept = 42")
    cell = asyncio.ensure_future(
        api.call(conversation, "python", code=_HOLDS_THE_LOCK, timeout_seconds=8)
    )
    started = time.monotonic()
    while "yes" not in await api.bash(conversation, "[ -e begun ] && echo yes"):
        assert time.monotonic() - started < 8
    await api.text(conversation, "create_file", path="/workspace/a.txt", file_text="text\n")
    assert "text" in await api.text(conversation, "view", path="/workspace/a.txt")
    assert not cell.done()
    text = text_of(await asyncio.wait_for(cell, 30))
    assert "[cell timed out after 8 s]" in text
    assert "did not react to an interrupt" in text
    after = await api.text(conversation, "python", code="print(open('a.txt').read()); 6 * 7")
    assert "The Python kernel was restarted" in after
    assert "text" in after
    assert "42" in after
