"""Enters what older versions have kept into the catalogue, a few files at a time."""

import time

from sqlalchemy import Engine

from node.entries import entry_of
from node.errors import NodeError
from node.obtaining import obtain
from node.records import read_header
from node.telemetry import logger
from storage.catalogue import Entry, catalogued, uncatalogued
from storage.database import reading, writing
from storage.files import InstanceStore

log = logger("catalogue")

BATCH = 50
"""Headers that are read between two looks at the exam clock."""
RESTS = 3600.0
"""Seconds."""


class Cataloguer:
    """Reads the headers of what the catalogue does not know.

    Parameters
    ----------
    engine, store
        What is kept.
    batch
        How many files are read at once.
    """

    def __init__(self, engine: Engine, store: InstanceStore, batch: int = BATCH) -> None:
        self._engine = engine
        self._store = store
        self._batch = batch
        self._unreadable: set[str] = set()
        self._told: set[str] = set()
        self._rests_until = 0.0

    def tick(self) -> int:
        """Enter some, and return how many were looked at; 0 when there is nothing left to do.

        What this version keeps is entered as it comes. So when nothing is left, no look is taken for an hour: it goes
        through all that there is. What could not be read is tried again then: a bucket may not have given it.
        """
        if time.monotonic() < self._rests_until:
            return 0
        with reading(self._engine) as connection:
            found = uncatalogued(connection, self._batch, self._unreadable)
        if not found:
            self._rests_until = time.monotonic() + RESTS
            self._unreadable.clear()
        entries = [entry for uid, path in found if (entry := self._entry(uid, path))]
        if entries:
            with writing(self._engine) as connection:
                for entry in entries:
                    catalogued(connection, entry)
            log.info("catalogued what was kept before", number=len(entries))
        return len(found)

    def _entry(self, uid: str, path: str) -> Entry | None:
        try:
            header = read_header(obtain(self._store, path))
        except (NodeError, OSError) as error:
            self._unreadable.add(uid)
            if uid not in self._told:
                self._told.add(uid)
                log.error(  # noqa: TRY400 - the cause is in the message
                    "cannot be catalogued, and so not be found over HTTP", instance=uid, cause=str(error)
                )
            return None
        return entry_of(header)
