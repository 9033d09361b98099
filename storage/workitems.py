"""Workitems: readings as others see, ask for and watch them (Unified Procedure Step, PS3.4 CC)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, and_, delete, exists, func, insert, or_, select, update

from storage.database import has_come, insert_new, limited
from storage.errors import NoSuchWorkitem, WorkitemExists
from storage.exams import ExamRecord, get_exam
from storage.search import Condition, matching
from storage.states import UNANSWERED, ExamState, JobState, Plan, StepState
from storage.tables import exams, jobs, patients, subscribers, subscriptions, workitem_events, workitems

ENDED: Final = frozenset({StepState.COMPLETED, StepState.CANCELED})
OPEN: Final = tuple(state for state in StepState if state not in ENDED)
GLOBAL: Final = "1.2.840.10008.5.1.4.34.5"
"""UPS Global Subscription SOP Instance (PS3.4 CC.2.3)."""

STATE_REPORT = 1
CANCEL_REQUESTED = 2
"""Event types (PS3.4 table CC.2.4-1)."""

_TO_RETRIEVE: Final = (
    workitems.c.state.in_(OPEN) & workitems.c.retrieve_url.is_not(None) & workitems.c.exam_id.is_(None)
)
_EVENTS_LOCK: Final = 0x4D414D45  # any number, the same in every process

READY, INCOMPLETE = "READY", "INCOMPLETE"
"""Input Readiness State (0040,4041)."""


@dataclass(frozen=True)
class Workitem:
    """One reading, as a unified procedure step.

    Attributes
    ----------
    uid
        SOP Instance UID.
    state
        Where it stands.
    exam_id, revision
        What is read; None until the images of what was asked for have come.
    study_uid, patient_id, patient_name_key, priority, label, worklist, scheduled_for
        What it is searched by: the name in folded case, the time as YYYYMMDDHHMMSS in UTC.
    ready
        Whether the images are all there.
    requested_by, request
        Who has asked for it, and the data set they sent; None when nobody did.
    retrieve_url
        Where the study is to be had, when it is not in the store.
    attempts, not_before, first_attempt_at
        How often it was tried to get it, when that may be tried again, and since when it has been tried, time in which
        nobody did left out.
    cancel_requested_by
        Who does not want it any more.
    reason
        Why it was cancelled.
    created_at, modified_at, started_at, finished_at
        When, aware.
    """

    uid: str
    state: StepState
    exam_id: int | None
    revision: int | None
    study_uid: str
    patient_id: str
    patient_name_key: str
    label: str
    worklist: str
    scheduled_for: str
    created_at: datetime
    modified_at: datetime
    not_before: datetime
    priority: str = "MEDIUM"
    ready: str = INCOMPLETE
    requested_by: str | None = None
    request: Mapping[str, Any] | None = None
    retrieve_url: str | None = None
    attempts: int = 0
    first_attempt_at: datetime | None = None
    cancel_requested_by: str | None = None
    reason: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None

    def log_context(self) -> dict[str, object]:
        """Return the fields of a log line about it."""
        return {"workitem": self.uid, "state": self.state.value, "revision": self.revision}


@dataclass(frozen=True)
class Reading:
    """What the exam and the job of a workitem say.

    Attributes
    ----------
    exam
        As it stands now.
    job_id, job_state, plan, reasons
        Of the workitem's revision; None, and no reasons, without a job.
    """

    exam: ExamRecord
    job_id: int | None = None
    job_state: JobState | None = None
    plan: Plan | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What a subscriber is told: a number that grows, of which workitem, what kind of event, and its content."""

    id: int
    workitem_uid: str
    type: int
    content: Mapping[str, Any]


def add_workitem(connection: Connection, item: Workitem) -> None:
    """Enter a workitem and report its state.

    Raises
    ------
    WorkitemExists
        When there is one with its UID.
    """
    if not insert_new(connection, workitems, asdict(item)):
        raise WorkitemExists(item.uid)
    report(connection, item, STATE_REPORT)


def change(connection: Connection, item: Workitem, now: datetime, **values: Any) -> Workitem:
    """Change a workitem; subscribers learn of another state or readiness."""
    changed = replace(item, modified_at=now, **values)
    row = {name: getattr(changed, name) for name in (*values, "modified_at")}
    connection.execute(update(workitems).where(workitems.c.uid == item.uid).values(row))
    if (changed.state, changed.ready) != (item.state, item.ready):
        report(connection, changed, STATE_REPORT)
    return changed


def report(connection: Connection, item: Workitem, kind: int, only_for: str | None = None) -> None:
    """Tell subscribers of a workitem; all of them, or one."""
    if connection.dialect.name == "postgresql":
        # In the order of their numbers: after a later one, an earlier event would be told to nobody.
        connection.execute(select(func.pg_advisory_xact_lock(_EVENTS_LOCK)))
    content = {"state": item.state.value, "ready": item.ready, "reason": item.reason}
    values = {"workitem_uid": item.uid, "type": kind, "content": content, "happened_at": item.modified_at}
    connection.execute(insert(workitem_events).values(**values, only_for=only_for))


