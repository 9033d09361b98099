"""Results that an operator sends again: their deliveries begin anew."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, select, update

from storage.exams import lock_keys
from storage.states import DeliveryState
from storage.tables import deliveries, jobs, removals, results

_TOLD: Final = ("first_attempt_at", "last_attempt_at", "finished_at", "status_code", "message", "sent_at", "proven_at")
"""What is forgotten when a delivery begins anew."""


def resend(connection: Connection, exam_id: int, now: datetime, wanted: Mapping[str, Iterable[str]]) -> int:
    """Send all results of an exam's revisions again, to those that had them, and return how many deliveries wait.

    Parameters
    ----------
    wanted
        Destination → kinds of objects that it gets by now. Nothing else is sent: what no lane serves would wait for
        ever, and what a destination is not to get any more may be just what it refuses.
    """
    # What removes files waits, or has marked them.
    lock_keys(connection, [exam_id])
    pairs = {(name, str(kind)) for name, kinds in wanted.items() for kind in kinds}
    removed = select(removals.c.path).where(removals.c.path == results.c.path)
    of_exam = (
        select(deliveries.c.id, deliveries.c.destination, results.c.kind)
        .join(results, results.c.uid == deliveries.c.result_uid)
        .join(jobs, jobs.c.id == results.c.job_id)
        .where(jobs.c.exam_id == exam_id, ~removed.exists())
    )
    goes = [row.id for row in connection.execute(of_exam) if (row.destination, row.kind) in pairs]
    # What was replaced by another form stays so: the other form is sent again. What was recalled is wrong, or was overtaken.
    over = [DeliveryState.REPLACED, DeliveryState.RECALLED]
    fresh: dict[str, Any] = {"state": DeliveryState.WAITING, "attempts": 0, "not_before": now}
    fresh |= {"proofs": 0} | dict.fromkeys(_TOLD)
    again = update(deliveries).where(deliveries.c.id.in_(goes), deliveries.c.state.not_in(over))
    return connection.execute(again.values(fresh)).rowcount
