"""Rows of the warm pool: a sandbox moves to one conversation, in one step, or does not move."""

from __future__ import annotations

import asyncio

from jupyter_sandbox.stores.pool_records import Given, PoolRecords
from tests.claims import claim
from tests.test_database import a_share, one, opened

SANDBOX = "a" * 24


async def a_ready_one(records: PoolRecords, sandbox_id: str = SANDBOX, holder: str = "s1") -> None:
    await records.add(sandbox_id, "docker", "recipe", holder)
    assert await records.set_ready(sandbox_id, holder)


async def test_a_sandbox_is_of_the_pool_until_it_is_a_conversations(tmp_path):
    async with opened(tmp_path) as database:
        records = PoolRecords(database.connections, "here")
        await records.add(SANDBOX, "docker", "recipe", "s1")
        [made] = await records.all()
        assert (made.sandbox_id, made.state, made.recipe) == (SANDBOX, "making", "recipe")
        conversation = (await one(database)).conversation_id
        assert await claim(database, conversation, "s1", 30)
        assert await records.give(SANDBOX, "s1", conversation) is Given.NOT  # it is not ready
        assert await records.set_ready(SANDBOX, "s1")
        assert await records.give(SANDBOX, "s1", conversation) is Given.EMPTY
        assert await records.all() == []
        record = await database.conversation(conversation)
        assert (record.sandbox_id, record.state) == (SANDBOX, "starting")
        assert await records.give(SANDBOX, "s1", conversation) is Given.NOT


async def test_it_moves_to_nobody_who_has_lost_the_claim(tmp_path):
    async with opened(tmp_path) as database:
        records = PoolRecords(database.connections, "here")
        await a_ready_one(records)
        conversation = (await one(database)).conversation_id
        assert await records.give(SANDBOX, "s1", conversation) is Given.NOT  # nobody has claimed it
        assert await claim(database, conversation, "s2", 30)
        assert await records.give(SANDBOX, "s1", conversation) is Given.NOT
        assert [each.state for each in await records.all()] == ["ready"]
        assert (await database.conversation(conversation)).sandbox_id == ""


async def test_of_many_conversations_and_servers_that_want_one_sandbox_one_gets_it(tmp_path):
    async with opened(tmp_path) as first, opened(tmp_path) as second:
        databases = (first, second)
        records = [PoolRecords(each.connections, "here") for each in databases]
        await a_ready_one(records[0])
        wanting = [(await one(first)).conversation_id for _ in range(10)]
        for number, conversation in enumerate(wanting):
            assert await claim(first, conversation, "s1", 30), number
        given = await asyncio.gather(
            *(
                records[number % 2].give(SANDBOX, "s1", conversation)
                for number, conversation in enumerate(wanting)
            )
        )
        assert sorted(each.name for each in given) == ["EMPTY"] + ["NOT"] * 9
        named = [(await first.conversation(each)).sandbox_id for each in wanting]
        assert sorted(named) == [""] * 9 + [SANDBOX]


async def test_what_a_dead_server_left_is_taken_over_once_and_never_given_by_it(tmp_path):
    async with opened(tmp_path) as database:
        records = PoolRecords(database.connections, "here")
        await a_ready_one(records)
        taken = await asyncio.gather(
            records.take_over(SANDBOX, "s1", "s2"), records.take_over(SANDBOX, "s1", "s3")
        )
        assert sorted(taken) == [False, True]
        conversation = (await one(database)).conversation_id
        assert await claim(database, conversation, "s1", 30)
        assert await records.give(SANDBOX, "s1", conversation) is Given.NOT
        assert not await records.remove(SANDBOX, "s1")


async def test_what_is_ending_is_not_given(tmp_path):
    async with opened(tmp_path) as database:
        records = PoolRecords(database.connections, "here")
        await a_ready_one(records)
        assert await records.set_ending(SANDBOX, "s1")
        conversation = (await one(database)).conversation_id
        assert await claim(database, conversation, "s1", 30)
        assert await records.give(SANDBOX, "s1", conversation) is Given.NOT
        assert await records.remove(SANDBOX, "s1")
        assert await records.all() == []


async def test_installations_on_one_database_do_not_see_each_others(tmp_path):
    async with opened(tmp_path) as database:
        await a_ready_one(PoolRecords(database.connections, "here"))
        assert await PoolRecords(database.connections, "there").all() == []


async def test_who_gets_one_is_told_whether_files_are_to_be_placed(tmp_path):
    async with opened(tmp_path) as database:
        records = PoolRecords(database.connections, "here")
        await a_ready_one(records)
        conversation = (await one(database)).conversation_id
        await database.add_share(a_share(conversation, 1))
        assert await claim(database, conversation, "s1", 30)
        assert await records.give(SANDBOX, "s1", conversation) is Given.WITH_FILES
