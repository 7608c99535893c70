"""The ends of the audit log: cut by whoever has database and data directory, and removed by age."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from jupyter_sandbox.errors import Unavailable
from jupyter_sandbox.models import AuditEntry
from jupyter_sandbox.stores import audit_records
from jupyter_sandbox.stores.audit_log import MARK_NAME, read_mark
from jupyter_sandbox.stores.audit_records import AuditReport
from jupyter_sandbox.stores.conversation_keys import rewrap_all
from jupyter_sandbox.stores.key_records import KeyRecords, WrappedKey
from jupyter_sandbox.stores.schema import audit_head
from tests.attacks import attack
from tests.database_url import url_of
from tests.test_audit import change, house, write

NOW = datetime(2026, 6, 1, tzinfo=UTC)
CUT = (
    "DELETE FROM audit WHERE number > 5",
    "UPDATE audit_head SET number = 5, seal = (SELECT seal FROM audit WHERE number = 5)",
)


async def verified(directory: Path, known: int = 0) -> AuditReport:
    """Check as the command does."""
    async with house(directory) as (_, records, _):
        mark = read_mark(directory / MARK_NAME)
        return await records.verify(mark, needs_mark=True, known_number=known)


async def seven_rows(directory: Path) -> list[str]:
    """Write a log of seven rows about a conversation; give their seals."""
    async with house(directory) as (database, records, audit):
        await database.create_conversation("alice")
        await write(audit, 7)
        seals = [row.seal for row in await records.rows()]
    assert (await verified(directory)).problems == ()
    return seals


def set_mark(directory: Path, number: int, seal: str, **more: str) -> None:
    (directory / MARK_NAME).write_text(json.dumps({"number": number, "seal": seal, **more}))


@attack("T56")
@pytest.mark.parametrize("mark", ["rewritten", "kept seal", "removed", "no mark"])
async def test_a_tail_that_was_cut_is_found_whatever_the_mark_says(tmp_path, mark):
    seals = await seven_rows(tmp_path)
    old = read_mark(tmp_path / MARK_NAME)
    assert old is not None
    change(tmp_path, *CUT)
    if mark == "rewritten":
        set_mark(tmp_path, 5, seals[4])
    elif mark == "kept seal":
        set_mark(tmp_path, 5, seals[4], mark_seal=old.mark_seal)
    elif mark == "removed":
        (tmp_path / MARK_NAME).unlink()
    else:
        (tmp_path / MARK_NAME).write_bytes(b"\xff{]")
    problems = (await verified(tmp_path)).problems
    assert "the head of the log is not what was written" in problems
    assert any("mark of the end" in each for each in problems)


@attack("T56")
async def test_a_mark_that_is_missing_or_another_is_found_without_a_cut(tmp_path):
    seals = await seven_rows(tmp_path)
    set_mark(tmp_path, 3, seals[2])
    assert (await verified(tmp_path)).problems == (
        "the mark of the end of the log is not what was written",
    )
    (tmp_path / MARK_NAME).unlink()
    assert (await verified(tmp_path)).problems == ("the mark of the end of the log is missing",)


@attack("T56")
async def test_a_log_that_was_emptied_is_found(tmp_path):
    await seven_rows(tmp_path)
    (tmp_path / MARK_NAME).unlink()
    async with house(tmp_path) as (database, records, _):
        (conversation,) = await database.conversations("alice", 9, None)
        key_id, wrapped = records._master.wrap(os.urandom(32))  # of a file's conversation
        key = WrappedKey(conversation.conversation_id, key_id, wrapped)
        await KeyRecords(database.connections).add(key)
    change(
        tmp_path,
        "DELETE FROM audit",
        f"UPDATE audit_head SET number = 0, seal = '{'0' * 64}', head_seal = '',"
        " wrapped_key = (SELECT wrapped_key FROM conversation_keys)",
    )
    assert (await verified(tmp_path)).problems
    change(tmp_path, "DELETE FROM audit_head")
    assert (await verified(tmp_path)).problems == (
        "the head of the log is gone, with the key of its seals",
    )


@attack("T56")
@pytest.mark.parametrize(
    ("tamper", "code"),
    [("cut", "head_changed"), ("mark", "mark_changed"), ("rolled back", "cut")],
)
async def test_a_server_that_goes_on_after_it_notes_it_in_the_log(tmp_path, tamper, code):
    if tamper == "rolled back":
        async with house(tmp_path) as (_, _, audit):
            await write(audit, 5)
        kept = head_of(tmp_path)
        async with house(tmp_path) as (_, _, audit):
            await write(audit, 2)
        set_head(tmp_path, kept)
        change(tmp_path, "DELETE FROM audit WHERE number > 5")
    else:
        seals = await seven_rows(tmp_path)
        if tamper == "cut":
            change(tmp_path, *CUT)
        set_mark(tmp_path, 5, seals[4])
    async with house(tmp_path) as (_, records, audit):
        await write(audit, 4)
        rows = await records.rows()
        (noted,) = [row for row in rows if row.action == "log_damaged"]
        assert json.loads(noted.detail) == {"code": code}
        assert noted.number == len(rows) - 4
    async with house(tmp_path) as (_, _, audit):
        await write(audit, 4)
    problems = (await verified(tmp_path)).problems
    assert len(problems) == 1
    assert problems[0].startswith(f"row {noted.number}: a server noted that the log was damaged")
    assert (await verified(tmp_path, noted.number)).problems == ()


@attack("T56")
@pytest.mark.parametrize("head", ["gone", "another's key"])
async def test_a_log_that_begins_anew_notes_that_it_is_not_the_first(tmp_path, head):
    await seven_rows(tmp_path)
    (tmp_path / MARK_NAME).unlink()
    change(tmp_path, "DELETE FROM audit", "UPDATE conversations SET created_at = created_at - 9e9")
    if head == "gone":
        change(tmp_path, "DELETE FROM audit_head")
    else:
        async with house(tmp_path) as (_, records, _):
            key_id, wrapped = records._master.wrap(os.urandom(32))
        empty = {"number": 0, "seal": "0" * 64, "master_key_id": key_id, "wrapped_key": wrapped}
        set_head(tmp_path, empty)
    async with house(tmp_path) as (_, records, audit):
        await write(audit, 2)
        assert [row.action for row in await records.rows()] == ["log_damaged", "call", "call"]
    (problem,) = (await verified(tmp_path)).problems
    assert "head_gone" in problem


async def test_rows_that_are_removed_meanwhile_are_no_problem(tmp_path, monkeypatch):
    await old_and_new(tmp_path)
    async with house(tmp_path) as (_, records, _), house(tmp_path) as (_, others, _):
        rows, pruned = records.rows, []

        async def rows_once_pruned(*words: int):
            if not pruned:
                pruned.append(await others.prune(NOW - timedelta(days=365)))
            return await rows(*words)

        monkeypatch.setattr(records, "rows", rows_once_pruned)
        report = await records.verify()
        assert (report.rows, report.pruned_number, report.problems) == (3, 30, ())


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"number": Infinity, "seal": ""}', "[" * 100_000, '{"number": -1}']
)
async def test_a_file_that_is_no_mark_is_found(tmp_path, text):
    await seven_rows(tmp_path)
    (tmp_path / MARK_NAME).write_text(text)
    assert (await verified(tmp_path)).problems == (
        "the mark of the end of the log is not what was written",
    )


def head_of(directory: Path) -> dict[str, object]:
    engine = sa.create_engine(url_of(directory / "sandbox.db"))
    with engine.connect() as connection:
        head = dict(connection.execute(sa.select(audit_head)).one()._mapping)
    engine.dispose()
    return head


def set_head(directory: Path, head: dict[str, object]) -> None:
    engine = sa.create_engine(url_of(directory / "sandbox.db"))
    with engine.begin() as connection:
        connection.execute(sa.update(audit_head).values(head))
    engine.dispose()


async def old_and_new(directory: Path, old: int = 30, new: int = 3) -> None:
    """Write rows of last year, and of today."""
    async with house(directory) as (_, records, audit):
        for count, at in ((old, NOW - timedelta(days=400)), (new, NOW)):
            entries = [AuditEntry(at, "call", "alice", "", {"count": n}) for n in range(count)]
            audit._waiting += entries
            await audit.flush()
        assert (await records.verify()).rows == old + new


async def test_rows_go_with_their_age_and_what_is_left_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_records, "_ROWS", audit_records._ROWS.limit(8))  # in several turns
    await old_and_new(tmp_path)
    async with house(tmp_path) as (_, records, audit):
        await audit.prune(datetime.now(UTC) - (NOW - timedelta(days=365)))
        await audit.flush()
        rows = await records.rows()
        assert [row.number for row in rows] == [31, 32, 33, 34]
        assert (rows[-1].action, json.loads(rows[-1].detail)) == ("rows_removed", {"count": 30})
        await write(audit, 2)
        await audit.prune(datetime.now(UTC) - (NOW - timedelta(days=365)))  # nothing to do
    report = await verified(tmp_path)
    assert (report.rows, report.number, report.pruned_number, report.problems) == (6, 36, 30, ())


async def test_the_last_row_stays_however_old_it_is(tmp_path):
    await old_and_new(tmp_path, old=5, new=0)
    async with house(tmp_path) as (_, records, _):
        assert await records.prune(NOW) == 4
        assert await records.prune(NOW) == 0
        assert [row.number for row in await records.rows()] == [5]
    assert (await verified(tmp_path)).problems == ()


@attack("T56")
async def test_nobody_moves_the_beginning_but_the_server(tmp_path):
    await old_and_new(tmp_path)
    before = head_of(tmp_path)
    async with house(tmp_path) as (_, records, _):
        assert await records.prune(NOW - timedelta(days=365)) == 30
    checkpoint = head_of(tmp_path)
    change(tmp_path, "DELETE FROM audit WHERE number = 31")
    assert "rows 31 to 31 are missing" in (await verified(tmp_path)).problems
    change(
        tmp_path,
        "UPDATE audit_head SET pruned_number = 32,"
        " pruned_seal = (SELECT seal FROM audit WHERE number = 32)",
        "DELETE FROM audit WHERE number < 33",
    )
    assert (await verified(tmp_path)).problems == ("the head of the log is not what was written",)
    set_head(tmp_path, before)
    assert (await verified(tmp_path)).problems[0] == "rows 1 to 32 are missing"
    set_head(tmp_path, checkpoint)
    assert (await verified(tmp_path)).problems == ("rows 31 to 32 are missing",)


@attack("T56")
async def test_rows_that_were_made_old_are_not_removed(tmp_path):
    await old_and_new(tmp_path, old=1, new=5)
    change(tmp_path, "UPDATE audit SET at = 0 WHERE number < 4")
    async with house(tmp_path) as (_, records, audit):
        with pytest.raises(Unavailable, match="is not pruned"):
            await audit.prune(timedelta(days=1))
        assert len(await records.rows()) == 6
    assert (await verified(tmp_path)).problems


async def test_a_log_of_an_earlier_release_goes_on_and_is_sealed_from_then_on(
    tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(audit_records, "KEY_BYTES", 32)
        patch.setattr(audit_records, "head_seal", lambda key, head: "")
        seals = await seven_rows(tmp_path)
    set_mark(tmp_path, 7, seals[6])  # as it wrote it
    assert (await verified(tmp_path)).problems == ()
    async with house(tmp_path) as (database, records, audit):
        await write(audit, 1)
        master = records._master
        master.add_new()
        assert await rewrap_all(KeyRecords(database.connections), master) == 1
        assert [row.action for row in await records.rows()] == ["call"] * 8
    assert (await verified(tmp_path)).problems == ()
    change(tmp_path, *CUT)
    set_mark(tmp_path, 5, seals[4])
    change(tmp_path, "UPDATE audit_head SET head_seal = ''")
    assert "the head of the log is not what was written" in (await verified(tmp_path)).problems


async def test_what_a_server_cannot_write_it_says(tmp_path, caplog):
    await seven_rows(tmp_path)
    change(tmp_path, *CUT)
    with caplog.at_level(logging.ERROR):
        async with house(tmp_path) as (_, _, audit):
            await write(audit, 1)
    assert "the audit log is not as it was left: head_changed" in caplog.text
