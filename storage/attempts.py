"""What each attempt to deliver brought; equal ones in a row are counted, not repeated."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from storage.states import DeliveryState
from storage.tables import deliveries, jobs, results
from storage.tables import delivery_attempts as attempts


@dataclass(frozen=True)
class Attempt:
    """An attempt, or several in a row that ended alike.

    Attributes
    ----------
    delivery_id
        What was to be delivered.
    first_at, last_at, times
        When, and how often.
    state
        What became of the delivery.
    status_code, message
        What the destination said: DIMSE status, and words.
    """

    delivery_id: int
    first_at: datetime
    last_at: datetime
    times: int
    state: DeliveryState
    status_code: int | None
    message: str | None


def note_attempt(
    connection: Connection,
    delivery_id: int,
    now: datetime,
    state: DeliveryState,
    status_code: int | None,
    message: str | None,
) -> None:
    """Keep what an attempt brought, in the transaction that notes it in the delivery."""
    query = select(attempts).where(attempts.c.delivery_id == delivery_id).order_by(attempts.c.id.desc()).limit(1)
    last = connection.execute(query).one_or_none()
    if last is not None and (last.state, last.status_code, last.message) == (state, status_code, message):
        connection.execute(
            update(attempts).where(attempts.c.id == last.id).values(times=attempts.c.times + 1, last_at=now)
        )
        return
    told = {"state": state, "status_code": status_code, "message": message}
    connection.execute(insert(attempts).values(delivery_id=delivery_id, first_at=now, last_at=now, times=1, **told))


def attempts_of_exam(connection: Connection, exam_id: int) -> dict[int, list[Attempt]]:
    """Return the attempts of an exam's deliveries, by delivery, oldest first."""
    query = (
        select(*(attempts.c[name] for name in Attempt.__dataclass_fields__))
        .join(deliveries, deliveries.c.id == attempts.c.delivery_id)
        .join(results, results.c.uid == deliveries.c.result_uid)
        .join(jobs, jobs.c.id == results.c.job_id)
        .where(jobs.c.exam_id == exam_id)
        .order_by(attempts.c.id)
    )
    found: dict[int, list[Attempt]] = {}
    for row in connection.execute(query).mappings():
        found.setdefault(row["delivery_id"], []).append(Attempt(**row))
    return found
