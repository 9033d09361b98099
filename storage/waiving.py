"""Deliveries that an operator waives: nobody waits for them any more, neither retention nor whoever looks for trouble."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select, update

from storage.exams import lock_keys
from storage.states import DeliveryState
from storage.tables import deliveries, exams, jobs, lanes, results

_ENDED_BADLY = deliveries.c.state.in_([DeliveryState.REFUSED, DeliveryState.EXPIRED])
_OPEN = (deliveries.c.state == DeliveryState.WAITING) | (
    (deliveries.c.state == DeliveryState.SENT) & deliveries.c.finished_at.is_(None)
)


@dataclass(frozen=True)
class Wanted:
    """Which deliveries are meant, of those that may be waived.

    Attributes
    ----------
    served
        Names of the destinations that the settings have: what is open for them may still go out.
    exam_id, destination, kind, state
        Only these; None: all.
    """

    served: AbstractSet[str]
    exam_id: int | None = None
    destination: str | None = None
    kind: str | None = None
    state: DeliveryState | None = None


@dataclass(frozen=True)
class Waivable:
    """A delivery that may be waived, or was: its exam, where it was to go, what it is, and where it stood."""

    id: int
    exam_id: int
    exam_uid: str
    destination: str
    kind: str
    state: DeliveryState


def waivable(connection: Connection, wanted: Wanted) -> list[Waivable]:
    """Return the deliveries that were refused, have expired, or are open for a destination that has gone, oldest first.

    What is open for a lane that is paused is among them only where this state is asked for.
    """
    return _found(connection, _waivable(wanted))


def waive(connection: Connection, exam_id: int, wanted: Wanted, words: str, now: datetime) -> list[Waivable]:
    """Waive an exam's deliveries, as far as they may be by now, and return them as they stood.

    Parameters
    ----------
    words
        Who did it and why; they follow what the destination said last.
    """
    lock_keys(connection, [exam_id])
    # A lane that notes an attempt meanwhile is waited for, and what it noted counts.
    query = _waivable(wanted).where(exams.c.id == exam_id).with_for_update(of=deliveries)
    found = _found(connection, query)
    said = func.coalesce(deliveries.c.message + "; ", "") + words
    values = {"state": DeliveryState.WAIVED, "finished_at": now, "message": said}
    connection.execute(update(deliveries).where(deliveries.c.id.in_([each.id for each in found])).values(values))
    return found


def _found(connection: Connection, query: Select[Any]) -> list[Waivable]:
    return [Waivable(**row) for row in connection.execute(query).mappings()]


def _waivable(wanted: Wanted) -> Select[Any]:
    stands_still: ColumnElement[bool] = deliveries.c.destination.not_in(wanted.served)
    if wanted.state is not None:
        stands_still |= deliveries.c.destination.in_(select(lanes.c.destination))
    query = (
        select(
            *(deliveries.c.id, exams.c.id.label("exam_id"), exams.c.uid.label("exam_uid")),
            *(deliveries.c.destination, results.c.kind, deliveries.c.state),
        )
        .join(results, results.c.uid == deliveries.c.result_uid)
        .join(jobs, jobs.c.id == results.c.job_id)
        .join(exams, exams.c.id == jobs.c.exam_id)
        .where(_ENDED_BADLY | (_OPEN & stands_still))
        .order_by(deliveries.c.id)
    )
    only = (
        (exams.c.id, wanted.exam_id),
        (deliveries.c.destination, wanted.destination),
        (results.c.kind, wanted.kind),
        (deliveries.c.state, wanted.state),
    )
    return query.where(*(column == value for column, value in only if value is not None))
