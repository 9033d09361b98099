"""Exams: opened and changed by arriving images, closed into a job in one transaction."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, insert, select, update

from storage.database import insert_new, limited
from storage.errors import AmbiguousExam, ExamChanged, NoSuchExam
from storage.patients import PatientRecord, patient_key
from storage.states import DeliveryState, ExamState, JobState, Plan
from storage.tables import deliveries, exam_images, exams, jobs, patients, results


@dataclass(frozen=True)
class ExamRecord:
    """One patient's study as it is read together (rule R5).

    Attributes
    ----------
    id
        Primary key.
    uid
        16 hexadecimal digits that people and log lines use; always the same for one patient and study.
    patient
        Whose it is.
    study_uid
        Its study.
    state
        Where the present revision stands.
    revision
        1, 2, …: grows when an image arrives after the exam was closed.
    arrivals
        How many images, and notes about images, have touched it.
    opened_at
        When the present revision began to collect.
    last_image_at
        When the last of these arrived.
    due_at
        When the exam clock will look again; None when it waits for nothing.
    status
        Of the present revision's answer; None without one.
    reasons
        Why it was closed as it was.
    held
        Whether its deliveries are stopped (an identity conflict, rule R6).
    """

    id: int
    uid: str
    patient: PatientRecord
    study_uid: str
    state: ExamState
    revision: int
    arrivals: int
    opened_at: datetime
    last_image_at: datetime
    due_at: datetime | None
    status: str | None
    reasons: tuple[str, ...]
    held: bool

    def log_context(self) -> dict[str, object]:
        """Return the fields of a log line about it; no patient data (rule R14)."""
        return {"exam": self.uid, "revision": self.revision}


@dataclass(frozen=True)
class ExamImage:
    """Whether an image was chosen for an exam's revision, as which view, or why not."""

    instance_uid: str
    view: str | None
    chosen: bool
    reason: str


def touch(connection: Connection, patient: PatientRecord, study_uid: str, now: datetime) -> ExamRecord:
    """Note that an image has arrived, in the transaction that indexes it; opens the exam when there is none.

    An exam that was closed collects again, as its next revision.
    """
    key = patient_key(connection, patient)
    here = (exams.c.patient_id == key) & (exams.c.study_uid == study_uid)
    name = json.dumps([patient.issuer, patient.patient_id, study_uid])
    opened: dict[str, Any] = {
        "uid": hashlib.sha256(name.encode()).hexdigest()[:16],
        "patient_id": key,
        "study_uid": study_uid,
        "state": ExamState.COLLECTING,
        "revision": 1,
        "arrivals": 0,
        "opened_at": now,
        "last_image_at": now,
        "reasons": [],
        "held": False,
    }
    insert_new(connection, exams, opened)
    return _collect(connection, here, now)


def revise(connection: Connection, exam_id: int, now: datetime) -> ExamRecord:
    """Note that an exam's images have changed although none has arrived: it collects again, as in `touch`."""
    return _collect(connection, exams.c.id == exam_id, now)


def recall(connection: Connection, exam_id: int, now: datetime) -> None:
    """Let nothing go out, now or again, that stands on an exam's present images: end its jobs and its deliveries.

    What was sent before keeps the time of that.
    """
    _supersede(connection, jobs.c.exam_id == exam_id, now)
    of_exam = select(results.c.uid).join(jobs, jobs.c.id == results.c.job_id).where(jobs.c.exam_id == exam_id)
    connection.execute(
        update(deliveries)
        .where(deliveries.c.result_uid.in_(of_exam), deliveries.c.state != DeliveryState.REPLACED)
        .values(state=DeliveryState.RECALLED, finished_at=now)
    )


def leave(connection: Connection, exam: ExamRecord, state: ExamState, reasons: Sequence[str], now: datetime) -> None:
    """End an exam's revision without a job, because it is not to be answered, or cannot be.

    Raises
    ------
    ExamChanged
        When an image has arrived since ``exam`` was read from the database.
    """
    _unchanged(connection, exam)
    _supersede(connection, jobs.c.exam_id == exam.id, now)
    connection.execute(
        update(exams).where(exams.c.id == exam.id).values(state=state, due_at=None, reasons=list(reasons), status=None)
    )


def _unchanged(connection: Connection, exam: ExamRecord) -> ExamState:
    present = connection.execute(select(exams).where(exams.c.id == exam.id).with_for_update()).one()
    if (present.revision, present.arrivals) != (exam.revision, exam.arrivals):
        raise ExamChanged(exam.uid)
    state: ExamState = present.state
    return state


