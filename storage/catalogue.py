"""The catalogue: every object that can be retrieved, sources and results alike, under the attributes it is searched by.

One row an instance, as its own header says, and one row for each study of a patient. Where a file lies, and whether it
still does, is known of the instance or the result.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Select, exists, func, select, update

from storage.database import insert_new
from storage.states import ExamState
from storage.tables import catalogue, catalogue_studies, exams, instances, jobs, removals, results


@dataclass(frozen=True)
class StudyEntry:
    """A patient's study: dates as YYYYMMDD, times as HHMMSS.FFFFFF, '' when absent or no such value; texts as they are."""

    uid: str
    issuer: str = ""
    patient_id: str = ""
    patient_name: str = ""
    birth_date: str = ""
    sex: str = ""
    date: str = ""
    time: str = ""
    accession_number: str = ""
    study_id: str = ""
    referring_physician: str = ""
    description: str = ""
    timezone: str = ""

    @property
    def key(self) -> str:
        """Primary key: of one study of one patient (rule R5)."""
        return hashlib.sha256(json.dumps([self.issuer, self.patient_id, self.uid]).encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """One instance; dates, times and texts as in `StudyEntry`, numbers None when absent or no such value."""

    study: StudyEntry
    uid: str
    series_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    modality: str = ""
    series_number: int | None = None
    series_description: str = ""
    laterality: str = ""
    body_part: str = ""
    performed_date: str = ""
    performed_time: str = ""
    requested_procedure_id: str = ""
    scheduled_step_id: str = ""
    instance_number: int | None = None
    rows: int | None = None
    columns: int | None = None
    bits_allocated: int | None = None
    frames: int | None = None


@dataclass(frozen=True)
class Held:
    """An instance that can be retrieved.

    Attributes
    ----------
    uid, study_uid, series_uid, sop_class_uid, transfer_syntax_uid
        Identity and form.
    path, size
        Its file, relative to the store, and its bytes.
    frames
        Number of its frames, None when it does not say.
    removed
        Whether the file was removed after its time.
    """

    uid: str
    study_uid: str
    series_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: str
    size: int
    frames: int | None
    removed: bool


def catalogued(connection: Connection, entry: Entry) -> None:
    """Enter an instance; one that is there already stays as it is."""
    insert_new(connection, catalogue_studies, _study_row(entry.study))
    insert_new(connection, catalogue, _row(entry))


def corrected(connection: Connection, entry: Entry) -> None:
    """Let the catalogue say of an instance, and of its study, what the copy says that is in force now (rule R6)."""
    catalogued(connection, entry)
    study = catalogue_studies.c.key == entry.study.key
    connection.execute(update(catalogue_studies).where(study).values(_study_row(entry.study)))
    connection.execute(update(catalogue).where(catalogue.c.uid == entry.uid).values(_row(entry)))


def uncatalogued(connection: Connection, limit: int, without: Collection[str] = ()) -> list[tuple[str, str]]:
    """Return SOP Instance UID and path of what older versions have kept and the catalogue does not know yet."""
    known = exists().where(catalogue.c.uid == instances.c.uid)
    sources = select(instances.c.uid, instances.c.path).where(~known, _is_kept(instances.c.path))
    known = exists().where(catalogue.c.uid == results.c.uid)
    other_forms = select(results.c.fallback_uid).where(results.c.fallback_uid.is_not(None))
    # The facts of an answer are no DICOM object, and have no SOP class.
    ours = select(results.c.uid, results.c.path).where(
        ~known, _is_kept(results.c.path), results.c.sop_class_uid != "", results.c.uid.not_in(other_forms)
    )
    if without:
        sources = sources.where(instances.c.uid.not_in(without))
        ours = ours.where(results.c.uid.not_in(without))
    found = [(row.uid, row.path) for row in connection.execute(sources.limit(limit))]
    found += [(row.uid, row.path) for row in connection.execute(ours.limit(limit - len(found)))]
    return found


def held(
    connection: Connection, study_uid: str, series_uid: str | None = None, instance_uid: str | None = None
) -> list[Held]:
    """Return what is held of a study, a series or an instance, in the order of series and instances."""
    query = (
        select(
            catalogue.c.uid,
            catalogue_studies.c.uid.label("study_uid"),
            catalogue.c.series_uid,
            catalogue.c.sop_class_uid,
            catalogue.c.transfer_syntax_uid,
            path_of().label("path"),
            func.coalesce(results.c.size, instances.c.size).label("size"),
            catalogue.c.frames,
            (~_is_kept(path_of())).label("removed"),
        )
        .select_from(with_files())
        .where(catalogue_studies.c.uid == study_uid, in_force())
        .order_by(catalogue.c.series_number, catalogue.c.series_uid, catalogue.c.instance_number, catalogue.c.uid)
    )
    if series_uid is not None:
        query = query.where(catalogue.c.series_uid == series_uid)
    if instance_uid is not None:
        query = query.where(catalogue.c.uid == instance_uid)
    return [Held(**{**row, "removed": bool(row["removed"])}) for row in connection.execute(query).mappings()]


def files() -> FromClause:
    """Return the catalogue joined to the rows that know the files."""
    return catalogue.outerjoin(instances, instances.c.uid == catalogue.c.uid).outerjoin(
        results, results.c.uid == catalogue.c.uid
    )


def with_files() -> FromClause:
    """Return `files` joined to the studies."""
    return files().join(catalogue_studies, catalogue_studies.c.key == catalogue.c.study_key)


def path_of() -> ColumnElement[str]:
    """Return the path of a row of `files`: of our own object that came back, the one that was written here."""
    return func.coalesce(results.c.path, instances.c.path)


def in_force() -> ColumnElement[bool]:
    """Tell of a row of `files` whether it has a file and does not answer an exam that was found to be another's."""
    moved: Select[Any] = (
        select(jobs.c.id)
        .join(exams, exams.c.id == jobs.c.exam_id)
        .where(jobs.c.id == results.c.job_id, exams.c.state == ExamState.MOVED)
    )
    return path_of().is_not(None) & ~moved.exists()


def kept() -> ColumnElement[bool]:
    """Tell of a row of `files` whether it can be retrieved."""
    return in_force() & _is_kept(path_of())


def _is_kept(path: ColumnElement[str]) -> ColumnElement[bool]:
    return ~exists().where(removals.c.path == path)


def _study_row(study: StudyEntry) -> dict[str, Any]:
    # Names are matched without regard to case (PS3.4 C.2.2.2.1).
    return asdict(study) | {
        "key": study.key,
        "patient_name_key": study.patient_name.casefold(),
        "referring_physician_key": study.referring_physician.casefold(),
    }


def _row(entry: Entry) -> dict[str, Any]:
    own = {field.name: getattr(entry, field.name) for field in fields(entry) if field.name != "study"}
    return own | {"study_key": entry.study.key}
