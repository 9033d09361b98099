"""Backups: the whole database as one SQLite file, whichever database it is taken from, and back into either."""

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from alembic.migration import MigrationContext
from sqlalchemy import JSON, Connection, Engine, MetaData, Table, delete, func, insert, inspect, select

from storage.database import (
    migrate,
    open_database,
    reading,
    schema_is_current,
    take_time,
    unavailable,
    upgrade,
    writing,
)
from storage.errors import (
    BackupExists,
    BackupUnusable,
    BackupUnwritable,
    DatabaseDamaged,
    DatabaseEmpty,
    DatabaseUnavailable,
    SchemaUnknown,
)
from storage.tables import exams, metadata

_ROWS = 1000
"""Held in memory at once."""
_PARTS: Final = ".mammonode-backup-"
"""Begins the names of folders in which backups are made."""
_TAKES: Final = timedelta(hours=12)
"""No backup takes longer; what is older was left by one that was killed."""


def back_up(engine: Engine, file: Path) -> None:
    """Write the database into a new file, as it is at one moment; whoever works with it may go on.

    The file is there, on the disk for good and readable by its owner only, or not at all.

    Raises
    ------
    BackupExists
        When there is such a file.
    DatabaseEmpty
        When the database has no tables.
    SchemaUnknown
        When the database is PostgreSQL and its schema is another version's.
    BackupUnwritable
        When the file cannot be written.
    DatabaseUnavailable
        When the database does not answer or is damaged.
    """
    if not _heads(engine):
        raise DatabaseEmpty
    try:
        if file.exists():
            raise BackupExists(file)
        _tidy(file.parent)
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=_PARTS, ignore_cleanup_errors=True) as folder:
            part = Path(folder) / file.name
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            if engine.dialect.name == "sqlite":
                _copy_pages(_place(engine), part)
            else:
                _write_rows(engine, part)
            _settle(part)
            os.link(part, file)
            _flush(file.parent)
    except FileExistsError as error:
        raise BackupExists(file) from error
    except BackupUnusable as error:
        raise DatabaseDamaged(engine.url.render_as_string()) from error
    except OSError as error:
        raise BackupUnwritable(f"{file}: {error.strerror}") from error
    except (sqlite3.Error, DatabaseUnavailable) as error:
        if words := _of_the_file(error, engine):
            raise BackupUnwritable(f"{file}: {words}") from error
        if isinstance(error, DatabaseUnavailable):
            raise
        raise unavailable(error) or error from error


def _tidy(folder: Path) -> None:
    """Remove what backups that were killed have left in a folder."""
    until = time.time() - _TAKES.total_seconds()
    for left in folder.glob(f"{_PARTS}*"):
        with suppress(OSError):  # another tidies too, or it is somebody else's
            if max(each.stat().st_mtime for each in (left, *left.iterdir())) < until:
                shutil.rmtree(left)


def _of_the_file(error: Exception, engine: Engine) -> str:
    """Return what is wrong with the file that is written; '' where it is the database, which is only read."""
    cause = getattr(error.__cause__, "orig", error)
    if not isinstance(cause, sqlite3.Error):
        return ""
    ours = engine.dialect.name != "sqlite" or cause.sqlite_errorcode == sqlite3.SQLITE_FULL
    return str(cause) if ours else ""


def restore(engine: Engine, file: Path, scratch: Path) -> None:
    """Put what a backup holds in the place of all that the database holds, in this version's schema, or change nothing.

    On PostgreSQL every table of the database is dropped first: it has to be the node's own. A file of SQLite's that is too
    damaged to be written over is put aside, under its name with ``.damaged`` and the time.

    Parameters
    ----------
    scratch
        Folder for a copy of the backup.

    Raises
    ------
    BackupUnusable
        When the file is damaged, or none of ours.
    SchemaUnknown
        When a newer version made it.
    DatabaseUnavailable
        When the database does not answer or is in use, or the disk of ``scratch`` has no room.
    """
    with _opened(file, scratch) as source:
        migrate(source)
        if engine.dialect.name == "sqlite":
            engine.dispose()
            try:
                _copy_over(_place(source), _place(engine))
            except sqlite3.Error as error:
                raise unavailable(error) or error from error
            return
        with writing(engine) as target, reading(source) as rows:
            present = MetaData()
            present.reflect(target)
            present.drop_all(target)
            upgrade(target)
            _copy_rows(rows, target)
            _advance(target)


