"""Images that a rejection note has taken back (rule R7), whether they were here before the note or come after it."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, select

from storage.database import insert_new
from storage.tables import exams, instances, withdrawals


def withdraw(connection: Connection, uids: Collection[str], *, note_uid: str, reason: str, now: datetime) -> list[int]:
    """Note what a rejection note takes back, in the transaction that indexes the note.

    What an earlier note has taken back stays as it was.

    Returns
    -------
    list
        Primary keys of the exams that such images belong to.
    """
    for uid in sorted(uids):
        row = {"instance_uid": uid, "note_uid": note_uid, "reason": reason, "received_at": now}
        insert_new(connection, withdrawals, row)
    here = (exams.c.patient_id == instances.c.patient_id) & (exams.c.study_uid == instances.c.study_uid)
    query = (
        select(exams.c.id)
        .select_from(instances)
        .join(withdrawals, withdrawals.c.instance_uid == instances.c.uid)
        .join(exams, here)
        .where(withdrawals.c.note_uid == note_uid, instances.c.opens_exam)
        .distinct()
        .order_by(exams.c.id)
    )
    return list(connection.execute(query).scalars())


def withdrawn_of_exam(connection: Connection, exam_id: int) -> dict[str, str]:
    """Return SOP Instance UID → reason, of an exam's images that were taken back."""
    here = (exams.c.patient_id == instances.c.patient_id) & (exams.c.study_uid == instances.c.study_uid)
    query = (
        select(withdrawals.c.instance_uid, withdrawals.c.reason)
        .join(instances, instances.c.uid == withdrawals.c.instance_uid)
        .join(exams, here)
        .where(exams.c.id == exam_id)
    )
    return {row.instance_uid: row.reason for row in connection.execute(query)}
