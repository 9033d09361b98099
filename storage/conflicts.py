"""Copies that contradict an indexed instance, and what an operator decides about them (rule R6).

No file is moved or overwritten by a decision: accepting a copy exchanges what the two rows say.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from storage.errors import CannotDecide, NoSuchConflict
from storage.exams import ExamRecord, exam_of_study, get_exam, hold, lock, recall, revise, touch
from storage.index import ConflictRecord, InstanceRecord, find_instance, replace_instance
from storage.states import ConflictState, ExamState
from storage.tables import conflicts, exams, instances, moves


@dataclass(frozen=True)
class Conflict:
    """A copy that was set aside, and where its decision stands.

    Attributes
    ----------
    id
        Primary key, by which people name it.
    exam_uid
        The exam of the copy that is in force, or None.
    copy
        The copy that is not in force: the later one, or once it was accepted the former one.
    state, decided_at
        What was decided, and when.
    """

    id: int
    exam_uid: str | None
    copy: ConflictRecord
    state: ConflictState
    decided_at: datetime | None


@dataclass(frozen=True)
class Move:
    """An exam whose images all became another one's when their identity was corrected.

    Attributes
    ----------
    exam_id, exam_uid, revision
        The exam that was emptied, and its last revision that had images.
    into_revision
        The first revision of the other exam that answers for them.
    """

    exam_id: int
    exam_uid: str
    revision: int
    into_revision: int


def list_conflicts(
    connection: Connection, *, exam_id: int | None = None, state: ConflictState | None = None
) -> list[Conflict]:
    """Return conflicts in order of arrival: of the images of one exam or of all, in one state or in any."""
    where = [] if exam_id is None else [exams.c.id == exam_id]
    where += [] if state is None else [conflicts.c.state == state]
    return _conflicts(connection, *where)


def get_conflict(connection: Connection, conflict_id: int) -> Conflict:
    """Return a conflict by its number.

    Raises
    ------
    NoSuchConflict
        When there is none.
    """
    found = _conflicts(connection, conflicts.c.id == conflict_id)
    if not found:
        raise NoSuchConflict(conflict_id)
    return found[0]


def accept(connection: Connection, conflict_id: int, record: InstanceRecord, now: datetime) -> list[ExamRecord]:
    """Put the copy that was set aside in force, and keep the former one in its place.

    The image joins the exam of the identity that the copy states, which opens or is revised; the exam that it leaves is
    revised, or moved there when no other image is left to it. Where the identity differed, nothing goes out any more
    that was made under the former one.

    Parameters
    ----------
    record
        What the copy says, as the index is to know it from now on.

    Returns
    -------
    list
        The exams that have changed; the one that the image belongs to comes first.

    Raises
    ------
    CannotDecide
        When it was decided before, or the copy is no mammogram any more although the first one is.
    """
    conflict = _undecided(connection, conflict_id)
    first = _locked(connection, record.uid)
    if first is None or (first.opens_exam and not record.opens_exam):
        raise CannotDecide("the later copy is no mammogram: only the first one can be read")
    lock(connection, *(exam_of_study(connection, each.patient, each.study.uid) for each in (first, record)))
    left = exam_of_study(connection, first.patient, first.study.uid)
    # The image arrived when its first copy did: how old it was then tells a prior from a correction.
    record = replace(record, received_at=first.received_at)
    replace_instance(connection, record, identity=conflict.identity_changed)
    connection.execute(
        update(conflicts)
        .where(conflicts.c.id == conflict_id)
        .values(
            path=first.path,
            digest=first.digest,
            calling_ae=first.calling_ae,
            state=ConflictState.ACCEPTED,
            decided_at=now,
        )
    )
    joined = touch(connection, record.patient, record.study.uid, now) if record.opens_exam else None
    changed = _changed(connection, left, joined, now)
    if left and first.opens_exam and conflict.identity_changed:
        recall(connection, left.id, now)
    return [_held_as_needed(connection, exam.id) for exam in changed]


def reject(connection: Connection, conflict_id: int, now: datetime) -> list[ExamRecord]:
    """Leave the copy that is in force as it is, and return its exam, whose deliveries go on when nothing else holds them.

    Raises
    ------
    CannotDecide
        When it was decided before.
    """
    conflict = _undecided(connection, conflict_id)
    connection.execute(
        update(conflicts).where(conflicts.c.id == conflict_id).values(state=ConflictState.REJECTED, decided_at=now)
    )
    instance = _locked(connection, conflict.instance_uid)
    exam = exam_of_study(connection, instance.patient, instance.study.uid) if instance else None
    lock(connection, exam)
    return [_held_as_needed(connection, exam.id)] if exam else []


def reject_identities(connection: Connection, exam_id: int, now: datetime) -> None:
    """Reject all copies with another identity that an exam is held for, and let its deliveries go on."""
    lock(connection, get_exam(connection, exam_id))
    for conflict in list_conflicts(connection, exam_id=exam_id, state=ConflictState.OPEN):
        if conflict.copy.identity_changed:
            reject(connection, conflict.id, now)
    hold(connection, exam_id, held=False)


def moves_into(connection: Connection, exam_id: int) -> list[Move]:
    """Return the exams that were moved into one, oldest first."""
    query = (
        select(moves.c.exam_id, exams.c.uid, moves.c.revision, moves.c.into_revision)
        .join(exams, exams.c.id == moves.c.exam_id)
        .where(moves.c.into_exam_id == exam_id)
        .order_by(moves.c.id)
    )
    return [Move(*row) for row in connection.execute(query)]


def _conflicts(connection: Connection, *where: ColumnElement[bool]) -> list[Conflict]:
    here = (exams.c.patient_id == instances.c.patient_id) & (exams.c.study_uid == instances.c.study_uid)
    query = (
        select(conflicts, exams.c.uid.label("exam_uid"))
        .join(instances, instances.c.uid == conflicts.c.instance_uid)
        .outerjoin(exams, here)
        .where(*where)
        .order_by(conflicts.c.id)
    )
    return [
        Conflict(
            row.id,
            row.exam_uid,
            ConflictRecord(
                row.instance_uid,
                row.path,
                row.received_at,
                row.calling_ae,
                row.digest,
                row.identity_changed,
                tuple(row.differences),
            ),
            row.state,
            row.decided_at,
        )
        for row in connection.execute(query)
    ]


def _changed(
    connection: Connection, left: ExamRecord | None, joined: ExamRecord | None, now: datetime
) -> list[ExamRecord]:
    """Return the exam that an image has joined and the one that it has left, which is revised, or moved if it was the last."""
    if left is None or joined is None or left.id == joined.id:
        return [exam for exam in (joined or left,) if exam]
    if _has_images(connection, left.id):
        return [joined, revise(connection, left.id, now)]
    _move(connection, left, joined, now)
    return [joined, left]


def _undecided(connection: Connection, conflict_id: int) -> Any:
    row = connection.execute(select(conflicts).where(conflicts.c.id == conflict_id).with_for_update()).one_or_none()
    if row is None:
        raise NoSuchConflict(conflict_id)
    if row.state is not ConflictState.OPEN:
        raise CannotDecide(f"{row.state} already")
    return row


def _locked(connection: Connection, uid: str) -> InstanceRecord | None:
    """Return an instance that no other decision puts elsewhere before this one is made."""
    connection.execute(select(instances.c.uid).where(instances.c.uid == uid).with_for_update(key_share=True))
    return find_instance(connection, uid)


def _has_images(connection: Connection, exam_id: int) -> bool:
    here = (exams.c.patient_id == instances.c.patient_id) & (exams.c.study_uid == instances.c.study_uid)
    query = (
        select(func.count())
        .select_from(instances.join(exams, here))
        .where(exams.c.id == exam_id, instances.c.opens_exam)
    )
    return bool(connection.execute(query).scalar_one())


def _move(connection: Connection, left: ExamRecord, joined: ExamRecord, now: datetime) -> None:
    # A revision that still collected was never closed, and is left with its number.
    values = {"exam_id": left.id, "revision": left.revision, "into_exam_id": joined.id}
    connection.execute(insert(moves).values(values | {"into_revision": joined.revision, "moved_at": now}))
    reason = f"all images belong to exam {joined.uid} since their identity was corrected"
    connection.execute(
        update(exams)
        .where(exams.c.id == left.id)
        .values(state=ExamState.MOVED, status=None, due_at=None, reasons=[reason])
    )


def _held_as_needed(connection: Connection, exam_id: int) -> ExamRecord:
    waiting = list_conflicts(connection, exam_id=exam_id, state=ConflictState.OPEN)
    hold(connection, exam_id, held=any(conflict.copy.identity_changed for conflict in waiting))
    return get_exam(connection, exam_id)
