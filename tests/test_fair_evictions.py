"""One user's memory does not end another's sandboxes: who gives, by the owners' shares."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from jupyter_sandbox.conversations.placing import Placing
from jupyter_sandbox.engines.group_limits import read_group_memory_bytes
from jupyter_sandbox.engines.process_table import memory_bytes
from jupyter_sandbox.errors import LimitExceeded
from jupyter_sandbox.policy.evictions import Candidate, to_free_memory, to_make_room
from jupyter_sandbox.policy.memory import Level, decide_plaintext
from jupyter_sandbox.policy.places import Bound
from jupyter_sandbox.sandbox.plaintext import PlaintextDirs
from jupyter_sandbox.stores.database import Database
from jupyter_sandbox.stores.place_records import PlaceRecords
from jupyter_sandbox.stores.upload_records import UploadRecords
from tests.attacks import attack
from tests.database_url import url_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AFTER = timedelta(seconds=600)
MIB = 1024**2
LOG = logging.getLogger(__name__)


def sandbox(name: str, idle: float, mib: int, *, runs: bool = True, used: bool = False):
    """Give a candidate whose owner is the first letter of its name."""
    used_at = NOW - timedelta(seconds=idle)
    return Candidate(name, name[0], runs, used_at, used, mib * MIB)


def moves(level: Level, *there: Candidate) -> list[str]:
    return [
        f"{'force ' if move.unused_since is None else ''}{move.kind} {move.conversation_id}"
        for move in to_free_memory(there, level, NOW, AFTER)
    ]


@attack("T53", on="")
def test_who_uses_the_most_gives_before_those_who_were_not_here_for_longer():
    there = (
        sandbox("h1", 10, 2000, used=True),
        sandbox("h2", 20, 2000),
        sandbox("h3", 700, 2000, runs=False),
        sandbox("b1", 9000, 50),
        sandbox("c1", 8000, 50, runs=False),
    )
    # Suspending loses nothing: idle ones of others are suspended too, after the attacker's.
    assert moves(Level.SHORT, *there) == ["suspend h2", "suspend b1", "terminate h3"]
    assert moves(Level.CRITICAL, *there) == [
        "terminate h3",
        "terminate h2",
        "force terminate h1",  # before anything of a neighbour's
        "terminate c1",
        "terminate b1",
    ]


@attack("T53", on="")
def test_sandboxes_that_are_kept_busy_are_no_shelter_for_who_takes_all_memory():
    busy = [sandbox(f"h{n}", 1, 2000, used=True) for n in range(3)]
    first = moves(Level.CRITICAL, *busy, sandbox("b1", 9000, 50, runs=False))[0]
    assert first == "force terminate h0"


@pytest.mark.parametrize(
    ("there", "first"),
    [
        # nobody is over the share: the least recently used of all, and none that is in use
        ([("a1", 10, 100), ("b1", 20, 100)], "terminate b1"),
        ([("a1", 10, 140), ("b1", 20, 100), ("a2", 30, 140)], "terminate a2"),
        # a single owner has all of it, and is over nothing
        ([("a1", 10, 4000), ("a2", 20, 1)], "terminate a2"),
        # of two over the share the one with more comes first
        ([("a1", 10, 900), ("b1", 20, 800), ("c1", 30, 1), ("d1", 40, 1)], "terminate a1"),
        # half as much again as the share is too much
        ([("a1", 10, 151), ("b1", 20, 50), ("b2", 30, 1)], "terminate b2"),
        ([("a1", 10, 160), ("b1", 20, 50)], "terminate a1"),
    ],
)
def test_the_first_to_give_when_memory_is_almost_used_up(there, first):
    assert moves(Level.CRITICAL, *(sandbox(*each) for each in there))[0] == first


@pytest.mark.parametrize(
    ("there", "requester", "given"),
    [
        ("aab", "b", "aab"),  # b would have two of three: no more than a fair share
        ("aaab", "a", "aaa"),
        ("aabb", "b", "bb"),  # b has its share
        ("aaabb", "b", "aaabb"),
        ("aaaab", "c", "aaaab"),
        ("aaaa", "b", "aaaa"),
        ("aabbcc", "c", "cc"),
        ("aaaabbc", "b", "aaaabb"),
    ],
)
def test_nobody_gives_a_place_to_one_who_has_a_fair_share(there, requester, given):
    found = [sandbox(f"{owner}{n}", 1000 + n, 1) for n, owner in enumerate(there)]
    room = to_make_room(found, Bound.LIVE_TOTAL, requester, NOW, AFTER)
    assert sorted(move.conversation_id[0] for move in room) == list(given)


@pytest.mark.parametrize(
    ("own", "size", "free", "allowed"),
    [
        (0, 1, 2, True),
        (0, 1, 1, False),
        (39, 1, 11, True),
        (40, 1, 11, False),
        (0, 8, 10, True),
        (0, 9, 10, False),
    ],
)
def test_an_owners_uploads_may_take_four_times_what_they_leave_free(own, size, free, allowed):
    decision = decide_plaintext(own * MIB, size * MIB, free * MIB)
    assert bool(decision) is allowed
    assert allowed or f"take {own} MiB" in decision.reason


class Dirs(PlaintextDirs):
    """Directories on a file system of 100 bytes."""

    def room(self) -> tuple[int, int]:
        taken = sum(self.size_bytes(sandbox_id) for sandbox_id in self.sandboxes())
        return 100, 100 - taken


@attack("T53", on="")
async def test_one_users_uploads_in_plain_leave_memory_to_those_of_others(tmp_path):
    dirs, database = Dirs(tmp_path / "plain"), Database(url_of(tmp_path / "sandbox.db"))
    await database.open()
    try:
        records, ids = UploadRecords(database.connections), {}
        for name in ("alice1", "alice2", "bob"):
            conversation, _ = await database.create_conversation(name[:5])
            sandbox_id = f"{name:x<12}"
            places = PlaceRecords(database.connections)
            assert await places.claim(conversation.conversation_id, "s", 30.0, lambda _: True)
            assert await database.set_intent(conversation.conversation_id, "s", sandbox_id)
            dirs.make(sandbox_id)
            ids[name] = conversation.conversation_id, dirs.uploads(sandbox_id)
        sandboxes = SimpleNamespace(settings=SimpleNamespace(plaintext=dirs))
        placing = Placing(sandboxes, database, records, None, LOG)  # type: ignore[arg-type]

        async def put(name: str, size: int) -> None:
            conversation_id, directory = ids[name]
            async with placing._room_for(conversation_id, size):
                (directory / f"{len(list(directory.iterdir()))}").write_bytes(b"x" * size)

        for _ in range(4):
            await put("alice1", 10)
            await put("alice2", 10)
        for name in ("alice1", "alice2"):
            with pytest.raises(LimitExceeded, match="stored, but not in the sandbox") as refused:
                await put(name, 10)
            assert refused.value.status == 413
        await put("bob", 10)
    finally:
        await database.close()


def test_the_memory_of_processes_and_groups_is_read(tmp_path):
    assert memory_bytes([os.getpid(), 10**9]) > MIB
    proc = tmp_path / "proc"
    for pid, group in ((7, "box"), (8, ""), (os.getpid(), "")):
        (proc / str(pid)).mkdir(parents=True)
        (proc / str(pid) / "cgroup").write_text(f"0::/{group}\n")
    root = tmp_path / "cgroup"
    (root / "box").mkdir(parents=True)
    (root / "box" / "memory.current").write_text("4096\n")
    (proc / "self").mkdir()
    (proc / "self" / "mountinfo").write_text(f"1 0 0:1 / {root} rw - cgroup2 cgroup2 rw\n")
    assert read_group_memory_bytes(7, proc) == 4096
    assert read_group_memory_bytes(8, proc) is None  # the server's own
