"""What is stored, on PostgreSQL: the tests of the stores once more, and a server that goes away."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from jupyter_sandbox.errors import Unavailable
from jupyter_sandbox.stores.database import Database
from tests.sealed_rows import calls_of

ROOT = Path(__file__).parents[2]
FILES = (
    *("test_database.py", "test_places.py", "test_pool_records.py", "test_session_records.py"),
    *("test_housekeeping.py", "test_journal.py", "test_audit.py", "test_directories.py"),
    *("test_vault.py", "test_kept_bytes.py", "faults/test_clock_faults.py"),
    "test_audit_tail.py::test_rows_go_with_their_age_and_what_is_left_is_whole",
    "test_audit_tail.py::test_a_log_of_an_earlier_release_goes_on_and_is_sealed_from_then_on",
    "test_older_versions.py::test_every_version_opens_as_the_one_that_it_is",
)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_tests_of_the_stores_pass_on_postgresql(cluster):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-m", "not sqlite", *(f"{ROOT}/tests/{each}" for each in FILES)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment["JSBX_TEST_POSTGRESQL"] = str(cluster.directory)
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=380
    )
    print(done.stdout[-6000:])
    assert done.returncode == 0
    passed = re.search(r"^(\d+) passed", done.stdout.splitlines()[-1])
    assert passed
    assert int(passed[1]) > 150


async def test_while_it_is_away_calls_say_so_and_go_on_when_it_is_back(cluster):
    database = Database(cluster.url())
    await database.open()
    try:
        made, _ = await database.create_conversation("alice")
        cluster.stop()
        began = time.monotonic()
        with pytest.raises(Unavailable, match="the sandbox database does not answer"):
            await asyncio.wait_for(database.conversation(made.conversation_id), 30)
        assert time.monotonic() - began < 10
        cluster.start()
        found = await database.conversation(made.conversation_id)
        assert found is not None
        assert found.owner == "alice"
    finally:
        await database.close()


async def test_what_it_says_of_a_failure_has_no_stored_value(cluster):
    database = Database(cluster.url())
    await database.open()
    try:
        other = sa.create_engine(cluster.url())
        with other.begin() as connection:
            connection.exec_driver_sql("DROP TABLE calls")
        other.dispose()
        with pytest.raises(Unavailable, match="the sandbox database failed") as caught:
            await calls_of(database).finish("c1", {"secret": "hunter2"})
        assert "hunter2" not in caught.value.detail
    finally:
        await database.close()


async def test_a_host_that_does_not_answer_is_given_up_soon():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and says nothing
        port = silent.getsockname()[1]
        database = Database(f"postgresql+psycopg://nobody@127.0.0.1:{port}/nothing")
        began = time.monotonic()
        with pytest.raises(Unavailable, match="the sandbox database does not answer"):
            await database.open()
        assert time.monotonic() - began < 15
        await database.close()
