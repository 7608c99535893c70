"""Gives the room of deleted rows back to the disk, on SQLite; other databases do it themselves.

A file made by this version frees its unused pages bit by bit (``auto_vacuum = INCREMENTAL``). One
of an earlier version has to be written anew once: at a start, if what it holds fits into memory and
onto its disk; else it reuses its pages and says so. The rule: each step is short.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

_LOG = logging.getLogger(__name__)
_INCREMENTAL = 2
_PAGES_AT_ONCE = 1024  # 4 MiB: 0.15 s at most where they have to be moved
_MOST_UNUSED_PAGES = 256
_MOST_LOG_PAGES = 2048
_MOST_REWRITTEN_BYTES = 256 * 1024**2  # in memory, so that nothing lies in plain elsewhere


def free_pages_later(connection: sa.Connection) -> None:
    """Let a new file free pages; before anything is written to it. Changes no other."""
    if not _number(connection, "page_count"):
        connection.exec_driver_sql(f"PRAGMA auto_vacuum = {_INCREMENTAL}")


def rewrite_once(connection: sa.Connection, free_bytes: int | None) -> None:
    """Write a file of an earlier version anew, so that it can free pages. Blocks, up to seconds."""
    if _number(connection, "auto_vacuum") == _INCREMENTAL:
        return
    used = _number(connection, "page_count") - _number(connection, "freelist_count")
    size = used * _number(connection, "page_size")
    if size > _MOST_REWRITTEN_BYTES or (free_bytes is not None and free_bytes < 3 * size):
        _LOG.warning(
            "the sandbox database has %d MiB: deleted rows make room in its file, which does not "
            "become smaller. To change that, stop all servers and run: "
            "sqlite3 sandbox.db 'PRAGMA auto_vacuum = INCREMENTAL; VACUUM'",
            size >> 20,
        )
        return
    try:
        connection.exec_driver_sql("PRAGMA temp_store = MEMORY")
        connection.exec_driver_sql(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
        connection.exec_driver_sql("VACUUM")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    except SQLAlchemyError as exc:  # another server has it open: at the next start
        _LOG.warning("the sandbox database was not written anew: %s", exc)
    finally:
        connection.exec_driver_sql("PRAGMA temp_store = DEFAULT")


def give_back(connection: sa.Connection) -> bool:
    """Free some unused pages; False if there were few. Then the write-ahead log is cut, too."""
    if connection.dialect.name != "sqlite":
        return False
    unused = _number(connection, "freelist_count")
    if unused > _MOST_UNUSED_PAGES and _number(connection, "auto_vacuum") == _INCREMENTAL:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        # As a script: each page is a step of the statement, and `execute` does one.
        driver.executescript(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})")
        return True
    busy, pages, _ = connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").one()
    if not busy and pages > _MOST_LOG_PAGES:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return False


@contextlib.contextmanager
def without_overwriting(connection: sa.Connection) -> Iterator[None]:
    """Delete without writing zeros over it: for sealed values, which nobody opens without a key.

    Overwriting 250 MiB takes two seconds, in which nobody else gets at the database.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    connection.exec_driver_sql("PRAGMA secure_delete = FAST")
    try:
        yield
    finally:
        connection.exec_driver_sql("PRAGMA secure_delete = ON")


def _number(connection: sa.Connection, pragma: str) -> int:
    return int(connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one())
