"""Brings the tables up to date, once, whoever comes first.

An open of a current database costs one SELECT: Alembic (a third of a second of imports) is loaded
only when there is something to do. The rule: whoever migrates holds the database's own write lock,
so that two processes opening at once do it once; the second one finds it done.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from .schema import HEAD

_ADVISORY_LOCK = 0x6A737862  # any constant: the number of our lock in PostgreSQL
_ALEMBIC = threading.Lock()
"""Alembic's context is global to the process: two databases must not migrate at the same time."""

_REVISION = sa.text("SELECT version_num FROM alembic_version")


def bring_up_to_date(connection: sa.Connection) -> bool:
    """Create or migrate the tables. Blocks; gives whether there was anything to do.

    Parameters
    ----------
    connection : Connection
        Of SQLite in autocommit mode, of others inside a transaction.
    """
    if _revision(connection) == HEAD:
        return False
    with _ALEMBIC, _locked(connection):
        if _revision(connection) == HEAD:
            return False
        _upgrade(connection)
    return True


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    value = connection.execute(_REVISION).scalar()
    return None if value is None else str(value)


@contextlib.contextmanager
def _locked(connection: sa.Connection) -> Iterator[None]:
    if connection.dialect.name == "postgresql":
        # Released with the transaction.
        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
    if connection.dialect.name != "sqlite":
        yield
        return
    connection.exec_driver_sql("BEGIN IMMEDIATE")  # waits for busy_timeout
    try:
        yield
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    location = str(Path(__file__).with_name("migrations"))
    config.set_main_option("script_location", location.replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
