"""The trail of a running node: takes facts from everywhere, and adds their messages to the chain in a thread of its own."""

import os
from collections.abc import Callable
from datetime import datetime
from threading import Event, Thread
from typing import Any

from sqlalchemy import Engine

from config.settings import Settings
from node.audit.facts import Fact, compose
from node.audit.messages import Source
from node.audit.spool import Spool
from node.telemetry import logger
from node.troubles import Troubles
from storage.audit import append, head
from storage.database import reading, writing
from storage.errors import StorageError

log = logger("audit")

EVERY = 5.0
"""Seconds that a fact waits for others: what belongs to one transfer is one message."""
AT_ONCE = 2000
"""Facts whose messages are added in one transaction."""


def source_of(settings: Settings) -> Source:
    """Return who this process is."""
    audit = settings.audit
    return Source(audit.source_id, audit.site_id, settings.dicom.ae_title.strip(), str(os.getpid()))


class Trail:
    """Takes facts.

    Parameters
    ----------
    spool
        Where they wait.
    engine
        Of the database with the chain.
    settings
        Returns those in force.
    clock
        Returns the present time, aware.
    """

    def __init__(
        self, spool: Spool, engine: Engine, settings: Callable[[], Settings], clock: Callable[[], datetime]
    ) -> None:
        self._spool = spool
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._stopping, self._waiting = Event(), Event()
        self._waiting.set()  # a former process may have left some
        self._complained = False
        self._thread = Thread(target=self._run, name="audit", daemon=True)

    def note(self, kind: str, **data: Any) -> None:
        """Note that something happened; never fails, never waits for the database."""
        kept = self._spool.put(Fact.now(kind, self._clock(), **data))
        if not kept and not self._complained:
            log.critical("audit messages lost")
        self._complained = not kept
        self._waiting.set()

    def start(self) -> None:
        """Begin to add, with what a former process has left."""
        self._thread.start()

    def stop(self, timeout: float = 10) -> None:
        """Add what waits, and stop."""
        self._stopping.set()
        self._waiting.set()
        self._thread.join(timeout)

    def drain(self) -> int:
        """Add all that waits to the chain now, and return of how many facts.

        Raises
        ------
        StorageError
            When the database does not answer; what waits goes on waiting.
        """
        self._spool.put_what_was_lost(self._lost)
        count = 0
        for path, facts in self._spool.batches():
            for first in range(0, len(facts), AT_ONCE):
                some = facts[first : first + AT_ONCE]
                with reading(self._engine) as connection:
                    entries = compose(connection, some, source_of(self._settings()))
                with writing(self._engine) as connection:
                    append(connection, entries, self._clock())
            self._spool.done(path)
            count += len(facts)
        return count

    def _lost(self, number: int) -> Fact:
        return Fact.now("messages lost", self._clock(), why=f"{number} facts did not fit where they wait")

    def tell_where_it_stands(self) -> None:
        """Put the last link into the log: no change of the database changes that."""
        with reading(self._engine) as connection:
            log.info("audit chain", link=str(head(connection)))

    def _run(self) -> None:
        troubles = Troubles()
        while True:
            self._waiting.wait()
            last = self._stopping.wait(EVERY)
            self._waiting.clear()
            try:
                self.drain()
            except (StorageError, OSError) as error:
                self._waiting.set()
                if troubles.begin(error):
                    log.error("audit messages wait", cause=str(error))  # noqa: TRY400 (said)
            except Exception as error:  # a thread that ends would go unnoticed
                self._waiting.set()
                if troubles.begin(error):
                    log.exception("audit messages wait")
            else:
                if troubles.end():
                    log.info("goes on again", part="audit trail")
            if last:
                return