def get_workitem(connection: Connection, uid: str, *, lock: bool = False) -> Workitem:
    """Return a workitem.

    Raises
    ------
    NoSuchWorkitem
        When there is none.
    """
    query = select(workitems).where(workitems.c.uid == uid)
    # Weaker than FOR UPDATE: events refer to the row, and whoever has entered one may wait for nobody who waits to do so.
    row = connection.execute(query.with_for_update(key_share=True) if lock else query).mappings().one_or_none()
    if row is None:
        raise NoSuchWorkitem(uid)
    return Workitem(**row)


def open_workitems(connection: Connection) -> list[Workitem]:
    """Return those that have not ended, oldest first."""
    query = select(workitems).where(workitems.c.state.in_(OPEN)).order_by(workitems.c.created_at, workitems.c.uid)
    return [Workitem(**row) for row in connection.execute(query).mappings()]


def retrievals(connection: Connection, now: datetime, longest: timedelta) -> list[Workitem]:
    """Return the open ones whose study is to be retrieved from elsewhere now, oldest first.

    Parameters
    ----------
    longest
        The longest wait between two tries.
    """
    query = select(workitems).where(_TO_RETRIEVE, has_come(workitems.c.not_before, now, longest))
    query = query.order_by(workitems.c.created_at, workitems.c.uid)
    return [Workitem(**row) for row in connection.execute(query).mappings()]


def next_retrieval(connection: Connection) -> datetime | None:
    """Return when the first study that is to be had elsewhere is due to be retrieved; None where there is none."""
    query = select(func.min(workitems.c.not_before)).where(_TO_RETRIEVE)
    moment: datetime | None = connection.execute(query).scalar_one()
    return moment


def unsettled_workitems(connection: Connection) -> list[Workitem]:
    """Return the open ones but those of which exam and job say nothing new: they wait as these do."""
    # Scalar subqueries: what they ask of one row PostgreSQL cannot make into a walk through all.
    job = select(jobs.c.state).where(jobs.c.exam_id == exams.c.id, jobs.c.revision == exams.c.revision)
    state = job.order_by(jobs.c.id.desc()).limit(1).scalar_subquery()
    collects = (exams.c.state == ExamState.COLLECTING) & state.is_(None)
    told = (workitems.c.state == StepState.SCHEDULED) & (workitems.c.ready != INCOMPLETE)
    queued = (exams.c.state == ExamState.QUEUED) & (state == JobState.QUEUED) & told
    same = (exams.c.id == workitems.c.exam_id) & (exams.c.revision == workitems.c.revision)
    settled = select(exams.c.id).where(same, workitems.c.cancel_requested_by.is_(None), collects | queued)
    of_open = workitems.c.state.in_(OPEN)
    query = select(workitems).where(of_open, settled.limit(1).scalar_subquery().is_(None))
    query = query.order_by(workitems.c.created_at, workitems.c.uid)
    return [Workitem(**row) for row in connection.execute(query).mappings()]


def exams_without_workitem(connection: Connection, limit: int, apart: str, *, ended: bool = False) -> list[ExamRecord]:
    """Return exams whose present revision is nobody's workitem, oldest first.

    Parameters
    ----------
    apart
        Issuer of Patient ID of those that need none.
    ended
        Whether those are meant, too, that wait for nothing any more; then all exams are looked at.
    """
    known = exists().where(workitems.c.exam_id == exams.c.id, workitems.c.revision == exams.c.revision)
    of_state = exams.c.state.not_in([ExamState.MOVED, ExamState.PRIOR]) if ended else exams.c.state.in_(UNANSWERED)
    needs_none = exists().where(patients.c.id == exams.c.patient_id, patients.c.issuer == apart)
    query = select(exams.c.id).where(~known, of_state, ~needs_none)
    ids = connection.execute(query.order_by(exams.c.id).limit(limit)).scalars().all()
    return [get_exam(connection, each) for each in ids]


def exams_of_study(connection: Connection, study_uid: str, patient_id: str) -> list[ExamRecord]:
    """Return the exams of a study, of one patient or, when no ID is given, of any."""
    ids = connection.execute(select(exams.c.id).where(exams.c.study_uid == study_uid).order_by(exams.c.id)).scalars()
    found = [get_exam(connection, each) for each in ids.all()]
    return [exam for exam in found if patient_id in {"", exam.patient.patient_id}]


def reading_of(connection: Connection, exam_id: int, revision: int) -> Reading:
    """Return what exam and job say of a revision."""
    query = select(jobs.c.id, jobs.c.state, jobs.c.plan, jobs.c.reasons).where(
        jobs.c.exam_id == exam_id, jobs.c.revision == revision
    )
    job = connection.execute(query.order_by(jobs.c.id.desc()).limit(1)).one_or_none()
    exam = get_exam(connection, exam_id)
    return Reading(exam, job.id, job.state, job.plan, tuple(job.reasons)) if job else Reading(exam)


