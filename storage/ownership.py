"""Whose a store is: it is marked with the id of the installation that used it first, which lies in the database, too.

Two databases that name one folder, or one part of a bucket, would each remove what the other still needs, and take the other's
results for left-overs of their own.
"""

from contextlib import suppress

from sqlalchemy import Engine

from storage.database import installation_id
from storage.errors import StoreOfAnother
from storage.files import InstanceStore


def claim(engine: Engine, store: InstanceStore) -> None:
    """Mark a store that nobody has marked.

    Raises
    ------
    StoreOfAnother
        When another installation has.
    BucketUnavailable
        When it lies elsewhere and there is no answer.
    """
    if store.owner():
        require_own(engine, store)
        return
    with suppress(OSError):  # a full disk, which may be freed by whoever asks
        take_over(engine, store)


def require_own(engine: Engine, store: InstanceStore) -> None:
    """See that nobody else has marked a store, as in `claim`, and mark nothing."""
    owner = store.owner()
    if owner not in {"", installation_id(engine)}:
        raise StoreOfAnother(f"it is marked by {owner[:12]}")


def take_over(engine: Engine, store: InstanceStore) -> None:
    """Mark a store, whoever has."""
    store.mark(installation_id(engine))
