"""Commands that keep the database elsewhere, bring it back, and find what it has lost."""

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Engine

from ai.models import ready_model
from config.settings import Settings, load_settings
from node.adoption import Adopted
from node.adoption import adopt as adopt_images
from node.audit.commands import operator, record
from node.cli.options import ConfigOption, JsonOption, print_json
from node.views import ImageKind, kinds_of
from storage.backup import back_up, holds_exams, same_schema
from storage.backup import restore as restore_database
from storage.database import open_database, writing
from storage.errors import DatabaseHoldsExams
from storage.files import InstanceStore
from storage.holding import Seat, held
from storage.ownership import take_over

Target = Annotated[
    Path | None, typer.Argument(help="A new file, or a folder for one; by default backups/ in storage.folder.")
]
Backup = Annotated[Path, typer.Argument(help="A file that mammonode backup has written.", exists=True, dir_okay=False)]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("backup")(backup)
    app.command("restore")(restore)
    app.command("adopt")(adopt)


def backup(target: Target = None, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Write the database into one file, as it is at one moment; the node may run. Copy the store, or its bucket, after it.

    The file fits SQLite and PostgreSQL alike.
    """
    settings = load_settings(config)
    engine = open_database(settings.storage.database_url)
    if target is None:
        target = settings.storage.folder / "backups"
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(OSError):  # a place that is closed to us is told when the file is written
        if target.is_dir():
            target /= f"mammonode-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.sqlite"
    back_up(engine, target)
    if as_json:
        print_json({"file": str(target), "bytes": target.stat().st_size})
    else:
        typer.echo(target)


def restore(
    file: Backup,
    *,
    replace: Annotated[bool, typer.Option("--replace", help="Although the database holds exams, which are lost.")] = (
        False
    ),
    if_schema_changed: Annotated[
        bool, typer.Option("--if-schema-changed", help="Only when the database has another schema than the backup.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Put a backup in the place of the database, then adopt the images that came since it was taken. The node must not run.

    Each of them is read, and answered, once more.
    """
    settings = load_settings(config)
    with _idle_store(settings) as store, _idle_database(settings) as engine:
        if if_schema_changed and same_schema(engine, file, store.incoming):
            typer.echo("The schema is the same: the database stays as it is.")
            return
        if not replace and holds_exams(engine):
            raise DatabaseHoldsExams
        kinds = _kinds(settings)  # without a model nothing could be adopted
        restore_database(engine, file, store.incoming)
        with writing(engine) as connection:
            told = {"who": operator(), "changed": f"database restored from {file.name}"}
            record(connection, settings, datetime.now(UTC), "configured", **told)
        typer.echo(f"The database is as {file} has it.")
        found = _adopt(settings, engine, store, kinds)
    _tell(found)
    raise typer.Exit(1 if found.unreadable or found.gone else 0)


def adopt(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Let images that the database does not know come in once more, and tell which the store lost. The node must not run."""
    from node.parts import open_parts  # noqa: PLC0415 (keeps --help quick)

    settings = load_settings(config)
    with _idle_store(settings) as store:
        found = _adopt(settings, open_parts(settings).engine, store, _kinds(settings))
    if as_json:
        print_json(asdict(found))
    else:
        _tell(found)
    raise typer.Exit(1 if found.unreadable or found.gone else 0)


def _tell(found: Adopted) -> None:
    typer.echo(f"Files that the database did not know: {found.adopted} adopted, {found.unreadable} unreadable.")
    if found.gone:
        typer.echo(
            f"Files that the database knows and the store has not: {found.gone}. Let their images be sent once more."
        )


@contextmanager
def _idle_store(settings: Settings) -> Iterator[InstanceStore]:
    """Yield the store of a node that does not run, and keep one from starting.

    Raises
    ------
    NodeRuns
        When something answers at its DICOM door.
    storage.errors.StoreInUse
        When a ``serve`` that has its door elsewhere, or not open yet, holds the folder.
    """
    from node.doors import is_open  # noqa: PLC0415 (as above)
    from node.errors import NodeRuns  # noqa: PLC0415 (as above)
    from node.parts import prepared_store  # noqa: PLC0415 (as above)

    if is_open(settings.dicom):
        raise NodeRuns(f"something listens at port {settings.dicom.port}; ss -ltnp names it")
    with held(settings.storage.folder, settings.storage.database_url):
        yield prepared_store(settings)


@contextmanager
def _idle_database(settings: Settings) -> Iterator[Engine]:
    """Yield the database of a node that does not run, on no other host either.

    Raises
    ------
    NodeRuns
        When a ``serve`` is at it.
    """
    from node.errors import NodeRuns  # noqa: PLC0415 (as above)

    engine = open_database(settings.storage.database_url)
    with closing(Seat(engine)) as seat:
        if other := seat.holder():
            raise NodeRuns(other)
        yield engine


def _kinds(settings: Settings) -> frozenset[ImageKind]:
    return kinds_of(ready_model(settings.reader.model, settings.reader.models_folder).card.use.accepts)


def _adopt(settings: Settings, engine: Engine, store: InstanceStore, kinds: frozenset[ImageKind]) -> Adopted:
    from node.logs import configure  # noqa: PLC0415 (as above)

    configure(settings.log.format, settings.log.level, sys.stderr)
    take_over(engine, store)
    return adopt_images(engine, store, kinds)