def _supersede(connection: Connection, which: ColumnElement[bool], now: datetime) -> None:
    unfinished = jobs.c.state.in_([JobState.QUEUED, JobState.RUNNING])
    connection.execute(
        update(jobs)
        .where(which, unfinished)
        .values(state=JobState.SUPERSEDED, finished_at=now, lease_owner=None, lease_until=None)
    )


def _collect(connection: Connection, here: ColumnElement[bool], now: datetime) -> ExamRecord:
    state = connection.execute(select(exams.c.state).where(here).with_for_update()).scalar_one()
    changes: dict[str, Any] = {"arrivals": exams.c.arrivals + 1, "last_image_at": now, "due_at": None}
    if state is not ExamState.COLLECTING:
        changes |= {
            "state": ExamState.COLLECTING,
            "revision": exams.c.revision + 1,
            "opened_at": now,
            "status": None,
            "reasons": [],
        }
    connection.execute(update(exams).where(here).values(changes))
    return exam_of(connection.execute(_exams().where(here)).mappings().one())


def collecting(connection: Connection) -> list[ExamRecord]:
    """Return the exams that still await images, oldest first."""
    query = _exams().where(exams.c.state == ExamState.COLLECTING).order_by(exams.c.opened_at, exams.c.id)
    return _list(connection, query)


def put_back(connection: Connection, exam: ExamRecord, now: datetime) -> None:
    """Note that the clock was put back: an exam whose times are yet to come waits from now on instead."""
    early = {name: now for name in ("opened_at", "last_image_at") if getattr(exam, name) > now}
    unchanged = (exams.c.id == exam.id) & (exams.c.arrivals == exam.arrivals)
    if early:
        connection.execute(update(exams).where(unchanged).values(early))


def set_due(connection: Connection, exam: ExamRecord, due_at: datetime) -> None:
    """Note when the exam clock will look at an exam again, for those who ask what it waits for."""
    unchanged = (exams.c.id == exam.id) & (exams.c.arrivals == exam.arrivals)
    connection.execute(update(exams).where(unchanged).values(due_at=due_at))


def close(
    connection: Connection,
    exam: ExamRecord,
    *,
    chosen: Mapping[str, str],
    rejected: Mapping[str, str],
    plan: Plan,
    reasons: Sequence[str],
    model_digest: str,
    now: datetime,
) -> int:
    """Hand an exam over to the workers: the images, the exam's state and the job, in one transaction.

    Unfinished jobs of older revisions are superseded, so that no older answer follows a newer one. Closing again what
    is closed returns the same job.

    Parameters
    ----------
    exam
        As it was when the images were looked at.
    chosen
        SOP Instance UID → view, of the images to read.
    rejected
        SOP Instance UID → reason.
    plan, reasons
        What the job is to do, and why the exam was closed so.
    model_digest
        Which model is to read.

    Returns
    -------
    int
        The job's number.

    Raises
    ------
    ExamChanged
        When an image has arrived since ``exam`` was read from the database.
    """
    state = _unchanged(connection, exam)
    this_job = (jobs.c.exam_id == exam.id) & (jobs.c.revision == exam.revision) & (jobs.c.model_digest == model_digest)
    if state is not ExamState.COLLECTING:
        existing: int | None = connection.execute(select(jobs.c.id).where(this_job)).scalar_one_or_none()
        if existing is None:
            raise ExamChanged(exam.uid)
        return existing
    images = [ExamImage(uid, view, chosen=True, reason="") for uid, view in chosen.items()]
    images += [ExamImage(uid, None, chosen=False, reason=reason) for uid, reason in rejected.items()]
    for image in images:
        connection.execute(insert(exam_images).values(exam_id=exam.id, revision=exam.revision, **vars(image)))
    _supersede(connection, (jobs.c.exam_id == exam.id) & (jobs.c.revision < exam.revision), now)
    connection.execute(
        update(exams)
        .where(exams.c.id == exam.id)
        .values(state=ExamState.QUEUED, due_at=None, reasons=list(reasons), status=None)
    )
    statement = (
        insert(jobs)
        .values(
            exam_id=exam.id,
            revision=exam.revision,
            model_digest=model_digest,
            state=JobState.QUEUED,
            plan=plan,
            reasons=list(reasons),
            attempts=0,
            last_resorts=0,
            not_before=now,
            created_at=now,
        )
        .returning(jobs.c.id)
    )
    created: int = connection.execute(statement).scalar_one()
    return created


