"""How much waits, and since when: what an operator and a monitoring system look at."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, func, select

from storage.states import UNANSWERED, ExamState
from storage.tables import WAITING, deliveries, exams, instances, jobs


@dataclass(frozen=True)
class Waiting:
    """How many wait, and since when the oldest does."""

    number: int
    oldest: datetime


def exams_by_state(connection: Connection) -> dict[ExamState, int]:
    """Return the number of exams in every state."""
    query = select(exams.c.state, func.count()).group_by(exams.c.state)
    found = {row[0]: row[1] for row in connection.execute(query)}
    return {state: found.get(state, 0) for state in ExamState}


def unanswered(connection: Connection) -> Waiting | None:
    """Return the exams that wait for their answer, counted from the first image of the present revision; None: none."""
    query = select(func.count(), func.min(exams.c.opened_at)).where(exams.c.state.in_(UNANSWERED))
    number, oldest = connection.execute(query).one()
    return Waiting(number, oldest) if number else None


def undelivered(connection: Connection) -> dict[str, Waiting]:
    """Return the results that wait to be sent, by destination; one for which nothing waits is left out."""
    query = (
        select(deliveries.c.destination, func.count(), func.min(deliveries.c.created_at))
        .where(WAITING)
        .group_by(deliveries.c.destination)
        .order_by(deliveries.c.destination)
    )
    return {name: Waiting(number, oldest) for name, number, oldest in connection.execute(query)}


@dataclass(frozen=True)
class Answered:
    """A reading that has ended with an answer.

    Attributes
    ----------
    job, exam
        Its number, and its exam's.
    sender
        AE title that sent the exam's first image.
    answer
        Status of the answer.
    score
        Suspicion score, 0 to 100; None when nothing was read.
    attempts
        How often it was claimed.
    last_image_at, finished_at
        When the last image that it waited for came, and when the answer was in the outbox.
    model_digest
        Of the model that has read.
    timings
        Seconds by stage.
    """

    job: int
    exam: int
    sender: str
    answer: str
    score: float | None
    attempts: int
    last_image_at: datetime
    finished_at: datetime
    model_digest: str
    timings: Mapping[str, float]


def last_reader(connection: Connection) -> str:
    """Return the digest of the model that was the last to read something; '' where none has."""
    query = (
        select(jobs.c.model_digest)
        .where(jobs.c.suspicion.is_not(None), jobs.c.finished_at.is_not(None))
        .order_by(jobs.c.finished_at.desc())
        .limit(1)
    )
    return connection.execute(query).scalar_one_or_none() or ""


def last_image_of_job() -> ColumnElement[Any]:
    """Return when the last image came before a job was made; what came later asks for the exam's next revision."""
    before = (
        select(func.max(instances.c.received_at))
        .where(
            instances.c.patient_id == exams.c.patient_id,
            instances.c.study_uid == exams.c.study_uid,
            instances.c.own.is_(False),
            instances.c.received_at <= jobs.c.created_at,
        )
        .scalar_subquery()
    )
    earlier = func.coalesce(before, jobs.c.created_at)
    return case((exams.c.last_image_at <= jobs.c.created_at, exams.c.last_image_at), else_=earlier)


def answers_since(connection: Connection, since: datetime) -> list[Answered]:
    """Return the readings that ended with an answer since a time, that time included, oldest first."""
    sender = (
        select(instances.c.calling_ae)
        .where(
            instances.c.patient_id == exams.c.patient_id,
            instances.c.study_uid == exams.c.study_uid,
            instances.c.own.is_(False),
        )
        .order_by(instances.c.received_at)
        .limit(1)
        .scalar_subquery()
    )
    query = (
        select(
            *(jobs.c.id, jobs.c.exam_id, sender, jobs.c.answer, jobs.c.suspicion, jobs.c.attempts),
            *(last_image_of_job(), jobs.c.finished_at, jobs.c.model_digest, jobs.c.timings),
        )
        .join(exams, exams.c.id == jobs.c.exam_id)
        .where(jobs.c.finished_at >= since, jobs.c.answer.is_not(None))
        .order_by(jobs.c.finished_at)
    )
    return [Answered(*row[:9], timings=row[9] or {}) for row in connection.execute(query)]
