"""The database on real SQLite files, also from two processes at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from jupyter_sandbox.errors import InvalidRequest, NotFound, Unavailable
from jupyter_sandbox.models import ConversationRecord, ShareRecord, StoreUsage
from jupyter_sandbox.stores import schema
from jupyter_sandbox.stores.database import Database, page_cursor
from jupyter_sandbox.stores.idle_records import IdleRecords
from jupyter_sandbox.stores.migrating import migrate
from jupyter_sandbox.stores.running_calls import RunningCalls
from tests.claims import claim
from tests.database_url import url_of

RESULT = {"is_error": False, "code": "ok", "content": [{"type": "text", "text": "hi \ud800 \0 ü"}]}


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@contextlib.asynccontextmanager
async def opened(path: Path, clock: Clock | None = None) -> AsyncIterator[Database]:
    database = Database(url_of(path / "sandbox.db"), clock or Clock())
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def one(database: Database) -> ConversationRecord:
    return (await database.create_conversation("alice"))[0]


def a_share(conversation_id: str, number: int, path: str = "a.txt", size: int = 10) -> ShareRecord:
    return ShareRecord(
        share_id=f"{number:032x}",
        conversation_id=conversation_id,
        path=path,
        name="a.txt",
        version=0,
        size_bytes=size,
        sha256="0" * 64,
        media_type="text/plain",
        preview="text",
        stored_name=f"{number:032x}",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


async def test_a_conversation_comes_back_as_it_was_made(tmp_path):
    clock = Clock()
    async with opened(tmp_path, clock) as database:
        made, created = await database.create_conversation("alice", "Märchen", "k1")
        assert created
        assert await database.conversation(made.conversation_id) == made
        assert (made.state, made.generation, made.sandbox_id) == ("absent", 0, "")
        assert made.created_at == clock.now
        assert made.created_at.tzinfo is UTC
        assert await database.conversation("00000000-0000-0000-0000-000000000000") is None


async def test_everything_is_there_after_the_database_was_closed_and_opened(tmp_path):
    async with opened(tmp_path) as database:
        made = await one(database)
        await database.begin_call(made.conversation_id, "c1", "bash")
        await database.finish_call("c1", RESULT)
    async with opened(tmp_path) as database:
        assert await database.conversation(made.conversation_id) == made
        call = await database.call(made.conversation_id, "c1")
        assert call is not None
        assert call.result == RESULT


async def test_the_same_owner_and_key_give_the_same_conversation_however_many_ask(tmp_path):
    async with opened(tmp_path) as first, opened(tmp_path) as second:
        made = await asyncio.gather(
            *(d.create_conversation("alice", "", "k") for d in (first, second) * 10)
        )
        assert len({record.conversation_id for record, _ in made}) == 1
        assert sum(created for _, created in made) == 1
        other, created = await first.create_conversation("bob", "", "k")
        assert created
        assert other.conversation_id != made[0][0].conversation_id


async def test_conversations_without_a_key_are_all_different(tmp_path):
    async with opened(tmp_path) as database:
        assert (await one(database)).conversation_id != (await one(database)).conversation_id


async def test_pages_give_each_conversation_of_the_owner_once_newest_first(tmp_path):
    clock = Clock()
    async with opened(tmp_path, clock) as database:
        made = []
        for number in range(7):
            made.append((await one(database)).conversation_id)
            if number % 2:
                clock.move(1)  # pairs of the same age
        await database.create_conversation("bob")
        seen, after = [], None
        for _ in range(10):
            page = await database.conversations("alice", 2, after)
            if not page:
                break
            assert len(page) <= 2
            seen += page
            after = page_cursor(page[-1])
            await database.delete_conversation(page[-1].conversation_id)  # a cursor outlives it
        assert sorted(r.conversation_id for r in seen) == sorted(made)
        ages = [r.created_at for r in seen]
        assert ages == sorted(ages, reverse=True)


@pytest.mark.parametrize("cursor", ["x", "_", "12", "12_", "-1_a", "²_a", "9" * 30 + "_a"])
async def test_a_wrong_cursor_is_the_callers_mistake(tmp_path, cursor):
    async with opened(tmp_path) as database:
        with pytest.raises(InvalidRequest):
            await database.conversations("alice", 5, cursor)


async def test_rename_touch_and_delete(tmp_path):
    clock = Clock()
    async with opened(tmp_path, clock) as database:
        made = await one(database)
        id = made.conversation_id
        assert await database.rename(id, "new")
        assert not await database.rename("nobody", "new")
        records = IdleRecords(database)
        clock.move(9)
        await records.note_use(id)
        latest = clock.now
        clock.move(-6)
        await records.note_use(id)  # its clock is behind: changes nothing
        record = await database.conversation(id)
        assert record is not None
        assert (record.title, record.used_at) == ("new", latest)
        await database.begin_call(id, "c1", "bash")
        await database.add_share(a_share(id, 1))
        assert await database.delete_conversation(id)
        assert not await database.delete_conversation(id)
        assert await database.conversation(id) is None
        assert await database.call(id, "c1") is None
        assert await database.shares(id) == []


async def test_one_of_many_callers_may_provision_until_its_lease_is_over(tmp_path):
    clock = Clock()
    async with opened(tmp_path, clock) as database:
        id = (await one(database)).conversation_id
        claims = [claim(database, id, f"s{n}", 30) for n in range(20)]
        won = await asyncio.gather(*claims)
        assert sum(won) == 1
        winner = f"s{won.index(True)}"
        record = await database.conversation(id)
        assert record is not None
        assert (record.state, record.claimed_by) == ("starting", winner)
        assert record.claimed_until == clock.now + timedelta(seconds=30)

        clock.move(29)
        assert not await database.extend_claim(id, "another", 30)
        assert await database.extend_claim(id, winner, 30)
        clock.move(29)
        assert not await claim(database, id, "late", 30)
        clock.move(2)
        assert await claim(database, id, "late", 30)
        assert not await database.extend_claim(id, winner, 30)
        assert not await database.set_intent(id, winner, "ab" * 12)
        running = {"sandbox_id": "ab" * 12, "engine": "docker", "generation": 1}
        assert not await database.set_running(id, server=winner, **running)
        assert await database.set_intent(id, "late", "ab" * 12)
        assert await database.set_running(id, server="late", notice="New.", **running)
        record = await database.conversation(id)
        assert record is not None
        assert (record.state, record.generation, record.claimed_by) == ("running", 1, "")
        assert (record.sandbox_id, record.engine, record.notice) == ("ab" * 12, "docker", "New.")
        assert record.claimed_until is None
        assert not await claim(database, id, "late", 30)
        assert [r.conversation_id for r in await database.conversations_with_sandbox()] == [id]


async def test_the_claim_of_a_server_that_ended_can_be_taken_and_given_up_at_once(tmp_path):
    async with opened(tmp_path) as database:
        id = (await one(database)).conversation_id
        assert await claim(database, id, "one", 30)
        assert not await claim(database, id, "two", 30, ended="another")
        assert await claim(database, id, "two", 30, ended="one")
        assert not await database.give_up_claim(id, "one"), "it is two's now"
        assert await database.give_up_claim(id, "two")
        record = await database.conversation(id)
        assert record is not None
        assert (record.state, record.claimed_by, record.claimed_until) == ("error", "", None)
        assert await claim(database, id, "two", 30, ended="")


async def test_a_sandbox_is_lost_once_and_never_the_one_that_follows(tmp_path):
    async with opened(tmp_path) as database:
        id = (await one(database)).conversation_id
        first, second = "ab" * 12, "cd" * 12
        for generation, sandbox_id in enumerate((first, second), start=1):
            assert await claim(database, id, "s", 30)
            assert not await database.lose_sandbox(id, sandbox_id)
            assert await database.set_running(
                id, server="s", sandbox_id=sandbox_id, engine="docker", generation=generation
            )
            if sandbox_id == first:
                lost = await asyncio.gather(*(database.lose_sandbox(id, first) for _ in range(5)))
                assert sum(lost) == 1
        assert not await database.lose_sandbox(id, first)
        record = await database.conversation(id)
        assert record is not None
        assert (record.state, record.sandbox_id) == ("running", second)


@pytest.mark.parametrize("state", ["absent", "terminated", "error"])
async def test_what_has_no_sandbox_can_be_provisioned(tmp_path, state):
    async with opened(tmp_path) as database:
        id = (await one(database)).conversation_id
        assert await database.set_state(id, "absent", state)
        assert await claim(database, id, "s", 30)


@pytest.mark.parametrize("state", ["running", "suspended", "starting"])
async def test_what_has_a_sandbox_is_not_provisioned(tmp_path, state):
    async with opened(tmp_path) as database:
        id = (await one(database)).conversation_id
        if state == "starting":
            assert await claim(database, id, "other", 30)
        else:
            assert await database.set_state(id, "absent", state)
        assert not await claim(database, id, "s", 30)


async def test_a_state_moves_only_from_the_expected_one(tmp_path):
    async with opened(tmp_path) as database:
        id = (await one(database)).conversation_id
        assert await database.set_state(id, "absent", "running")
        assert not await database.set_state(id, "absent", "error")
        both = [database.set_state(id, ["running", "suspended"], "terminated") for _ in range(5)]
        assert sum(await asyncio.gather(*both)) == 1


async def test_a_state_moves_only_if_no_use_was_noted_since(tmp_path):
    clock = Clock()
    async with opened(tmp_path, clock) as database:
        id = (await one(database)).conversation_id
        seen, later = clock.now, clock.now + timedelta(microseconds=1)
        clock.now = later
        await IdleRecords(database).note_use(id)
        assert not await database.set_state(id, "absent", "running", unused_since=seen)
        assert await database.set_state(id, "absent", "running", unused_since=later)


CLAIMER = """
import asyncio, sys
from jupyter_sandbox.stores.database import Database
from tests.claims import claim
async def main(url, id, name):
    database = Database(url)
    await database.open()
    print("ready", flush=True)
    sys.stdin.readline()
    won = await asyncio.gather(*(claim(database, id, name, 60) for _ in range(50)))
    print(sum(won), flush=True)
    await database.close()
