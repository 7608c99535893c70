"""An older version of a shared file in the place of a newer one, by the database alone.

All versions lie in the vault, each sealed as the version that it is: a record that names the bytes of
another version opens nothing.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from jupyter_sandbox.errors import Unavailable, VersionTaken
from jupyter_sandbox.models import FileIdentity, ShareRecord
from jupyter_sandbox.stores.vault_format import UNVERSIONED_MAGIC, Sealing, _associated_data
from jupyter_sandbox.stores.vault_opening import UNVERSIONED_NAME
from tests.attacks import attack
from tests.database_url import url_of
from tests.test_vault import House, a_house

OLD, NEW = b"version one: pay 10", b"version two: pay 99"


async def share(house: House, data: bytes, path: str = "bill.txt") -> ShareRecord:
    """Store a file as ``share_files`` does."""
    version = await house.database.next_version(house.conversation, path)
    identity = FileIdentity(house.conversation, uuid.uuid4().hex, "share", path, version)
    async with house.vault.sink(identity, 10**6) as sink:
        await sink.write(data)
        sha256 = await sink.commit()
        record = ShareRecord(
            *(identity.file_id, house.conversation, path, path, version, len(data), sha256),
            *("text/plain", "text", identity.file_id, datetime.now(UTC)),
        )
        return await house.database.add_share(record)


def change(root: Path, *statements: str) -> None:
    """Do what somebody with the database can."""
    engine = sa.create_engine(url_of(root / "sandbox.db"))
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


SWAPS = {
    "bytes": [
        "UPDATE shares SET stored_name = (SELECT stored_name FROM shares WHERE version = 1),"
        f" sha256 = '{hashlib.sha256(OLD).hexdigest()}', size_bytes = {len(OLD)} WHERE version = 2"
    ],
    "numbers": [
        "UPDATE shares SET version = 3 WHERE version = 1",
        "UPDATE shares SET version = 1 WHERE version = 2",
    ],
    "number": ["DELETE FROM shares WHERE version = 2", "UPDATE shares SET version = 2"],
    "copy": [
        "INSERT INTO shares (share_id, conversation_id, path, name, version, size_bytes, sha256,"
        " media_type, preview, stored_name, created_at) SELECT 'f', conversation_id, path, name, 3,"
        " size_bytes, sha256, media_type, preview, stored_name, created_at FROM shares"
        " WHERE version = 1"
    ],
}


@pytest.mark.parametrize("swap", SWAPS)
@attack("T57")
async def test_an_older_version_is_not_given_for_a_newer_one(tmp_path, swap):
    async with a_house(tmp_path) as house:
        await share(house, OLD)
        assert (await share(house, NEW)).version == 2
        change(tmp_path, *SWAPS[swap])
        newest = await house.database.share(house.conversation, "bill.txt")
        assert newest is not None
        await house.refused(newest.stored)


async def test_every_version_opens_as_the_one_that_it_is(tmp_path):
    async with a_house(tmp_path) as house:
        for data in (OLD, NEW):
            record = await share(house, data)
            assert await house.get(record.stored) == data
        first = await house.database.share(house.conversation, "bill.txt", 1)
        assert first is not None
        assert await house.get(first.stored) == OLD


async def test_a_version_that_another_has_taken_is_not_recorded(tmp_path):
    async with a_house(tmp_path) as house:
        taken = await share(house, OLD)
        again = ShareRecord(**{**vars(taken), "share_id": "1" * 32, "stored_name": "1" * 32})
        with pytest.raises(VersionTaken):
            await house.database.add_share(again)
        assert len(await house.database.shares(house.conversation)) == 1


async def shared_before(house: House, data: bytes, path: str = "bill.txt") -> ShareRecord:
    """Store a file as releases did that sealed no version."""
    version = await house.database.next_version(house.conversation, path)
    identity = FileIdentity(house.conversation, uuid.uuid4().hex, "share", path)
    sealing = Sealing(identity, await house.vault._keys.get_or_make(house.conversation))
    sealing._about = _associated_data(identity, UNVERSIONED_MAGIC)
    digest = hashlib.sha256(data)
    sealed = UNVERSIONED_MAGIC + sealing.header[len(UNVERSIONED_MAGIC) :]
    sealed += bytes(sealing.update(data)) + sealing.finish(len(data), digest.digest())
    area = house.root / "vault" / house.conversation
    area.mkdir(parents=True, exist_ok=True)
    (area / identity.file_id).write_bytes(sealed)
    record = ShareRecord(
        *(identity.file_id, house.conversation, path, path, version, len(data)),
        *(digest.hexdigest(), "text/plain", "text", identity.file_id, datetime.now(UTC)),
    )
    return await house.database.add_share(record)


@attack("T57")
async def test_files_of_earlier_releases_open_as_the_versions_that_they_were(tmp_path):
    async with a_house(tmp_path) as house:
        (tmp_path / UNVERSIONED_NAME).unlink()
        for data in (OLD, NEW):
            await shared_before(house, data)
    async with a_house(tmp_path) as house:  # the first server of this release
        records = await house.database.shares(house.conversation)
        assert {row.version: await house.get(row.stored) for row in records} == {1: OLD, 2: NEW}
        third = await share(house, b"version three")
        change(
            tmp_path,
            "UPDATE shares SET stored_name = (SELECT stored_name FROM shares WHERE version = 1),"
            f" sha256 = '{hashlib.sha256(OLD).hexdigest()}', size_bytes = {len(OLD)}"
            " WHERE version > 1",
        )
        for version in (2, 3):
            row = await house.database.share(house.conversation, "bill.txt", version)
            assert row is not None
            await house.refused(row.stored)
        assert await house.get(third.stored) == b"version three"
        late = await shared_before(house, OLD, "other.txt")  # as no server writes any more
        await house.refused(late.stored)


async def test_a_damaged_list_of_them_stops_the_start_and_says_what_to_do(tmp_path):
    async with a_house(tmp_path):
        assert json.loads((tmp_path / UNVERSIONED_NAME).read_text()) == {}
    (tmp_path / UNVERSIONED_NAME).write_text("[")
    with pytest.raises(Unavailable, match="restore it from a backup"):
        async with a_house(tmp_path):
            pass
