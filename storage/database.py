"""Opening the database, its schema, and the only two ways into it: ``reading`` and ``writing``."""

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Integer,
    Select,
    Table,
    bindparam,
    column,
    create_engine,
    event,
    func,
    inspect,
    select,
    table,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, NotSupportedError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.sql.dml import ReturningInsert

from storage.errors import (
    DatabaseDamaged,
    DatabaseRefuses,
    DatabaseUnavailable,
    DatabaseURLUnknown,
    DriverMissing,
    SchemaUnknown,
)
from storage.tables import installation

_BUSY_SECONDS = 30.0
_PATIENCE: Final = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""How soon a PostgreSQL server that the network took away is given up; Linux alone waits a quarter of an hour (tcp(7))."""
_BOUNDS: Final = {"lock_timeout": "30s", "idle_in_transaction_session_timeout": "60s"}
"""How long a transaction waits for what another has locked, and holds its own locks while nothing is heard of it.

Without the second, those of a host that lost its power stay for two hours (tcp(7), tcp_keepalive_time).
"""
_MIGRATION_LOCK = 0x4D414D4D  # any number, the same in every process
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, "XX001", "XX002"})
"""SQLite's primary result codes, and SQLSTATEs of PostgreSQL (its manual, Appendix A)."""
_REFUSED: Final = frozenset({sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, "42501", "25006"})
_TABLES_ABSENT: Final = frozenset({"42P01", "42703", "3F000"})
"""Of PostgreSQL; SQLite's errors of this kind are operational ones."""


def open_database(url: str) -> Engine:
    """Return an engine for ``sqlite:///FILE`` or ``postgresql://USER@HOST/NAME``.

    A SQLite file is made when absent, readable by its owner only. Nothing else is written: see ``migrate``.

    Raises
    ------
    DatabaseURLUnknown
        When the URL names neither; a SQLite database in memory would not survive a power cut and is refused too.
    DriverMissing
        When the PostgreSQL driver is not installed.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise DatabaseURLUnknown from None  # the text may hold a password
    match parsed.get_backend_name():
        case "sqlite" if parsed.database not in {None, "", ":memory:"}:
            return _open_sqlite(parsed)
        case "postgresql":
            return _open_postgresql(parsed)
        case _:
            raise DatabaseURLUnknown(parsed.render_as_string(hide_password=True))


def sqlite_file(url: str) -> Path | None:
    """Return the file of a SQLite database, whatever links lead to it; None for another's URL."""
    with suppress(ArgumentError):
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            return Path(parsed.database).resolve()
    return None


def _open_sqlite(url: URL) -> Engine:
    path = Path(str(url.database)).absolute()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except PermissionError as error:
        raise DatabaseRefuses(error) from error
    except OSError as error:
        raise DatabaseUnavailable(error) from error
    engine = create_engine(
        url.set(drivername="sqlite", database=str(path)),
        connect_args={"timeout": _BUSY_SECONDS},
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        # The driver must not begin transactions by itself: "begin" below says which kind.
        connection.isolation_level = None
        _use_write_ahead_log(connection)
        # FULL: with NORMAL the last commits may be lost by a power cut after success was answered.
        connection.execute("PRAGMA synchronous=FULL")
        # 16 MB: among a million images a checkpoint held up every 30th commit by 10 ms at 4 MB, now every 130th by 22.
        connection.execute("PRAGMA wal_autocheckpoint=4000")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and writes later cannot wait for another writer; an IMMEDIATE one does.
        reads_only = connection.get_execution_options().get("postgresql_readonly", False)
        connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")

    return engine


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # SQLite does not wait for its busy timeout when two connections change the journal mode at once.
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _open_postgresql(url: URL) -> Engine:
    # What the URL says of these (libpq's own names) goes first.
    patience = {name: value for name, value in _PATIENCE.items() if name not in url.query}
    try:
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"), pool_pre_ping=True, connect_args=patience, hide_parameters=True
        )
    except ModuleNotFoundError as error:
        raise DriverMissing(error.name) from error

    @event.listens_for(engine, "connect")
    def bound(connection: Any, _record: object) -> None:
        # What the server was told by others goes first.
        statement = "SELECT set_config(%(name)s, %(value)s, false) WHERE current_setting(%(name)s) = '0'"
        for name, value in _BOUNDS.items():
            connection.execute(statement, {"name": name, "value": value})
        connection.commit()

    @event.listens_for(engine, "checkin")
    def as_the_server_says(connection: Any, _record: object) -> None:
        # After READ ONLY, SQLAlchemy asks for READ WRITE: a standby calls that not supported (0A000), not refused (25006).
        if connection is not None:
            connection.read_only = None

    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Yield a connection whose changes are committed together at the end, or not at all.

    On SQLite there is one writer at a time: do nothing slow inside.

    Raises
    ------
    DatabaseUnavailable
        When the database does not answer, is locked for half a minute, has no room, is damaged or refuses this node.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except (DBAPIError, PoolTimeout) as error:
        if fault := unavailable(error):
            raise fault from error
        raise


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Yield a connection that only reads; on SQLite it neither waits for a writer nor holds one up.

    Raises
    ------
    DatabaseUnavailable
        When the database does not answer, is damaged or refuses this node.
    """
    try:
        with engine.connect() as connection:
            connection.execution_options(postgresql_readonly=True)
            with connection.begin():
                yield connection
    except (DBAPIError, PoolTimeout) as error:
        if fault := unavailable(error):
            raise fault from error
        raise


def insert_new(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row unless its key exists, and return whether it was inserted.

    Waits for a transaction that is inserting the same key.
    """
    statement = _insert_new(table, connection.dialect.name)
    return connection.execute(statement, row).one_or_none() is not None


