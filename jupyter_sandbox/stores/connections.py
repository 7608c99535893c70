"""Where database work runs: threads of its own, never the event loop.

SQLite has one thread with one connection, so writers of this process queue here, fairly between
owners, instead of waiting for each other's file lock; other databases have a small pool. Every
connection is in autocommit mode: each operation of the database is one statement, or a
compare-and-set that is tried again. The rule: no exception of SQLAlchemy or Alembic leaves this
file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.pool import NullPool

from ..errors import DiskFull, SandboxError, Unavailable
from ..fair_turns import FairTurns
from .database_file import DatabaseFile
from .file_space import free_pages_later, give_back, rewrite_once
from .migrating import bring_up_to_date

T = TypeVar("T")

_BUSY_SECONDS = 5.0
_LEAST_BUSY_SECONDS = 0.05
_LOCKED_SECONDS = 0.5  # while it is known to be locked
_LOG_SECONDS = 0.2  # for readers of the log that is to be emptied
_ANSWER_SECONDS = 20.0  # of one piece of work, its place in the queue included
_CONNECT_SECONDS = 5
_POOL = 4
_WAITING = 2048  # pieces of work of one owner
_LEAST_FREE_BYTES = 16 * 2**20


_NO_ROOM = "the disk of the sandbox database is full"
_POSTGRESQL_FULL = "53100"  # disk_full, of its error codes
_FAILURES = {
    "SQLITE_BUSY": "the sandbox database is locked by another program",
    "SQLITE_LOCKED": "the sandbox database is locked by another program",
    "SQLITE_CORRUPT": "the sandbox database is damaged",
    "SQLITE_NOTADB": "the sandbox database is damaged",
}


class Connections:
    """Runs work on a connection to ``db_url``.

    Parameters
    ----------
    db_url : str
        A SQLAlchemy URL, e.g. ``sqlite:////var/lib/x/sandbox.db`` or ``sqlite://`` (in memory).
    """

    def __init__(self, db_url: str) -> None:
        self._url = _parse(db_url)
        self._sqlite = self._url.get_backend_name() == "sqlite"
        self._turns = FairTurns("Records", 1 if self._sqlite else _POOL, waiting=_WAITING)
        self._engine: sa.Engine | None = None
        self._single: sa.Connection | None = None  # only touched in the one thread of SQLite
        self._file = DatabaseFile(self._url.database) if self._sqlite else None
        self._busy_seconds = _BUSY_SECONDS  # as the connection has it
        self._is_locked = False  # somebody has waited for a lock in vain, and nobody had it since
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._engine is not None else "new"
        return f"<Connections {self._url.render_as_string(hide_password=True)} {state}>"

    async def open(self) -> None:
        """Connect, and create or migrate the tables. Twice is once."""
        await self._submit(self._open)

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Run ``work`` in a thread with a connection; give what it gives.

        Raises
        ------
        Unavailable
            The database does not answer, or it is not open. What is under way then may still be
            done, later.
        LimitExceeded
            429: too much work of this owner waits already.
        """
        asked_at = time.monotonic()
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await self._submit(lambda: self._work(work, asked_at))
        except TimeoutError:
            raise Unavailable("the sandbox database does not answer", status=504) from None

    async def check(self) -> None:
        """Find out whether it could be written to now; ``Unavailable`` says why not."""
        await self.run(_try_to_write if self._sqlite else _try_to_read)
        if self._file is not None:
            free = await self._submit(self._file.free_bytes)
            if free is not None and free < _LEAST_FREE_BYTES:
                raise DiskFull(_NO_ROOM)

    async def empty_log(self) -> bool:
        """Write what SQLite's log holds into the file and cut it; False: somebody still reads it.

        Others wait meanwhile, so a reader is given a moment only. Other databases empty theirs.
        """
        return not self._sqlite or await self.run(_empty_log)

    async def give_back(self) -> None:
        """Give the room of what was deleted back to the disk; others get their turns meanwhile."""
        while await self.run(give_back):
            pass

    async def close(self) -> None:
        """Disconnect and end the threads, after the work that is under way. Twice is once."""
        if self._closed:
            return
        self._closed = True
        await asyncio.shield(self._finish())

    async def _finish(self) -> None:
        await self._turns.finish()
        await self._turns.run(self._close)
        self._turns.close()

    async def _submit(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise Unavailable("the sandbox database is closed", status=503)
        return await self._turns.run(_translated, work)

    def _work(self, work: Callable[[sa.Connection], T], asked_at: float) -> T:
        if self._engine is None:
            raise Unavailable("the sandbox database is not open", status=503)
        if not self._sqlite:
            with self._engine.connect() as connection:
                return work(connection)
        assert self._file is not None
        if self._single is not None and self._file.has_changed():
            self._leave_file(self._single)
        if self._single is None or self._single.closed:
            self._connect_again(self._engine)
        assert self._single is not None
        try:
            patience = _LOCKED_SECONDS if self._is_locked else _BUSY_SECONDS
            self._be_patient(self._single, patience - (time.monotonic() - asked_at))
            done = work(self._single)
        except SQLAlchemyError as exc:
            self._is_locked = _sqlite_name(exc).startswith("SQLITE_BUSY")
            self._drop_single()  # the next one connects anew
            raise
        self._is_locked = False
        return done

    def _be_patient(self, connection: sa.Connection, seconds: float) -> None:
        """Let it wait for a lock for what is left of the time: the queue has taken its part.

        Else who comes last while another program holds the lock would wait once for each that
        came before.
        """
        seconds = max(seconds, _LEAST_BUSY_SECONDS)
        if seconds < 0.9 * _BUSY_SECONDS or self._busy_seconds < _BUSY_SECONDS:
            self._busy_seconds = seconds
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    def _leave_file(self, single: sa.Connection) -> None:
        """Let go of a file that is not at its place any more; one that was deleted is saved."""
        assert self._file is not None
        saved = self._file.save(single)
        # Its log would be taken for that of the file that is there now.
        with contextlib.suppress(SQLAlchemyError):
            single.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        self._single = None
        single.close()
        if saved is not None:
            self._file.put_back(saved)

    def _connect_again(self, engine: sa.Engine) -> None:
        assert self._file is not None
        self._file.require()
        single = _connect_sqlite(engine)
        self._busy_seconds = _BUSY_SECONDS
        try:
            if self._file.has_changed():  # put there by somebody: perhaps of an earlier version
                bring_up_to_date(single)
            self._file.note()
        except BaseException:
            single.close()
            raise
        self._single = single

    def _open(self) -> None:
        if self._engine is not None:
            return
        if self._sqlite:
            _create_private(self._url.database)
            # hide_parameters: results of calls must not get into a log.
            engine = sa.create_engine(
                self._url,
                poolclass=NullPool,
                isolation_level="AUTOCOMMIT",
                hide_parameters=True,
                connect_args={"timeout": _BUSY_SECONDS},
            )
            single = _connect_sqlite(engine)
            try:
                bring_up_to_date(single)
                assert self._file is not None
                rewrite_once(single, self._file.free_bytes())
            except BaseException:
                single.close()
                engine.dispose()
                raise
            self._single = single
            self._file.note()
        else:
            plain = sa.create_engine(
                _bounded(self._url), pool_size=_POOL, pool_pre_ping=True, hide_parameters=True
            )
            try:
                with plain.begin() as connection:
                    bring_up_to_date(connection)
            except BaseException:
                plain.dispose()
                raise
            engine = plain.execution_options(isolation_level="AUTOCOMMIT")
        self._engine = engine

    def _drop_single(self) -> None:
        single, self._single = self._single, None
        if single is not None and self._url.database not in (None, "", ":memory:"):
            with contextlib.suppress(SQLAlchemyError):
                single.close()
        elif single is not None:  # in memory the connection is the database
            single.rollback()
            self._single = single

    def _close(self) -> None:
        with contextlib.suppress(SQLAlchemyError):
            if self._single is not None:
                self._single.close()
            if self._engine is not None:
                self._engine.dispose()
        self._single = self._engine = None


@contextlib.contextmanager
def transaction(connection: sa.Connection) -> Iterator[None]:
    """Do several statements as one, or none of them.

    On SQLite it is a write from its beginning: what is read first is not overtaken.
    """
    begin = "BEGIN IMMEDIATE" if connection.dialect.name == "sqlite" else "BEGIN"
    connection.exec_driver_sql(begin)
    try:
        yield
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise


def sqlite_path(db_url: str) -> str:
    """Return the path of the file of a SQLite URL; "" for any other, and for one that is none."""
    try:
        url = sa.make_url(db_url)
    except sa.exc.ArgumentError:
        return ""
    return url.database or "" if url.get_backend_name() == "sqlite" else ""


def why_wrong_url(db_url: str) -> str:
    """Say why a URL is that of no database we could use; "" if it is. Connects to nothing."""
    try:
        url = sa.make_url(db_url)
        url.get_dialect().import_dbapi()
    except (NoSuchModuleError, ImportError) as exc:
        return f"no driver for it is installed: {exc}"
    except ArgumentError:
        return "is no database URL"
    if url.get_backend_name() == "sqlite" and not DatabaseFile(url.database).is_absolute:
        return "the path of a SQLite file must be absolute: sqlite:////PATH, with four slashes"
    return ""


def _parse(db_url: str) -> URL:
    try:
        return sa.make_url(db_url)
    except ArgumentError as exc:
        raise Unavailable("db_url is not a database URL", status=503) from exc


def _bounded(url: URL) -> URL:
    """Let PostgreSQL's client give up on a host that does not answer, unless it is told when."""
    if url.get_backend_name() != "postgresql" or "connect_timeout" in url.query:
        return url
    return url.update_query_dict({"connect_timeout": str(_CONNECT_SECONDS)})


def _translated(work: Callable[[], T]) -> T:
    try:
        return work()
    except SandboxError:
        raise
    except NoSuchModuleError as exc:
        raise Unavailable("no driver for db_url is installed", status=503, detail=str(exc)) from exc
    except DatabaseError as exc:
        if _is_full(exc):
            raise DiskFull(_NO_ROOM, detail=str(exc)) from exc
        raise Unavailable(_what_failed(exc), detail=str(exc)) from exc
    except SQLAlchemyError as exc:
        raise Unavailable("the sandbox database failed", detail=str(exc)) from exc
    except Exception as exc:
        if type(exc).__module__.partition(".")[0] != "alembic" and not isinstance(exc, OSError):
            raise
        text = "the sandbox database cannot be opened or brought up to date by this version"
        raise Unavailable(text, status=503, detail=str(exc)) from exc


def _what_failed(error: DatabaseError) -> str:
    """Give in words what is wrong; by SQLite's name for it where it has one."""
    name = _sqlite_name(error)
    for beginning, words in _FAILURES.items():
        if name.startswith(beginning):
            return words
    is_down = isinstance(error, OperationalError)
    return "the sandbox database does not answer" if is_down else "the sandbox database failed"


def _is_full(error: DatabaseError) -> bool:
    is_postgresql = getattr(error.orig, "sqlstate", "") == _POSTGRESQL_FULL
    return is_postgresql or _sqlite_name(error).startswith("SQLITE_FULL")


def _sqlite_name(error: SQLAlchemyError) -> str:
    return str(getattr(getattr(error, "orig", None), "sqlite_errorname", ""))


def _try_to_write(connection: sa.Connection) -> None:
    connection.exec_driver_sql("PRAGMA busy_timeout = 1000")
    try:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        connection.exec_driver_sql("ROLLBACK")
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(_BUSY_SECONDS * 1000)}")


