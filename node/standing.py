"""The line that the service manager shows of a running node: what it collects, reads and sends, and how full its disk is."""

from sqlalchemy import Engine

from node.intake import utc_now
from storage.changes import Changes, Version
from storage.database import reading
from storage.errors import StorageError
from storage.figures import Waiting, exams_by_state, unanswered, undelivered
from storage.files import InstanceStore
from storage.states import ExamState

Counts = tuple[dict[ExamState, int], Waiting | None, dict[str, Waiting]]
"""Exams by state, the unanswered, and results to be sent by destination."""


class Standing:
    """Tells how a node stands.

    Parameters
    ----------
    engine, store
        What is counted.
    changes
        Of the database.
    """

    def __init__(self, engine: Engine, store: InstanceStore, changes: Changes) -> None:
        self._engine = engine
        self._store = store
        self._changes = changes
        self._counted: tuple[Version | None, Counts] | None = None

    def line(self) -> str:
        """Return what goes on."""
        try:
            exams, waits, lanes = self._counts()
        except StorageError:
            return "the database does not answer"
        now = utc_now()
        told = [f"{exams[state]} {state}" for state in (ExamState.COLLECTING, ExamState.QUEUED)]
        if waits:
            told[-1] += f" (oldest {(now - waits.oldest).total_seconds():.0f} s)"
        told += [
            f"{name}: {lane.number} to send, oldest {(now - lane.oldest).total_seconds():.0f} s"
            for name, lane in lanes.items()
        ]
        try:
            usage = self._store.usage()
        except OSError:
            return "; ".join([*told, "the store does not answer"])
        return "; ".join([*told, f"disk {100 * (1 - usage.free / usage.total):.0f} % used"])

    def _counts(self) -> Counts:
        """Return what is counted anew only when something was committed."""
        version = self._changes.version()
        if version is None or self._counted is None or self._counted[0] != version:
            with reading(self._engine) as connection:
                self._counted = version, (exams_by_state(connection), unanswered(connection), undelivered(connection))
        return self._counted[1]