KEYS: Final = {
    "SOPInstanceUID": workitems.c.uid,
    "ProcedureStepState": workitems.c.state,
    "InputReadinessState": workitems.c.ready,
    "PatientID": workitems.c.patient_id,
    "PatientName": workitems.c.patient_name_key,
    "ScheduledProcedureStepPriority": workitems.c.priority,
    "ProcedureStepLabel": workitems.c.label,
    "WorklistLabel": workitems.c.worklist,
    "ScheduledProcedureStepStartDateTime": workitems.c.scheduled_for,
    "InputInformationSequence.StudyInstanceUID": workitems.c.study_uid,
    "StudyInstanceUID": workitems.c.study_uid,
}
"""Keyword → column, of what workitems are searched by."""


def search_workitems(
    connection: Connection, conditions: Mapping[str, Condition], limit: int, offset: int
) -> list[Workitem]:
    """Return the workitems that match, newest first."""
    where = [matching(connection.dialect.name, KEYS[name], each) for name, each in conditions.items()]
    query = select(workitems).where(*where).order_by(workitems.c.created_at.desc(), workitems.c.uid.desc())
    return [Workitem(**row) for row in connection.execute(limited(query, limit, offset)).mappings()]


def subscribe(connection: Connection, ae_title: str, uid: str, *, deletion_lock: bool) -> None:
    """Let an application entity know of what happens to a workitem, or with `GLOBAL` to all, from now on.

    It learns the present state first.

    Raises
    ------
    NoSuchWorkitem
        When there is none.
    """
    item = None if uid == GLOBAL else get_workitem(connection, uid)
    last = connection.execute(select(func.coalesce(func.max(workitem_events.c.id), 0))).scalar_one()
    insert_new(connection, subscribers, {"ae_title": ae_title, "told": last})
    row = {"ae_title": ae_title, "workitem_uid": uid, "deletion_lock": deletion_lock, "after": last}
    if not insert_new(connection, subscriptions, row):
        here = and_(subscriptions.c.ae_title == ae_title, subscriptions.c.workitem_uid == uid)
        connection.execute(update(subscriptions).where(here).values(deletion_lock=deletion_lock))
    for each in [item] if item else open_workitems(connection):
        report(connection, each, STATE_REPORT, only_for=ae_title)


def unsubscribe(connection: Connection, ae_title: str, uid: str) -> bool:
    """End a subscription; the global one ends with all others of the application entity. False when there is none."""
    here = subscriptions.c.ae_title == ae_title
    if uid != GLOBAL:
        here &= subscriptions.c.workitem_uid == uid
    return connection.execute(delete(subscriptions).where(here)).rowcount > 0


def suspend(connection: Connection, ae_title: str) -> bool:
    """End a global subscription for workitems to come; those that there are stay watched. False when there is none."""
    here = and_(subscriptions.c.ae_title == ae_title, subscriptions.c.workitem_uid == GLOBAL)
    row = connection.execute(select(subscriptions).where(here)).one_or_none()
    if row is None:
        return False
    for each in open_workitems(connection):
        kept = {"ae_title": ae_title, "workitem_uid": each.uid, "deletion_lock": row.deletion_lock, "after": row.after}
        insert_new(connection, subscriptions, kept)
    connection.execute(delete(subscriptions).where(here))
    return True


def untold(connection: Connection, ae_title: str, limit: int) -> list[Report]:
    """Return what a subscriber is still to be told, oldest first."""
    watched = exists().where(
        subscriptions.c.ae_title == ae_title,
        subscriptions.c.workitem_uid.in_([workitem_events.c.workitem_uid, GLOBAL]),
        subscriptions.c.after < workitem_events.c.id,
    )
    told = select(subscribers.c.told).where(subscribers.c.ae_title == ae_title).scalar_subquery()
    query = (
        select(workitem_events.c.id, workitem_events.c.workitem_uid, workitem_events.c.type, workitem_events.c.content)
        .where(
            workitem_events.c.id > told,
            or_(workitem_events.c.only_for.is_(None), workitem_events.c.only_for == ae_title),
            watched,
        )
        .order_by(workitem_events.c.id)
        .limit(limit)
    )
    return [Report(*row) for row in connection.execute(query)]


def has_been_told(connection: Connection, ae_title: str, reports: Sequence[Report]) -> None:
    """Note what a subscriber has been sent."""
    here = subscribers.c.ae_title == ae_title
    connection.execute(update(subscribers).where(here).values(told=reports[-1].id))


def forget_events(connection: Connection, before: datetime) -> None:
    """Forget reports that are older: who has not fetched them by then asks for the workitem itself."""
    connection.execute(delete(workitem_events).where(workitem_events.c.happened_at < before))


EVENTS_KEPT: Final = timedelta(days=2)
