"""The audit chain: whoever has the database and not the key changes nothing unnoticed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
import sys

import pytest
import sqlalchemy as sa

from jupyter_sandbox.errors import Unavailable
from jupyter_sandbox.stores.audit_log import MARK_NAME, AuditLog, read_mark
from jupyter_sandbox.stores.audit_records import AuditRecords
from jupyter_sandbox.stores.conversation_keys import rewrap_all
from jupyter_sandbox.stores.database import Database
from jupyter_sandbox.stores.key_records import KeyRecords
from jupyter_sandbox.stores.master_keys import load_master_keys
from tests.database_url import url_of

LOG = logging.getLogger("test")


@contextlib.asynccontextmanager
async def house(directory):
    """A server's database, keyring and audit log."""
    database = Database(url_of(directory / "sandbox.db"))
    await database.open()
    master = load_master_keys(directory / "master.key", {})
    records = AuditRecords(database.connections, master)
    audit = AuditLog(records, directory / MARK_NAME, LOG)
    try:
        yield database, records, audit
    finally:
        await audit.close()
        await database.close()


async def write(audit: AuditLog, count: int) -> None:
    for number in range(count):
        audit.note("call", "alice", f"conversation-{number}", tool="bash", output_characters=number)
    await audit.flush()


def change(directory, *statements: str) -> None:
    """Do what somebody with the database file can."""
    engine = sa.create_engine(url_of(directory / "sandbox.db"))
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


async def test_what_was_noted_is_written_in_order_and_the_chain_is_whole(tmp_path):
    async with house(tmp_path) as (_, records, audit):
        await write(audit, 3)
        await write(audit, 2)
        rows = await records.rows()
        assert [row.number for row in rows] == [1, 2, 3, 4, 5]
        assert json.loads(rows[2].detail) == {"tool": "bash", "output_characters": 2}
        report = await records.verify(read_mark(tmp_path / MARK_NAME))
        assert (report.rows, report.problems) == (5, ())
        assert read_mark(tmp_path / MARK_NAME)[:2] == (5, rows[-1].seal)


@pytest.mark.parametrize(
    ("statements", "problem"),
    [
        (["UPDATE audit SET actor = 'bob' WHERE number = 4"], "row 4 is not what was written"),
        (["UPDATE audit SET at = at + 1 WHERE number = 4"], "row 4 is not what was written"),
        (["UPDATE audit SET detail = '{}' WHERE number = 4"], "row 4 is not what was written"),
        (["DELETE FROM audit WHERE number = 4"], "rows 4 to 4 are missing"),
        (["DELETE FROM audit WHERE number < 3"], "rows 1 to 2 are missing"),
        (["DELETE FROM audit WHERE number > 5"], "rows 6 to 7 are missing at the end"),
        (
            ["DELETE FROM audit WHERE number = 4", "UPDATE audit SET number = 4 WHERE number = 5"],
            "row 4 is not what was written",
        ),
        (
            [
                "UPDATE audit SET number = 99 WHERE number = 3",
                "UPDATE audit SET number = 3 WHERE number = 4",
                "UPDATE audit SET number = 4 WHERE number = 99",
            ],
            "row 3 is not what was written",
        ),
        (
            ["INSERT INTO audit SELECT 8, at, action, actor, conversation_id, detail, seal "
             "FROM audit WHERE number = 7"],
            "1 rows stand after the end",
        ),
        (
            [
                "DELETE FROM audit WHERE number > 5",
                "UPDATE audit_head SET number = 5, seal = (SELECT seal FROM audit WHERE number = 5)",
            ],
            "the log ends at row 5, and had 7 when it was noted",
        ),
        (["DELETE FROM audit", "DELETE FROM audit_head"], "the head of the log is gone"),
    ],
    ids=[
        *("actor", "time", "detail", "removed", "beginning", "end", "renumbered", "reordered"),
        *("added", "rolled-back", "emptied"),
    ],
)  # fmt: skip
async def test_a_change_behind_our_back_is_found(tmp_path, statements, problem):
    async with house(tmp_path) as (_, _, audit):
        await write(audit, 7)
    change(tmp_path, *statements)
    async with house(tmp_path) as (_, records, _):
        report = await records.verify(read_mark(tmp_path / MARK_NAME))
        assert any(each.startswith(problem) for each in report.problems), report


