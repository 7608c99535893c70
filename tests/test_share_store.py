"""The plain store of shared files, on a real directory."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jupyter_sandbox.errors import LimitExceeded, NotFound, Unavailable
from jupyter_sandbox.models import ShareRecord
from jupyter_sandbox.stores.share_store import DirectoryShareStore

CONVERSATION = "0b9f6a52-9b0e-4c57-9d0a-0123456789ab"
NAME = "a" * 32


@contextlib.asynccontextmanager
async def a_store(tmp_path: Path) -> AsyncIterator[DirectoryShareStore]:
    store = DirectoryShareStore(tmp_path / "shares")
    yield store
    await store.close()


def record(data: bytes, stored_name: str = NAME) -> ShareRecord:
    return ShareRecord(
        share_id=stored_name,
        conversation_id=CONVERSATION,
        path="../../etc/passwd",  # what a sandbox calls it is never looked at
        name="../x",
        version=1,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        media_type="text/plain",
        preview="text",
        stored_name=stored_name,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


async def put(store: DirectoryShareStore, *pieces: bytes, name: str = NAME) -> str:
    async with store.sink(CONVERSATION, name, 10**9) as sink:
        for piece in pieces:
            await sink.write(piece)
        return await sink.commit()


async def read(store: DirectoryShareStore, share: ShareRecord, first: int = 0, size: int = -1):
    return b"".join([piece async for piece in store.open(share, first, size)])


def all_files(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


async def test_a_file_comes_out_as_it_went_in(tmp_path):
    data = os.urandom(3_000_000)
    async with a_store(tmp_path) as store:
        assert await put(store, data[:1], b"", data[1:]) == hashlib.sha256(data).hexdigest()
        share = record(data)
        assert await read(store, share) == data
        assert await read(store, share, 2_999_990) == data[-10:]
        assert await read(store, share, 5, 7) == data[5:12]
        assert await read(store, share, 2_999_999, 100) == data[-1:]
        assert await read(store, share, 4_000_000) == b""
        assert store.path_of(share).read_bytes() == data


async def test_files_and_directories_are_the_servers_alone(tmp_path):
    async with a_store(tmp_path) as store:
        await put(store, b"x")
        path = store.path_of(record(b"x"))
        assert path == tmp_path / "shares" / CONVERSATION / NAME
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert path.parent.parent.stat().st_mode & 0o777 == 0o700


async def test_what_is_not_committed_is_not_kept(tmp_path):
    async with a_store(tmp_path) as store:
        async with store.sink(CONVERSATION, NAME, 100) as sink:
            await sink.write(b"half")
            assert all_files(tmp_path) != []
        assert all_files(tmp_path) == []


async def test_a_cancelled_writer_leaves_nothing(tmp_path):
    async with a_store(tmp_path) as store:
        writing = asyncio.Event()

        async def write_for_ever() -> None:
            async with store.sink(CONVERSATION, NAME, 10**12) as sink:
                while True:
                    await sink.write(b"x" * 65536)
                    writing.set()

        task = asyncio.create_task(write_for_ever())
        await asyncio.wait_for(writing.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert all_files(tmp_path) == []


async def test_the_limit_is_the_last_byte_that_is_taken(tmp_path):
    async with a_store(tmp_path) as store:
        async with store.sink(CONVERSATION, NAME, 10) as sink:
            await sink.write(b"x" * 10)
            await sink.commit()
        async with store.sink(CONVERSATION, "b" * 32, 10) as sink:
            await sink.write(b"x" * 10)
            with pytest.raises(LimitExceeded) as caught:
                await sink.write(b"x")
        assert caught.value.status == 413
        assert all_files(tmp_path) == [f"shares/{CONVERSATION}/{NAME}"]


async def test_removing_twice_is_removing_once(tmp_path):
    async with a_store(tmp_path) as store:
        await put(store, b"x")
        await put(store, b"y", name="b" * 32)
        for _ in range(2):
            await store.remove(CONVERSATION, NAME)
        with pytest.raises(NotFound):
            await read(store, record(b"x"))
        assert await read(store, record(b"y", "b" * 32)) == b"y"
        for _ in range(2):
            await store.remove_conversation(CONVERSATION)
        assert list((tmp_path / "shares").iterdir()) == []


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "", "A" * 32, "x" * 32, "/etc/passwd"])
async def test_a_name_that_the_host_did_not_choose_is_never_a_path(tmp_path, name):
    async with a_store(tmp_path) as store:
        with pytest.raises(ValueError, match="host chose"):
            store.sink(CONVERSATION, name, 10)
        with pytest.raises(ValueError, match="host chose"):
            store.sink(name, NAME, 10)
        with pytest.raises(ValueError, match="host chose"):
            await store.remove_conversation(name)


async def test_a_file_that_became_shorter_is_not_delivered_as_whole(tmp_path):
    async with a_store(tmp_path) as store:
        await put(store, b"0123456789")
        os.truncate(store.path_of(record(b"0123456789")), 4)
        with pytest.raises(Unavailable):
            await read(store, record(b"0123456789"))


async def test_a_store_that_cannot_write_is_unavailable(tmp_path):
    (tmp_path / "shares").write_text("a file in the way")
    async with a_store(tmp_path) as store:
        with pytest.raises(Unavailable) as caught:
            await put(store, b"x")
        assert str(tmp_path) not in caught.value.message


async def test_after_close_it_is_unavailable(tmp_path):
    async with a_store(tmp_path) as store:
        await put(store, b"x")
    await store.close()
    with pytest.raises(Unavailable):
        await read(store, record(b"x"))