asyncio.run(main(*sys.argv[1:]))
"""

OPENER = """
import asyncio, sys
from jupyter_sandbox.stores.database import Database
async def main(url):
    database = Database(url)
    print("ready", flush=True)
    sys.stdin.readline()
    await database.open()
    await database.create_conversation("alice")
    print(len(await database.conversations("alice")), flush=True)
    await database.close()
asyncio.run(main(sys.argv[1]))
"""


def side_by_side(program: str, arguments: list[list[str]]) -> list[str]:
    """Run the program once for each list of arguments, all of them from the same moment on."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, *given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )
        for given in arguments
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=60)[0].strip() for process in started]
        assert [process.returncode for process in started] == [0] * len(started)
        return outputs
    finally:
        for process in started:
            process.kill()
            process.communicate()


async def test_of_two_processes_that_claim_at_once_one_wins(tmp_path):
    async with opened(tmp_path) as database:
        id = (await one(database)).conversation_id
        url = url_of(tmp_path / "sandbox.db")
        won = await asyncio.to_thread(side_by_side, CLAIMER, [[url, id, "a"], [url, id, "b"]])
        assert sorted(won) == ["0", "1"]
        record = await database.conversation(id)
        assert record is not None
        assert record.claimed_by == "ab"[won.index("1")]