@pytest.mark.sqlite
async def test_a_chain_written_anew_under_another_key_is_found(tmp_path):
    (tmp_path / "other").mkdir()
    async with house(tmp_path) as (_, _, audit), house(tmp_path / "other") as (_, _, forged):
        await write(audit, 3)
        await write(forged, 3)
    change(
        tmp_path,
        f"ATTACH '{tmp_path / 'other' / 'sandbox.db'}' AS other",
        "DELETE FROM audit",
        "INSERT INTO audit SELECT * FROM other.audit",
        "UPDATE audit_head SET seal = (SELECT seal FROM audit WHERE number = 3)",
    )
    async with house(tmp_path) as (_, records, _):
        report = await records.verify()
        assert report.problems[0].startswith("row 1 is not what was written")


WRITER = """
import asyncio, logging, sys
from pathlib import Path
from tests.test_audit import house, write
async def main():
    async with house(Path(sys.argv[1])) as (_, _, audit):
        for _ in range(20):
            await write(audit, 5)
asyncio.run(main())
"""


async def test_several_servers_on_one_database_write_one_chain(tmp_path):
    async with house(tmp_path):
        pass
    writers = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, str(tmp_path))
        for _ in range(3)
    ]
    assert [await asyncio.wait_for(each.wait(), 60) for each in writers] == [0, 0, 0]
    async with house(tmp_path) as (_, records, _):
        report = await records.verify(read_mark(tmp_path / MARK_NAME))
        assert (report.rows, report.number, report.problems) == (300, 300, ())


async def test_a_rotation_of_the_master_key_keeps_the_chain(tmp_path):
    async with house(tmp_path) as (database, records, audit):
        await write(audit, 2)
        keys = KeyRecords(database.connections)
        rotating = load_master_keys(tmp_path / "master.key", {})
        new = rotating.add_new()
        assert await rewrap_all(keys, rotating) == 1
        rotating.forget(rotating.ids[1:])
        assert await keys.count_by_master_key() == {new: 1}
        await write(audit, 2)
        assert (await records.verify()).problems == ()


async def test_a_head_that_is_gone_is_not_replaced_silently(tmp_path):
    async with house(tmp_path) as (_, _, audit):
        await write(audit, 2)
    change(tmp_path, "DELETE FROM audit_head")
    async with house(tmp_path) as (_, _, audit):
        audit.note("call")
        with pytest.raises(Unavailable):
            await audit.flush()
        audit._waiting.clear()


async def test_what_a_failing_database_cannot_take_is_bounded_and_counted(tmp_path):
    async with house(tmp_path) as (_, records, audit):
        for _ in range(10_050):
            audit.note("call")
        assert len(audit._waiting) == 10_000
        await audit.flush()
        audit.note("call")
        await audit.flush()
        rows = await records.rows(10_000)
        assert [row.action for row in rows] == ["call", "entries_lost"]
        assert json.loads(rows[1].detail) == {"count": 50}


async def test_denials_are_one_entry_for_many(tmp_path):
    async with house(tmp_path) as (database, records, audit):
        record, _ = await database.create_conversation("alice")
        for _ in range(40):
            audit.note_denial(record.conversation_id)
        await audit.flush()
        (row,) = await records.rows()
        assert (row.action, row.actor, json.loads(row.detail)) == (
            *("egress_denied", "alice"),
            {"count": 40},
        )


async def test_the_command_says_whether_the_log_is_whole_and_prints_it(tmp_path):
    async with house(tmp_path) as (_, _, audit):
        await write(audit, 3)

    def run(*words: str):
        command = [sys.executable, "-m", "jupyter_sandbox.cli.app", "audit", *words]
        command += [f"--data-dir={tmp_path}", f"--db-url={url_of(tmp_path / 'sandbox.db')}"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = await asyncio.to_thread(run, "verify")
    assert (done.returncode, "whole; 3 rows" in done.stdout) == (0, True), done
    lines = (await asyncio.to_thread(run, "export", "--after=1")).stdout.splitlines()
    assert [json.loads(line)["number"] for line in lines] == [2, 3]
    assert json.loads(lines[0])["actor"] == "alice"
    change(tmp_path, "UPDATE audit SET actor = 'bob' WHERE number = 2")
    done = await asyncio.to_thread(run, "verify")
    assert done.returncode == 1
    assert "row 2 is not what was written" in done.stdout
    assert "NOT whole" in done.stdout
