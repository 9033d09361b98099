"""What people look for among many: exams by state, score, date and sender; what was read when, and how fast."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, ScalarSelect, Select, func, select

from storage.database import limited
from storage.deliveries import not_got
from storage.exams import ExamRecord, exam_columns, exam_of
from storage.figures import last_image_of_job
from storage.states import ExamState, JobState
from storage.tables import CLAIMABLE, deliveries, exams, instances, jobs, patients, results, studies


@dataclass(frozen=True)
class Wanted:
    """Which exams.

    Attributes
    ----------
    state
        Only these.
    least_score
        Only those whose present revision got at least this score.
    since, until
        Only those whose last image came in this time: from, and before.
    calling_ae
        Only those with an image of this sender.
    uid
        Only those whose id begins so.
    apart
        Kinds of instance that are no image.
    """

    state: ExamState | None = None
    least_score: float | None = None
    since: datetime | None = None
    until: datetime | None = None
    calling_ae: str = ""
    uid: str = ""
    apart: Collection[str] = ()


@dataclass(frozen=True)
class Row:
    """An exam in a list.

    Attributes
    ----------
    exam
        It.
    study_date
        As in the header.
    senders
        AE titles of those that sent its images.
    images
        How many it has.
    score
        Of its present revision, None without one.
    job_state, attempts, started_at, not_before, lease_until
        Of the reading of the present revision; None without one.
    not_got
        Destination → kinds of what it has refused of the present revision, or was given up.
    """

    exam: ExamRecord
    study_date: str
    senders: tuple[str, ...]
    images: int
    score: float | None
    job_state: JobState | None
    attempts: int
    started_at: datetime | None
    not_before: datetime | None
    lease_until: datetime | None
    not_got: Mapping[str, tuple[str, ...]]


def search_exams(connection: Connection, wanted: Wanted, limit: int, offset: int = 0) -> list[Row]:
    """Return the exams that are wanted, those first whose images arrived last."""
    query = _rows().where(*_conditions(wanted))
    query = query.order_by(exams.c.last_image_at.desc(), exams.c.id.desc())
    found = list(connection.execute(limited(query, limit, offset)).mappings())
    ids = [row["id"] for row in found]
    senders, lacking = _senders(connection, ids, wanted.apart), not_got(connection, ids)
    return [_row(row, senders.get(row["id"], ((), 0)), lacking.get(row["id"], {})) for row in found]


def count_exams(connection: Connection, wanted: Wanted) -> int:
    """Return how many exams are wanted."""
    # Of what the rows tell only the score decides which are wanted.
    counted = exams if wanted.least_score is None else exams.outerjoin(jobs, jobs.c.id == _newest_job())
    query = select(func.count()).select_from(counted).where(*_conditions(wanted))
    count: int = connection.execute(query).scalar_one()
    return count


def calling_aes(connection: Connection) -> list[str]:
    """Return the AE titles that images came from, sorted."""
    # SELECT DISTINCT goes through every image; this takes a step in the index for each name.
    column = instances.c.calling_ae
    first = select(func.min(column).label("name")).where(column >= "").cte("names", recursive=True)
    greater = select(func.min(column)).where(column > first.c.name).scalar_subquery()
    names = first.union_all(select(greater).where(first.c.name.is_not(None)))
    return list(connection.execute(select(names.c.name).where(names.c.name.is_not(None))).scalars())


def study_of(connection: Connection, exam: ExamRecord) -> tuple[str, str]:
    """Return date and description of an exam's study, as in the header."""
    row = connection.execute(
        select(studies.c.date, studies.c.description).where(studies.c.uid == exam.study_uid)
    ).one_or_none()
    return (row.date, row.description) if row else ("", "")


@dataclass(frozen=True)
class Reading:
    """A reading that has ended: when the last image that it waited for came, when its job was made, started and finished."""

    last_image_at: datetime
    created_at: datetime
    started_at: datetime
    finished_at: datetime
    timings: dict[str, float]


def readings_since(connection: Connection, since: datetime) -> list[Reading]:
    """Return the readings that ended since a time, oldest first."""
    query = (
        select(last_image_of_job(), jobs.c.created_at, jobs.c.started_at, jobs.c.finished_at, jobs.c.timings)
        .join(exams, exams.c.id == jobs.c.exam_id)
        .where(jobs.c.state == JobState.DONE, jobs.c.finished_at >= since, jobs.c.started_at.is_not(None))
        .order_by(jobs.c.finished_at)
    )
    return [Reading(*row[:4], timings=dict(row.timings or {})) for row in connection.execute(query)]


