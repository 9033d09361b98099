"""Deliveries as they stand: one result on its way to one destination, listed and counted for whoever looks."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Engine, Select, func, literal, select, tuple_

from config.mix import ResultKind
from storage.database import reading
from storage.states import UNDELIVERED, DeliveryState
from storage.tables import Moment, deliveries, exams, jobs, results

ANSWER: Final = tuple_(jobs.c.revision, results.c.created_at)
"""By which the answers of an exam are told apart and stand in their order: one revision may be read again."""
_TELLING: Final = (ResultKind.SR, ResultKind.CAD_SR, ResultKind.SC, ResultKind.PDF)
"""Kinds that tell a whole answer, each by itself."""
_AT_ONCE: Final = 500
"""Exams that one statement asks for: SQLite takes 32,766 parameters, PostgreSQL 65,535."""
_OVERTAKEN_BY: Final[Mapping[ResultKind, Collection[ResultKind]]] = MappingProxyType(
    dict.fromkeys(ResultKind, tuple(ResultKind)) | dict.fromkeys(_TELLING, _TELLING) | {ResultKind.REJECTION: ()}
)
"""Kind → by what of a later answer it is overtaken, which a destination would take for the last word when it follows that.

Should a later report be refused, the earlier one is all that the destination has. A rejection note withdraws what is older
than its own answer, whenever it comes."""


@dataclass(frozen=True)
class Delivery:
    """One result on its way to one destination.

    Attributes
    ----------
    id
        Primary key.
    result_uid, sop_class_uid, study_uid, series_uid, kind, path, size
        The result; the path is relative to the store.
    fallback_uid
        The result that is sent instead where this one is refused for good, or None.
    exam_id, exam_uid, revision, issued_at
        What it answers, and when.
    destination
        The destination's name.
    state
        Where the delivery stands.
    attempts
        How often it was tried.
    created_at, not_before
        Since when it waits, and when it may be tried.
    first_attempt_at, last_attempt_at, finished_at
        When it was first and last tried, and ended; the first moved on by the time in which it was due and not tried.
    status_code, message
        What the destination said last: DIMSE status, and words.
    sent_at, proven_at
        When the destination accepted it, and when it was committed or verified.
    proofs
        How often proof was asked for since.
    """

    id: int
    result_uid: str
    sop_class_uid: str
    study_uid: str
    series_uid: str
    kind: str
    path: str
    size: int
    fallback_uid: str | None
    exam_id: int
    exam_uid: str
    revision: int
    issued_at: datetime
    destination: str
    state: DeliveryState
    attempts: int
    created_at: datetime
    not_before: datetime
    first_attempt_at: datetime | None
    last_attempt_at: datetime | None
    finished_at: datetime | None
    status_code: int | None
    message: str | None
    sent_at: datetime | None
    proven_at: datetime | None
    proofs: int

    @property
    def answer(self) -> tuple[int, datetime]:
        """By which the answers of an exam are told apart, and stand in their order."""
        return self.revision, self.issued_at

    def log_context(self) -> dict[str, object]:
        """Return the fields of a log line about it."""
        return {
            "delivery": self.id,
            "destination": self.destination,
            "exam": self.exam_uid,
            "revision": self.revision,
            "result": self.result_uid,
        }


class Deliveries:
    """What is known of the deliveries of all lanes.

    Parameters
    ----------
    engine
        The database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def of_exam(self, exam_id: int) -> list[Delivery]:
        """Return all deliveries of an exam, oldest first."""
        return self._list(all_deliveries().where(exams.c.id == exam_id))

    def latest(
        self,
        limit: int,
        *,
        exam_id: int | None = None,
        state: DeliveryState | None = None,
        destination: str | None = None,
    ) -> list[Delivery]:
        """Return deliveries, newest first."""
        query = all_deliveries().order_by(deliveries.c.id.desc()).limit(limit)
        if exam_id is not None:
            query = query.where(exams.c.id == exam_id)
        if state is not None:
            query = query.where(deliveries.c.state == state)
        if destination is not None:
            query = query.where(deliveries.c.destination == destination)
        with reading(self._engine) as connection:
            return listed(connection, query)

    def counts(self) -> dict[str, dict[DeliveryState, int]]:
        """Return the number of deliveries by destination and state."""
        query = select(deliveries.c.destination, deliveries.c.state, func.count()).group_by(
            deliveries.c.destination, deliveries.c.state
        )
        found: dict[str, dict[DeliveryState, int]] = {}
        with reading(self._engine) as connection:
            for destination, state, number in connection.execute(query):
                found.setdefault(destination, dict.fromkeys(DeliveryState, 0))[state] = number
        return found

    def oldest_waiting(self) -> dict[str, datetime]:
        """Return since when the oldest delivery that waits does so, by destination."""
        query = (
            select(deliveries.c.destination, func.min(deliveries.c.created_at))
            .where(deliveries.c.state == DeliveryState.WAITING)
            .group_by(deliveries.c.destination)
        )
        with reading(self._engine) as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def _list(self, query: Select[Any]) -> list[Delivery]:
        with reading(self._engine) as connection:
            return listed(connection, query.order_by(deliveries.c.id))


