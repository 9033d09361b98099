"""All that is known of one exam's revision, as its page shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from node.exams import NO_IMAGES
from node.results.facts import FACTS, kept_facts
from node.web.pages.hanging import Shown, place, views_of
from node.web.pages.house import House
from node.web.pages.timeline import Event, events_of
from storage.actions import actions_of_exam
from storage.attempts import Attempt, attempts_of_exam
from storage.conflicts import Conflict, list_conflicts
from storage.database import reading
from storage.deliveries import Delivery
from storage.exams import ExamImage, ExamRecord, find_exam, images_of
from storage.index import InstanceRecord, instances_of_exam
from storage.jobs import Job
from storage.overview import study_of, typical_seconds
from storage.previews import PreviewKind, previews_of
from storage.removals import removed_of_exam
from storage.results import IssuedResult, ResultRecord, results_of
from storage.states import UNDELIVERED, ExamState, JobState, Plan
from storage.waiving import Waivable, Wanted, waivable

MOST_JOBS: Final = 1000


@dataclass(frozen=True)
class Used:
    """An instance of the exam's study: what became of it in this revision, and why."""

    record: InstanceRecord
    became: str
    view: str
    why: str
    removed: bool


@dataclass(frozen=True)
class Sent:
    """A delivery with its attempts."""

    delivery: Delivery
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True)
class ExamFacts:
    """One exam, seen at one of its revisions.

    Attributes
    ----------
    exam
        It, as it is now.
    revision
        The one that is looked at.
    study_date, study_description
        As in the header.
    answer
        As it was kept; None without one.
    views
        The four standard views.
    images, events, results, deliveries, conflicts
        What there is of this revision; events and conflicts of all.
    job
        The newest reading of this revision.
    typical
        Seconds that a reading usually takes; None before the first.
    removed
        Whether images or pictures are not kept any more.
    waivable
        Deliveries of any revision that will not be taken as things stand, and may be given up.
    """

    exam: ExamRecord
    revision: int
    study_date: str
    study_description: str
    answer: Mapping[str, Any] | None
    views: tuple[Shown, ...]
    images: tuple[Used, ...]
    events: tuple[Event, ...]
    results: tuple[IssuedResult, ...]
    deliveries: tuple[Sent, ...]
    conflicts: tuple[Conflict, ...]
    job: Job | None
    typical: float | None
    removed: bool
    waivable: tuple[Waivable, ...]

    @property
    def is_present(self) -> bool:
        """Whether the revision is the present one: only that can be acted upon."""
        return self.revision == self.exam.revision

    @property
    def may_retry(self) -> bool:
        """Whether its reading has failed, or waits after a failure."""
        if self.job is None or not self.is_present or self.exam.state is ExamState.MOVED:
            return False
        return (
            self.job.state is JobState.DEAD
            or (self.job.state is JobState.QUEUED and self.job.attempts > 0)
            or (self.job.state is JobState.DONE and self.job.answer == "failed")
        )

    @property
    def may_reread(self) -> bool:
        """Whether it was read, or left as a prior, and can be read."""
        ended = self.job is not None and self.job.state is JobState.DONE and self.job.answer != "failed"
        return (
            (ended or self.exam.state is ExamState.PRIOR)
            and self.is_present
            and self.exam.state is not ExamState.MOVED
            and not self.removed
        )

    @property
    def may_cancel(self) -> bool:
        """Whether its reading waits or runs."""
        return (
            self.job is not None
            and self.is_present
            and self.job.plan is Plan.READ
            and self.job.state in {JobState.QUEUED, JobState.RUNNING}
        )

    @property
    def destinations(self) -> tuple[str, ...]:
        """Those that were sent something of any revision."""
        return tuple(sorted({sent.delivery.destination for sent in self.deliveries}))

    @property
    def undelivered(self) -> Mapping[str, tuple[str, ...]]:
        """Destination → kinds of what it has refused, or was given up."""
        kinds: dict[str, dict[str, None]] = {}
        for each in (sent.delivery for sent in self.deliveries):
            if each.state in UNDELIVERED:
                kinds.setdefault(each.destination, {})[each.kind] = None
        return {name: tuple(found) for name, found in kinds.items()}

    @property
    def objects(self) -> tuple[tuple[ResultRecord, datetime, str, bool], ...]:
        """Result objects, when each was made, what it shows, and whether it only stands in for another form."""
        views = {shown.image_uid: shown.view for shown in self.views if shown.image_uid}
        others = {result.record.fallback_uid for result in self.results}
        rows = [
            (each.record, each.created_at, views.get(each.record.image_uid or "", "exam"), each.record.uid in others)
            for each in self.results
        ]
        return tuple(sorted(rows, key=lambda row: (row[0].kind, place(row[2]), row[3])))

    @property
    def has_maps(self) -> bool:
        """Whether there is a picture of the reader's probabilities."""
        return any(PreviewKind.MAP in shown.pictures for shown in self.views)

    @property
    def has_prepared(self) -> bool:
        """Whether there is a picture of what the reader saw."""
        return any(PreviewKind.PREPARED in shown.pictures for shown in self.views)


