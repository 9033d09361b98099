"""Whether anything was committed since one looked: cheaper than to look again."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from storage.database import unavailable

SETTLES: Final = 10.0
"""Seconds since the write-ahead log was written after which it is taken to hold no transaction that is yet to be committed."""
ASKS_EVERY: Final = 30.0
"""Seconds after which SQLite is asked though its log is the same: the flush before a commit has taken longer than that."""

Version = int | str


class Changes(Protocol):
    """Tells what is committed to a database, by whomever."""

    def version(self) -> Version | None:
        """Return what is another after every commit; None where that is not known."""

    def close(self) -> None:
        """Let go of the database."""


def changes_of(engine: Engine) -> Changes:
    """Return what tells of a database's commits.

    Raises
    ------
    DatabaseUnavailable
        When one of SQLite cannot be opened.
    """
    return PostgreSQLChanges(engine) if engine.dialect.name == "postgresql" else SQLiteChanges(engine)


class SQLiteChanges:
    """Counts commits by SQLite's PRAGMA data_version.

    Every connection of this process is another than its own, so that nothing is missed; a reader in the middle of a
    transaction is not held up. Costs 0.02 ms, where the smallest question to the database costs some 0.5 ms. After a
    second's sleep it costs 5.6 ms where to look at the log's file costs 1.3: so that is looked at first, since whatever is
    committed is written into it before.

    Parameters
    ----------
    engine
        Of the database.
    clock
        Gives the time of the file system, in seconds.

    Raises
    ------
    DatabaseUnavailable
        When it cannot be opened.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        # Where the file is a link, SQLite's log lies beside what it names.
        self._log = Path(f"{Path(str(engine.url.database)).resolve()}-wal")
        self._clock = clock
        self._lock = Lock()
        self._version: int | None = None
        self._settled: tuple[int, ...] | None = None
        self._asked_at = 0.0
        self._connection: Any = None
        try:
            self._connection = engine.raw_connection()
        except sqlite3.Error as error:
            raise unavailable(error) or error from error
        self._connection.detach()

    def version(self) -> int | None:
        """Return a number that changes with every commit; None where that is not known."""
        with self._lock:
            if self._connection is None:
                return None
            now, log = self._clock(), self._log_written()
            if log is None or log != self._settled or not 0 <= now - self._asked_at < ASKS_EVERY:
                try:
                    self._version = int(self._connection.cursor().execute("PRAGMA data_version").fetchone()[0])
                except sqlite3.Error:
                    self._version = log = None
                self._settled = log if log and now - log[-1] / 1e9 > SETTLES else None
                self._asked_at = now
            return self._version

    def _log_written(self) -> tuple[int, ...] | None:
        try:
            told = self._log.stat()
        except OSError:
            return None
        return told.st_ino, told.st_size, told.st_mtime_ns

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None


class PostgreSQLChanges:
    """Compares what a transaction that began now would see.

    A snapshot names the transactions that have ended, all but those that never wrote. So long as it is the same, the rows are; it
    changes with every commit, of other databases of the server too (pg_current_snapshot(), PostgreSQL 13 and later).

    Parameters
    ----------
    engine
        Of the database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._connection: Connection | None = None
        self._is_closed = False

    def version(self) -> str | None:
        """Return the snapshot; None while the server does not tell it."""
        with self._lock:
            if self._is_closed:
                return None
            try:
                if self._connection is None:
                    self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                    self._connection.detach()
                return str(self._connection.exec_driver_sql("SELECT pg_current_snapshot()::text").scalar_one())
            except (DBAPIError, PoolTimeout):
                self._let_go()
                return None

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._is_closed = True
            self._let_go()

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(DBAPIError):
                connection.close()
