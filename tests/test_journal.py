"""The journal: numbers without gaps, in order, whoever writes; bounds; a database that fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_sandbox.conversations.journal import Journal
from jupyter_sandbox.errors import NotFound, Unavailable
from jupyter_sandbox.policy.clipping import Clipping, clip_text
from jupyter_sandbox.stores.database import Database
from jupyter_sandbox.stores.message_records import Entry, MessageRecords
from jupyter_sandbox.tools.call_messages import call_message, result_message
from tests.database_url import url_of
from tests.sealed_rows import messages_of

LOG = logging.getLogger("test")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[tuple[Database, MessageRecords, str]]:
    database = Database(url_of(path / "sandbox.db"))
    await database.open()
    try:
        record, _ = await database.create_conversation("alice", key="k")
        yield database, messages_of(database), record.conversation_id
    finally:
        await database.close()


def an_entry(conversation: str, text: str = "x") -> Entry:
    return Entry(conversation, "notice", NOW, json.dumps({"text": text}))


def texts(page) -> list:
    return [message.body["text"] for message in page.messages]


async def test_messages_come_back_numbered_in_the_order_they_were_added(tmp_path):
    async with opened(tmp_path) as (_, records, conversation):
        journal = Journal(records, LOG)
        for n in range(7):
            journal.add(conversation, "notice", {"text": f"{n} \ud800 ü\0"})
        page = await journal.page(conversation, 0, 5)
        assert [message.seq for message in page.messages] == [1, 2, 3, 4, 5]
        assert (page.first, page.last) == (1, 7)
        assert texts(await journal.page(conversation, 5, 5)) == ["5 \ud800 ü\0", "6 \ud800 ü\0"]
        said = await journal.put(conversation, "user", {"text": "hi"})
        assert (said.seq, said.kind, said.body) == (8, "user", {"text": "hi"})
        await journal.close()


async def test_two_writers_on_one_database_leave_no_gap_and_no_double(tmp_path):
    async with opened(tmp_path) as (_, first, conversation), opened(tmp_path) as (_, second, _):
        journals = [Journal(first, LOG), Journal(second, LOG)]

        async def write(name: int) -> None:
            for n in range(60):
                journals[name].add(conversation, "notice", {"text": f"{name}.{n}"})
                if n % 7 == 0:
                    await journals[name].flush()
            await journals[name].close()

        await asyncio.gather(write(0), write(1))
        page = await first.page(conversation, 0, 500)
        assert [message.seq for message in page.messages] == list(range(1, 121))
        for name in "01":  # each writer's own order is kept
            mine = [text for text in texts(page) if text.startswith(name)]
            assert mine == [f"{name}.{n}" for n in range(60)]


async def test_a_conversation_keeps_its_newest_messages_within_its_bounds(tmp_path):
    async with opened(tmp_path) as (database, _, conversation):
        size = len(an_entry(conversation).body)
        for most in ({"most_messages": 10}, {"most_bytes": 10 * size}):
            records = messages_of(database, **most)
            for _ in range(5):
                await records.append([an_entry(conversation)] * 5)
            page = await records.page(conversation, 0, 500)
            assert len(page.messages) == 10
            assert page.last - page.first == 9
        await records.append([an_entry(conversation, "y" * 20 * size)])
        page = await records.page(conversation, 0, 500)
        assert texts(page) == ["y" * 20 * size]  # the last one is there, however large


async def test_a_page_has_at_most_four_mib_but_never_nothing(tmp_path):
    async with opened(tmp_path) as (_, records, conversation):
        for _ in range(3):
            await records.append([an_entry(conversation, "x" * 3 * 1024**2)])
        seen = 0
        while (page := await records.page(conversation, seen, 500)).messages:
            assert len(page.messages) == 1
            seen += 1
        assert seen == 3


async def test_deleting_a_conversation_deletes_its_messages(tmp_path):
    async with opened(tmp_path) as (database, records, conversation):
        other = (await database.create_conversation("bob"))[0].conversation_id
        assert await records.append([an_entry(conversation), an_entry(other)]) == [1, 1]
        await database.delete_conversation(conversation)
        assert (await records.page(conversation, 0, 10)).messages == ()
        numbers = await records.append([an_entry(conversation), an_entry(other)])
        assert numbers == [0, 2]
        assert await records.last([conversation, other]) == {other: 2}
        with pytest.raises(NotFound):
            await Journal(records, LOG).put(conversation, "user", {})


async def test_messages_wait_while_the_database_fails_and_no_longer_than_bounded(
    tmp_path, monkeypatch
):
    async with opened(tmp_path) as (_, records, conversation):
        journal = Journal(records, LOG)
        append = records.append
        fails = True

        async def failing(entries):
            if fails:
                raise Unavailable("no")
            return await append(entries)

        monkeypatch.setattr(records, "append", failing)
        monkeypatch.setattr("jupyter_sandbox.conversations.journal._MOST_WAITING_BYTES", 100)
        for n in range(20):
            journal.add(conversation, "notice", {"text": str(n)})
        for _ in range(2):
            with pytest.raises(Unavailable):
                await journal.page(conversation, 0, 10)
        fails = False
        kept = texts(await journal.page(conversation, 0, 100))
        assert kept == [str(n) for n in range(len(kept))]
        assert 0 < len(kept) < 20
        await journal.close()


async def test_closing_writes_what_waits(tmp_path):
    async with opened(tmp_path) as (_, records, conversation):
        journal = Journal(records, LOG)
        journal.add(conversation, "notice", {"text": "a"})
        await journal.close()
        await journal.close()
        assert texts(await records.page(conversation, 0, 10)) == ["a"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=300),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=50), inner),
    max_leaves=60,
)


@given(JSON, st.integers(0, 2000))
def test_what_is_clipped_is_json_of_bounded_size(value, budget):
    clipping = Clipping(budget)
    made = clipping.value(value)
    text = json.dumps(made, ensure_ascii=False)
    assert len(text) < 8 * budget + 1000
    if not clipping.was_needed:
        assert made == value


def test_of_a_long_text_the_beginning_and_the_end_stay():
    clipped = clip_text("a" * 5000 + "b" * 5000, 1000)
    assert clipped.startswith("a" * 500)
    assert clipped.endswith("b" * 500)
    assert "9,000 characters are left out" in clipped
    assert clip_text("abc", 3) == "abc"


def test_messages_of_calls_are_bounded_and_have_no_bytes_of_images():
    huge = {"command": "x" * 10**6, "description": "d" * 10**6, "n": [["y"] * 10**6]}
    assert len(json.dumps(call_message("1", "t" * 10**6, huge))) < 100_000
    content = [
        {"type": "text", "text": "t" * 10**6},
        {"type": "image", "media_type": "image/png", "data": "QUJD" * 1000},
    ]
    message = result_message("1", "python", "finished", {"content": content, "code": "ok"})
    assert message["clipped"] is True
    assert len(json.dumps(message)) < 50_000
    assert message["content"][1] == {
        "type": "image",
        "media_type": "image/png",
        "size_bytes": 3000,
    }
