"""Whether anything was committed since one looked: cheaper than to look again."""

import sqlite3
from threading import Lock
from typing import Any

from sqlalchemy import Engine

from storage.database import unavailable


class Changes:
    """Counts what others commit to a SQLite database; one of PostgreSQL does not tell.

    Every connection of this process is another than its own, so that nothing is missed; a reader in the middle of a
    transaction is not held up. Costs 0.02 ms, where the smallest question to the database costs some 0.5 ms.

    Parameters
    ----------
    engine
        Of the database.

    Raises
    ------
    DatabaseUnavailable
        When it cannot be opened.
    """

    def __init__(self, engine: Engine) -> None:
        self._lock = Lock()
        self._connection: Any = None
        if engine.dialect.name == "sqlite":
            try:
                self._connection = engine.raw_connection()
            except sqlite3.Error as error:
                raise unavailable(error) or error from error
            self._connection.detach()

    def version(self) -> int | None:
        """Return a number that changes with every commit; None where that is not known (SQLite's PRAGMA data_version)."""
        if self._connection is None:
            return None
        with self._lock:
            try:
                return int(self._connection.cursor().execute("PRAGMA data_version").fetchone()[0])
            except sqlite3.Error:
                return None

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None
