"""How much waits, and since when: what an operator and a monitoring system look at."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from storage.states import DeliveryState, ExamState
from storage.tables import deliveries, exams

UNANSWERED = (ExamState.COLLECTING, ExamState.QUEUED)


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
        .where(deliveries.c.state == DeliveryState.WAITING)
        .group_by(deliveries.c.destination)
        .order_by(deliveries.c.destination)
    )
    return {name: Waiting(number, oldest) for name, number, oldest in connection.execute(query)}
