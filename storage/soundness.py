"""Whether a database is whole, and lets this node write: what opening it does not tell."""

import sqlite3
from contextlib import closing
from threading import Timer
from typing import Final

from sqlalchemy import Engine, false, update

from storage.database import unavailable, writing
from storage.errors import DatabaseDamaged
from storage.tables import metadata

LOOKS_FOR: Final = 10.0
"""Seconds; of a large file, which takes longer, a part has been looked at then."""


def try_writing(engine: Engine) -> None:
    """Ask whether every table may be written, and change nothing.

    Raises
    ------
    DatabaseUnavailable
        When one may not.
    """
    with writing(engine) as connection:
        for table in metadata.sorted_tables:
            column = next(iter(table.columns))
            connection.execute(update(table).where(false()).values({column: column}))


def is_whole(engine: Engine, seconds: float = LOOKS_FOR) -> bool:
    """Look through a file of SQLite's for damage; tell whether the time sufficed. A server looks after its own.

    Raises
    ------
    DatabaseUnavailable
        When it is damaged, or cannot be read.
    """
    if engine.dialect.name != "sqlite":
        return True
    place = str(engine.url.database)
    try:
        with closing(sqlite3.connect(place, isolation_level=None, check_same_thread=False)) as connection:
            timer = Timer(seconds, connection.interrupt)
            timer.start()
            try:
                found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            finally:
                timer.cancel()
                timer.join()
    except sqlite3.Error as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return False
        raise unavailable(error) or error from error
    if found != "ok":
        raise DatabaseDamaged(place)
    return True