def holds_exams(engine: Engine) -> bool:
    """Tell whether there is anything in the database that a restore would take away; of any version's schema."""
    with reading(engine) as connection:
        return (
            inspect(connection).has_table(exams.name)
            and connection.execute(select(exams.c.id).limit(1)).first() is not None
        )


def same_schema(engine: Engine, file: Path, scratch: Path) -> bool:
    """Tell whether database and backup have the schema of the same version."""
    with _opened(file, scratch) as backup:
        return _heads(engine) == _heads(backup)


def _heads(engine: Engine) -> tuple[str, ...]:
    with reading(engine) as connection:
        return MigrationContext.configure(connection).get_current_heads()


def _place(engine: Engine) -> Path:
    return Path(str(engine.url.database))


def _copy_pages(source: Path, target: Path) -> None:
    # In one step: on a database with a write-ahead log that is one moment's state, and holds up no writer.
    with (
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as rows,
        closing(sqlite3.connect(target, timeout=30)) as copy,
    ):
        rows.backup(copy)


def _copy_over(source: Path, target: Path) -> None:
    try:
        _copy_pages(source, target)
    except sqlite3.DatabaseError as error:
        if not isinstance(unavailable(error), DatabaseDamaged):
            raise
        aside = f"{target}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        for part in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{target}{part}").rename(f"{aside}{part}")
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        _copy_pages(source, target)


def _settle(file: Path) -> None:
    """Make one file of a database, check it, and write it through to the disk."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise BackupUnusable(file)
    _flush(file)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _opened(file: Path, scratch: Path) -> Iterator[Engine]:
    """Yield a copy of a backup, which may be migrated."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        copy = Path(folder) / "backup.sqlite"
        try:
            _copy_pages(file, copy)
            _settle(copy)
        except sqlite3.Error as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise DatabaseUnavailable(f"{scratch}: {error}") from error
            raise BackupUnusable(f"{file}: {error}") from error
        engine = open_database(f"sqlite:///{copy}")
        try:
            if not _heads(engine):
                raise BackupUnusable(file)
            yield engine
        finally:
            engine.dispose()


def _write_rows(engine: Engine, file: Path) -> None:
    if not schema_is_current(engine):
        raise SchemaUnknown
    copy = open_database(f"sqlite:///{file}")
    try:
        migrate(copy)
        with (
            engine.connect().execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True) as rows,
            rows.begin(),
            writing(copy) as target,
        ):
            take_time(rows)
            _copy_rows(rows, target)
    finally:
        copy.dispose()


def _copy_rows(source: Connection, target: Connection) -> None:
    """Copy all rows of our tables, in place of those that the migrations have made."""
    source = source.execution_options(yield_per=_ROWS)
    for table in metadata.sorted_tables:
        target.execute(delete(table))
        for rows in source.execute(select(table)).mappings().partitions():
            target.execute(insert(_with_nulls(table)), [dict(row) for row in rows])


def _with_nulls(table: Table) -> Table:
    """Return a table into which None goes as NULL, in columns of JSON too."""
    copy = table.to_metadata(MetaData())
    for column in copy.columns:
        if isinstance(column.type, JSON):
            column.type = JSON(none_as_null=True)
    return copy


def _advance(connection: Connection) -> None:
    """Let PostgreSQL number what comes next after what was restored."""
    for table in metadata.sorted_tables:
        if (column := table.autoincrement_column) is not None:
            sequence = func.pg_get_serial_sequence(table.name, column.name)
            following = select(func.coalesce(func.max(column), 0) + 1).scalar_subquery()
            connection.execute(select(func.setval(sequence, following, False)))  # noqa: FBT003 (SQL's own)
