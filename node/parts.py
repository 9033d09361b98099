"""Settings → the parts that every command works with; quick to import, as most commands need no more."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Engine

from config.settings import Settings
from storage.database import migrate, open_database, schema_is_older
from storage.errors import BucketLibraryMissing, DatabaseServed, StoreUnusable
from storage.files import FolderStore, InstanceStore
from storage.holding import served_by
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
    store = prepared_store(settings)
    engine = open_database(settings.storage.database_url)
    bring_up_to_date(engine)
    return _parts(settings, engine, store)


def bring_up_to_date(engine: Engine) -> None:
    """Bring the schema up to date, unless a `serve` of the former version, on another host perhaps, works with it.

    Raises
    ------
    storage.errors.DatabaseServed
        When one does.
    storage.errors.SchemaUnknown
        When the database was made by a newer version.
    """
    if schema_is_older(engine) and (other := served_by(engine)):
        raise DatabaseServed(other)
    migrate(engine)


def prepared_store(settings: Settings) -> InstanceStore:
    """Return the store that the settings say, its folders made and found to be writable.

    Raises
    ------
    storage.errors.StorageError
        When it cannot be used.
    """
    store = open_store(settings)
    try:
        store.prepare()
    except OSError as error:
        raise StoreUnusable(f"{error.filename or settings.storage.folder}: {error.strerror}") from error
    return store


def open_store(settings: Settings) -> InstanceStore:
    """Return the store that the settings say, as it is; a bucket is not asked for anything yet.

    Raises
    ------
    storage.errors.StorageError
        When it has not what it needs.
    """
    place = settings.bucket.place
    if place is None:
        return FolderStore(settings.storage.folder)
    try:
        from storage.bucket import BucketStore  # noqa: PLC0415 (its library is an extra)
    except ModuleNotFoundError as error:
        raise BucketLibraryMissing(error.name) from error
    return BucketStore(settings.storage.folder, place)


def _parts(settings: Settings, engine: Engine, store: InstanceStore) -> Parts:
    queue = JobQueue(engine, settings.jobs.policy, timedelta(seconds=settings.jobs.lease))
    policies = {destination.name: destination.policy(settings.delivery) for destination in settings.places}
    return Parts(settings, engine, store, queue, Outbox(engine, settings.delivery.policy, policies))
