"""Files whose time has come: marked as removed in one transaction, unlinked after it; their records stay in the index.

A path that is marked counts as removed, whether its file is still there or not: what a crash left in between is unlinked
later.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

from sqlalchemy import ColumnElement, Connection, Select, distinct, exists, func, insert, select, union_all, update

from storage.exams import lock_keys
from storage.states import ConflictState, DeliveryState, ExamState, JobState
from storage.tables import conflicts, deliveries, exams, instances, jobs, patients, previews, removals, results


@dataclass(frozen=True)
class Obstacle:
    """Deliveries that keep files of exams whose time has come.

    Attributes
    ----------
    destination, kind, state
        Of what, to whom, and where it stands.
    exams
        How many they keep.
    """

    destination: str
    kind: str
    state: DeliveryState
    exams: int


@dataclass(frozen=True)
class Due:
    """Which exams may lose files.

    Attributes
    ----------
    before
        Their last image came before this.
    results_too
        Whether results are meant, and not sources.
    destinations
        Whether patients' answers go to any; without one nothing is ever proven.
    unproven
        Whether a delivery may have ended badly, too, and a node without destinations may remove.
    kept_back
        Statuses of answers that go to nobody because the site wants it so.
    issuer
        Only exams of patients with this issuer; None: of all.
    not_asked
        Names of destinations that are asked for no proof: what they accepted has ended well, even where it was once to be
        proven.
    """

    before: datetime
    results_too: bool
    destinations: bool
    unproven: bool
    kept_back: frozenset[str] = frozenset()
    issuer: str | None = None
    not_asked: frozenset[str] = frozenset()


def removable_exams(connection: Connection, due: Due, limit: int, exam_id: int | None = None) -> list[tuple[int, str]]:
    """Return primary key and id of exams that may lose files, those first whose last image is the oldest.

    Each has ended, no operator has to decide about it, and every one of its deliveries has ended well (committed,
    verified, or sent where no proof is asked for) or was waived by an operator. Where there was something to send there is at least one.
    """
    if not (due.destinations or due.unproven):
        return []
    delivered = (
        select(deliveries.c.id)
        .join(results, results.c.uid == deliveries.c.result_uid)
        .join(jobs, jobs.c.id == results.c.job_id)
        .where(jobs.c.exam_id == exams.c.id)
    )
    query = _ended(due).where(~delivered.where(_keeps(due)).exists()).order_by(exams.c.last_image_at, exams.c.id)
    if not due.unproven:
        query = query.where(
            exams.c.state.in_([ExamState.MOVED, ExamState.PRIOR])
            | exams.c.status.in_(due.kept_back)
            | delivered.exists()
            | _says_nothing()
        )
    if exam_id is not None:
        query = query.where(exams.c.id == exam_id)
    return [(row.id, row.uid) for row in connection.execute(query.limit(limit))]


def obstacles(connection: Connection, due: Due) -> list[Obstacle]:
    """Return the deliveries that keep exams which would otherwise lose files, by destination, kind and state."""
    ended = _ended(due).subquery()
    of_what = (deliveries.c.destination, results.c.kind, deliveries.c.state)
    query = (
        select(*of_what, func.count(distinct(ended.c.id)).label("exams"))
        .join(results, results.c.uid == deliveries.c.result_uid)
        .join(jobs, jobs.c.id == results.c.job_id)
        .join(ended, ended.c.id == jobs.c.exam_id)
        .where(_keeps(due))
        .group_by(*of_what)
        .order_by(*of_what)
    )
    return [
        Obstacle(row.destination, row.kind, DeliveryState(row.state), row.exams) for row in connection.execute(query)
    ]


def _ended(due: Due) -> Select[tuple[int, str]]:
    """Return exams that are old enough, have ended, are not held, wait for no decision and still have files."""
    unfinished = select(jobs.c.id).where(
        jobs.c.exam_id == exams.c.id, jobs.c.state.in_([JobState.QUEUED, JobState.RUNNING])
    )
    undecided = (
        select(conflicts.c.id)
        .join(instances, instances.c.uid == conflicts.c.instance_uid)
        .where(_same_exam(), conflicts.c.state == ConflictState.OPEN)
    )
    paths = _results() if due.results_too else _sources()
    query = select(exams.c.id, exams.c.uid).where(
        exams.c.state.in_([ExamState.ANSWERED, ExamState.FAILED, ExamState.MOVED, ExamState.PRIOR]),
        exams.c.held.is_(False),
        exams.c.last_image_at < due.before,
        ~unfinished.exists(),
        ~undecided.exists(),
        paths.exists(),
    )
    if due.issuer is None:
        return query
    return query.join(patients, patients.c.id == exams.c.patient_id).where(patients.c.issuer == due.issuer)


def _keeps(due: Due) -> ColumnElement[bool]:
    """Tell whether a delivery has not ended, or not well where that counts."""
    unproven = (deliveries.c.state == DeliveryState.SENT) & deliveries.c.destination.not_in(due.not_asked)
    keeps = ((deliveries.c.state == DeliveryState.WAITING) | unproven) & deliveries.c.finished_at.is_(None)
    if not due.unproven:
        keeps |= deliveries.c.state.in_([DeliveryState.REFUSED, DeliveryState.EXPIRED])
    return keeps


def left_over(connection: Connection, exam_id: int, lying: Sequence[str]) -> list[str]:
    """Return those of our own objects of an exam's study that no row names, and none is going to; the study's exams are locked.

    A worker left them whose job was cancelled or taken over, or that was killed. What it may name at its end has a job that
    runs: while one of the study does, or waits, nothing is left over. Nor while another exam's last job may be tried again
    (``JobQueue.retry``), which puts the same bytes under the same paths: one that is marked stays so.

    Parameters
    ----------
    lying
        Their paths, as ``InstanceStore.results_of`` returned them.
    """
    study = select(exams.c.study_uid).where(exams.c.id == exam_id).scalar_subquery()
    keys = list(connection.execute(select(exams.c.id).where(exams.c.study_uid == study)).scalars())
    lock_keys(connection, keys)
    unfinished = jobs.c.exam_id.in_(keys) & jobs.c.state.in_([JobState.QUEUED, JobState.RUNNING])
    if connection.execute(select(jobs.c.id).where(unfinished).limit(1)).one_or_none() is not None:
        return []
    last = (jobs.c.revision == exams.c.revision) & jobs.c.state.in_([JobState.DONE, JobState.DEAD])
    others = select(exams.c.id).where(exams.c.id.in_(keys), exams.c.id != exam_id, exams.c.state != ExamState.MOVED)
    again = others.where(exists().where(jobs.c.exam_id == exams.c.id, last))
    if not all(any_removed(connection, each) for each in connection.execute(again).scalars().all()):
        return []
    uids = {PurePosixPath(path).name.rsplit(".", 2)[0] for path in lying}
    named = set(connection.execute(select(results.c.path).where(results.c.uid.in_(uids))).scalars())
    marked = set(connection.execute(select(removals.c.path).where(removals.c.path.in_(lying))).scalars())
    return sorted(set(lying) - named - marked)


def remove_files(connection: Connection, exam_id: int, due: Due, now: datetime, also: Sequence[str] = ()) -> list[str]:
    """Mark an exam's sources or results, and what is left over, as removed if it still may lose them; return their paths."""
    # Whoever lets an image come to the exam meanwhile waits for this, and then knows.
    lock_keys(connection, [exam_id])
    if not removable_exams(connection, due, 1, exam_id):
        return []
    # Copies that were decided about go with the images that they contradict.
    aside = (
        select(conflicts.c.path)
        .join(instances, instances.c.uid == conflicts.c.instance_uid)
        .where(_same_exam(), _kept(conflicts.c.path))
    )
    # Pictures show the images and what was found in them: they go with whichever goes first.
    pictures = select(previews.c.path).join(jobs, jobs.c.id == previews.c.job_id).where(jobs.c.exam_id == exams.c.id)
    queries = [_results()] if due.results_too else [_sources(), aside]
    queries.append(pictures.where(_kept(previews.c.path)))
    this = [query.where(exams.c.id == exam_id) for query in queries]
    paths = [path for query in this for path in connection.execute(query).scalars()]
    return _mark(connection, [*paths, *also], now)


