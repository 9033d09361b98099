"""Index and file together: the one way an instance enters the store, and comes back into it."""

from pathlib import Path

from sqlalchemy import Connection, Engine

from storage.database import writing
from storage.errors import AlreadyStored
from storage.files import InstanceStore
from storage.index import InstanceRecord, add_instance, move_file


def keep(connection: Connection, store: InstanceStore, temp: Path, record: InstanceRecord) -> bool:
    """Index a received instance and put its file in its place; the caller's commit makes both count.

    Call ``store.flush(temp)``, and ``store.make_way(temp, record.path)``, before the transaction begins: on SQLite all other
    writers wait for it.

    Returns
    -------
    bool
        False when the SOP Instance UID is indexed already; the temp file is untouched then (rule R6 is the caller's).
    """
    if not add_instance(connection, record):
        return False
    try:
        store.accept(temp, record.path)
    except AlreadyStored:
        # Its row would have come first: a crash between link and commit left this file.
        store.adopt(temp, record.path)
    return True


def put_back(engine: Engine, store: InstanceStore, temp: Path, record: InstanceRecord, gone: str) -> None:
    """Let a received instance that was flushed be the file of a copy of it that the index has and the store has lost.

    Parameters
    ----------
    record
        Of the received file.
    gone
        Path of the copy, which is in force or set aside.
    """
    if record.path != gone:
        path = store.set_aside(temp, record.reference)
        with writing(engine) as connection:
            move_file(connection, gone, path, record)
        return
    store.make_way(temp, gone)
    try:
        with writing(engine) as connection:
            move_file(connection, gone, gone, record)
            store.accept(temp, gone)
    except AlreadyStored:  # another sender was quicker
        return
