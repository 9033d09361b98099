"""Receiving an instance: the one function behind every door.

Success is answered only after the file is in its place, flushed with its folders, and one commit has indexed it and
touched its exam.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from pydicom import Dataset
from sqlalchemy import Connection, Engine
from structlog.contextvars import bound_contextvars

from config.policy import Watermark
from node.comparison import IDENTITY, differences
from node.corrections import is_correction
from node.digests import digest, is_among
from node.entries import entry_of
from node.errors import ClassMismatch, InstanceUIDInvalid, UnparsableDataset
from node.faults import told
from node.records import DOORS, Origin, dataset_offset, instance_record, read_header, reference, text
from node.telemetry import logger
from node.views import ImageKind, classify
from node.withdrawals import RejectionNote, rejection_note
from storage.archive import keep, put_back
from storage.catalogue import catalogued, corrected
from storage.conflicts import accept
from storage.database import reading, writing
from storage.exams import ExamRecord, exam_of_study, hold, recall, revise, touch
from storage.files import InstanceStore
from storage.index import ConflictRecord, InstanceRecord, add_conflict, conflicts_of_instance, find_instance
from storage.removals import is_removed
from storage.withdrawals import withdraw

log = logger("intake")


@dataclass(frozen=True)
class Announced:
    """What the door knows of what it hands over.

    Attributes
    ----------
    sop_class_uid, instance_uid
        What the sender said that it sends: Affected SOP Class and Instance UID of the command (PS3.7 9.1.1); where there
        is no command, those of the header.
    digest
        Of the data set, where it was made while that came; empty where it was not.
    header
        As ``node.records.read_header`` returns it, where the door has read it.
    """

    sop_class_uid: str
    instance_uid: str
    digest: str = ""
    header: Dataset | None = field(default=None, repr=False, compare=False)


class Outcome(StrEnum):
    """What became of a received instance; every one of them is a success for the sender."""

    #: New, and kept.
    STORED = "stored"
    #: One of our own results that came back: kept, and never read (rule R8).
    OWN = "own"
    #: The same instance is known: nothing was kept, unless its file is gone from the store.
    KNOWN = "known"
    #: A different instance with its UID is in the store: set aside for an operator (rule R6).
    CONFLICT = "conflict"
    #: The same, and as it only corrects whose image it is, it is in force: the site's setting says so.
    CORRECTED = "corrected"


@dataclass(frozen=True)
class Receipt:
    """What became of a received instance, and the exam it belongs to."""

    outcome: Outcome
    instance_uid: str
    exam_uid: str | None


def utc_now() -> datetime:
    """Return the present time, aware."""
    return datetime.now(UTC)


class Receiver(Protocol):
    """What a door hands received files to."""

    def receive(self, temp: Path, announced: Announced | None, origin: Origin) -> Receipt:
        """Take a received file, which is gone afterwards, and say what became of it."""

    def require_space(self) -> None:
        """Raise `storage.errors.DiskLow` when the disk is too full to receive anything."""


class Renewed:
    """A receiver in whose place another can be put while the doors stay open.

    Attributes
    ----------
    inner
        Receives what comes next.
    """

    inner: Receiver

    def receive(self, temp: Path, announced: Announced | None, origin: Origin) -> Receipt:
        """Take a received file, as the inner receiver does."""
        return self.inner.receive(temp, announced, origin)

    def require_space(self) -> None:
        """Raise `storage.errors.DiskLow` when the disk is too full to receive anything."""
        self.inner.require_space()


class Intake:
    """Receives instances into a store and its index.

    Parameters
    ----------
    store
        Where files go.
    engine
        The database.
    watermark
        Below which free space nothing is received.
    accepts
        Kinds of image that the chosen reader reads.
    clock
        Returns the present time, aware.
    accept_corrections
        Whether a copy that only corrects whose image it is becomes the one in force without an operator.
    """

    def __init__(
        self,
        store: InstanceStore,
        engine: Engine,
        watermark: Watermark,
        accepts: frozenset[ImageKind] = frozenset({ImageKind.FOR_PRESENTATION}),
        clock: Callable[[], datetime] = utc_now,
        *,
        accept_corrections: bool = False,
    ) -> None:
        self._store = store
        self._engine = engine
        self._watermark = watermark
        self._accepts = accepts
        self._clock = clock
        self._accepts_corrections = accept_corrections

    def require_space(self) -> None:
        """Raise `storage.errors.DiskLow` when the disk is too full to receive anything."""
        self._store.require_space(self._watermark)

    def receive(self, temp: Path, announced: Announced | None, origin: Origin) -> Receipt:
        """Take a received file, which is gone afterwards, and say what became of it.

        Parameters
        ----------
        temp
            A DICOM file (PS3.10) on the disk of the store.
        announced
            What the door knows of it; None when that is nothing.
        origin
            Who sent it.

        Raises
        ------
        NodeError, StorageError, OSError
            As ``node.status`` knows them; nothing was kept.
        """
        with bound_contextvars(association=origin.association, calling_ae=origin.calling_ae):
            try:
                self.require_space()
                return self._receive(temp, announced, origin)
            except Exception as error:
                log.error(  # noqa: TRY400 - the cause is in the message; the traceback is the door's to add
                    "instance refused", instance=announced and announced.instance_uid, cause=told(error)
                )
                raise
            finally:
                temp.unlink(missing_ok=True)

    def _receive(self, temp: Path, announced: Announced | None, origin: Origin) -> Receipt:
        with ThreadPoolExecutor(1) as beside:  # the disk writes while the processor reads
            # Not a future in this frame: what it raises would keep the frame, and the header, until garbage is collected.
            flushed = beside.map(self._store.flush, [temp])
            header, record = self._describe(temp, announced, origin)
        next(flushed)
        if self._store.far and self._is_known(record):
            return self._receive_again(temp, header, record)
        self._store.make_way(temp, record.path)
        with writing(self._engine) as connection:
            if new := keep(connection, self._store, temp, record):
                catalogued(connection, entry_of(header))
                note = None if record.own else rejection_note(header)
                withdrawn = self._withdraw(connection, record, note) if note else ()
                if record.opens_exam:
                    exam: ExamRecord | None = touch(connection, record.patient, record.study.uid, record.received_at)
                else:
                    exam = exam_of_study(connection, record.patient, record.study.uid)
        if not new:
            return self._receive_again(temp, header, record)
        receipt = _receipt(Outcome.OWN if record.own else Outcome.STORED, record, exam)
        log.info("instance received", **_context(receipt, exam), kind=record.kind, size=record.size)
        if note:
            log.warning(
                "images withdrawn",
                note=record.uid,
                code=note.rejection.code,
                named=len(note.instance_uids),
                exams=[each.uid for each in withdrawn],
            )
        return receipt

    @staticmethod
    def _withdraw(connection: Connection, record: InstanceRecord, note: RejectionNote) -> list[ExamRecord]:
        """Take back what a rejection note names, and return the exams that are revised for it (rule R7)."""
        stood_on = withdraw(
            connection,
            note.instance_uids,
            note_uid=record.uid,
            reason=note.rejection.meaning,
            now=record.received_at,
        )
        revised = []
        for exam_id in stood_on:
            revised.append(revise(connection, exam_id, record.received_at))
            if note.rejection.recalls:
                recall(connection, exam_id, record.received_at)
        return revised

    def _describe(self, temp: Path, announced: Announced | None, origin: Origin) -> tuple[Dataset, InstanceRecord]:
        header = announced.header if announced and announced.header is not None else read_header(temp, DOORS)
        uids = reference(header)
        if not text(header.file_meta, "TransferSyntaxUID"):  # PS3.10 7.1; what it is encoded in could only be guessed
            raise UnparsableDataset("it has no Transfer Syntax UID")
        if announced and announced.instance_uid != uids.instance_uid:
            raise InstanceUIDInvalid
        record = instance_record(
            header,
            classify(header, self._accepts),
            path=self._store.path_of(uids, temp),
            size=temp.stat().st_size,
            digest=(announced and announced.digest) or digest(temp, dataset_offset(header)),
            origin=origin,
            received_at=self._clock(),
        )
        if announced and announced.sop_class_uid != record.sop_class_uid:
            raise ClassMismatch
        return header, record

    def _is_known(self, record: InstanceRecord) -> bool:
        with reading(self._engine) as connection:
            return find_instance(connection, record.uid) is not None

    def _receive_again(self, temp: Path, header: Dataset, record: InstanceRecord) -> Receipt:
        with reading(self._engine) as connection:
            first = find_instance(connection, record.uid)
            if first is None:  # pragma: no cover - instances are never removed
                raise LookupError(record.uid)
            conflicts = conflicts_of_instance(connection, record.uid)
            exam = exam_of_study(connection, first.patient, first.study.uid)
            copies: tuple[InstanceRecord | ConflictRecord, ...] = (first, *conflicts)
            removed = {each.path for each in copies if is_removed(connection, each.path)}
        same = [each.path for each in copies if is_among({each.digest}, temp, record.digest)]
        lost = [path for path in same or (first.path,) if path not in removed and self._store.size_of(path) is None]
        if same:
            found: tuple[str, ...] = ()
            if lost:
                put_back(self._engine, self._store, temp, record, lost[0])
                log.warning("file put back", **_context(_receipt(Outcome.KNOWN, record, exam), exam))
        elif lost:
            found = (*_told_apart(first, record), "first copy is gone")
        elif first.path in removed:
            found = (*_told_apart(first, record), "first copy was removed")
        else:
            found = differences(self._store.resolve(first.path), temp)
        if not found:
            receipt = _receipt(Outcome.KNOWN, record, exam)
            log.info("instance known", **_context(receipt, exam))
            return receipt
        is_mere = is_correction(found, identity_changed=not IDENTITY.isdisjoint(found))
        if self._accepts_corrections and is_mere and record.opens_exam >= first.opens_exam:
            return self._correct(temp, header, record, found, exam)
        return self._set_aside(temp, record, found, exam)

    def _correct(
        self, temp: Path, header: Dataset, record: InstanceRecord, found: tuple[str, ...], exam: ExamRecord | None
    ) -> Receipt:
        """Put a copy in force at once: were it known first, a crash in between would leave its exam held for nobody to see."""
        copy = self._copy_of(temp, record, found)
        with writing(self._engine) as connection:
            number = add_conflict(connection, copy)
            changed = accept(connection, number, replace(record, path=copy.path), self._clock())
            corrected(connection, entry_of(header))
        receipt = _receipt(Outcome.CORRECTED, record, changed[0] if changed else None)
        log.warning("instance corrected", **_context(receipt, exam), differences=found)
        return receipt

    def _copy_of(self, temp: Path, record: InstanceRecord, found: tuple[str, ...]) -> ConflictRecord:
        return ConflictRecord(
            instance_uid=record.uid,
            path=self._store.set_aside(temp, record.reference),
            received_at=record.received_at,
            calling_ae=record.calling_ae,
            digest=record.digest,
            identity_changed=not IDENTITY.isdisjoint(found),
            differences=found,
        )

    def _set_aside(
        self, temp: Path, record: InstanceRecord, found: tuple[str, ...], exam: ExamRecord | None
    ) -> Receipt:
        conflict = self._copy_of(temp, record, found)
        with writing(self._engine) as connection:
            add_conflict(connection, conflict)
            if conflict.identity_changed and exam:
                hold(connection, exam.id, held=True)
        receipt = _receipt(Outcome.CONFLICT, record, exam)
        if conflict.identity_changed:
            log.critical(
                "instance changed its identity; deliveries of the exam are held until an operator decides",
                **_context(receipt, exam),
                differences=found,
            )
        else:
            log.warning("instance differs from the one that is kept", **_context(receipt, exam), differences=found)
        return receipt


def _told_apart(first: InstanceRecord, record: InstanceRecord) -> tuple[str, ...]:
    """Return what differs from a copy whose file is not there: as much as the index knows of it."""
    known = {
        "PatientID": (first.patient.patient_id, record.patient.patient_id),
        "IssuerOfPatientID": (first.patient.issuer, record.patient.issuer),
        "StudyInstanceUID": (first.study.uid, record.study.uid),
        "SeriesInstanceUID": (first.series.uid, record.series.uid),
    }
    return tuple(keyword for keyword, (one, other) in known.items() if one != other)


def _receipt(outcome: Outcome, record: InstanceRecord, exam: ExamRecord | None) -> Receipt:
    return Receipt(outcome, record.uid, exam.uid if exam else None)


def _context(receipt: Receipt, exam: ExamRecord | None) -> dict[str, object]:
    context: dict[str, object] = {"instance": receipt.instance_uid, "outcome": receipt.outcome.value}
    return context | (exam.log_context() if exam else {"exam": None})