def strays(connection: Connection, before: datetime) -> list[str]:
    """Return the paths of instances that belong to no exam and came before a time; of none that waits for a decision."""
    undecided = select(conflicts.c.id).where(
        conflicts.c.instance_uid == instances.c.uid, conflicts.c.state == ConflictState.OPEN
    )
    query = select(instances.c.path).where(
        instances.c.received_at < before,
        ~select(exams.c.id).where(_same_exam()).exists(),
        ~undecided.exists(),
        _kept(instances.c.path),
    )
    return list(connection.execute(query).scalars())


def remove_strays(connection: Connection, before: datetime, now: datetime) -> list[str]:
    """Mark strays as removed, and return their paths."""
    return _mark(connection, strays(connection, before), now)


def not_unlinked(connection: Connection) -> list[str]:
    """Return the paths that are marked and whose files may still be there."""
    return list(connection.execute(select(removals.c.path).where(removals.c.unlinked.is_(False))).scalars())


def note_unlinked(connection: Connection, path: str) -> None:
    """Note that a file is gone."""
    connection.execute(update(removals).where(removals.c.path == path).values(unlinked=True))


def is_removed(connection: Connection, path: str) -> bool:
    """Tell whether a path is marked as removed."""
    return connection.execute(select(removals.c.path).where(removals.c.path == path)).one_or_none() is not None