def exam_facts(house: House, uid: str, revision: int | None) -> ExamFacts:
    """Return what is known of an exam.

    Raises
    ------
    storage.errors.NoSuchExam, storage.errors.AmbiguousExam
        When none, or several, begin so.
    """
    with reading(house.engine) as connection:
        exam = find_exam(connection, uid)
        instances = instances_of_exam(connection, exam.id)
        removed = removed_of_exam(connection, exam.id)
        issued = results_of(connection, exam.id)
        attempts = attempts_of_exam(connection, exam.id)
        conflicts = list_conflicts(connection, exam_id=exam.id)
        actions = actions_of_exam(connection, exam.id)
        date, description = study_of(connection, exam)
        typical = typical_seconds(connection)
        may_be_waived = waivable(connection, Wanted(house.settings.addressed.keys(), exam.id))
    all_jobs = house.queue.list_jobs(MOST_JOBS, exam_id=exam.id)
    deliveries = house.outbox.of_exam(exam.id)
    seen = exam.revision if revision is None else min(max(revision, 1), exam.revision)
    job = next((job for job in all_jobs if job.revision == seen), None)
    with reading(house.engine) as connection:
        decided = images_of(connection, exam.id, seen)
        pictures = previews_of(connection, job.id) if job else []
    facts = [result.record.path for result in issued if result.revision == seen and result.record.kind == FACTS]
    answer = kept_facts(house.store, facts[0]) if facts else None
    sent = tuple(
        Sent(delivery, tuple(attempts.get(delivery.id, ()))) for delivery in deliveries if delivery.revision == seen
    )
    images = _images(instances, decided, answer, removed, closed=job is not None)
    unused = {image.view: image.why for image in images if image.became == "not used"}
    return ExamFacts(
        exam=exam,
        revision=seen,
        study_date=date,
        study_description=description,
        answer=answer,
        views=views_of(exam, answer, pictures, decided, unused),
        images=images,
        events=events_of(instances, all_jobs, deliveries, actions, conflicts),
        results=tuple(result for result in issued if result.revision == seen and result.record.kind != FACTS),
        deliveries=sent,
        conflicts=tuple(conflicts),
        job=job,
        typical=typical,
        removed=bool(removed),
        waivable=tuple(may_be_waived),
    )


def _images(
    instances: Sequence[InstanceRecord],
    decided: Sequence[ExamImage],
    answer: Mapping[str, Any] | None,
    removed: set[str],
    *,
    closed: bool,
) -> tuple[Used, ...]:
    chosen = {image.instance_uid: image for image in decided}
    told = {image["uid"]: image for image in (answer or {}).get("images", ())}
    used = []
    for record in instances:
        image, read = chosen.get(record.uid), told.get(record.uid)
        if record.kind in NO_IMAGES:
            used.append(Used(record, "kept", "", "no image", record.uid in removed))
            continue
        view = (
            (read and read["view"])
            or (image and image.view)
            or f"{record.laterality or '?'} {record.view_position or '?'}"
        )
        became, why = _became(image, read, answered=answer is not None, closed=closed)
        used.append(Used(record, became, view, why or (record.reasons or ("",))[-1], record.uid in removed))
    return tuple(sorted(used, key=lambda each: (each.became != "used", place(each.view), each.record.received_at)))


def _became(
    image: ExamImage | None, read: Mapping[str, Any] | None, *, answered: bool, closed: bool
) -> tuple[str, str]:
    """Return what became of an image, and why."""
    if read:
        return "not used" if read["not_read"] else "used", read["not_read"] or ""
    if image is None:
        return ("not used", "it came after this revision was closed") if closed else ("not decided", "")
    if image.chosen and answered:
        return "not used", "its file could not be had"
    return "used" if image.chosen else "not used", image.reason