async def test_processes_that_open_a_new_database_at_once_all_succeed(tmp_path):
    url = url_of(tmp_path / "sandbox.db")
    counts = await asyncio.to_thread(side_by_side, OPENER, [[url]] * 3)
    assert max(counts) == "3"


async def test_a_notice_is_taken_once(tmp_path):
    async with opened(tmp_path) as first, opened(tmp_path) as second:
        id = (await one(first)).conversation_id
        assert await first.take_notice(id) == ""
        assert await first.add_notice(id, "One.")
        assert await first.add_notice(id, "Two.")
        assert not await first.add_notice("nobody", "One.")
        taken = await asyncio.gather(*(d.take_notice(id) for d in (first, second) * 5))
        assert sorted(taken) == [""] * 9 + ["One.\nTwo."]


async def test_a_notice_added_while_another_is_taken_is_not_lost(tmp_path):
    async with opened(tmp_path) as database:
        id = (await one(database)).conversation_id
        await database.add_notice(id, "One.")
        interfered = []

        def interfere(connection, cursor, statement, *rest) -> None:
            """Another process takes the notice, and another is added, between look and take."""
            if statement.startswith("SELECT") and not interfered:
                interfered.append(statement)
                other = sa.create_engine(url_of(tmp_path / "sandbox.db"))
                with other.begin() as beside:
                    beside.exec_driver_sql("UPDATE conversations SET notice = 'Two.'")
                other.dispose()

        sa.event.listen(database._connections._engine, "after_cursor_execute", interfere)
        assert await database.take_notice(id) == "Two."
        assert interfered
        assert await database.take_notice(id) == ""


