"""Attacks on the host's disk: whatever a sandbox does, the others and the host do not notice."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from tests.attacks import attack

pytestmark = pytest.mark.alone

MIB = 1024**2
REMOVED = "the sandbox ended while this ran: it had filled its disk far over the limit"
LIMIT = 128 * MIB


@pytest.fixture
def sandbox_config():
    return {
        "SandboxResources": {
            "disk_bytes": LIMIT,
            "disk_entries": 5000,
            "file_bytes": 4 * 1024 * MIB,
        }
    }


def free_bytes() -> int:
    found = os.statvfs("/tmp")
    return found.f_bavail * found.f_frsize


ATTACKS = {
    "zeros": "dd if=/dev/zero of=/workspace/zeros bs=1M count=20000",
    "many files": "cd /workspace && for d in $(seq 200); do mkdir d$d && (cd d$d && touch $(seq 500)); done",
    "deleted but open": "exec 7>/workspace/gone; rm /workspace/gone; "
    "dd if=/dev/zero bs=1M count=20000 >&7; sleep 3",
    # Where the kernel does not limit it, allocating without writing would take all of it at once.
    "allocating": "for i in $(seq 40); do fallocate -l 3G /workspace/f$i; done; "
    'python3 -c \'import os; f = os.open("/workspace/p", os.O_RDWR | os.O_CREAT);'
    " os.posix_fallocate(f, 0, 3 << 30)'",
    "home": "cd && yes 0123456789abcdef > filler",
}


@pytest.mark.parametrize("attack", ATTACKS)
@attack("T16")
async def test_a_disk_filler_is_stopped_and_the_next_call_works(api, attack, engine_name):
    hostile, neighbour = await api.conversation(), await api.conversation()
    await asyncio.gather(api.bash(hostile, "true"), api.bash(neighbour, "true"))
    free = free_bytes()
    result = await api.call(hostile, "bash", command=ATTACKS[attack], timeout_seconds=60)
    text = result["content"][0]["text"]
    print(text)
    if REMOVED in text:  # it was faster than the watch; gVisor's kernel has a cache of its own
        assert engine_name == "gvisor"
    else:
        assert "disk limit" in text
        assert "Delete" in text
    assert free - free_bytes() < 3 * 1024 * MIB
    assert "hello" in await api.bash(neighbour, "echo hello > /workspace/x && cat /workspace/x")
    # What is too much can be deleted, and then there is room again.
    cleaned = await api.call(
        hostile, "bash", command="rm -rf /workspace/* ~/filler; sync; echo done"
    )
    assert "done" in cleaned["content"][0]["text"], cleaned
    deadline = time.monotonic() + 20
    while True:
        again = await api.call(
            hostile,
            "bash",
            command="dd if=/dev/zero of=/workspace/y bs=1M count=32",
        )
        if again["exit_code"] == 0 and "disk limit" not in again["content"][0]["text"]:
            break
        assert time.monotonic() < deadline, again
        await asyncio.sleep(0.2)
