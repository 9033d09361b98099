"""Index and file together: the one way an instance enters the store."""

from pathlib import Path

from sqlalchemy import Connection

from storage.errors import AlreadyStored
from storage.files import InstanceStore
from storage.index import InstanceRecord, add_instance


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
