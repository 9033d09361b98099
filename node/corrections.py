"""Decisions about copies that contradict an indexed image: which one is in force (rule R6)."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from pydicom import Dataset
from sqlalchemy import Connection, Engine

from node.comparison import BEYOND_BOUNDS
from node.entries import entry_of
from node.records import Origin, instance_record, read_header
from node.telemetry import logger
from node.views import ImageKind, classify
from storage.catalogue import corrected
from storage.conflicts import Conflict, accept, get_conflict, reject
from storage.database import reading, writing
from storage.exams import ExamRecord
from storage.files import InstanceStore
from storage.index import InstanceRecord

log = logger("corrections")

PICTURE = frozenset(
    {
        *("PixelData", "Rows", "Columns", "BitsStored", "PhotometricInterpretation", "SOPClassUID"),
        *("first copy was removed", "first copy is gone"),
        BEYOND_BOUNDS,
        *("ImageLaterality", "Laterality", "ViewPosition", "ViewCodeSequence", "PatientOrientation"),
    }
)
"""What says that a copy shows something else, or that nobody can tell: then it is no mere correction of whose it is."""


def is_correction(differences: Collection[str], *, identity_changed: bool) -> bool:
    """Tell whether a copy only corrects whose image it is: that may be accepted without asking an operator."""
    return identity_changed and PICTURE.isdisjoint(differences)


Also = Callable[[Connection, Sequence[ExamRecord]], object]


class Corrections:
    """Puts copies in force that were set aside, or leaves the first ones so.

    Parameters
    ----------
    engine, store
        Where the copies are known, and lie.
    accepts
        Kinds of image that the chosen reader reads.
    clock
        Returns the present time, aware.
    """

    def __init__(
        self, engine: Engine, store: InstanceStore, accepts: frozenset[ImageKind], clock: Callable[[], datetime]
    ) -> None:
        self._engine = engine
        self._store = store
        self._accepts = accepts
        self._clock = clock

    def accept(self, conflict_id: int, also: Also = lambda *_: None) -> list[ExamRecord]:
        """Put the later copy in force; its exam, and the one that it leaves, are answered anew.

        Parameters
        ----------
        also
            Done in the same transaction, with the exams that have changed.

        Returns
        -------
        list
            The exams that have changed; the one that the image belongs to now comes first.

        Raises
        ------
        storage.errors.NoSuchConflict, storage.errors.CannotDecide
            When there is none, or it was decided before.
        """
        with reading(self._engine) as connection:
            conflict = get_conflict(connection, conflict_id)
        header, record = self._describe(conflict)
        with writing(self._engine) as connection:
            changed = accept(connection, conflict_id, record, self._clock())
            corrected(connection, entry_of(header))
            also(connection, changed)
        log.warning("later copy accepted", **_context(conflict), now=[exam.uid for exam in changed])
        return changed

    def reject(self, conflict_id: int, also: Also = lambda *_: None) -> list[ExamRecord]:
        """Leave the first copy in force, and return its exam.

        Parameters
        ----------
        also
            As for ``accept``.

        Raises
        ------
        storage.errors.NoSuchConflict, storage.errors.CannotDecide
            When there is none, or it was decided before.
        """
        with writing(self._engine) as connection:
            conflict = get_conflict(connection, conflict_id)
            changed = reject(connection, conflict_id, self._clock())
            also(connection, changed)
        log.warning("later copy rejected", **_context(conflict))
        return changed

    def _describe(self, conflict: Conflict) -> tuple[Dataset, InstanceRecord]:
        copy = conflict.copy
        path = self._store.resolve(copy.path)
        header = read_header(path)
        return header, instance_record(
            header,
            classify(header, self._accepts),
            path=copy.path,
            size=path.stat().st_size,
            digest=copy.digest,
            origin=Origin(copy.calling_ae, "", "", ""),
            received_at=copy.received_at,
        )


def _context(conflict: Conflict) -> dict[str, object]:
    return {"conflict": conflict.id, "instance": conflict.copy.instance_uid, "exam": conflict.exam_uid}
