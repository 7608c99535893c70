"""Brings the tables up to date, once, whoever comes first.

An open of a current database costs one SELECT. A new database gets its tables from the schema as it
is now; Alembic (a third of a second of imports) is loaded only to migrate an older one. The rule:
whoever migrates holds the database's own write lock, so that two processes opening at once do it
once; the second one finds it done.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from .schema import HEAD, metadata

_ADVISORY_LOCK = 0x6A737862  # any constant: the number of our lock in PostgreSQL
_ALEMBIC = threading.Lock()
"""Alembic's context is global to the process: two databases must not migrate at the same time."""

_ALEMBIC_VERSION = sa.Table(  # as Alembic itself makes it
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
_REVISION = sa.select(_ALEMBIC_VERSION.c.version_num)


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
        revision = _revision(connection)
        if revision == HEAD:
            return False
        if revision is None:
            _create(connection)
        else:
            migrate(connection, HEAD)
    return True


def migrate(connection: sa.Connection, revision: str) -> None:
    """Run the migrations up to a revision, from none in an empty database. Blocks."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    location = str(Path(__file__).with_name("migrations"))
    config.set_main_option("script_location", location.replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


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


def _create(connection: sa.Connection) -> None:
    """Create all tables, as the newest revision has them, and Alembic's table of the revision."""
    metadata.create_all(connection, checkfirst=False)
    _ALEMBIC_VERSION.create(connection)
    connection.execute(_ALEMBIC_VERSION.insert().values(version_num=HEAD))
