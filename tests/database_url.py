"""Where a test's database is: SQLite in the test's directory, or on a PostgreSQL that was started.

``JSBX_TEST_POSTGRESQL`` is the directory of that server's socket (``tests/postgresql``); a database
is made in it for each path, so that two that open the same path share it, in any process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, ProgrammingError

USER = "sandbox"


def url_of(path: Path) -> str:
    """Give the URL of the database that a test has at this path; it is empty at first."""
    sockets = os.environ.get("JSBX_TEST_POSTGRESQL")
    if not sockets:
        return f"sqlite:///{path}"
    name = "t" + hashlib.sha256(str(path).encode()).hexdigest()[:20]
    engine = sa.create_engine(postgresql_url(sockets, "postgres"), isolation_level="AUTOCOMMIT")
    with (
        contextlib.suppress(ProgrammingError, IntegrityError),  # it is there
        engine.connect() as connection,
    ):
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return postgresql_url(sockets, name)


def postgresql_url(sockets: str | Path, name: str) -> str:
    """Give the URL of a database of the server with its socket in this directory."""
    return f"postgresql+psycopg://{USER}@/{name}?host={sockets}"