def deliveries_by_id(connection: Connection, ids: Collection[int]) -> list[Delivery]:
    """Return deliveries by their primary keys."""
    return listed(connection, all_deliveries().where(deliveries.c.id.in_(list(ids))).order_by(deliveries.c.id))


def not_got(connection: Connection, exam_ids: Sequence[int]) -> dict[int, dict[str, tuple[str, ...]]]:
    """Return what was refused, or given up, of the present revision of each of some exams, by destination; others are left out."""
    what = (exams.c.id, deliveries.c.destination, results.c.kind)
    query = (
        select(*what)
        .distinct()
        .join(jobs, (jobs.c.exam_id == exams.c.id) & (jobs.c.revision == exams.c.revision))
        .join(results, results.c.job_id == jobs.c.id)
        .join(deliveries, deliveries.c.result_uid == results.c.uid)
        .where(deliveries.c.state.in_(UNDELIVERED))
        .order_by(*what)
    )
    found: dict[int, dict[str, tuple[str, ...]]] = {}
    for start in range(0, len(exam_ids), _AT_ONCE):
        of_these = query.where(exams.c.id.in_(exam_ids[start : start + _AT_ONCE]))
        for exam_id, destination, kind in connection.execute(of_these):
            kinds = found.setdefault(exam_id, {})
            kinds[destination] = (*kinds.get(destination, ()), kind)
    return found


def all_deliveries() -> Select[Any]:
    """Return the query for deliveries with what they bring and what it answers."""
    return (
        select(
            deliveries,
            results.c.sop_class_uid,
            results.c.study_uid,
            results.c.series_uid,
            results.c.kind,
            results.c.path,
            results.c.size,
            results.c.fallback_uid,
            exams.c.id.label("exam_id"),
            exams.c.uid.label("exam_uid"),
            jobs.c.revision,
            results.c.created_at.label("issued_at"),
        )
        .join(results, results.c.uid == deliveries.c.result_uid)
        .join(jobs, jobs.c.id == results.c.job_id)
        .join(exams, exams.c.id == jobs.c.exam_id)
    )


def overtaken(delivery: Delivery) -> Select[Any]:
    """Return the query for what one that is there overtakes: what its destination gets of its exam's earlier answers."""
    kinds = [kind for kind, later in _OVERTAKEN_BY.items() if delivery.kind in later]
    return _beside(delivery).where(_answer(delivery) > ANSWER, results.c.kind.in_(kinds))


def overtaking(delivery: Delivery) -> Select[Any]:
    """Return the query for what overtakes one as soon as it is there."""
    return _beside(delivery).where(
        _answer(delivery) < ANSWER, results.c.kind.in_(_OVERTAKEN_BY[ResultKind(delivery.kind)])
    )


def listed(connection: Connection, query: Select[Any]) -> list[Delivery]:
    """Return what a query for deliveries finds."""
    return [Delivery(**row) for row in connection.execute(query).mappings()]


def _beside(delivery: Delivery) -> Select[Any]:
    return all_deliveries().where(exams.c.id == delivery.exam_id, deliveries.c.destination == delivery.destination)


def _answer(delivery: Delivery) -> ColumnElement[Any]:
    return tuple_(literal(delivery.revision), literal(delivery.issued_at, Moment()))
