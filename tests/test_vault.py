"""The vault on a real directory and a real database: round trips, attacks on what is stored, keys."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyter_sandbox.errors import LimitExceeded, NotFound, Unavailable
from jupyter_sandbox.models import FileIdentity, StoredFile
from jupyter_sandbox.stores.blobs import DirectoryBlobs
from jupyter_sandbox.stores.conversation_keys import rewrap_all
from jupyter_sandbox.stores.database import Database
from jupyter_sandbox.stores.key_records import KeyRecords
from jupyter_sandbox.stores.master_keys import ENVIRONMENT, MasterKeys, load_master_keys
from jupyter_sandbox.stores.vault import Vault
from jupyter_sandbox.stores.vault_format import (
    CHUNK_BYTES,
    HEADER_BYTES,
    SEALED_CHUNK_BYTES,
    Opening,
    Sealing,
    sealed_size,
)
from jupyter_sandbox.stores.vault_opening import open_vault
from tests.attacks import attack
from tests.database_url import url_of


@dataclass
class House:
    root: Path
    database: Database
    vault: Vault
    master: MasterKeys
    conversation: str

    async def put(self, data: bytes, name: str = "a.txt", piece: int = 50_000) -> StoredFile:
        identity = FileIdentity(self.conversation, uuid.uuid4().hex, "upload", name)
        async with self.vault.sink(identity, 10**10) as sink:
            for start in range(0, len(data), piece):
                await sink.write(data[start : start + piece])
            sha256 = await sink.commit()
        assert sha256 == hashlib.sha256(data).hexdigest()
        return StoredFile(identity, len(data), sha256)

    async def get(self, file: StoredFile, first: int = 0, size: int = -1) -> bytes:
        async with self.vault.reading(file) as reader:
            return b"".join([piece async for piece in reader.pieces(first, size)])

    def path(self, file: StoredFile) -> Path:
        return self.root / "vault" / self.conversation / file.identity.file_id

    async def refused(self, file: StoredFile, words: str = "damaged") -> None:
        """Nothing is delivered, not even the first piece, to a reader of all or of a part."""
        got = []
        for first, size in ((0, -1), (0, 1), (max(0, file.size_bytes - 1), 1)):
            with pytest.raises(Unavailable, match=words) as caught:
                async with self.vault.reading(file) as reader:
                    got += [piece async for piece in reader.pieces(first, size)]
            assert caught.value.status == 502
            assert str(self.root) not in caught.value.message
        assert got == []

    def files(self) -> list[Path]:
        return sorted(p for p in (self.root / "vault").rglob("*") if p.is_file())


@contextlib.asynccontextmanager
async def a_house(root: Path, environ: dict[str, str] | None = None) -> AsyncIterator[House]:
    database = Database(url_of(root / "sandbox.db"))
    await database.open()
    try:
        record, _ = await database.create_conversation("alice", key="the one")
        vault, master = await open_vault(root, database.connections, environ or {})
        try:
            yield House(root, database, vault, master, record.conversation_id)
        finally:
            await vault.close()
    finally:
        await database.close()


BORDER = CHUNK_BYTES
SIZES = [0, 1, 15, 16, BORDER - 1, BORDER, BORDER + 1, 2 * BORDER, 8 * BORDER + 1, 3_000_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("piece", [1_000_003, 4_096])
async def test_a_file_comes_out_as_it_went_in(tmp_path, size, piece):
    data = os.urandom(size)
    async with a_house(tmp_path) as house:
        file = await house.put(data, piece=piece)
        assert await house.get(file) == data
        assert house.path(file).stat().st_size == sealed_size(size)
        for first in {0, 1, BORDER - 1, BORDER, BORDER + 1, size - 1, size, size + 10} - {-1}:
            for count in (0, 1, BORDER, BORDER + 1, -1):
                end = size if count < 0 else first + count
                assert await house.get(file, first, count) == data[first:end]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    pieces=st.lists(
        st.one_of(
            st.binary(max_size=300),
            st.sampled_from([BORDER - 1, BORDER, BORDER + 1]).map(lambda n: b"\x07" * n),
        ),
        max_size=6,
    ),
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)
def test_the_sealed_form_does_not_depend_on_how_the_pieces_were_cut(pieces, name):
    data, key = b"".join(pieces), os.urandom(32)
    identity = FileIdentity("c", "f", "upload", name)
    sealing = Sealing(identity, key)
    sealed = b"".join(bytes(sealing.update(piece)) for piece in pieces)
    digest = hashlib.sha256(data)
    sealed += sealing.finish(len(data), digest.digest())
    assert len(sealing.header) + len(sealed) == sealed_size(len(data))
    file = StoredFile(identity, len(data), digest.hexdigest())
    opening = Opening(file, key, sealing.header, sealed[-56:])
    assert bytes(opening.chunks(0, sealed[:-56], bytearray())) == data


@attack("T28")
async def test_nothing_on_the_disk_shows_contents_names_or_keys(tmp_path):
    marker = b"the-marker-of-an-upload"
    async with a_house(tmp_path) as house:
        await house.put(marker * 10_000, name="name-of-a-secret.txt")
        key = await house.vault._keys.get(house.conversation)
        for path in (p for p in tmp_path.rglob("*") if p.is_file()):
            stored = path.read_bytes()
            assert marker not in stored, path
            assert b"name-of-a-secret" not in stored, path
            for form in (key, key.hex().encode(), base64.b64encode(key)):
                assert form not in stored, path
            assert path.stat().st_mode & 0o077 == 0, path
        assert (tmp_path / "vault").stat().st_mode & 0o777 == 0o700
        assert house.files()[0].parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("size", [0, 1, 5 * BORDER + 7])
@attack("T29")
async def test_a_flipped_bit_anywhere_is_refused(tmp_path, size):
    async with a_house(tmp_path) as house:
        file = await house.put(os.urandom(size))
        path = house.path(file)
        good = path.read_bytes()
        places = {0, 8, 20, 48, 54, HEADER_BYTES, len(good) // 2, len(good) - 60, len(good) - 1}
        for place in places:
            path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
            await house.refused(file)
        path.write_bytes(good)
        assert len(await house.get(file)) == size


async def test_a_file_that_was_read_before_is_looked_at_again_when_it_has_changed(tmp_path):
    async with a_house(tmp_path) as house:
        file = await house.put(os.urandom(3 * BORDER))
        await house.get(file)
        path, status = house.path(file), house.path(file).stat()
        with path.open("r+b") as opened:
            opened.seek(HEADER_BYTES + 2 * SEALED_CHUNK_BYTES + 5)
            opened.write(b"xx")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        await house.refused(file)


@attack("T29")
async def test_cut_and_extended_files_are_refused(tmp_path):
    async with a_house(tmp_path) as house:
        file = await house.put(os.urandom(3 * BORDER))
        path = house.path(file)
        good = path.read_bytes()
        whole = HEADER_BYTES + 2 * SEALED_CHUNK_BYTES
        for bad in (
            good[:whole],  # without the last chunk and the footer
            good[:whole] + good[-56:],  # without the last chunk
            good[:-56],
            good[:-1],
            good[:10],
            b"",
            good + b"\0",
            good[:-56] + good[HEADER_BYTES + 2 * SEALED_CHUNK_BYTES :],
        ):
            path.write_bytes(bad)
            await house.refused(file)


@attack("T29")
async def test_swapped_chunks_are_refused(tmp_path):
    async with a_house(tmp_path) as house:
        file = await house.put(os.urandom(4 * BORDER))
        path = house.path(file)
        good = path.read_bytes()
        one, two = (
            slice(
                HEADER_BYTES + n * SEALED_CHUNK_BYTES, HEADER_BYTES + (n + 1) * SEALED_CHUNK_BYTES
            )
            for n in (1, 2)
        )
        path.write_bytes(good[: one.start] + good[two] + good[one] + good[two.stop :])
        await house.refused(file)
        path.write_bytes(good[: two.start] + good[one] + good[two.stop :])  # one twice
        await house.refused(file)


@attack("T29")
async def test_swapped_files_are_refused(tmp_path):
    async with a_house(tmp_path) as house:
        one, two = await house.put(b"1" * 100), await house.put(b"2" * 100)
        first, second = house.path(one), house.path(two)
        data = first.read_bytes(), second.read_bytes()
        first.write_bytes(data[1])
        second.write_bytes(data[0])
        await house.refused(one)
        await house.refused(two)


async def test_a_file_does_not_open_under_another_name_kind_or_conversation(tmp_path):
    async with a_house(tmp_path) as house:
        file = await house.put(b"1" * 100)
        await house.refused(replace(file, identity=replace(file.identity, name="b.txt")))
        await house.refused(replace(file, identity=replace(file.identity, kind="share")))
        other, _ = await house.database.create_conversation("bob")
        await house.vault._keys.get_or_make(other.conversation_id)
        moved = house.root / "vault" / other.conversation_id
        shutil.copytree(house.path(file).parent, moved)
        identity = replace(file.identity, conversation_id=other.conversation_id)
        await house.refused(replace(file, identity=identity))


@attack("T29")
async def test_an_older_version_in_the_place_of_the_newer_is_refused(tmp_path):
    async with a_house(tmp_path) as house:
        old, new = await house.put(b"old one"), await house.put(b"new one")
        house.path(new).write_bytes(house.path(old).read_bytes())  # the file is rolled back
        await house.refused(new)
        # The record is rolled back: the file that it names is gone, as replacing removes it.
        await house.vault.remove(house.conversation, old.identity.file_id)
        with pytest.raises(NotFound):
            await house.get(old)
        third = await house.put(b"the third")
        mixed = replace(third, sha256=old.sha256)  # a record of two versions
        await house.refused(mixed)
        await house.refused(replace(third, size_bytes=7))


@attack("T29")
async def test_a_wrong_master_key_says_so_and_delivers_nothing(tmp_path):
    async with a_house(tmp_path) as house:
        file = await house.put(b"x" * 100)
    other = base64.b64encode(os.urandom(32)).decode()
    async with a_house(tmp_path, {ENVIRONMENT: other}) as house:
        await house.refused(file, "encrypted under another master key")


async def test_a_lost_master_key_stops_the_start_instead_of_being_replaced(tmp_path):
    async with a_house(tmp_path) as house:
        await house.put(b"x")
    (tmp_path / "master.key").rename(tmp_path / "backup")
    with pytest.raises(Unavailable, match="is missing, and stored files need it") as caught:
        async with a_house(tmp_path):
            pass
    assert caught.value.status == 503
    (tmp_path / "backup").rename(tmp_path / "master.key")
    async with a_house(tmp_path):
        pass


def test_the_key_file_is_made_once_and_for_the_server_alone(tmp_path):
    file = tmp_path / "master.key"
    first = load_master_keys(file, {})
    assert file.stat().st_mode & 0o777 == 0o600
    assert load_master_keys(file, {}).ids == first.ids
    assert [p.name for p in tmp_path.iterdir()] == ["master.key"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: file.chmod(0o640), "can be read by others"),
        (lambda file: file.chmod(0o604), "can be read by others"),
        (lambda file: (file.rename(file.with_name("x")), file.symlink_to("x")), "is a link"),
        (lambda file: file.write_text("{"), "is damaged"),
        (lambda file: file.write_text('{"keys": []}'), "holds no key"),
        (lambda file: file.write_text('{"keys": ["AAAA"]}'), "not 32 bytes in base64"),
        (lambda file: (file.unlink(), os.mkfifo(file, 0o600)), "is no regular file"),
        (lambda file: os.chown(file, 12345, 12345), "belongs to another user"),
    ],
    ids=["group", "others", "link", "damaged", "empty", "short", "fifo", "owner"],
)
@attack("T30")
def test_an_unsafe_key_file_is_refused(tmp_path, spoil, words):
    file = tmp_path / "master.key"
    load_master_keys(file, {})
    spoil(file)
    with pytest.raises(Unavailable, match=words) as caught:
        load_master_keys(file, {})
    assert caught.value.status == 503


def test_keys_show_in_no_repr(tmp_path):
    master = load_master_keys(tmp_path / "master.key", {})
    key = json.loads((tmp_path / "master.key").read_text())["keys"][0]
    assert key not in repr(master)
    assert key not in repr(vars(KeyRecords))
    assert "1" in repr(master)


@attack("T30")
async def test_a_rotation_rewraps_the_keys_and_touches_no_file(tmp_path):
    async with a_house(tmp_path) as house:
        file = await house.put(b"x" * 100)
        before = house.path(file).read_bytes()
        old = house.master.ids[0]
        rotating = load_master_keys(tmp_path / "master.key", {})
        new = rotating.add_new()
        records = KeyRecords(house.database.connections)
        assert await rewrap_all(records, rotating) == 1
        assert await rewrap_all(records, rotating) == 0
        assert await records.count_by_master_key() == {new: 1}
        assert rotating.ids == [new, old]
        rotating.forget([old, new])
        assert rotating.ids == [new]
        assert house.path(file).read_bytes() == before
        # The running server reads and writes on, without a restart.
        house.vault._keys._known.clear()
        assert await house.get(file) == b"x" * 100
        other, _ = await house.database.create_conversation("bob")
        await house.vault._keys.get_or_make(other.conversation_id)
        assert await records.count_by_master_key() == {new: 2}
    async with a_house(tmp_path) as house:
        assert await house.get(file) == b"x" * 100


async def test_keys_of_the_environment_are_rotated_by_putting_the_new_one_first(tmp_path):
    old, new = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))
    async with a_house(tmp_path, {ENVIRONMENT: old}) as house:
        file = await house.put(b"x")
        with pytest.raises(Unavailable):
            house.master.add_new()
    async with a_house(tmp_path, {ENVIRONMENT: f"{new},{old}"}) as house:
        assert await rewrap_all(KeyRecords(house.database.connections), house.master) == 1
    async with a_house(tmp_path, {ENVIRONMENT: new}) as house:
        assert await house.get(file) == b"x"
    assert not (tmp_path / "master.key").exists()


@pytest.mark.sqlite
async def test_deleting_a_conversation_leaves_nothing_that_opens_a_kept_copy(tmp_path):
    async with a_house(tmp_path) as house:
        file = await house.put(b"x" * 100)
        wrapped = await KeyRecords(house.database.connections).get(house.conversation)
        assert wrapped is not None
        assert wrapped.wrapped_key in (tmp_path / "sandbox.db-wal").read_bytes()
        copy = tmp_path / "copy"
        shutil.copytree(house.path(file).parent, copy)
        for _ in range(2):
            await house.vault.remove_conversation(house.conversation)
        assert house.files() == []
        for path in tmp_path.glob("sandbox.db*"):
            assert wrapped.wrapped_key not in path.read_bytes(), path
        shutil.copytree(copy, house.path(file).parent)
        with pytest.raises(NotFound):
            await house.get(file)
        await house.put(b"new")  # has a new key
        await house.refused(file)


async def test_what_is_not_committed_is_not_kept(tmp_path):
    async with a_house(tmp_path) as house:
        identity = FileIdentity(house.conversation, uuid.uuid4().hex, "upload", "a")
        async with house.vault.sink(identity, 10**9) as sink:
            await sink.write(b"x" * 1_000_000)
            await sink.finish()
            assert [p.suffix for p in house.files()] == [".part"]
        assert house.files() == []
        async with house.vault.sink(identity, 10) as sink:
            await sink.write(b"x" * 10)
            with pytest.raises(LimitExceeded) as caught:
                await sink.write(b"x")
        assert caught.value.status == 413
        assert house.files() == []


async def test_a_cancelled_writer_leaves_nothing(tmp_path):
    async with a_house(tmp_path) as house:
        writing = asyncio.Event()
        identity = FileIdentity(house.conversation, uuid.uuid4().hex, "upload", "a")

        async def write_for_ever() -> None:
            async with house.vault.sink(identity, 10**12) as sink:
                while True:
                    await sink.write(b"x" * 65536)
                    if sink.size_bytes > 3_000_000:
                        writing.set()

        task = asyncio.create_task(write_for_ever())
        await asyncio.wait_for(writing.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert house.files() == []


async def test_a_reader_keeps_the_file_that_it_has_opened(tmp_path):
    data = os.urandom(4_000_000)
    async with a_house(tmp_path) as house:
        file = await house.put(data)
        async with house.vault.reading(file) as reader:
            pieces = reader.pieces()
            got = [await anext(pieces)]
            await house.vault.remove(house.conversation, file.identity.file_id)
            got += [piece async for piece in pieces]
        assert b"".join(got) == data


async def test_a_reader_that_leaves_early_leaves_no_thread_with_a_closed_file(tmp_path):
    async with a_house(tmp_path) as house:
        file = await house.put(os.urandom(4_000_000))
        for _ in range(20):
            async with house.vault.reading(file) as reader:
                pieces = reader.pieces()
                await anext(pieces)
                await pieces.aclose()
        assert len(await house.get(file)) == 4_000_000


async def test_a_sweep_removes_what_nobody_recorded_and_leaves_the_work_under_way(tmp_path):
    async with a_house(tmp_path) as house:
        kept, stray = await house.put(b"kept"), await house.put(b"stray")
        dead = house.path(kept).with_name("d" * 32 + ".part")
        dead.write_bytes(b"left by a crash")
        gone = house.root / "vault" / str(uuid.uuid4())
        gone.mkdir()
        (gone / ("e" * 32)).write_bytes(b"of a conversation that is gone")
        asked = []

        async def known(conversation: str) -> set[str] | None:
            asked.append(conversation)
            return {kept.identity.file_id} if conversation == house.conversation else None

        identity = FileIdentity(house.conversation, uuid.uuid4().hex, "upload", "a")
        async with house.vault.sink(identity, 10**9) as sink:
            await sink.write(b"x" * 1_000_000)
            assert await house.vault.sweep(known) == 2
            await sink.commit()
            assert await house.vault.sweep(known) == 0  # its record may come any moment
            assert house.vault.blobs.names(house.conversation) == sorted(
                [kept.identity.file_id, identity.file_id]
            )
        assert not dead.exists()
        assert not house.path(stray).exists()
        assert await house.vault.sweep(known) == 1
        assert house.files() == [house.path(kept)]


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "", "A" * 32, "x" * 32, "/etc/passwd"])
def test_a_name_that_the_host_did_not_choose_is_never_a_path(tmp_path, name):
    blobs = DirectoryBlobs(tmp_path / "vault")
    good = "a" * 32
    for area, blob in ((name, good), (good, name)):
        for method in (blobs.create, blobs.open, blobs.remove, blobs.claim_stray):
            with pytest.raises(ValueError, match="host chose"):
                method(area, blob)
    with pytest.raises(ValueError, match="host chose"):
        blobs.remove_area(name)


async def test_a_store_that_cannot_write_or_is_closed_is_unavailable(tmp_path):
    async with a_house(tmp_path) as house:
        (tmp_path / "vault").write_text("a file in the way")
        with pytest.raises(Unavailable) as caught:
            await house.put(b"x")
        assert str(tmp_path) not in caught.value.message
        (tmp_path / "vault").unlink()
        file = await house.put(b"x")
        await house.vault.close()
        await house.vault.close()
        with pytest.raises(Unavailable):
            await house.get(file)


async def test_the_rotate_key_command_works_beside_a_server_that_runs(tmp_path):
    async def run(*arguments: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jupyter_sandbox.cli.app", "rotate-key", *arguments),
            env={**os.environ, "JUPYTER_CONFIG_DIR": str(tmp_path), "JUPYTER_NO_CONFIG": "1"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode, output.decode()

    async with a_house(tmp_path) as house:
        file = await house.put(b"x" * 100)
        old = house.master.ids
        words = (f"--data-dir={tmp_path}", "--forget-unused")
        status, text = await run(*words, f"--db-url={url_of(tmp_path / 'wrong.db')}")
        assert status == 1, "no key is forgotten by a database that knows none of the files"
        assert "this database is new, but the data directory has files" in text
        assert load_master_keys(tmp_path / "master.key", {}).ids == old
        status, text = await run(*words, f"--db-url={url_of(tmp_path / 'sandbox.db')}")
        assert status == 0, text
        assert "1 keys wrapped anew" in text
        assert f"forgotten: {old[0]}" in text
        house.vault._keys._known.clear()
        assert await house.get(file) == b"x" * 100
        assert house.master.ids != old
    status, text = await run(f"--data-dir={tmp_path / 'nowhere'}")
    assert status == 1
    assert "there is no data directory" in text
    status, text = await run("--data-dri=x")
    assert status == 1
