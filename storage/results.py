"""Our own result objects, as the index knows them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from storage.catalogue import Entry, catalogued
from storage.database import insert_new
from storage.errors import ResultDiffers
from storage.tables import jobs, results


@dataclass(frozen=True)
class ResultRecord:
    """A result object that ``InstanceStore.write_result`` has put on the disk.

    Attributes
    ----------
    uid, series_uid, study_uid, sop_class_uid
        Its identity and SOP class.
    kind
        ``SEG``, ``SR``, …
    image_uid
        The image it belongs to, or None when it belongs to the exam.
    path
        As ``write_result`` returned it.
    size
        Bytes.
    fallback_uid
        The result that is sent instead where this one is refused for good; it must be added too.
    entry
        What the catalogue says of it; None of what is not to be found there. Never read back.
    """

    uid: str
    kind: str
    sop_class_uid: str
    series_uid: str
    study_uid: str
    image_uid: str | None
    path: str
    size: int
    fallback_uid: str | None = None
    entry: Entry | None = field(default=None, compare=False)


@dataclass(frozen=True)
class IssuedResult:
    """A result that was committed: the record, the job and exam revision it answers, and when."""

    record: ResultRecord
    job_id: int
    revision: int
    created_at: datetime


def add_results(connection: Connection, job_id: int, records: Sequence[ResultRecord], now: datetime) -> None:
    """Index results; those that an earlier run of the reading has issued stay as they are (rule R10).

    Raises
    ------
    ResultDiffers
        When one was issued with other bytes.
    """
    for record in records:
        row = {name: value for name, value in asdict(record).items() if name != "entry"}
        if not insert_new(connection, results, {**row, "job_id": job_id, "created_at": now}):
            issued = connection.execute(select(results.c.path).where(results.c.uid == record.uid)).scalar_one()
            if issued != record.path:
                raise ResultDiffers(record.uid)
        if record.entry is not None:
            catalogued(connection, record.entry)


def after_what_was_issued(connection: Connection, exam_id: int, now: datetime) -> datetime:
    """Return the present time, or the next after an exam's last answer, should the clock have been put back since.

    By these times the answers of an exam are told apart and sent in their order.
    """
    query = select(func.max(results.c.created_at)).join(jobs, jobs.c.id == results.c.job_id)
    last: datetime | None = connection.execute(query.where(jobs.c.exam_id == exam_id)).scalar_one()
    return now if last is None or last <= now else last + timedelta.resolution


def results_of(connection: Connection, exam_id: int) -> list[IssuedResult]:
    """Return what was issued for an exam, newest revision first; the first SR is the predecessor of the next (R2)."""
    query = (
        select(results, jobs.c.revision)
        .join(jobs, jobs.c.id == results.c.job_id)
        .where(jobs.c.exam_id == exam_id)
        .order_by(jobs.c.revision.desc(), results.c.created_at.desc(), results.c.uid)
    )
    return [
        IssuedResult(
            ResultRecord(
                uid=row.uid,
                kind=row.kind,
                sop_class_uid=row.sop_class_uid,
                series_uid=row.series_uid,
                study_uid=row.study_uid,
                image_uid=row.image_uid,
                path=row.path,
                size=row.size,
                fallback_uid=row.fallback_uid,
            ),
            job_id=row.job_id,
            revision=row.revision,
            created_at=row.created_at,
        )
        for row in connection.execute(query)
    ]
