"""Running the migrations with Alembic."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from storage.errors import SchemaUnknown


def run(connection: Connection, revision: str) -> None:
    """Bring the schema of a connection to a revision, within its transaction.

    Raises
    ------
    SchemaUnknown
        When the database was made by a newer version.
    """
    try:
        command.upgrade(configuration(connection), revision)
    except CommandError as error:
        raise SchemaUnknown(error) from error


def configuration(connection: Connection | None = None) -> Config:
    """Return what Alembic needs to know."""
    attributes: dict[str, Any] = {"connection": connection}
    config = Config(attributes=attributes)
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