async def test_a_call_has_one_end(tmp_path):
    clock = Clock()
    async with opened(tmp_path, clock) as database:
        id = (await one(database)).conversation_id
        begun = await database.begin_call(id, "c1", "bash")
        assert begun is not None
        assert await database.call(id, "c1") == begun
        clock.move(2.5)
        assert await database.finish_call("c1", RESULT)
        assert not await database.finish_call("c1", {}, "lost")
        call = await database.call(id, "c1")
        assert call is not None
        assert (call.state, call.result) == ("finished", RESULT)
        assert call.finished_at == begun.started_at + timedelta(seconds=2.5)
        assert await database.call("another", "c1") is None
        assert not await database.finish_call("nobody", RESULT)


async def test_a_call_of_a_dead_server_is_taken_by_one_of_several(tmp_path):
    clock = Clock()
    async with opened(tmp_path, clock) as database, opened(tmp_path) as another:
        id = (await one(database)).conversation_id
        await database.begin_call(id, "done", "bash", server="dead")
        await database.finish_call("done", RESULT)
        await database.begin_call(id, "old", "bash", server="dead", timeout_seconds=1200.0)
        clock.move(1)
        await database.begin_call(id, "new", "python", server="first")
        rows = [RunningCalls(each.connections) for each in (database, another)]
        found = await rows[0].all()
        assert [(c.call_id, c.server, c.timeout_seconds) for c in found] == [
            ("old", "dead", 1200.0),
            ("new", "first", None),
        ]
        taken = [await rows[0].take(found[0], "first"), await rows[1].take(found[0], "second")]
        assert taken == [True, False]
        assert [c.server for c in await rows[1].all()] == ["first", "first"]
        await database.finish_call("old", RESULT, "lost")
        assert not await rows[0].take(replace(found[0], server="first"), "second")


async def test_a_call_id_is_given_once(tmp_path):
    async with opened(tmp_path) as database:
        first, second = await one(database), (await database.create_conversation("b", ""))[0]
        assert await database.begin_call(first.conversation_id, "c1", "bash") is not None
        assert await database.begin_call(first.conversation_id, "c1", "bash") is None
        assert await database.begin_call(second.conversation_id, "c1", "bash") is None


async def test_a_call_or_share_of_a_deleted_conversation_is_not_found(tmp_path):
    async with opened(tmp_path) as database:
        with pytest.raises(NotFound):
            await database.begin_call("gone", "c1", "bash")
        with pytest.raises(NotFound):
            await database.add_share(a_share("gone", 1))


async def test_sharing_a_path_again_makes_the_next_version(tmp_path):
    async with opened(tmp_path) as first, opened(tmp_path) as second:
        id = (await one(first)).conversation_id
        assert await first.usage(id) == StoreUsage(0, 0)
        pair = (first, second)
        made = await asyncio.gather(*(pair[n % 2].add_share(a_share(id, n)) for n in range(10)))
        assert sorted(share.version for share in made) == list(range(1, 11))
        other = await first.add_share(a_share(id, 99, "b.txt", 5))
        assert other.version == 1
        assert await first.usage(id) == StoreUsage(105, 11)
        listed = await second.shares(id)
        assert len(listed) == 11
        assert other in listed


@pytest.mark.parametrize("revision", ["0001", "0006", "0009"])
async def test_the_tables_of_a_migrated_database_are_those_of_a_new_one(tmp_path, revision):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    async with opened(tmp_path):
        pass
    old = url_of(tmp_path / "old.db")
    engine = sa.create_engine(old)
    with engine.begin() as connection:
        migrate(connection, revision)
    engine.dispose()
    database = Database(old)
    await database.open()
    await database.close()

    found = []
    for url in (url_of(tmp_path / "sandbox.db"), old):
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, schema.metadata) == []
            assert context.get_current_revision() == schema.HEAD
            found.append(shape_of(connection))
        engine.dispose()
    assert found[0] == found[1]


