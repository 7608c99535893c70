"""A server that is killed in the middle of uploads and shares, fifty times."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import subprocess
import sys

import pytest

from jupyter_sandbox.conversations.sweeping import Sweeping
from jupyter_sandbox.stores.database import Database
from jupyter_sandbox.stores.upload_records import UploadRecords
from jupyter_sandbox.stores.vault_opening import open_vault

_WRITER = """
import asyncio, hashlib, os, pathlib, sys, uuid
from datetime import UTC, datetime
from jupyter_sandbox.conversations.uploads import Uploads
from jupyter_sandbox.models import FileIdentity, Limits, ShareRecord
from jupyter_sandbox.stores.database import Database
from jupyter_sandbox.stores.upload_records import UploadRecords
from jupyter_sandbox.stores.vault_opening import open_vault

class NoSandbox:
    async def place(self, conversation_id, name):
        pass

class NoJournal:
    def add(self, conversation_id, kind, body):
        pass

async def main(root, conversation):
    database = Database(f"sqlite:///{root / 'sandbox.db'}")
    await database.open()
    vault, _ = await open_vault(root, database.connections, {})
    records = UploadRecords(database.connections)
    uploads = Uploads(
        database, records, vault, NoSandbox(), NoJournal(), Limits(), lambda conversation: None
    )

    async def upload(name):
        while True:
            file = await uploads.receive(conversation, name)
            for _ in range(20):
                await file.write(os.urandom(65536))
            await file.keep()
            await file.close()

    async def share(path):
        while True:
            version = await database.next_version(conversation, path)
            identity = FileIdentity(conversation, uuid.uuid4().hex, "share", path, version)
            async with vault.sink(identity, 10**9) as sink:
                for _ in range(20):
                    await sink.write(os.urandom(65536))
                await database.add_share(
                    ShareRecord(
                        identity.file_id, conversation, path, path, version, sink.size_bytes,
                        await sink.commit(), "text/plain", "text", identity.file_id,
                        datetime.now(UTC),
                    )
                )

    print("begun", flush=True)
    await asyncio.gather(*(upload(f"u{n}") for n in range(4)), *(share(f"s{n}") for n in range(2)))

asyncio.run(main(pathlib.Path(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.slow
async def test_after_fifty_kills_each_file_is_whole_or_absent_and_nothing_stray_is_left(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'sandbox.db'}")
    await database.open()
    record, _ = await database.create_conversation("alice")
    conversation = record.conversation_id
    stopped_half = kept_most = 0
    try:
        for _ in range(50):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _WRITER, str(tmp_path), conversation),
                stdout=subprocess.PIPE,
            )
            await asyncio.wait_for(process.stdout.readline(), 60)
            await asyncio.sleep(random.uniform(0, 0.15))
            process.kill()
            await process.wait()
            directory = tmp_path / "vault" / conversation
            found = os.listdir(directory) if directory.exists() else []
            stopped_half += any(name.endswith(".part") for name in found)

            vault, _ = await open_vault(tmp_path, database.connections, {})
            uploads = UploadRecords(database.connections)
            await Sweeping(database, uploads, vault, logging.getLogger()).sweep()
            files = [row.stored for row in await uploads.all(conversation)]
            files += [row.stored for row in await database.shares(conversation)]
            ids = sorted(file.identity.file_id for file in files)
            assert sorted(os.listdir(directory) if directory.exists() else []) == ids
            for file in files:
                async with vault.reading(file) as reader:
                    size = sum([len(piece) async for piece in reader.pieces()])
                assert size == file.size_bytes == 20 * 65536
            kept_most = max(kept_most, len(files))
            for row in await database.shares(conversation):  # the test stays small
                await vault.remove(conversation, row.stored_name)
            await database.connections.run(_delete_shares)
            await vault.close()
    finally:
        await database.close()
    # The kills did come in the middle of something.
    assert stopped_half > 10
    assert kept_most >= 4


def _delete_shares(connection) -> None:
    connection.exec_driver_sql("DELETE FROM shares")
