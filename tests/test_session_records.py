"""Rows of Jupyter sessions: whose they are, how many, and what ends them."""

from __future__ import annotations

import contextlib

from jupyter_sandbox.stores.database import Database
from jupyter_sandbox.stores.session_records import SessionRecord, SessionRecords
from tests.database_url import url_of


@contextlib.asynccontextmanager
async def opened(tmp_path):
    database = Database(url_of(tmp_path / "db"))
    await database.open()
    try:
        yield database, SessionRecords(database.connections, most=3)
    finally:
        await database.close()


def session(name: str) -> SessionRecord:
    return SessionRecord(f"id-{name}", f"{name}.ipynb", name, "notebook")


async def test_a_kernels_sessions_are_kept_in_order_changed_and_removed(tmp_path):
    async with opened(tmp_path) as (database, sessions):
        one = (await database.create_conversation("alice"))[0].conversation_id
        two = (await database.create_conversation("alice"))[0].conversation_id
        for name in "ab":
            await sessions.add(one, "k1", session(name))
        await sessions.add(two, "k2", session("c"))
        assert await sessions.all(one, "k1") == [session("a"), session("b")]
        assert await sessions.all(two, "k1") == []
        changed = SessionRecord("id-a", "z.ipynb", "z", "console")
        assert await sessions.change(one, changed)
        assert not await sessions.change(two, changed), "it is another conversation's"
        assert await sessions.all(one, "k1") == [changed, session("b")]
        assert not await sessions.remove(two, "id-a")
        assert await sessions.remove(one, "id-a")
        await sessions.clear(one)
        assert await sessions.all(one, "k1") == []
        assert await sessions.all(two, "k2") == [session("c")]


async def test_sessions_of_an_earlier_kernel_and_the_oldest_go(tmp_path):
    async with opened(tmp_path) as (database, sessions):
        id = (await database.create_conversation("alice"))[0].conversation_id
        await sessions.add(id, "k1", session("old"))
        assert await sessions.all(id, "k2") == [], "that is another kernel"
        for name in "abcd":
            await sessions.add(id, "k2", session(name))
        assert await sessions.all(id, "k2") == [session(name) for name in "bcd"]
        assert await sessions.all(id, "k1") == []
        await database.delete_conversation(id)
        assert await sessions.all(id, "k2") == []
