"""The wrapped key of a deleted conversation leaves the database's files, also when a reader is in the way."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_sandbox.stores.key_records import KeyRecords, WrappedKey
from tests.test_vault import House, a_house

pytestmark = (
    pytest.mark.sqlite
)  # of PostgreSQL's log and backups docs/administrators.md says what holds


@contextlib.contextmanager
def another_reader(root: Path) -> Iterator[None]:
    """Hold the database open in a read transaction, as a backup or a curious program does."""
    with contextlib.closing(sqlite3.connect(root / "sandbox.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM conversations").fetchone()
        yield


def holding(root: Path, secret: bytes) -> list[str]:
    """Give the names of the database's files that hold it."""
    return [path.name for path in root.glob("sandbox.db*") if secret in path.read_bytes()]


async def wrapped_key(house: House) -> tuple[KeyRecords, bytes]:
    await house.put(b"x")
    records = KeyRecords(house.database.connections)
    kept = await records.get(house.conversation)
    assert isinstance(kept, WrappedKey)
    assert holding(house.root, kept.wrapped_key)
    return records, kept.wrapped_key


async def test_without_others_nothing_is_left_at_once(tmp_path):
    async with a_house(tmp_path) as house:
        _, secret = await wrapped_key(house)
        assert await house.database.delete_conversation(house.conversation)
        assert await house.vault.remove_conversation(house.conversation)
        assert holding(tmp_path, secret) == []


async def test_a_reader_only_delays_it_until_it_is_gone(tmp_path):
    async with a_house(tmp_path) as house:
        _, secret = await wrapped_key(house)
        with another_reader(tmp_path):
            assert await house.database.delete_conversation(house.conversation)
            began = asyncio.get_running_loop().time()
            assert not await house.vault.remove_conversation(house.conversation)
            assert asyncio.get_running_loop().time() - began < 2  # nobody waits for the reader
            assert holding(tmp_path, secret)
            assert not await house.vault.erase_keys()
        assert await house.vault.erase_keys()
        assert holding(tmp_path, secret) == []


async def test_what_a_killed_server_left_in_the_log_the_next_one_erases(tmp_path):
    async with a_house(tmp_path) as house:
        _, secret = await wrapped_key(house)
        with another_reader(tmp_path):
            await house.database.delete_conversation(house.conversation)
            await house.database.close()
            assert holding(tmp_path, secret)
            async with a_house(tmp_path) as later:
                assert not await later.vault.erase_keys()
        async with a_house(tmp_path) as later:
            assert await later.vault.erase_keys()
            assert holding(tmp_path, secret) == []
