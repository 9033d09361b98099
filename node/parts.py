"""Settings → the parts that every command works with; quick to import, as most commands need no more."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Engine

from config.settings import Settings
from storage.database import migrate, open_database
from storage.errors import StoreUnusable
from storage.files import InstanceStore
from storage.jobs import JobQueue
from storage.outbox import Outbox


@dataclass(frozen=True)
class Parts:
    """What every command works with."""

    settings: Settings
    engine: Engine
    store: InstanceStore
    queue: JobQueue
    outbox: Outbox

    def with_settings(self, settings: Settings) -> "Parts":
        """Return the same store and database with other settings."""
        return _parts(settings, self.engine, self.store)


def open_parts(settings: Settings) -> Parts:
    """Open store and database, and bring the schema up to date.

    Raises
    ------
    storage.errors.StorageError
        When either cannot be used.
    """
    store = InstanceStore(settings.storage.folder)
    try:
        store.prepare()
    except OSError as error:
        raise StoreUnusable(f"{error.filename or settings.storage.folder}: {error.strerror}") from error
    engine = open_database(settings.storage.database_url)
    migrate(engine)
    return _parts(settings, engine, store)


def _parts(settings: Settings, engine: Engine, store: InstanceStore) -> Parts:
    queue = JobQueue(engine, settings.jobs.policy, timedelta(seconds=settings.jobs.lease))
    policies = {destination.name: destination.policy(settings.delivery) for destination in settings.places}
    return Parts(settings, engine, store, queue, Outbox(engine, settings.delivery.policy, policies))