def lock(connection: Connection, *of: ExamRecord | None) -> None:
    """Let no image arrive for exams, and none be held, before this transaction ends; SQLite has one writer at a time."""
    lock_keys(connection, [exam.id for exam in of if exam])


def lock_keys(connection: Connection, keys: Sequence[int]) -> None:
    """Do the same for exams by their primary keys."""
    connection.execute(select(exams.c.id).where(exams.c.id.in_(keys)).order_by(exams.c.id).with_for_update())


def hold(connection: Connection, exam_id: int, *, held: bool) -> None:
    """Stop or resume an exam's deliveries (rule R6)."""
    connection.execute(update(exams).where(exams.c.id == exam_id).values(held=held))


def exam_of_study(connection: Connection, patient: PatientRecord, study_uid: str) -> ExamRecord | None:
    """Return the exam of one patient's study, or None when no image has opened one."""
    query = _exams().where(
        patients.c.issuer == patient.issuer,
        patients.c.patient_id == patient.patient_id,
        exams.c.study_uid == study_uid,
    )
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else exam_of(row)


def has_exam(connection: Connection, study_uid: str) -> bool:
    """Tell whether a study has an exam, of whatever patient."""
    query = select(exams.c.id).where(exams.c.study_uid == study_uid).limit(1)
    return connection.execute(query).one_or_none() is not None


def get_exam(connection: Connection, exam_id: int) -> ExamRecord:
    """Return an exam by its primary key.

    Raises
    ------
    NoSuchExam
        When there is none.
    """
    row = connection.execute(_exams().where(exams.c.id == exam_id)).mappings().one_or_none()
    if row is None:
        raise NoSuchExam(exam_id)
    return exam_of(row)


def find_exam(connection: Connection, uid: str) -> ExamRecord:
    """Return an exam by its id or the beginning of it; nothing at all is the beginning of none.

    Raises
    ------
    NoSuchExam, AmbiguousExam
        When none, or several, begin so.
    """
    if not uid:
        raise NoSuchExam("''")
    # All of 16 hexadecimal digits are before the g: unlike a pattern, this is found by the index.
    query = _exams().where(exams.c.uid >= uid.lower(), exams.c.uid < uid.lower() + "g").limit(2)
    match _list(connection, query):
        case [exam]:
            return exam
        case []:
            raise NoSuchExam(uid)
        case _:
            raise AmbiguousExam(uid)


def list_exams(connection: Connection, limit: int, state: ExamState | None = None) -> list[ExamRecord]:
    """Return the exams whose images arrived last, newest first."""
    query = limited(_exams().order_by(exams.c.last_image_at.desc(), exams.c.id.desc()), limit)
    if state is not None:
        query = query.where(exams.c.state == state)
    return _list(connection, query)


def images_of(connection: Connection, exam_id: int, revision: int) -> list[ExamImage]:
    """Return the images of a closed revision, the chosen ones first."""
    query = (
        select(exam_images.c.instance_uid, exam_images.c.view, exam_images.c.chosen, exam_images.c.reason)
        .where(exam_images.c.exam_id == exam_id, exam_images.c.revision == revision)
        .order_by(exam_images.c.chosen.desc(), exam_images.c.view, exam_images.c.instance_uid)
    )
    return [ExamImage(*row) for row in connection.execute(query)]


def exam_columns() -> list[ColumnElement[Any]]:
    """Return what to select of exams and patients for `exam_of`."""
    patient = [patients.c[field.name].label(f"patient__{field.name}") for field in fields(PatientRecord)]
    return [*(exams.c[field.name] for field in fields(ExamRecord) if field.name != "patient"), *patient]


def exam_of(row: RowMapping) -> ExamRecord:
    """Return the exam that a row tells of."""
    patient = PatientRecord(**{field.name: row[f"patient__{field.name}"] for field in fields(PatientRecord)})
    own = {field.name: row[field.name] for field in fields(ExamRecord) if field.name != "patient"}
    return ExamRecord(**{**own, "patient": patient, "reasons": tuple(own["reasons"])})


def _exams() -> Select[Any]:
    return select(*exam_columns()).join(patients, patients.c.id == exams.c.patient_id)


def _list(connection: Connection, query: Select[Any]) -> list[ExamRecord]:
    return [exam_of(row) for row in connection.execute(query).mappings()]