def shape_of(connection: sa.Connection) -> dict[str, object]:
    """Give all tables as the database itself describes them."""
    inspector = sa.inspect(connection)
    return {
        table: (
            sorted(
                (c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)
            ),
            inspector.get_pk_constraint(table)["constrained_columns"],
            sorted(map(repr, inspector.get_foreign_keys(table))),
            sorted(map(repr, inspector.get_unique_constraints(table))),
            sorted(
                (
                    i["name"],
                    i["column_names"],
                    i["unique"],
                    str({k: str(v) for k, v in i["dialect_options"].items()}),
                )
                for i in inspector.get_indexes(table)
            ),
            sorted(map(repr, inspector.get_check_constraints(table))),
        )
        for table in inspector.get_table_names()
    }


async def test_opening_a_current_database_does_not_load_alembic(tmp_path):
    async with opened(tmp_path):
        pass
    program = OPENER.replace("asyncio.run(main(sys.argv[1]))", "") + (
        "print('ready', flush=True); sys.stdin.readline()\n"
        "asyncio.run(Database(sys.argv[1]).open())\n"
        "print('alembic' in sys.modules)\n"
    )
    url = url_of(tmp_path / "sandbox.db")
    assert await asyncio.to_thread(side_by_side, program, [[url]]) == ["False"]


@pytest.mark.sqlite
async def test_the_file_is_ours_alone_and_has_a_write_ahead_log(tmp_path):
    async with opened(tmp_path) as database:
        await one(database)
        files = sorted(tmp_path.iterdir())
        assert [f.name for f in files] == ["sandbox.db", "sandbox.db-shm", "sandbox.db-wal"]
        assert {f.stat().st_mode & 0o777 for f in files} == {0o600}
    assert [f.name for f in tmp_path.iterdir()] == ["sandbox.db"]


@pytest.mark.sqlite
async def test_what_is_no_database_is_unavailable(tmp_path):
    (tmp_path / "sandbox.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(Unavailable, match="the sandbox database"):
        async with opened(tmp_path):
            pass
    with pytest.raises(Unavailable, match="the sandbox database"):
        async with opened(tmp_path / "missing"):
            pass
    with pytest.raises(Unavailable, match="not a database URL"):
        Database("nonsense")


@pytest.mark.sqlite
async def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path):
    async with opened(tmp_path):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "sandbox.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    before = (tmp_path / "sandbox.db").read_bytes()
    with pytest.raises(Unavailable, match="cannot be opened or brought up to date"):
        async with opened(tmp_path):
            pass
    assert (tmp_path / "sandbox.db").read_bytes() == before


@pytest.mark.sqlite
async def test_errors_hide_what_was_stored(tmp_path):
    async with opened(tmp_path) as database:
        id = (await one(database)).conversation_id
        with contextlib.closing(sqlite3.connect(tmp_path / "sandbox.db")) as connection:
            connection.execute("DROP TABLE calls")
            connection.commit()
        with pytest.raises(Unavailable) as caught:
            await database.finish_call("c1", {"secret": "hunter2"})
        assert caught.value.message == "the sandbox database does not answer"
        assert "hunter2" not in caught.value.detail
        assert await database.conversation(id) is not None  # it goes on


async def test_before_open_and_after_close_it_is_unavailable(tmp_path):
    database = Database(url_of(tmp_path / "sandbox.db"))
    with pytest.raises(Unavailable, match="not open"):
        await database.conversation("x")
    await database.open()
    await database.open()
    await database.close()
    await database.close()
    with pytest.raises(Unavailable, match="is closed"):
        await database.conversation("x")


async def test_a_database_in_memory_works():
    database = Database("sqlite://")
    await database.open()
    made, _ = await database.create_conversation("alice", "", "k")
    await database.begin_call(made.conversation_id, "c1", "bash")
    assert await database.begin_call(made.conversation_id, "c1", "bash") is None
    assert await database.conversation(made.conversation_id) == made
    await database.close()