@cache
def _insert_new(table: Table, dialect_name: str) -> ReturningInsert[Any]:
    # By name: the other database's dialect takes as long to import as all our tables.
    dialect = import_module(f"sqlalchemy.dialects.{dialect_name}")
    statement: ReturningInsert[Any] = dialect.insert(table).on_conflict_do_nothing().returning(*table.primary_key)
    return statement


def has_come(moment: ColumnElement[datetime], now: datetime, longest: timedelta) -> ColumnElement[bool]:
    """Tell whether a time that something waits for has come, or is further off than anything is ever told to wait.

    The latter happens when the clock is put back after the time was noted: nothing waits then until it has caught up.

    Parameters
    ----------
    moment
        Column of the time that was noted.
    longest
        The longest wait that may have been noted.
    """
    return (moment <= now) | (moment > now + longest)


def limited(query: Select[Any], limit: int, offset: int = 0) -> Select[Any]:
    """Return a query of so many rows at most, and without so many, said in its text rather than as parameters.

    PostgreSQL takes a prepared statement for one of a tenth of all rows when it does not know its limit, and so plans it
    anew each time, which takes longer than to answer it.
    """
    known = [bindparam(None, number, Integer, literal_execute=True) for number in (limit, offset)]
    return query.limit(known[0]).offset(known[1])


def unavailable(error: Exception) -> DatabaseUnavailable | None:
    """Return what a failure of the database, or of its driver, is to the node; None where a row or the program is at fault.

    Its text holds no values.
    """
    cause = getattr(error, "orig", None) or error
    codes = {getattr(cause, "sqlite_errorcode", 0) & 0xFF, getattr(cause, "sqlstate", None)}
    if codes & _DAMAGED:
        return DatabaseDamaged(_words(cause))
    if codes & _REFUSED:
        return DatabaseRefuses(_words(cause))
    if isinstance(error, (DataError, IntegrityError, NotSupportedError)):
        return None
    if isinstance(error, ProgrammingError) and not codes & _TABLES_ABSENT:
        return None
    return DatabaseUnavailable(_words(cause))


def _words(cause: object) -> str:
    # SQLAlchemy's own text holds the statement, and what a server adds in detail may hold values (rule R14).
    if isinstance(cause, PoolTimeout):
        return type(cause).__name__
    said = getattr(getattr(cause, "diag", None), "message_primary", None) or str(cause)
    # A server says it in several lines; a line of the log is one.
    return " ".join(said.split())


def migrate(engine: Engine, revision: str = "head") -> None:
    """Bring the schema up to date; when several processes do so at once, one does it and the others wait.

    Parameters
    ----------
    revision
        Of the schema; the newest.

    Raises
    ------
    SchemaUnknown
        When the database was made by a newer version.
    """
    if revision == "head" and schema_is_current(engine):
        return
    with writing(engine) as connection:
        upgrade(connection, revision)


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Do as ``migrate`` within the caller's transaction.

    Raises
    ------
    SchemaUnknown
        When the database was made by a newer version.
    """
    from storage.migrations.running import run  # noqa: PLC0415 (a database that is up to date spares the time of its import)

    take_time(connection)
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
    run(connection, revision)


def take_time(connection: Connection) -> None:
    """Let a transaction wait for others, and rest, as long as it must."""
    if connection.dialect.name == "postgresql":
        for name in _BOUNDS:
            connection.execute(select(func.set_config(name, "0", True)))  # noqa: FBT003 (SQL's own)


def schema_is_current(engine: Engine) -> bool:
    """Return whether the schema is the one this version works with."""
    return _revision(engine) == newest_revision()


def schema_is_older(engine: Engine) -> bool:
    """Return whether a former version has made the schema, which `migrate` would bring up to date."""
    return _revision(engine) in _revisions() - {newest_revision()}


def require_schema(engine: Engine) -> None:
    """See that no other version has brought the schema up to date, or put an older one back, since this process began.

    Raises
    ------
    SchemaUnknown
        When one has.
    DatabaseUnavailable
        When the database does not answer.
    """
    with reading(engine) as connection:
        found = _told(connection)
    if found != newest_revision():
        raise SchemaUnknown(f"its schema is {found}, ours {newest_revision()}")


def _revision(engine: Engine) -> str:
    with reading(engine) as connection:
        return _told(connection) if inspect(connection).has_table("alembic_version") else ""


def _told(connection: Connection) -> str:
    query: Select[Any] = select(column("version_num")).select_from(table("alembic_version"))
    return " ".join(connection.execute(query).scalars())


@cache
def newest_revision() -> str:
    """Return the revision of the schema that this version works with: that of the last of its migrations, by name."""
    return max(_revisions())


@cache
def _revisions() -> frozenset[str]:
    return frozenset(path.stem[1:5] for path in Path(__file__).with_name("migrations").glob("versions/v*.py"))


def takes_writes(engine: Engine) -> bool:
    """Return whether the database is no standby of PostgreSQL, nor set to be read alone; SQLite tells when it is written to."""
    if engine.dialect.name == "sqlite":
        return True
    with writing(engine) as connection:
        setting: str = connection.execute(select(func.current_setting("transaction_read_only"))).scalar_one()
    return setting == "off"


def installation_id(engine: Engine) -> str:
    """Return the random id of this installation (rule R1), 32 hexadecimal digits, made with the database."""
    with reading(engine) as connection:
        uid: str = connection.execute(select(installation.c.uid)).scalar_one()
    return uid
