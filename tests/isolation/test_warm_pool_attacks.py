"""What two conversations can learn of each other from sandboxes that were made before them."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.attacks import attack
from tests.conftest import on_gvisor_too

# Everything by which two kernels could be one's copy of the other.
DRAWS = """
import hashlib, json, random, secrets, ssl, subprocess, tempfile, uuid
def output(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout
kernel = get_ipython().kernel
draws = {
    "random": random.getstate()[1][:4],
    "hash seed": hash("a text"),
    "uuid1": uuid.uuid1().hex,
    "uuid4": uuid.uuid4().hex,
    "secrets": secrets.token_hex(8),
    "tempfile": tempfile.mktemp(),
    "openssl": ssl.RAND_bytes(8).hex(),
    "bash": output("bash", "-c", "echo $RANDOM$RANDOM$SRANDOM"),
    "kernel session": kernel.session.session,
    "kernel key": hashlib.sha256(kernel.session.key).hexdigest(),
    "kernel ident": kernel.ident,
    "kernel sockets": kernel.parent.ip,
}
try:
    import numpy
except ImportError:
    pass
else:
    draws["numpy"] = int(numpy.random.get_state()[1][5])
    draws["numpy generator"] = int(numpy.random.default_rng().integers(2**62))
print(json.dumps(draws))
"""

# What must be the same everywhere, or say nothing about other sandboxes.
PLACE = """
import json, os, platform
print(json.dumps({
    "hostname": platform.node(),
    "processes": sorted(int(p) for p in os.listdir("/proc") if p.isdigit())[:1],
    "workspace": os.listdir("/workspace"),
    "outputs": os.listdir("/mnt/user-data/outputs"),
    "uploads": sorted(os.listdir("/mnt/user-data/uploads")),
    "history": len(list(get_ipython().history_manager.get_range())),
    "count": get_ipython().execution_count,
    "environment": sorted(os.environ),
}))
"""


pytestmark = pytest.mark.own_server


@pytest.fixture
def sandbox_config():
    return {"SandboxLifecycle": {"warm_pool_size": 2}}


async def two_from_the_pool(api, jp_serverapp) -> tuple[list[str], list[str]]:
    """Give two conversations whose sandboxes waited ready together, and the sandboxes' ids."""
    services = await jp_serverapp.web_app.settings["jupyter_sandbox"].ready()
    async with asyncio.timeout(120):
        while len(services.warm_pool.ready) < 2:
            await asyncio.sleep(0.05)
    ready = services.warm_pool.ready
    conversations = [await api.conversation() for _ in range(2)]
    for conversation in conversations:
        secret = f"secret of {conversation}".encode()
        await api.raw("PUT", "conversations", conversation, "uploads", "s.txt", body=secret)
    await asyncio.gather(*(api.bash(each, "true") for each in conversations))
    records = [await services.database.conversation(each) for each in conversations]
    assert {record.sandbox_id for record in records} == set(ready)
    return conversations, [record.sandbox_id for record in records]


async def in_both(api, conversations: list[str], code: str) -> list[dict]:
    texts = [await api.text(each, "python", code=code) for each in conversations]
    return [json.loads(text[text.index("{") : text.rindex("}") + 1]) for text in texts]


@attack("T39", "T26")
@on_gvisor_too
async def test_two_sandboxes_of_the_pool_share_no_randomness_no_keys_and_no_files(
    api, jp_serverapp
):
    conversations, _ = await two_from_the_pool(api, jp_serverapp)
    one, other = await in_both(api, conversations, DRAWS)
    assert one.keys() == other.keys()
    same = [name for name in one if one[name] == other[name]]
    assert same == []

    one, other = await in_both(api, conversations, PLACE)
    assert one == other  # nothing tells which was made first, or for whom
    assert one["hostname"] == "sandbox"
    assert (one["workspace"], one["outputs"]) == ([], [])
    assert one["history"] == 2  # the two cells of this test
    assert one["uploads"] == ["s.txt"]

    await api.bash(conversations[0], "echo theirs | tee /workspace/f /tmp/f /dev/shm/f")
    shown = await api.bash(conversations[1], "cat /workspace/f /tmp/f /dev/shm/f")
    assert "theirs" not in shown
    uploads = [await api.bash(each, "cat /mnt/user-data/uploads/s.txt") for each in conversations]
    assert [f"secret of {c}" in text for c, text in zip(conversations, uploads, strict=True)] == [
        True,
        True,
    ]


@attack("T39", "T26")
@on_gvisor_too
async def test_a_sandbox_of_the_pool_names_no_other_sandbox_and_no_conversation(api, jp_serverapp):
    conversations, sandbox_ids = await two_from_the_pool(api, jp_serverapp)
    # Everything that a program inside can read of itself and its surroundings.
    command = (
        "(env; cat /proc/*/environ /proc/*/cmdline /proc/self/mountinfo /proc/self/cgroup "
        "/proc/net/unix /etc/hosts /etc/hostname; ls -laR /opt/jupyter-sandbox* /run /tmp "
        "/mnt /workspace /dev/shm; find / -xdev -path /usr -prune -o "
        "-newermt '-1 hour' -type f -size -200k -print 2>/dev/null | head -300 | xargs cat) 2>/dev/null | tr -d '\\0' > /tmp/all; "
    )
    for at in (0, 1):
        other = 1 - at
        words = [conversations[at], conversations[other], sandbox_ids[other][:12]]
        await api.bash(conversations[at], command, timeout_seconds=60)
        found = await api.bash(
            conversations[at],
            "wc -c < /tmp/all; "
            + "; ".join(f"grep -a -c -e '{w[:4]}''{w[4:]}' /tmp/all" for w in words),
        )
        lines = found.splitlines()
        counts = [int(line) for line in lines if line.strip().isdigit()]
        assert counts[0] > 2000, found
        assert counts[1:] == [0, 0, 0], found
