"""The tests of this folder are synchronous and have servers of their own."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def jp_asyncio_loop():
    """Take the place of pytest-jupyter's: no server runs in this process."""


@pytest.fixture(autouse=True)
def jp_server_cleanup():
    """Likewise."""
