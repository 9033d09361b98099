"""The index: patient, study, series, instance, and the copies that contradict one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, Table, insert, select, union_all, update

from storage.database import insert_new
from storage.files import InstanceReference
from storage.patients import PatientRecord, patient_key
from storage.tables import conflicts, exams, instances, patients, series, studies


@dataclass(frozen=True)
class StudyRecord:
    """A study; date, time and texts as in the header."""

    uid: str
    date: str = ""
    time: str = ""
    accession_number: str = ""
    description: str = ""


@dataclass(frozen=True)
class SeriesRecord:
    """A series."""

    uid: str
    modality: str = ""
    number: int | None = None
    description: str = ""


@dataclass(frozen=True)
class InstanceRecord:
    """What is known of one instance; it changes only when an operator accepts another copy (``storage.conflicts``).

    Attributes
    ----------
    patient, study, series
        What it belongs to. Of several instances that describe them differently the first one's text stays.
    uid, sop_class_uid, transfer_syntax_uid
        Identity and form; the syntax is the file's.
    path
        Relative to the store.
    size
        Bytes of the file.
    digest
        Of the dataset as it was received (``node.digests``).
    received_at
        When, aware.
    calling_ae, origin
        Who sent it: AE title and network address.
    kind, laterality, view_position, usable, opens_exam, reasons
        What ``node.views`` says of it.
    own
        Whether it is one of our own results that came back (rule R8).
    acquired_at
        Acquisition date and time, YYYYMMDDHHMMSS.FFFFFF, or ''.
    instance_number
        Instance Number (0020,0013).
    """

    patient: PatientRecord
    study: StudyRecord
    series: SeriesRecord
    uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: str
    size: int
    digest: str
    received_at: datetime
    calling_ae: str
    origin: str
    kind: str
    laterality: str | None = None
    view_position: str | None = None
    usable: bool = False
    opens_exam: bool = False
    own: bool = False
    acquired_at: str = ""
    instance_number: int | None = None
    reasons: tuple[str, ...] = ()

    @property
    def reference(self) -> InstanceReference:
        """Its three UIDs."""
        return InstanceReference(self.study.uid, self.series.uid, self.uid)


@dataclass(frozen=True)
class ConflictRecord:
    """A different instance that came under the UID of an indexed one (rule R6).

    Attributes
    ----------
    instance_uid
        The UID they share.
    received_at
        When the later copy came.
    path, calling_ae, digest
        As in ``InstanceRecord``, of the copy that is not in force: the later one, until it is accepted.
    identity_changed
        Whether the patient's or study's identity differs.
    differences
        Keywords of the attributes that differ.
    """

    instance_uid: str
    path: str
    received_at: datetime
    calling_ae: str
    digest: str
    identity_changed: bool
    differences: tuple[str, ...]


def add_instance(connection: Connection, record: InstanceRecord) -> bool:
    """Index an instance with its patient, study and series; return False when its UID is indexed already.

    After True nobody else can index this UID until the transaction ends; a concurrent attempt waits for that.
    """
    return insert_new(connection, instances, _row(connection, record))


def replace_instance(connection: Connection, record: InstanceRecord, *, identity: bool) -> None:
    """Let the index say of an instance what another copy of it says.

    Parameters
    ----------
    identity
        Whether the copy is right about its patient and study, too: their texts are then taken from it.
    """
    row = _row(connection, record)
    connection.execute(update(instances).where(instances.c.uid == record.uid).values(row))
    if identity:
        connection.execute(update(patients).where(patients.c.id == row["patient_id"]).values(asdict(record.patient)))
        told = {**asdict(record.study), "patient_id": row["patient_id"]}
        connection.execute(update(studies).where(studies.c.uid == record.study.uid).values(told))


def find_instance(connection: Connection, uid: str) -> InstanceRecord | None:
    """Return what is known of an instance, or None."""
    row = connection.execute(_instances().where(instances.c.uid == uid)).mappings().one_or_none()
    return None if row is None else _instance(row)


def instances_of_exam(connection: Connection, exam_id: int) -> list[InstanceRecord]:
    """Return all instances under an exam's patient and study (rule R5), in order of arrival."""
    key = (exams.c.patient_id == instances.c.patient_id) & (exams.c.study_uid == instances.c.study_uid)
    query = _instances().join(exams, key).where(exams.c.id == exam_id)
    query = query.order_by(instances.c.received_at, instances.c.uid)
    return [_instance(row) for row in connection.execute(query).mappings()]