def kept_paths(connection: Connection) -> Iterator[tuple[str | None, str]]:
    """Yield all paths of instances, and of copies that were set aside, that are not marked, with their exam's id, by exam."""
    sources = select(exams.c.uid.label("exam"), instances.c.path.label("file")).select_from(
        instances.outerjoin(exams, _same_exam())
    )
    aside = (
        select(exams.c.uid.label("exam"), conflicts.c.path.label("file"))
        .select_from(conflicts.join(instances, instances.c.uid == conflicts.c.instance_uid))
        .outerjoin(exams, _same_exam())
    )
    kept = union_all(sources.where(_kept(instances.c.path)), aside.where(_kept(conflicts.c.path)))
    found = connection.execution_options(yield_per=1000).execute(kept.order_by("exam", "file"))
    yield from ((row.exam, row.file) for row in found)


def newest_paths(connection: Connection, number: int) -> list[str]:
    """Return the paths of the images that came last and are not marked."""
    query = (
        select(instances.c.path).where(_kept(instances.c.path)).order_by(instances.c.received_at.desc()).limit(number)
    )
    return list(connection.execute(query).scalars())


def removed_of_exam(connection: Connection, exam_id: int) -> set[str]:
    """Return the SOP Instance UIDs of an exam's instances whose files were removed."""
    query = (
        select(instances.c.uid)
        .join(exams, _same_exam())
        .join(removals, removals.c.path == instances.c.path)
        .where(exams.c.id == exam_id)
    )
    return set(connection.execute(query).scalars())


def any_removed(connection: Connection, exam_id: int) -> bool:
    """Tell whether a source or a result of an exam was removed."""
    query = (
        select(results.c.uid)
        .join(jobs, jobs.c.id == results.c.job_id)
        .join(removals, removals.c.path == results.c.path)
        .where(jobs.c.exam_id == exam_id)
        .limit(1)
    )
    return bool(removed_of_exam(connection, exam_id)) or connection.execute(query).one_or_none() is not None


def _same_exam() -> ColumnElement[bool]:
    return (exams.c.patient_id == instances.c.patient_id) & (exams.c.study_uid == instances.c.study_uid)


def _sources() -> Select[tuple[str]]:
    return select(instances.c.path).where(_same_exam(), _kept(instances.c.path))


def _results() -> Select[tuple[str]]:
    return (
        select(results.c.path)
        .join(jobs, jobs.c.id == results.c.job_id)
        .where(jobs.c.exam_id == exams.c.id, _kept(results.c.path))
    )


def _says_nothing() -> ColumnElement[bool]:
    """Tell whether an answer has no object, such as that without findings for those who get segmentations alone."""
    answers = select(results.c.uid).join(jobs, jobs.c.id == results.c.job_id).where(jobs.c.exam_id == exams.c.id)
    # The facts, which stay in the node, are of no SOP class.
    return answers.exists() & ~answers.where(results.c.sop_class_uid != "").exists()


def _mark(connection: Connection, paths: Sequence[str], now: datetime) -> list[str]:
    for path in paths:
        connection.execute(insert(removals).values(path=path, removed_at=now, unlinked=False))
    return list(paths)


def _kept(path: ColumnElement[str]) -> ColumnElement[bool]:
    return ~exists().where(removals.c.path == path)
