"""A PostgreSQL server for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .cluster import Cluster, programs


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    found = programs()
    assert found is not None, "PostgreSQL is not installed (Debian: postgresql)"
    cluster = Cluster(found)
    try:
        yield cluster
    finally:
        cluster.close()
