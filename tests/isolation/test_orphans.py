"""Processes that leave their parent, their session and their environment: a time-out ends those of its
own command, and no other's."""

from __future__ import annotations

import asyncio

from tests.attacks import attack

# Starts a process that nothing but its parent's kernel could know: `orphan.py SECONDS STAMP`.
_ORPHAN = """
import os, resource, sys, time
if os.fork():
    os._exit(0)
os.setsid()
stamp = int(sys.argv[2])
if stamp:
    resource.setrlimit(resource.RLIMIT_RSS, (stamp, stamp))
os.execve("/bin/sleep", ["sleep", sys.argv[1]], {})
"""


@attack("T20")
async def test_a_timeout_ends_its_own_orphans_also_disguised_ones_and_no_others(api):
    conversation = await api.conversation()
    await api.call(conversation, "create_file", path="/workspace/o.py", file_text=_ORPHAN)
    start = "python3 /workspace/o.py"
    assert "1 background job" in await api.bash(conversation, f"{start} 2001 0; echo first")
    beside = asyncio.ensure_future(
        api.bash(conversation, f"{start} 2002 0; sleep 6; {start} 2003 0; touch made; sleep 2")
    )
    timed = await api.bash(
        conversation,
        f"{start} 3001 0; {start} 3002 4096; {start} 3003 $((1 << 61)); sleep 1000",
        timeout_seconds=4,
    )
    assert "[command timed out after 4 s]" in timed
    await beside
    left = await api.bash(conversation, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert [n for n in ("2001", "2002", "2003") if n not in left] == []
    assert [n for n in ("3001", "3002", "3003") if n in left] == []


@attack("T20")
async def test_what_a_kernel_left_behind_ends_with_it(api):
    conversation = await api.conversation()
    await api.call(conversation, "create_file", path="/workspace/o.py", file_text=_ORPHAN)
    code = "import os; os.system('python3 /workspace/o.py 4001 0')"
    await api.text(conversation, "python", code=code)
    assert "4001" in await api.bash(conversation, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    stuck = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(1000)"
    result = await api.call(conversation, "python", code=stuck, timeout_seconds=1)
    assert result["is_error"]
    async with asyncio.timeout(20):  # the kernel's end is not awaited by the call
        while "4001" in await api.bash(conversation, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"):
            await asyncio.sleep(0.2)
