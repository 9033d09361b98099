"""Builders: what the store keeps, with the least that a test has to say."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from config.policy import RetryPolicy
from storage.database import reading, writing
from storage.exams import ExamRecord, close, get_exam, touch
from storage.files import InstanceReference
from storage.index import InstanceRecord, SeriesRecord, StudyRecord, add_instance
from storage.jobs import JobQueue
from storage.outbox import Outbox
from storage.patients import PatientRecord
from storage.resending import resend
from storage.results import ResultRecord
from storage.states import Plan

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
POLICY = RetryPolicy(quick=2, first=SECOND, slow=60 * SECOND, give_up_after=timedelta(days=1), attempts=3)
LEASE = timedelta(seconds=30)
MODEL = "ab" * 32
ANNE = PatientRecord("HOSPITAL", "4711", "Doe^Anne", "19600102", "F")
STUDY = "1.2.3"


def an_instance(
    uid: str = "1.2.3.1.1", *, patient: PatientRecord = ANNE, study: str = STUDY, **changes: Any
) -> InstanceRecord:
    """Return a record of a mammogram."""
    record = InstanceRecord(
        patient=patient,
        study=StudyRecord(study, "20260304", "115500", "A1", "Screening"),
        series=SeriesRecord(f"{study}.1", "MG", 1, "R CC"),
        uid=uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        path=f"instances/{study}/{study}.1/{uid}.dcm",
        size=17_000_000,
        digest="cd" * 32,
        received_at=NOON,
        calling_ae="MODALITY",
        origin="192.0.2.7",
        kind="For Presentation",
        laterality="R",
        view_position="CC",
        usable=True,
        opens_exam=True,
        acquired_at="20260304115501.000000",
        instance_number=1,
        reasons=("ImageLaterality, ViewPosition",),
    )
    return replace(record, **changes)


def a_reference(uid: str = "1.2.3.1.1") -> InstanceReference:
    """Return the UIDs of ``an_instance(uid)``."""
    return an_instance(uid).reference


def a_result(uid: str = "2.25.1", **changes: Any) -> ResultRecord:
    """Return a record of a report."""
    sop_class = "1.2.840.10008.5.1.4.1.1.88.34"
    record = ResultRecord(uid, "SR", sop_class, "2.25.9", STUDY, None, f"results/{STUDY}/2.25.9/{uid}.0.dcm", 9000)
    return replace(record, **changes)


def an_exam(engine: Engine, uid: str = "1.2.3.1.1", *, study: str = STUDY, now: datetime = NOON) -> ExamRecord:
    """Let an image arrive, and return the exam that it opens or changes."""
    record = an_instance(uid, study=study)
    with writing(engine) as connection:
        add_instance(connection, record)
        return touch(connection, record.patient, record.study.uid, now)


def a_closed_exam(
    engine: Engine,
    uid: str = "1.2.3.1.1",
    *,
    study: str = STUDY,
    now: datetime = NOON,
    rejected: Mapping[str, str] | None = None,
) -> tuple[ExamRecord, int]:
    """Let an image arrive, close the exam with it as R CC, and return the exam and its job's number."""
    exam = an_exam(engine, uid, study=study, now=now)
    with writing(engine) as connection:
        job = close(
            connection,
            exam,
            chosen={uid: "R CC"},
            rejected=rejected or {},
            plan=Plan.READ,
            reasons=("L CC missing",),
            model_digest=MODEL,
            now=now,
        )
    with reading(engine) as connection:
        return get_exam(connection, exam.id), job


def an_answer_waits(
    engine: Engine, results: Sequence[ResultRecord], destinations: Mapping[str, Sequence[str]]
) -> Outbox:
    """Close an exam, answer it with results that wait for destinations, by their UIDs, and return the outbox."""
    a_closed_exam(engine)
    queue = JobQueue(engine, POLICY, LEASE)
    job = queue.claim("ann", NOON)
    assert job is not None
    queue.finish(job, "ann", answer="findings", results=results, destinations=destinations, timings={}, now=NOON)
    return Outbox(engine, POLICY)


def resent(engine: Engine, exam_id: int, now: datetime, wanted: Mapping[str, Iterable[str]]) -> int:
    """Send an exam's results again, and return how many deliveries wait."""
    with writing(engine) as connection:
        return resend(connection, exam_id, now, wanted)


def a_file(folder: Path, content: bytes = b"DICM", name: str = "received") -> Path:
    """Return a file as a receiver leaves it."""
    path = folder / name
    path.write_bytes(content)
    return path