def _empty_log(connection: sa.Connection) -> bool:
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(_LOG_SECONDS * 1000)}")
    try:
        is_busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(_BUSY_SECONDS * 1000)}")
    return not is_busy


def _try_to_read(connection: sa.Connection) -> None:
    connection.exec_driver_sql("SELECT 1")


def _create_private(path: str | None) -> None:
    """Make the file ours alone; its journal files take over the mode."""
    if path and path != ":memory:" and not path.startswith("file:"):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _connect_sqlite(engine: sa.Engine) -> sa.Connection:
    connection = engine.connect()
    try:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(_BUSY_SECONDS * 1000)}")
        free_pages_later(connection)
        connection.exec_driver_sql("PRAGMA foreign_keys = ON")
        # A deleted row is overwritten: the wrapped key of a deleted conversation must be gone.
        connection.exec_driver_sql("PRAGMA secure_delete = ON")
        connection.exec_driver_sql("PRAGMA synchronous = NORMAL")
        _use_wal(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: sa.Connection) -> None:
    """Switch to a write-ahead log. The switch itself does not wait for others, so we do."""
    ends_at = time.monotonic() + _BUSY_SECONDS
    while connection.exec_driver_sql("PRAGMA journal_mode").scalar() not in ("wal", "memory"):
        try:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        except OperationalError:
            if time.monotonic() > ends_at:
                raise
            time.sleep(0.01)
        else:
            break  # a file system without shared memory stays as it is
