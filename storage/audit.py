"""The audit trail: messages that are only ever added, each chained to the one before by its digest."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, RowMapping, insert, select, update

from storage.tables import (
    audit,
    audit_head,
    audit_receivers,
    catalogue_studies,
    exams,
    instances,
    jobs,
    patients,
    results,
)

BATCH = 500


@dataclass(frozen=True)
class Entry:
    """A message to be kept; one whose uid is kept already is not kept again."""

    uid: str
    message: str


@dataclass(frozen=True)
class Link:
    """The chain up to some message: its number, and the digest over it and all before."""

    number: int
    digest: str

    def __str__(self) -> str:
        return f"{self.number}:{self.digest}"


@dataclass(frozen=True)
class Kept:
    """A message of the trail."""

    link: Link
    recorded_at: datetime
    message: str


@dataclass(frozen=True)
class Subject:
    """What an instance or exam is about.

    Attributes
    ----------
    study_uid, patient_id
        Of it.
    sop_class_uid
        Of an instance; '' for an exam.
    """

    study_uid: str
    patient_id: str
    sop_class_uid: str = ""


def digest_of(before: str, number: int, uid: str, recorded_at: datetime, message: str) -> str:
    """Return the digest of a link: SHA-256 over the one before and all that the message is kept with."""
    at = recorded_at.astimezone(UTC).isoformat(timespec="microseconds")
    return hashlib.sha256("\0".join((before, str(number), uid, at, message)).encode()).hexdigest()


def head(connection: Connection) -> Link:
    """Return the last link."""
    return Link(*connection.execute(select(audit_head.c.number, audit_head.c.digest)).one())


def append(connection: Connection, entries: Sequence[Entry], now: datetime) -> Link:
    """Keep messages, in their order, and return the last link; who else appends at the same time waits."""
    last = Link(*connection.execute(select(audit_head.c.number, audit_head.c.digest).with_for_update()).one())
    uids = [entry.uid for entry in entries]
    known = set(connection.execute(select(audit.c.uid).where(audit.c.uid.in_(uids))).scalars())
    rows = []
    for entry in entries:
        if entry.uid in known:
            continue
        known.add(entry.uid)
        number = last.number + 1
        last = Link(number, digest_of(last.digest, number, entry.uid, now, entry.message))
        rows.append({**vars(entry), "number": number, "recorded_at": now, "digest": last.digest})
    if rows:
        connection.execute(insert(audit), rows)
        connection.execute(update(audit_head).values(vars(last)))
    return last


def kept(connection: Connection, after: int = 0, limit: int = BATCH) -> list[Kept]:
    """Return messages beyond a number, oldest first."""
    query = select(audit).where(audit.c.number > after).order_by(audit.c.number).limit(limit)
    return [
        Kept(Link(row["number"], row["digest"]), row["recorded_at"], row["message"])
        for row in connection.execute(query).mappings()
    ]


def faults(connection: Connection, anchor: Link | None = None) -> Iterator[str]:
    """Yield what is wrong with the chain, in words; nothing when it is whole.

    Parameters
    ----------
    anchor
        A link that was noted elsewhere: whoever can change the whole database can make a new chain, but not that one.
    """
    # Who appends meanwhile is in the rows, or is not: the head as it was before them says what must be there.
    last, of_last = head(connection), ""
    before, expected, seen = "", 1, None
    while rows := _rows(connection, expected - 1):
        for row in rows:
            number = row["number"]
            if number != expected:
                yield f"records {expected} to {number - 1} are missing"
            elif row["digest"] != digest_of(before, number, row["uid"], row["recorded_at"], row["message"]):
                yield f"record {number} was changed, or what came before it"
            if anchor and number == anchor.number:
                seen = row["digest"]
            if number == last.number:
                of_last = row["digest"]
            before, expected = row["digest"], number + 1
    if last.number >= expected:
        yield f"records {expected} to {last.number} are missing at the end"
    elif last.digest != of_last or head(connection).number < expected - 1:
        yield "the last record is not the one that was added last"
    if anchor and seen != anchor.digest:
        yield f"record {anchor.number} is not the one whose digest was noted"


def _rows(connection: Connection, after: int) -> Sequence[RowMapping]:
    query = select(audit).where(audit.c.number > after).order_by(audit.c.number).limit(BATCH)
    return connection.execute(query).mappings().all()


def told(connection: Connection, receiver: str) -> int:
    """Return the number of the last message that a receiver has."""
    query = select(audit_receivers.c.number).where(audit_receivers.c.name == receiver)
    return connection.execute(query).scalar_one_or_none() or 0


def note_told(connection: Connection, receiver: str, number: int) -> None:
    """Note that a receiver has everything up to a message."""
    here = audit_receivers.c.name == receiver
    if not connection.execute(update(audit_receivers).where(here).values(number=number)).rowcount:
        connection.execute(insert(audit_receivers).values(name=receiver, number=number))


def subjects(connection: Connection, uids: Iterable[str]) -> dict[str, Subject]:
    """Return what instances, received ones and results, are about; unknown ones are left out."""
    wanted = list(dict.fromkeys(uids))
    received = (
        select(instances.c.uid, instances.c.study_uid, patients.c.patient_id, instances.c.sop_class_uid)
        .join(patients, patients.c.id == instances.c.patient_id)
        .where(instances.c.uid.in_(wanted))
    )
    made = (
        select(results.c.uid, results.c.study_uid, patients.c.patient_id, results.c.sop_class_uid)
        .join(jobs, jobs.c.id == results.c.job_id)
        .join(exams, exams.c.id == jobs.c.exam_id)
        .join(patients, patients.c.id == exams.c.patient_id)
        .where(results.c.uid.in_(wanted))
    )
    found = [*connection.execute(made), *connection.execute(received)]
    return {uid: Subject(study, patient, sop_class) for uid, study, patient, sop_class in found}


def subject_of_exam(connection: Connection, exam_uid: str) -> Subject | None:
    """Return what an exam is about."""
    query = (
        select(exams.c.study_uid, patients.c.patient_id)
        .join(patients, patients.c.id == exams.c.patient_id)
        .where(exams.c.uid == exam_uid)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else Subject(*row)


def subjects_of_studies(connection: Connection, study_uids: Iterable[str]) -> dict[str, Subject]:
    """Return the patients of studies."""
    query = select(catalogue_studies.c.uid, catalogue_studies.c.patient_id).where(
        catalogue_studies.c.uid.in_(list(study_uids))
    )
    return {uid: Subject(uid, patient) for uid, patient in connection.execute(query)}
