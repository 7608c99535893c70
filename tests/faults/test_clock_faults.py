"""The clock of the host jumps: nobody waits for a time that will not come for long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jupyter_sandbox.stores.database import Database
from tests.claims import claim
from tests.database_url import url_of

from .table import fault

_CLAIM_SECONDS = 30.0


@fault("clock-jumps")
@pytest.mark.parametrize("jump", [timedelta(days=-30), timedelta(days=30)], ids=["back", "forward"])
async def test_a_claim_that_its_server_lost_is_taken_over_whatever_the_clock_says(tmp_path, jump):
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    database = Database(url_of(tmp_path / "sandbox.db"), clock=lambda: now)
    await database.open()
    try:
        record, _ = await database.create_conversation("somebody")
        name = record.conversation_id
        assert await claim(database, name, "lost", _CLAIM_SECONDS)
        assert not await claim(database, name, "other", _CLAIM_SECONDS)
        now += jump
        assert await claim(database, name, "other", _CLAIM_SECONDS)
        assert not await database.extend_claim(name, "lost", _CLAIM_SECONDS)
    finally:
        await database.close()