def typical_seconds(connection: Connection, of_last: int = 25) -> float | None:
    """Return how long the last readings took in the middle; None before the first."""
    query = (
        select(jobs.c.timings)
        .where(jobs.c.state == JobState.DONE, jobs.c.timings.is_not(None))
        .order_by(jobs.c.finished_at.desc())
    )
    last = connection.execute(limited(query, of_last)).scalars()
    totals = sorted(float(timings["total"]) for timings in last if "total" in timings)
    return totals[len(totals) // 2] if totals else None


def oldest_waiting_job(connection: Connection) -> datetime | None:
    """Return since when the job that nobody reads could begin that has waited longest; of those tried again, maybe not yet."""
    query = select(func.min(jobs.c.not_before)).where(CLAIMABLE, jobs.c.state == JobState.QUEUED)
    oldest: datetime | None = connection.execute(query).scalar_one()
    return oldest


def last_success(connection: Connection) -> dict[str, datetime]:
    """Return when each destination accepted something last."""
    query = select(deliveries.c.destination, func.max(deliveries.c.sent_at)).group_by(deliveries.c.destination)
    return {row[0]: row[1] for row in connection.execute(query) if row[1] is not None}


def received_since(connection: Connection, since: datetime) -> int:
    """Return how many images came since a time."""
    query = select(func.count()).select_from(instances).where(instances.c.received_at >= since)
    count: int = connection.execute(query).scalar_one()
    return count


def bytes_kept(connection: Connection) -> tuple[int, int]:
    """Return the bytes of images and of results that were ever kept."""
    images = connection.execute(select(func.coalesce(func.sum(instances.c.size), 0))).scalar_one()
    ours = connection.execute(select(func.coalesce(func.sum(results.c.size), 0))).scalar_one()
    return int(images), int(ours)


def _newest_job() -> ScalarSelect[Any]:
    # Of several models one may have read one revision; the newest job counts.
    return (
        select(func.max(jobs.c.id))
        .where(jobs.c.exam_id == exams.c.id, jobs.c.revision == exams.c.revision)
        .correlate(exams)
        .scalar_subquery()
    )


def _rows() -> Select[Any]:
    job = [jobs.c.suspicion, jobs.c.state.label("job_state"), jobs.c.attempts, jobs.c.started_at, jobs.c.not_before]
    job.append(jobs.c.lease_until)
    return (
        select(*exam_columns(), *job, studies.c.date.label("study_date"))
        .join(patients, patients.c.id == exams.c.patient_id)
        .join(studies, studies.c.uid == exams.c.study_uid)
        .outerjoin(jobs, jobs.c.id == _newest_job())
    )


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.state is not None:
        conditions.append(exams.c.state == wanted.state)
    if wanted.least_score is not None:
        conditions.append(jobs.c.suspicion >= wanted.least_score)
    if wanted.since is not None:
        conditions.append(exams.c.last_image_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(exams.c.last_image_at < wanted.until)
    if wanted.uid:
        conditions.append(exams.c.uid.startswith(wanted.uid.lower(), autoescape=True))
    if wanted.calling_ae:
        sent = select(instances.c.uid).where(_image_of_exam(wanted.apart), instances.c.calling_ae == wanted.calling_ae)
        conditions.append(sent.correlate(exams).exists())
    return conditions


def _image_of_exam(apart: Collection[str]) -> ColumnElement[bool]:
    of_exam = (instances.c.patient_id == exams.c.patient_id) & (instances.c.study_uid == exams.c.study_uid)
    return of_exam & instances.c.own.is_(False) & instances.c.kind.not_in(apart)


def _senders(
    connection: Connection, ids: Sequence[int], apart: Collection[str]
) -> dict[int, tuple[tuple[str, ...], int]]:
    query = (
        select(exams.c.id, instances.c.calling_ae, func.count())
        .join(instances, _image_of_exam(apart))
        .where(exams.c.id.in_(ids))
        .group_by(exams.c.id, instances.c.calling_ae)
        .order_by(instances.c.calling_ae)
    )
    found: dict[int, tuple[tuple[str, ...], int]] = {}
    for exam_id, calling_ae, count in connection.execute(query):
        names, images = found.get(exam_id, ((), 0))
        found[exam_id] = ((*names, calling_ae), images + count)
    return found


def _row(row: Any, sent: tuple[tuple[str, ...], int], lacking: Mapping[str, tuple[str, ...]]) -> Row:
    return Row(
        exam_of(row),
        row["study_date"],
        sent[0],
        sent[1],
        row["suspicion"],
        row["job_state"],
        row["attempts"] or 0,
        row["started_at"],
        row["not_before"],
        row["lease_until"],
        lacking,
    )