def known_paths(connection: Connection, paths: Sequence[str]) -> frozenset[str]:
    """Return those of some paths, of one series, that an instance or a conflict has."""
    uids = {uid for path in paths for uid in PurePosixPath(path).with_suffix("").parts[3:4]}
    first = select(instances.c.path).where(instances.c.uid.in_(uids))
    others = select(conflicts.c.path).where(conflicts.c.instance_uid.in_(uids))
    return frozenset(connection.execute(union_all(first, others)).scalars())


def move_file(connection: Connection, former: str, path: str, record: InstanceRecord) -> None:
    """Let the index say of a copy of an instance, in force or set aside, that its file is another one of the same content."""
    of_first = (instances.c.uid == record.uid) & (instances.c.path == former)
    connection.execute(update(instances).where(of_first).values(path=path, size=record.size))
    of_another = (conflicts.c.instance_uid == record.uid) & (conflicts.c.path == former)
    connection.execute(update(conflicts).where(of_another).values(path=path))


def add_conflict(connection: Connection, record: ConflictRecord) -> int:
    """Note a copy that was set aside, and return the number of the conflict."""
    row = {**asdict(record), "differences": list(record.differences)}
    number: int = connection.execute(insert(conflicts).values(row).returning(conflicts.c.id)).scalar_one()
    return number


def conflicts_of_instance(connection: Connection, uid: str) -> list[ConflictRecord]:
    """Return the copies that were set aside, in order of arrival."""
    columns = [conflicts.c[field.name] for field in fields(ConflictRecord)]
    query = select(*columns).where(conflicts.c.instance_uid == uid).order_by(conflicts.c.id)
    rows = connection.execute(query).mappings()
    return [ConflictRecord(**{**row, "differences": tuple(row["differences"])}) for row in rows]


_INSTANCE_COLUMNS = tuple(
    column.name for column in instances.c if column.name not in {"patient_id", "study_uid", "series_uid", "reasons"}
)
_NESTED: Mapping[str, tuple[type, Table]] = {
    "patient": (PatientRecord, patients),
    "study": (StudyRecord, studies),
    "series": (SeriesRecord, series),
}


def _row(connection: Connection, record: InstanceRecord) -> dict[str, Any]:
    """Return the row of an instance; its patient, study and series are indexed by then."""
    patient = patient_key(connection, record.patient)
    if patient is None:
        insert_new(connection, patients, asdict(record.patient))
        patient = patient_key(connection, record.patient)
    insert_new(connection, studies, {**asdict(record.study), "patient_id": patient})
    insert_new(connection, series, {**asdict(record.series), "study_uid": record.study.uid})
    row = {name: getattr(record, name) for name in _INSTANCE_COLUMNS} | {"reasons": list(record.reasons)}
    return row | {"patient_id": patient, "study_uid": record.study.uid, "series_uid": record.series.uid}


def _instances() -> Select[Any]:
    nested = [
        table.c[field.name].label(f"{prefix}__{field.name}")
        for prefix, (kind, table) in _NESTED.items()
        for field in fields(kind)
    ]
    own = [instances.c[name] for name in (*_INSTANCE_COLUMNS, "reasons")]
    return select(*own, *nested).select_from(
        instances.join(patients, patients.c.id == instances.c.patient_id)
        .join(studies, studies.c.uid == instances.c.study_uid)
        .join(series, series.c.uid == instances.c.series_uid)
    )


def _instance(row: RowMapping) -> InstanceRecord:
    nested = {
        prefix: kind(**{field.name: row[f"{prefix}__{field.name}"] for field in fields(kind)})
        for prefix, (kind, _) in _NESTED.items()
    }
    own = {name: row[name] for name in _INSTANCE_COLUMNS}
    return InstanceRecord(**nested, **own, reasons=tuple(row["reasons"]))
