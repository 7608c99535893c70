"""Two real servers whose database is PostgreSQL: they share conversations, and outlive each other."""

from __future__ import annotations

import signal

import pytest

from tests.crash.test_two_servers import adopted, begin, check, make, running_pair, wait_for


@pytest.mark.slow
@pytest.mark.bubblewrap
def test_conversations_outlive_servers_and_a_restart_of_their_database(cluster):
    with running_pair("bubblewrap", f"--SandboxApp.db_url={cluster.url()}") as pair:
        first, second = pair.start(), pair.start()
        conversation = make(first)
        begin(first, conversation)
        check(second, conversation)
        pair.signal(first, signal.SIGKILL)
        check(second, conversation)
        cluster.stop()
        cluster.start()
        check(second, conversation)
        pair.signal(second, signal.SIGKILL)
        third = pair.start()
        wait_for(lambda: adopted(third) >= 1, "adoption before any call")
        check(third, conversation)
        assert not (pair.base / "data" / "sandbox.db").exists()
