"""One `serve` to a folder, and to a database: who has begun holds it for as long as its process lives, however that ends."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import sleep
from typing import Final

from sqlalchemy import Connection, Engine, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from storage.database import newest_revision, reading, sqlite_file, unavailable
from storage.errors import StoreInUse

NAME: Final = "serve.lock"
"""In the store's folder; its content only says who holds it, and whether anybody does is the kernel's knowledge."""
_GLANCES: Final = (0.02, 0.05, 0.1)
"""Seconds after which a lock is tried for again: whoever only looks who has it (`served_by`) has it himself for a moment."""
_SEAT: Final = 0x4D414D53  # any number, the same in every process
_HOLDER: Final = text(
    "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE locktype = 'advisory' AND classid = 0 AND objid = :seat AND granted"
    " AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_SIGNS_OF_LIFE: Final = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}
"""How soon a server lets go of a connection whose host lost its power; Linux alone waits for two hours (tcp(7))."""


@contextmanager
def held(folder: Path, database: str = "") -> Iterator[str]:
    """Hold a store's folder, which is made when it is absent, and a SQLite file; yields why they cannot be held, or ''.

    A file system that knows no locks (flock(2); NFS before version 4) keeps nobody from starting.

    Parameters
    ----------
    folder
        The store's.
    database
        URL of the database; a server's is held by a `Seat`.

    Raises
    ------
    StoreInUse
        When somebody holds one of them.
    """
    file = sqlite_file(database)
    locks = [(folder / NAME, folder), *([(_lock_of(file), file)] if file else [])]
    with ExitStack() as stack:
        yield "; ".join(filter(None, [stack.enter_context(_locked(lock, place)) for lock, place in locks]))


@contextmanager
def _locked(lock: Path, place: Path) -> Iterator[str]:
    handle = None
    fault = ""
    try:
        lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _take(handle)
        _sign(handle)
    except BlockingIOError:
        holder, _ = _signature(handle)
        _close(handle)
        raise StoreInUse(f"{holder}, {place.absolute()}") from None
    except OSError as error:
        fault = str(error)
    try:
        yield fault
    finally:
        _close(handle)


class Seat:
    """The one place of a `serve` at a PostgreSQL database, whose lock a connection of its own holds while that lasts.

    Nobody is refused: of a host that lost its power a server knows for a minute no better, and then it is another that
    must serve.

    Parameters
    ----------
    engine
        Of the database; one of SQLite is `held`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._held: Connection | None = None

    def holder(self) -> str:
        """Take the seat, unless another has it; return who, or '' when nobody else has.

        Raises
        ------
        DatabaseUnavailable
            When the database does not answer; the seat is taken anew at the next call.
        """
        if self._engine.dialect.name == "sqlite":
            return ""
        try:
            if self._held is not None:
                self._held.execute(select(1))
                return ""
            return self._try_to_take()
        except (DBAPIError, PoolTimeout) as error:
            self.close()
            raise unavailable(error) or error from error

    def close(self) -> None:
        """Leave the seat to others."""
        held, self._held = self._held, None
        if held is not None:
            held.close()

    def _try_to_take(self) -> str:
        self._held = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._held.detach()
        for name, value in (_SIGNS_OF_LIFE | {"application_name": f"mammonode serve, {_ourselves()}"}).items():
            self._held.execute(select(func.set_config(name, value, False)))  # noqa: FBT003 (SQL's own)
        if self._held.execute(select(func.pg_try_advisory_lock(_SEAT))).scalar_one():
            return ""
        found = self._held.execute(_HOLDER, {"seat": _SEAT}).scalars().first()
        self.close()
        return found or "one that cannot be seen"


def served_by(engine: Engine) -> str:
    """Return which `serve` has the seat at a PostgreSQL database, on whichever host; '' where none has.

    At a SQLite file it is one that works with another schema: that of ours holds the file before it brings it up to date.

    Raises
    ------
    DatabaseUnavailable
        When the database does not answer.
    """
    if engine.dialect.name == "sqlite":
        return _holder_of_another_version(_lock_of(Path(str(engine.url.database)).resolve()))
    with reading(engine) as connection:
        return connection.execute(_HOLDER, {"seat": _SEAT}).scalars().first() or ""


def _lock_of(file: Path) -> Path:
    # Beside it: to close a file of SQLite's own lets go of what SQLite has locked in it (fcntl(2)).
    return Path(f"{file}.lock")


def _holder_of_another_version(lock: Path) -> str:
    handle, holder = None, ""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
        holder, schema = _signature(handle)
        if schema != newest_revision():
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return holder or "one that cannot be seen"
    except OSError:  # it is absent, or its file system knows no locks
        return ""
    finally:
        _close(handle)
    return ""


def _take(handle: int) -> None:
    """Take a lock; `BlockingIOError` where another has it, and does not only look."""
    for rest in (*_GLANCES, None):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if rest is None:
                raise
            sleep(rest)
        else:
            return


def _ourselves() -> str:
    return f"process {os.getpid()} of {socket.gethostname()}"


def _sign(handle: int) -> None:
    signed = f"{_ourselves()}\n{newest_revision()}\n".encode()
    with suppress(OSError):  # a full disk, which lets what is there be written over
        os.pwrite(handle, signed, 0)
        os.ftruncate(handle, len(signed))


def _signature(handle: int | None) -> tuple[str, str]:
    """Return who has signed, and the schema that it works with."""
    signed = os.pread(handle, 300, 0).decode(errors="replace") if handle is not None else ""
    holder, schema, *_ = *signed.split("\n"), ""
    return holder, schema


def _close(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)
