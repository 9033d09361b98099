"""The worklist: every reading is a workitem that others can see, ask for, watch and cancel (PS3.4 CC, IHE AIW-I).

Exams and jobs are the truth; workitems follow them. Who asks for a reading gets a workitem of their own, which becomes
that of the exam when its images are there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Engine

from config.policy import RetryPolicy
from node.entries import name_key
from node.errors import NodeError
from node.faults import described
from node.identity import TEST_ISSUER
from node.instants import instant, kept_instant
from node.pace import Due, until
from node.results.uids import name_based_uid
from node.telemetry import logger
from storage.database import installation_id, reading, writing
from storage.errors import CannotCancel, StorageError, WorkitemEnded
from storage.exams import ExamRecord, get_exam
from storage.jobs import CANCELLED, JobQueue
from storage.states import ExamState, JobState, Plan, StepState
from storage.workitems import (
    CANCEL_REQUESTED,
    ENDED,
    EVENTS_KEPT,
    INCOMPLETE,
    READY,
    Reading,
    Workitem,
    add_workitem,
    change,
    exams_of_study,
    exams_without_workitem,
    forget_events,
    get_workitem,
    next_retrieval,
    reading_of,
    report,
    retrievals,
    unsettled_workitems,
)

log = logger("worklist")

LABEL: Final = "Mammography reading"
"""Procedure Step Label (0074,1204)."""
WORKLIST: Final = "MAMMONODE"
"""Worklist Label (0074,1202)."""
BATCH: Final = 100
ANSWERS: Final = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.DONE})
"""Jobs that answer their revision, also when the exam has gone on to its next one."""


class Retrieves(Protocol):
    """Gets a study from somewhere else into the store."""

    def retrieve(self, url: str) -> int:
        """Retrieve a study and return how many instances were stored.

        Raises
        ------
        NodeError
            When it cannot be had.
        """


@dataclass(frozen=True)
class Asked:
    """What somebody asks for.

    Attributes
    ----------
    uid
        Of the workitem.
    study_uid, patient_id, patient_name
        What is to be read; the last two '' when nobody said so.
    priority, label, worklist
        As in the data set.
    scheduled_for
        When it is to be done, as `node.instants` keeps it; '' is at once.
    retrieve_url
        Where the study is to be had, or None.
    model
        The data set, in the DICOM JSON Model.
    """

    uid: str
    study_uid: str
    patient_id: str
    patient_name: str
    priority: str
    label: str
    worklist: str
    scheduled_for: str
    retrieve_url: str | None
    model: Mapping[str, Any]


class Worklist:
    """Keeps the workitems true.

    Parameters
    ----------
    engine
        The database.
    queue
        Where readings are cancelled.
    retrieves
        Gets studies that are not in the store.
    policy
        How often that is tried.
    clock
        Returns the present time, aware.
    """

    def __init__(
        self,
        engine: Engine,
        queue: JobQueue,
        retrieves: Retrieves,
        policy: RetryPolicy,
        clock: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._queue = queue
        self._retrieves = retrieves
        self._policy = policy
        self._clock = clock
        self._installation = installation_id(engine)
        self._tidied = datetime.min.replace(tzinfo=UTC)

    def tick(self) -> int:
        """Let the workitems follow the exams and jobs, and return how many have changed."""
        changed = 0
        is_time_to_tidy = self._clock() - self._tidied > timedelta(hours=1)
        with reading(self._engine) as connection:
            stale = [item for item in unsettled_workitems(connection) if _stale(connection, item)]
        for item in stale:
            changed += self._follow(item.uid)
        with reading(self._engine) as connection:
            # Whoever waits has not waited long; the others are those that ended while nobody looked.
            without = exams_without_workitem(connection, BATCH, TEST_ISSUER, ended=is_time_to_tidy)
        if without:
            with writing(self._engine) as connection:
                for exam in without:
                    item = self._of_exam(exam)
                    add_workitem(connection, item)
                    log.info("workitem opened", **item.log_context(), exam=exam.uid)
                    changed += 1
        if is_time_to_tidy and len(without) < BATCH:
            self._tidied = self._clock()
            with writing(self._engine) as connection:
                forget_events(connection, self._tidied - EVENTS_KEPT)
        return changed

    def turn(self, _beat: Callable[[], object] = lambda: None) -> None:
        """Let the workitems follow; what there is to do later, a commit tells."""
        self.tick()

    def ask(self, asked: Asked, who: str) -> Workitem:
        """Open a workitem that somebody asks for.

        Raises
        ------
        storage.errors.WorkitemExists
            When there is one with its UID.
        """
        now = self._clock()
        item = Workitem(
            uid=asked.uid,
            state=StepState.SCHEDULED,
            exam_id=None,
            revision=None,
            study_uid=asked.study_uid,
            patient_id=asked.patient_id,
            patient_name_key=name_key(asked.patient_name),
            priority=asked.priority,
            label=asked.label or LABEL,
            worklist=asked.worklist or WORKLIST,
            scheduled_for=asked.scheduled_for or instant(now),
            requested_by=who,
            request=dict(asked.model),
            retrieve_url=asked.retrieve_url,
            created_at=now,
            modified_at=now,
            not_before=now,
        )
        with writing(self._engine) as connection:
            add_workitem(connection, item)
        log.info("reading asked for", **item.log_context(), by=who, retrieved=asked.retrieve_url is not None)
        return item

    def cancel(self, uid: str, who: str) -> Workitem:
        """Note that somebody does not want a reading; one that has begun is stopped.

        Raises
        ------
        storage.errors.NoSuchWorkitem
            When there is none.
        WorkitemEnded
            When it is completed or cancelled.
        """
        now = self._clock()
        with writing(self._engine) as connection:
            item = get_workitem(connection, uid, lock=True)
            if item.state in ENDED:
                raise WorkitemEnded(item.state)
            item = change(connection, item, now, cancel_requested_by=who)
            report(connection, item, CANCEL_REQUESTED)
            exam = None if item.exam_id is None else get_exam(connection, item.exam_id).uid
        log.warning("reading is not wanted any more", **item.log_context(), exam=exam, by=who)
        self._follow(uid)
        with reading(self._engine) as connection:
            return get_workitem(connection, uid)

    def retrieve_due(self, beat: Callable[[], object] = lambda: None) -> int:
        """Retrieve the studies that are to be had elsewhere, and return how many were tried; each is a beat."""
        now = self._clock()
        with reading(self._engine) as connection:
            due = retrievals(connection, now, self._policy.slow)
        for item in due:
            self._retrieve(item)
            beat()
        return len(due)

    def retrieving(self, beat: Callable[[], object] = lambda: None) -> Due:
        """Retrieve what is due, and return how long it is until more may be."""
        self.retrieve_due(beat)
        with reading(self._engine) as connection:
            return until(next_retrieval(connection), self._clock())

    def _retrieve(self, item: Workitem) -> None:
        told = item.log_context() | {"tries": item.attempts + 1}
        try:
            number = self._retrieves.retrieve(str(item.retrieve_url))
        except Exception as error:  # noqa: BLE001 (one study must not keep those behind it from being tried)
            cause = str(error) if isinstance(error, NodeError) else described(error)
            again = self._tried(item, f"the study could not be retrieved: {cause}")
            log.warning("study not retrieved", **told, cause=cause, again=again)
        else:
            log.info("study retrieved", **told, instances=number)
            self._tried(item, "nothing of it opens an exam of this patient")

    def _tried(self, item: Workitem, reason: str) -> bool:
        """Note that a study was tried to get, and return whether it will be again; if not, its workitem ends."""
        self._follow(item.uid)  # what came of it may be all that there is to read, whatever else of it did not
        now = self._clock()
        since = self._policy.since(item.first_attempt_at or now, item.not_before, now)
        # Before it is to be read its images may not be taken yet: who schedules it far ahead must not lose it.
        delay = self._policy.delay(item.attempts + 1, now - max(since, kept_instant(item.scheduled_for)))
        with writing(self._engine) as connection:
            left = get_workitem(connection, item.uid, lock=True)
            if left.exam_id is not None or left.state in ENDED:
                return False
            if delay is None:
                self._end(connection, left, StepState.CANCELED, reason)
            else:
                values = {"attempts": left.attempts + 1, "not_before": now + delay, "first_attempt_at": since}
                change(connection, left, now, **values)
        return delay is not None

    def _follow(self, uid: str) -> bool:
        """Let one workitem follow what it stands for, and tell whether it has changed."""
        to_cancel: int | None = None
        with writing(self._engine) as connection:
            item = get_workitem(connection, uid, lock=True)
            if item.state in ENDED:
                return False
            before = item
            if item.exam_id is None:
                item = self._bound(connection, item)
            if item.exam_id is None or item.revision is None:
                if item.cancel_requested_by is not None:
                    item = self._end(connection, item, StepState.CANCELED, "cancelled before images came")
                return item != before
            found = reading_of(connection, item.exam_id, item.revision)
            item = self._as(connection, item, found)
            if item.state not in ENDED and item.cancel_requested_by is not None and found.plan == Plan.READ:
                to_cancel = found.job_id
        if to_cancel is not None:
            try:
                self._queue.cancel(to_cancel, self._clock())
            except (CannotCancel, StorageError) as error:
                log.info("reading goes on", **item.log_context(), exam=found.exam.uid, cause=str(error))
        return item != before

    def _bound(self, connection: Connection, item: Workitem) -> Workitem:
        found = exams_of_study(connection, item.study_uid, item.patient_id)
        live = [exam for exam in found if exam.state is not ExamState.MOVED]
        if not live:
            return item
        exam = live[-1]
        values = {"patient_id": exam.patient.patient_id, "patient_name_key": name_key(exam.patient.name)}
        return change(connection, item, self._clock(), exam_id=exam.id, revision=exam.revision, **values)

    def _as(self, connection: Connection, item: Workitem, found: Reading) -> Workitem:
        """Bring a workitem to where its exam and job are."""
        exam = found.exam
        if exam.revision != item.revision and item.requested_by is not None and found.job_state not in ANSWERS:
            item = change(connection, item, self._clock(), revision=exam.revision)
            found = reading_of(connection, exam.id, exam.revision)
        if why := _why_not(item, found):
            return self._end(connection, item, StepState.CANCELED, why, exam)
        match found.job_state:
            case JobState.QUEUED if item.ready == INCOMPLETE:
                return change(connection, item, self._clock(), ready=READY)
            case JobState.RUNNING:
                return self._begun(connection, item)
            case JobState.DONE:
                return self._end(connection, self._begun(connection, item), StepState.COMPLETED, "", exam)
            case _:
                return item

    def _begun(self, connection: Connection, item: Workitem) -> Workitem:
        if item.state is not StepState.SCHEDULED:
            return item
        now = self._clock()
        return change(connection, item, now, state=StepState.IN_PROGRESS, ready=READY, started_at=now)

    def _end(
        self, connection: Connection, item: Workitem, state: StepState, reason: str, exam: ExamRecord | None = None
    ) -> Workitem:
        now = self._clock()
        ended = change(connection, item, now, state=state, reason=reason[:1000], finished_at=now)
        log.info("workitem ended", **ended.log_context(), exam=exam.uid if exam else None, reason=reason)
        return ended

    def _of_exam(self, exam: ExamRecord) -> Workitem:
        now = self._clock()
        return Workitem(
            uid=name_based_uid(self._installation, "workitem", exam.uid, exam.revision),
            state=StepState.SCHEDULED,
            exam_id=exam.id,
            revision=exam.revision,
            study_uid=exam.study_uid,
            patient_id=exam.patient.patient_id,
            patient_name_key=name_key(exam.patient.name),
            label=LABEL,
            worklist=WORKLIST,
            scheduled_for=instant(exam.opened_at),
            created_at=now,
            modified_at=now,
            not_before=now,
        )


def _why_not(item: Workitem, found: Reading) -> str:
    """Return why there will be no reading, '' when there will be one, or was."""
    exam, done = found.exam, found.job_state is JobState.DONE
    if exam.state in {ExamState.PRIOR, ExamState.MOVED} or (found.job_state is None and exam.state is ExamState.FAILED):
        return "; ".join(exam.reasons) or "the exam is not read"
    if found.job_state is JobState.SUPERSEDED or (found.job_state is None and exam.revision != item.revision):
        return f"revision {exam.revision} is read instead"
    if found.job_state is JobState.DEAD:
        return "the reading failed"
    return CANCELLED if done and CANCELLED in found.reasons else ""


def _stale(connection: Connection, item: Workitem) -> bool:
    """Tell whether a workitem may have to change; on SQLite writers wait for each other, so most are not touched."""
    unwanted = item.cancel_requested_by is not None
    if item.exam_id is None or item.revision is None:
        return unwanted or bool(exams_of_study(connection, item.study_uid, item.patient_id))
    found = reading_of(connection, item.exam_id, item.revision)
    if found.exam.state in {ExamState.PRIOR, ExamState.MOVED, ExamState.FAILED}:
        return True
    is_former = found.exam.revision != item.revision
    to_cancel = unwanted and found.plan is Plan.READ and not is_former
    match found.job_state:
        case None:
            return is_former
        case JobState.QUEUED:
            return to_cancel or item.ready == INCOMPLETE
        case JobState.RUNNING:
            return to_cancel or item.state is StepState.SCHEDULED
        case _:
            return True
