"""All that is known of one exam's revision, as its page shows it."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from ai.exam import STANDARD_VIEWS
from ai.words import counted
from node.results.facts import FACTS
from node.results.labels import Box, Point, label_places, lead
from node.web.pages.house import House
from storage.actions import Action, actions_of_exam
from storage.attempts import Attempt, attempts_of_exam
from storage.conflicts import Conflict, list_conflicts
from storage.database import reading
from storage.deliveries import Delivery
from storage.exams import ExamImage, ExamRecord, find_exam, images_of
from storage.index import InstanceRecord, instances_of_exam
from storage.jobs import Job
from storage.overview import study_of, typical_seconds
from storage.previews import Preview, PreviewKind, previews_of
from storage.removals import removed_of_exam
from storage.results import IssuedResult, ResultRecord, results_of
from storage.states import DeliveryState, ExamState, JobState, Plan
from storage.waiving import Waivable, Wanted, waivable

MOST_JOBS: Final = 1000
TOGETHER: Final = timedelta(minutes=1)
"""What happens within this is one event."""
LETTER: Final = 0.6
"""Width of a bold figure, colon or blank over its height, on average; measured on a label in Chromium: 0.57 to 0.59."""


@dataclass(frozen=True)
class Mark:
    """A mass as it is drawn.

    Attributes
    ----------
    number, score, size
        As in the answer.
    points
        Of its outline on the picture.
    label
        Left end of its label, and the line that the letters stand on.
    lead
        The line from a label to its outline where it stands further off.
    """

    number: int
    score: int
    size: str
    points: str
    label: tuple[float, float]
    lead: tuple[Point, Point] | None


@dataclass(frozen=True)
class Shown:
    """A standard view of the exam.

    Attributes
    ----------
    view
        As radiologists say it.
    image_uid
        None without an image.
    why
        Why it was not read; None when it was.
    score, warnings, marks
        What was found.
    width, height, letters
        Of its picture in the units of the marks, and how high their letters are: square, so that no letter is stretched.
    pictures
        Addresses of its pictures, by kind.
    """

    view: str
    image_uid: str | None
    why: str | None
    score: int | None
    width: int
    height: float
    letters: float
    warnings: tuple[str, ...]
    marks: tuple[Mark, ...]
    pictures: Mapping[str, str]


@dataclass(frozen=True)
class Used:
    """An image of the exam: whether it was used, and why not."""

    record: InstanceRecord
    used: bool | None
    view: str
    why: str
    removed: bool


@dataclass(frozen=True)
class Event:
    """Something that happened to the exam."""

    at: datetime
    what: str
    detail: str = ""
    kind: str = ""


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
    progress
        As in the list.
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
    def objects(self) -> tuple[tuple[ResultRecord, datetime, str, bool], ...]:
        """Result objects, when each was made, what it shows, and whether it only stands in for another form."""
        views = {shown.image_uid: shown.view for shown in self.views if shown.image_uid}
        others = {result.record.fallback_uid for result in self.results}
        rows = [
            (each.record, each.created_at, views.get(each.record.image_uid or "", "exam"), each.record.uid in others)
            for each in self.results
        ]
        return tuple(sorted(rows, key=lambda row: (row[0].kind, _place(row[2]), row[3])))

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
    answer = _answer(house, [result for result in issued if result.revision == seen])
    sent = tuple(
        Sent(delivery, tuple(attempts.get(delivery.id, ()))) for delivery in deliveries if delivery.revision == seen
    )
    return ExamFacts(
        exam=exam,
        revision=seen,
        study_date=date,
        study_description=description,
        answer=answer,
        views=_views(exam, answer, pictures, decided),
        images=_images(instances, decided, answer, removed),
        events=_events(instances, all_jobs, deliveries, actions, conflicts),
        results=tuple(result for result in issued if result.revision == seen and result.record.kind != FACTS),
        deliveries=sent,
        conflicts=tuple(conflicts),
        job=job,
        typical=typical,
        removed=bool(removed),
        waivable=tuple(may_be_waived),
    )


def _answer(house: House, issued: Sequence[IssuedResult]) -> Mapping[str, Any] | None:
    kept = next((result.record for result in issued if result.record.kind == FACTS), None)
    if kept is None:
        return None
    try:
        told: Mapping[str, Any] = json.loads(house.store.resolve(kept.path).read_bytes())
    except FileNotFoundError:
        return None
    return told


def _views(
    exam: ExamRecord,
    answer: Mapping[str, Any] | None,
    pictures: Sequence[Preview],
    decided: Sequence[ExamImage],
) -> tuple[Shown, ...]:
    told = {image["view"]: image for image in (answer or {}).get("images", ()) if image["view"]}
    chosen = {image.view: image.instance_uid for image in decided if image.chosen}
    shown = []
    for standard in STANDARD_VIEWS:
        view = str(standard)
        image = told.get(view)
        uid = image["uid"] if image else chosen.get(view)
        own = {preview.kind: preview for preview in pictures if preview.image_uid == uid}
        addresses = {
            kind.value: f"/exams/{exam.uid}/pictures/{preview.job_id}/{preview.image_uid}/{kind}"
            for kind, preview in own.items()
        }
        read = image is not None and not image["not_read"]
        hung = own.get(PreviewKind.VIEW)
        width, height = _size(image) if image and read else (0, 0.0)
        shown.append(
            Shown(
                view=view,
                image_uid=uid,
                why=None if read else _why(image, uid, answer),
                score=image["score"] if image and read else None,
                width=width,
                height=height,
                letters=_letters(width, height),
                warnings=tuple(image["warnings"]) if image and read else (),
                marks=tuple(_marks(image, hung)) if image and read else (),
                pictures=addresses,
            )
        )
    return tuple(shown)


def _why(image: Mapping[str, Any] | None, uid: str | None, answer: Mapping[str, Any] | None) -> str:
    if image is not None:
        return f"Not read: {image['not_read'].rstrip('.')}."
    if uid is not None:
        return "Not read yet." if answer is None else "Not read."
    return "No image of this view."


def _size(image: Mapping[str, Any]) -> tuple[int, float]:
    """Return width and height of an image, in widths of its pixels; facts of earlier versions tell of square ones alone."""
    return image["columns"], image["rows"] * image.get("pixel_aspect", 1.0)


def _letters(width: float, height: float) -> float:
    return min(height, 1.25 * width) / 26


def _marks(image: Mapping[str, Any], hung: Preview | None) -> Iterator[Mark]:
    masses, (width, height) = image["masses"], _size(image)
    aspect, letters = height / image["rows"], _letters(width, height)
    outlines = [
        [
            (width - x if hung and hung.sideways else x, height - y * aspect if hung and hung.upright else y * aspect)
            for x, y in mass["contour"]
        ]
        for mass in masses
    ]
    boxes = [Box.around(points) for points in outlines]
    sizes = [(LETTER * letters * len(f"{mass['number']}: {mass['suspicion']}"), 1.1 * letters) for mass in masses]
    places = label_places(boxes, sizes, (width, height), 0.3 * letters)
    for mass, points, box, place in zip(masses, outlines, boxes, places, strict=True):
        unit = mass["unit"] if mass["unit"] == "mm" else "pixels"
        yield Mark(
            number=mass["number"],
            score=mass["suspicion"],
            size=f"{mass['long_axis']:.0f} x {mass['short_axis']:.0f} {unit}",
            points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points),
            label=(place.left, place.bottom - 0.2 * letters),
            lead=lead(place, box, letters),
        )


def _images(
    instances: Sequence[InstanceRecord],
    decided: Sequence[ExamImage],
    answer: Mapping[str, Any] | None,
    removed: set[str],
) -> tuple[Used, ...]:
    chosen = {image.instance_uid: image for image in decided}
    told = {image["uid"]: image for image in (answer or {}).get("images", ())}
    used = []
    for record in instances:
        image, read = chosen.get(record.uid), told.get(record.uid)
        view = (
            (read and read["view"])
            or (image and image.view)
            or f"{record.laterality or '?'} {record.view_position or '?'}"
        )
        was_used, why = _became(image, read, answered=answer is not None)
        used.append(Used(record, was_used, view, why or (record.reasons or ("",))[-1], record.uid in removed))
    return tuple(sorted(used, key=lambda each: (not each.used, _place(each.view), each.record.received_at)))


def _became(image: ExamImage | None, read: Mapping[str, Any] | None, *, answered: bool) -> tuple[bool | None, str]:
    """Return whether an image was used, and why not."""
    if read:
        return not read["not_read"], read["not_read"] or ""
    if image is None:
        return None, ""
    if image.chosen and answered:
        return False, "its file could not be had"
    return image.chosen, image.reason


def _place(view: str) -> int:
    """Return where a view stands in the usual order; others come last."""
    usual = [str(standard) for standard in STANDARD_VIEWS]
    return usual.index(view) if view in usual else len(usual)


def _events(
    instances: Sequence[InstanceRecord],
    jobs: Sequence[Job],
    deliveries: Sequence[Delivery],
    actions: Sequence[Action],
    conflicts: Sequence[Conflict],
) -> tuple[Event, ...]:
    events = list(_arrivals(instances))
    for job in jobs:
        revision = f"revision {job.revision}"
        events.append(Event(job.created_at, "closed, a reading is queued", "; ".join((revision, *job.reasons))))
        if job.started_at:
            events.append(Event(job.started_at, "reading began", f"{revision}, attempt {job.attempts}"))
        if job.finished_at:
            total = f", {job.timings['total']:.1f} s" if job.timings and "total" in job.timings else ""
            what = {JobState.DONE: "answered", JobState.DEAD: "given up"}.get(job.state, job.state.value)
            detail = f"{revision}: {job.answer or job.error or ''}{total}"
            events.append(Event(job.finished_at, what, detail, "failed" if job.state is JobState.DEAD else "answer"))
    events += _deliveries(deliveries)
    for conflict in conflicts:
        differs = ", ".join(conflict.copy.differences)
        events.append(Event(conflict.copy.received_at, "an image came again, and differs", differs, "failed"))
    events += [Event(action.done_at, f"{action.what} by {action.who}", action.detail, "action") for action in actions]
    return tuple(sorted(events, key=lambda event: event.at))


def _deliveries(deliveries: Sequence[Delivery]) -> Iterator[Event]:
    """Yield what became of deliveries, those that went to one place at about one time as one."""
    sent = [(each.sent_at, f"sent to {each.destination}", "sent", each) for each in deliveries if each.sent_at]
    sent += [
        (each.proven_at, f"{each.state} by {each.destination}", "sent", each) for each in deliveries if each.proven_at
    ]
    sent += [
        (each.finished_at, f"{each.state} by {each.destination}", "failed", each)
        for each in deliveries
        if each.state in {DeliveryState.REFUSED, DeliveryState.EXPIRED} and each.finished_at
    ]
    groups: list[list[tuple[datetime, str, str, Delivery]]] = []
    for one in sorted(sent, key=lambda each: (each[1], each[0])):
        last = groups[-1][-1] if groups else None
        if last and last[1] == one[1] and last[3].revision == one[3].revision and one[0] - last[0] < TOGETHER:
            groups[-1].append(one)
        else:
            groups.append([one])
    for group in groups:
        at, what, kind, first = group[0]
        counts = Counter(str(each[3].kind) for each in group)
        told = ", ".join(f"{number} {name}" if number > 1 else name for name, number in counts.items())
        why = f": {first.message}" if kind == "failed" and first.message else ""
        yield Event(at, what, f"{told} of revision {first.revision}{why}", kind)


def _arrivals(instances: Sequence[InstanceRecord]) -> Sequence[Event]:
    """Return the arrivals of images, those of one sender within a minute as one."""
    events: list[Event] = []
    group: list[InstanceRecord] = []
    for record in sorted(instances, key=lambda each: each.received_at):
        apart = group and (
            record.received_at - group[-1].received_at > TOGETHER or record.calling_ae != group[-1].calling_ae
        )
        if apart:
            events.append(_arrival(group))
            group = []
        group.append(record)
    return [*events, _arrival(group)] if group else events


def _arrival(group: Sequence[InstanceRecord]) -> Event:
    first = group[0]
    return Event(
        first.received_at,
        f"{counted(len(group), 'image')} received",
        f"from {first.calling_ae or 'no AE title'} at {first.origin}",
    )
