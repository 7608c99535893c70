"""What a result says when a command or a cell has met a limit."""

from __future__ import annotations

import pytest

from tests.attacks import attack

from .held import ended_at_a_limit

pytestmark = pytest.mark.alone

MIB = 1024**2


@pytest.fixture
def sandbox_config():
    return {
        "SandboxResources": {
            "memory_bytes": 400 * MIB,
            "tmp_bytes": 16 * MIB,
            "processes": 100,
            "file_bytes": 8 * MIB,
        }
    }


COMMANDS = {
    "memory": ("python3 -c 'x = bytearray(2000 << 20)'; echo went on", "memory limit"),
    "processes": (
        "for i in $(seq 200); do sleep 3 & done 2>&1 | tail -1; kill $(jobs -p); true",
        "process limit",
    ),
    "file size": ("head -c 20000000 /dev/zero > /workspace/big", "file size limit"),
    "/tmp": ("for i in 1 2 3; do head -c 7000000 /dev/zero > /tmp/f$i; done", "/tmp is full"),
}


@pytest.mark.parametrize("limit", COMMANDS)
@attack("T15", "T16")
async def test_the_result_says_which_limit_was_hit_and_the_next_call_works(api, limit, engine_name):
    command, words = COMMANDS[limit]
    conversation = await api.conversation()
    await api.bash(conversation, "true")
    text = await api.bash(conversation, command, timeout_seconds=60)
    if engine_name == "gvisor" and ended_at_a_limit(text):
        assert limit in ("memory", "processes")
        assert "The previous sandbox is gone" in await api.bash(conversation, "echo fine")
        return
    assert words in text
    assert text.splitlines()[-1].startswith("[exit code")
    if limit == "/tmp":
        assert "Largest: /tmp" in text
    assert "hit" not in await api.bash(conversation, "rm -f /tmp/f*; echo fine")


@attack("T15")
async def test_a_cell_that_takes_too_much_memory_is_told_why_its_kernel_ended(api, engine_name):
    conversation = await api.conversation()
    assert "ok" in await api.text(conversation, "python", code="print('ok')")
    result = await api.call(conversation, "python", code="x = bytearray(2000 << 20)")
    text = result["content"][0]["text"]
    assert "memory limit hit" in text or (engine_name == "gvisor" and ended_at_a_limit(text))
    assert "again" in await api.text(conversation, "python", code="print('again')")


async def test_what_ends_well_says_nothing_of_limits(api):
    conversation = await api.conversation()
    assert "limit" not in await api.bash(conversation, "false; ls /nonexistent")
    assert "limit" not in await api.bash(conversation, "echo 'No space'; exit 3")
