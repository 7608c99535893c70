"""Results and messages in the database: sealed, counted, held to their bounds, and gone when deleted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import sqlite3
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from traitlets import TraitError

from jupyter_sandbox.conversations.tidying import Tidying
from jupyter_sandbox.encoded_json import encode
from jupyter_sandbox.errors import Unavailable
from jupyter_sandbox.models import CallRecord
from jupyter_sandbox.policy.capacity import MOST_FILES, decide_count
from jupyter_sandbox.settings import SandboxLimits
from jupyter_sandbox.stores import migrating
from jupyter_sandbox.stores.database import Database
from jupyter_sandbox.stores.kept_bytes import (
    BODY_SIZE,
    CALL_BYTES,
    MESSAGE_BYTES,
    RESULT_SIZE,
    KeptBytes,
)
from jupyter_sandbox.stores.master_keys import MasterKeys
from jupyter_sandbox.stores.message_records import Entry
from jupyter_sandbox.stores.plain_rows import PlainRows
from jupyter_sandbox.stores.schema import calls, conversations, messages
from jupyter_sandbox.tools.kept_results import kept_result
from tests.attacks import attack
from tests.database_url import url_of
from tests.sealed_rows import calls_of, messages_of, seals_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MIB = 1024**2
SECRET = "a-marker-of-a-user"
LOG = logging.getLogger("test")


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Database]:
    database = Database(url_of(path / "sandbox.db"))
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def made(database: Database, owner: str = "alice") -> str:
    return (await database.create_conversation(owner))[0].conversation_id


def a_result(text: str = "x", *pictures: int) -> dict:
    content = [{"type": "text", "text": text}]
    content += [{"type": "image", "media_type": "image/png", "data": "A" * n} for n in pictures]
    return {"is_error": False, "code": "ok", "content": content}


def a_call(conversation: str, after: float = 0, result: dict | None = None) -> CallRecord:
    at = NOW + timedelta(seconds=after)
    kept = a_result() if result is None else result
    return CallRecord(str(uuid.uuid4()), conversation, "python", "finished", at, at, kept)


def a_message(conversation: str, text: str = "x") -> Entry:
    return Entry(conversation, "notice", NOW, json.dumps({"text": text}))


async def counted(database: Database) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
    """Give the totals as they are kept: of conversations (bytes, calls), of owners."""

    def work(connection: sa.Connection):
        mine = connection.exec_driver_sql(
            "SELECT conversation_id, size_bytes, calls FROM kept_bytes"
        ).all()
        owners = connection.exec_driver_sql(
            "SELECT owner, size_bytes FROM kept_bytes_of_owners WHERE size_bytes != 0"
        ).all()
        return {row[0]: (row[1], row[2]) for row in mine if row[1] or row[2]}, dict(
            map(tuple, owners)
        )

    return await database.connections.run(work)


async def added_up(database: Database) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
    """Give the totals as the rows have them."""

    def work(connection: sa.Connection):
        sizes: dict[str, tuple[int, int]] = {}
        owners = dict(
            map(
                tuple,
                connection.execute(
                    sa.select(conversations.c.conversation_id, conversations.c.owner)
                ).all(),
            )
        )
        for table, size, count in (
            (calls, CALL_BYTES + RESULT_SIZE, 1),
            (messages, MESSAGE_BYTES + BODY_SIZE, 0),
        ):
            for row in connection.execute(sa.select(table.c.conversation_id, size.label("size"))):
                before = sizes.get(row[0], (0, 0))
                sizes[row[0]] = (before[0] + row[1], before[1] + count)
        totals: dict[str, int] = {}
        for each, (size, _) in sizes.items():
            totals[owners[each]] = totals.get(owners[each], 0) + size
        return sizes, totals

    return await database.connections.run(work)


async def test_the_totals_are_what_is_there_whatever_happens(tmp_path):
    dice = random.Random(5)
    async with opened(tmp_path) as database:
        kept = KeptBytes(40_000, 60_000, most_calls=20)
        records = calls_of(database, kept)
        stream = messages_of(database, kept, most_messages=12, most_bytes=9_000)
        known = [await made(database, dice.choice("ab")) for _ in range(4)]
        running: list[str] = []
        for n in range(150):
            each = dice.choice(known)
            what = dice.randrange(12)
            if what < 4:
                pictures = [dice.randrange(9_000)] * dice.randrange(3)
                text = "x" * dice.randrange(4_000)
                await records.add([a_call(each, n, a_result(text, *pictures)), a_call(each, n)])
            elif what < 8:
                await stream.append([a_message(each, "y" * dice.randrange(2_000))] * 3)
            elif what == 8:
                running.append(str(uuid.uuid4()))
                await records.begin(each, running[-1], "bash")
            elif what == 9 and running:
                assert await records.finish(running[0], a_result("z" * 500)) in (True, False)
                assert not await records.finish(running.pop(0), a_result("twice"))
            elif what == 10:
                call = a_call(each, n)
                with pytest.raises(Unavailable):  # all or none
                    await records.add([a_call(known[0], n), call, call])
            elif dice.randrange(4) == 0:
                known.remove(each)
                assert await database.delete_conversation(each)
                known.append(await made(database, dice.choice("ab")))
            assert await counted(database) == await added_up(database), what
        sizes, owners = await counted(database)
        assert max(size for size, _ in sizes.values()) <= 40_000
        assert max(owners.values()) <= 60_000
        for each in known:
            await database.delete_conversation(each)
        assert await counted(database) == ({}, {})


async def test_several_servers_count_together(tmp_path):
    async with opened(tmp_path) as first, opened(tmp_path) as second:
        known = [await made(first), await made(first), await made(first, "bob")]
        kept = KeptBytes(20_000, 30_000)

        async def write(database: Database, stop: bool) -> None:
            records, stream = calls_of(database, kept), messages_of(database, kept)
            for n in range(25):
                each = known[n % 3]
                await records.add(
                    [a_call(known[(n + k) % 3], n, a_result("x" * 900)) for k in (0, 1)]
                )
                await stream.append([a_message(known[(n + k) % 3]) for k in (2, 0, 1)])
                if stop and n == 20:
                    await database.delete_conversation(each)

        await asyncio.gather(write(first, False), write(second, True))
        assert await counted(first) == await added_up(first)


async def test_of_too_much_the_oldest_pictures_go_first_and_the_newest_result_stays(tmp_path):
    async with opened(tmp_path) as database:
        id = await made(database)
        records = calls_of(database, KeptBytes(200_000, MIB))
        pictured = [a_call(id, n, a_result(f"text {n}", 50_000)) for n in range(5)]
        for call in pictured:
            await records.add([call])
        found = [await records.get(id, call.call_id) for call in pictured]
        texts = [encode(kept_result(call)) for call in found if call is not None]
        assert ["A" * 50_000 in text for text in texts] == [False, False, True, True, True]
        assert all(f"text {n}" in text for n, text in enumerate(texts))
        assert "[image/png, 37,500 bytes: no longer kept: " in texts[0]
        assert found[4] is not None
        assert found[4].result == pictured[4].result

        large = [a_call(id, 10 + n, a_result("y" * 60_000)) for n in range(4)]
        for call in large:
            await records.add([call])
        first = await records.get(id, pictured[0].call_id)
        assert first is not None
        told = kept_result(first)
        assert (told["is_error"], told["code"]) == (True, "not_kept")
        assert "The result of this call is no longer kept" in json.dumps(told)
        alone = a_call(id, 20, a_result("z" * 500_000))
        await records.add([alone])
        newest = await records.get(id, alone.call_id)
        assert newest is not None
        assert newest.result == alone.result
        assert (await database.usage(id)).result_bytes < 500_000 + 10_000


async def test_of_too_many_calls_the_oldest_go(tmp_path):
    async with opened(tmp_path) as database:
        id = await made(database)
        records = calls_of(database, KeptBytes(64 * MIB, 64 * MIB, most_calls=100))
        every = [a_call(id, n) for n in range(700)]
        for at in range(0, 700, 50):
            await records.add(every[at : at + 50])
        ((_, count),) = (await counted(database))[0].values()
        assert 100 <= count <= 600
        assert await records.get(id, every[0].call_id) is None
        assert await records.get(id, every[-1].call_id) is not None


async def test_of_too_much_of_an_owner_the_least_recently_used_conversation_loses(tmp_path):
    async with opened(tmp_path) as database:
        old, new = await made(database), await made(database)
        other = await made(database, "bob")
        kept = KeptBytes(150_000, 150_000)
        records, stream = calls_of(database, kept), messages_of(database, kept)
        for each in (other, old, new):
            first = a_call(each, 1, a_result("x" * 30_000))
            await records.add([first])
            await stream.append([a_message(each, "m" * 20_000)] * 2)
        await records.add([a_call(new, 2, a_result("y" * 29_000))])  # 170,000 in all
        usage = {each: (await database.usage(each)).result_bytes for each in (old, new, other)}
        assert usage[old] + usage[new] <= 150_000
        assert usage[new] > 95_000
        assert usage[other] > 70_000
        page = await stream.page(old, 0, 10)
        assert (page.first, page.last) == (2, 2)
        await records.add([a_call(new, 3, a_result("y" * 60_000))])
        page = await stream.page(old, 0, 10)
        assert (page.first, page.last) == (2, 2)
        (said,) = page.messages
        assert "no longer kept" in str(said.body["text"])
        assert await stream.append([a_message(old, "next")]) == [3]


@attack("T55", on="")
async def test_t55_what_users_wrote_and_saw_is_in_no_file_in_plain(tmp_path):
    async with opened(tmp_path) as database:
        id = await made(database)
        records, stream = calls_of(database), messages_of(database)
        result = a_result(SECRET)
        result["content"].append({"type": "image", "media_type": "image/png", "data": SECRET})
        call = a_call(id, 0, result)
        await records.add([call])
        await records.begin(id, "c2", "bash")
        await records.finish("c2", a_result(SECRET))
        await stream.append([a_message(id, SECRET)])
        for file in tmp_path.iterdir():
            assert SECRET.encode() not in file.read_bytes(), file
        for call_id in (call.call_id, "c2"):
            found = await records.get(id, call_id)
            assert found is not None
            assert SECRET in encode(found.result)
        assert (await stream.page(id, 0, 1)).messages[0].body == {"text": SECRET}
        # A copy of the rows, kept by whoever: without the key nobody opens them.
        await database.connections.run(
            lambda connection: connection.exec_driver_sql("DELETE FROM conversation_keys")
        )
        fresh = calls_of(database)
        with pytest.raises(Unavailable):
            await fresh.get(id, "c2")
        with pytest.raises(Unavailable):
            await messages_of(database).page(id, 0, 1)


@attack("T55", on="")
@pytest.mark.parametrize(
    "swap",
    [
        "UPDATE calls SET sealed_result = (SELECT sealed_result FROM calls WHERE call_id = 'c2') "
        "WHERE call_id = 'c1'",
        "UPDATE calls SET sealed_pictures = sealed_result WHERE call_id = 'c1'",
        "UPDATE calls SET state = 'cancelled' WHERE call_id = 'c1'",
        "UPDATE calls SET tool = 'view' WHERE call_id = 'c1'",
        "UPDATE messages SET sealed_body = (SELECT sealed_body FROM messages WHERE seq = 2) "
        "WHERE seq = 1",
        "UPDATE messages SET kind = 'user' WHERE seq = 1",
        "UPDATE messages SET at = at + 1 WHERE seq = 1",
    ],
)
async def test_t55_a_sealed_row_opens_in_its_place_only(tmp_path, swap):
    async with opened(tmp_path) as database:
        id = await made(database)
        records, stream = calls_of(database), messages_of(database)
        for call_id in ("c1", "c2"):
            await records.begin(id, call_id, "bash")
            await records.finish(call_id, a_result(call_id))
        await stream.append([a_message(id, "one"), a_message(id, "two")])
        await database.connections.run(lambda connection: connection.exec_driver_sql(swap))
        looks = (records.get(id, "c1"), stream.page(id, 0, 10))
        found = await asyncio.gather(*looks, return_exceptions=True)
        (refused,) = [each for each in found if isinstance(each, BaseException)]
        assert isinstance(refused, Unavailable)
        assert "damaged" in refused.message


async def test_a_key_that_cannot_be_had_costs_its_own_conversation_alone(tmp_path):
    async with opened(tmp_path) as database:
        locked, free = await made(database), await made(database)
        other = MasterKeys([b"another key of tests, 32 bytes.."])
        await messages_of(database, master=other).append([a_message(locked)])
        stream, records = messages_of(database), calls_of(database)
        assert await stream.append([a_message(locked), a_message(free)]) == [0, 1]
        mine = a_call(free)
        await records.add([a_call(locked), mine])
        assert await records.get(free, mine.call_id) == mine
        with pytest.raises(Unavailable, match="another master key"):
            await stream.append([a_message(locked)])


def _as_it_was(connection: sa.Connection) -> None:
    with migrating._locked(connection):
        migrating.migrate(connection, "0010")


async def test_rows_of_an_earlier_version_are_read_counted_and_sealed(tmp_path, monkeypatch):
    """Made by the migrations before; then this version comes."""
    id = str(uuid.uuid4())
    with monkeypatch.context() as before:
        before.setattr("jupyter_sandbox.stores.connections.bring_up_to_date", _as_it_was)
        async with opened(tmp_path) as database:

            def fill(connection: sa.Connection) -> None:
                connection.exec_driver_sql(
                    "INSERT INTO conversations (conversation_id, owner, title, state, created_at, "
                    "used_at, engine, sandbox_id, generation, notice, claimed_by) VALUES "
                    f"('{id}', 'alice', '', 'absent', 0, 0, '', '', 0, '', '')"
                )
                for n in range(40):
                    text = json.dumps(a_result(f"{SECRET} {n}", 100), separators=(",", ":"))
                    connection.execute(
                        sa.text(
                            "INSERT INTO calls (call_id, conversation_id, tool, state, started_at, "
                            "finished_at, result) VALUES (:c, :i, 'bash', 'finished', :n, :n, :r)"
                        ),
                        {"c": f"c{n}", "i": id, "n": n, "r": text},
                    )
                    connection.execute(
                        sa.text(
                            "INSERT INTO messages (conversation_id, seq, kind, at, body, "
                            "upto_bytes) VALUES (:i, :n, 'notice', 0, :b, :n * 40)"
                        ),
                        {"i": id, "n": n + 1, "b": json.dumps({"text": f"{SECRET} {n}"})},
                    )

            await database.connections.run(fill)
    async with opened(tmp_path) as database:
        records, stream = calls_of(database), messages_of(database)

        async def shown() -> list:
            found = [await records.get(id, f"c{n}") for n in range(40)]
            page = await stream.page(id, 0, 100)
            return [[call and call.result for call in found], page]

        assert await counted(database) == await added_up(database)
        before_it = await shown()
        assert before_it[0][7] == a_result(f"{SECRET} 7", 100)
        assert before_it[1].messages[7].body == {"text": f"{SECRET} 7"}
        plain = PlainRows(database.connections, seals_of(database))
        await Tidying(database.connections, plain, LOG).tidy()
        assert await plain.next_conversation("") is None
        assert await shown() == before_it
        assert await counted(database) == await added_up(database)
    for file in tmp_path.iterdir():  # of SQLite: nothing of it is left
        assert SECRET.encode() not in file.read_bytes()


async def emptied(database: Database, count: int, tmp_path: Path) -> list[int]:
    """Give the size of the file with so many MiB of results, and after their deletion."""
    id = await made(database)
    records = calls_of(database)
    for n in range(count):
        await records.add([a_call(id, n, a_result("x" * MIB))])
    await database.connections.give_back()
    full = (tmp_path / "sandbox.db").stat().st_size
    await database.delete_conversation(id)
    await database.connections.give_back()
    await database.connections.run(
        lambda connection: connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all()
    )
    return [full, (tmp_path / "sandbox.db").stat().st_size]


@pytest.mark.sqlite
@attack("T54", on="")
async def test_t54_the_room_of_deleted_results_comes_back(tmp_path):
    async with opened(tmp_path) as database:
        full, empty = await emptied(database, 12, tmp_path)
        assert full > 10 * MIB
        assert empty < 2 * MIB
        log = tmp_path / "sandbox.db-wal"
        assert log.stat().st_size < 16 * MIB


@pytest.mark.sqlite
async def test_a_file_of_an_earlier_version_is_written_anew_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("jupyter_sandbox.stores.connections.free_pages_later", lambda _: None)
    monkeypatch.setattr("jupyter_sandbox.stores.file_space._MOST_REWRITTEN_BYTES", 0)
    async with opened(tmp_path) as database:  # too large to be written anew: it says so
        full, empty = await emptied(database, 12, tmp_path)
        assert empty >= full > 10 * MIB
    assert "does not become smaller" in caplog.text
    monkeypatch.setattr("jupyter_sandbox.stores.file_space._MOST_REWRITTEN_BYTES", 256 * MIB)
    async with opened(tmp_path) as database:
        assert (tmp_path / "sandbox.db").stat().st_size < 2 * MIB
        full, empty = await emptied(database, 12, tmp_path)
        assert full > 10 * MIB
        assert empty < 2 * MIB
    with contextlib.closing(sqlite3.connect(tmp_path / "sandbox.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_notice_that_nobody_takes_does_not_grow_for_ever(tmp_path):
    async with opened(tmp_path) as database:
        id = await made(database)
        for _ in range(300):
            await database.add_notice(id, "[The sandbox was suspended and woken.]" * 3)
        notice = await database.take_notice(id)
        assert 8000 < len(notice) < 9000
        await database.add_notice(id, "[And once more.]")
        assert await database.take_notice(id) == "[And once more.]"


def test_files_are_counted_whatever_is_in_them():
    assert decide_count(MOST_FILES - 1)
    refused = decide_count(MOST_FILES)
    assert not refused
    assert refused.reason.startswith("This conversation has 20,000 files ")


def test_an_owner_may_keep_at_least_what_a_conversation_may():
    for given, of_owner in (
        ({"result_bytes": 2000, "owner_result_bytes": 1999}, 2000),
        ({"result_bytes": 2000, "owner_result_bytes": 6000}, 6000),
        ({"result_bytes": 2 * 1024**3 + 1}, 2 * 1024**3 + 1),  # the owner's is 2 GiB
        ({"owner_result_bytes": 256 * MIB - 1}, 256 * MIB),
    ):
        limits = SandboxLimits(**given).to_limits()
        assert limits.result_bytes == given.get("result_bytes", 256 * MIB)
        assert limits.owner_result_bytes == of_owner
    for wrong in ({"result_bytes": 0}, {"owner_result_bytes": -1}):
        with pytest.raises(TraitError, match="must be"):
            SandboxLimits(**wrong)
