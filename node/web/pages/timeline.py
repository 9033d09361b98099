"""What happened to an exam, in order of time, as its page tells it."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple, TypeVar

from ai.words import counted, took
from node.exams import NO_IMAGES
from storage.actions import Action
from storage.conflicts import Conflict
from storage.deliveries import Delivery
from storage.index import InstanceRecord
from storage.jobs import Job
from storage.states import DeliveryState, JobState

TOGETHER: Final = timedelta(minutes=1)
"""What is alike and happens within this is one event."""

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Event:
    """Something that happened to the exam."""

    at: datetime
    what: str
    detail: str = ""
    kind: str = ""


class _Change(NamedTuple):
    """What became of one delivery, and when."""

    what: str
    at: datetime
    kind: str
    delivery: Delivery


def events_of(
    instances: Sequence[InstanceRecord],
    jobs: Sequence[Job],
    deliveries: Sequence[Delivery],
    actions: Sequence[Action],
    conflicts: Sequence[Conflict],
) -> tuple[Event, ...]:
    """Return the events of all revisions."""
    events = list(_arrivals(instances, [job.created_at for job in jobs]))
    for job in jobs:
        revision = f"revision {job.revision}"
        events.append(
            Event(job.created_at, "closed, a reading is queued", "; ".join((revision, *job.before_cancelled[1])))
        )
        if job.started_at:
            events.append(Event(job.started_at, "reading began", f"{revision}, attempt {job.attempts}"))
        if job.finished_at:
            what = {JobState.DONE: "answered", JobState.DEAD: "given up"}.get(job.state, job.state.value)
            detail = "; ".join(filter(None, (f"{revision}: {job.answer or job.error or ''}", took(job.timings or {}))))
            events.append(Event(job.finished_at, what, detail, "failed" if job.state is JobState.DEAD else "answer"))
    events += _deliveries(deliveries)
    for conflict in conflicts:
        differs = ", ".join(conflict.copy.differences)
        events.append(Event(conflict.copy.received_at, "an image came again, and differs", differs, "failed"))
    events += [Event(action.done_at, f"{action.what} by {action.who}", action.detail, "action") for action in actions]
    return tuple(sorted(events, key=lambda event: event.at))


def _arrivals(instances: Iterable[InstanceRecord], closed: Sequence[datetime]) -> Iterator[Event]:
    """Return what came, images apart; one that came late stands after the reading that it came too late for."""
    ordered = sorted(instances, key=lambda each: each.received_at)

    def alike(each: InstanceRecord) -> tuple[str, str, int]:
        return _called(each), each.calling_ae, sum(at < each.received_at for at in closed)

    for group in _together(ordered, lambda each: each.received_at, alike):
        first = group[0]
        came_from = f"from {first.calling_ae or 'no AE title'} at {first.origin}"
        yield Event(first.received_at, f"{counted(len(group), _called(first))} received", came_from)


def _called(instance: InstanceRecord) -> str:
    if instance.own:
        return "own result"
    return "other object" if instance.kind in NO_IMAGES else "image"


def _deliveries(deliveries: Iterable[Delivery]) -> Iterator[Event]:
    changes = sorted(_changes(deliveries), key=lambda each: (each.what, each.at))
    for group in _together(changes, lambda each: each.at, lambda each: (each.what, each.delivery.revision)):
        first = group[0]
        counts = Counter(str(each.delivery.kind) for each in group)
        told = ", ".join(f"{number} {name}" if number > 1 else name for name, number in counts.items())
        why = f": {first.delivery.message}" if first.kind == "failed" and first.delivery.message else ""
        yield Event(first.at, first.what, f"{told} of revision {first.delivery.revision}{why}", first.kind)


def _changes(deliveries: Iterable[Delivery]) -> Iterator[_Change]:
    for each in deliveries:
        became = f"{each.state} by {each.destination}"
        if each.sent_at:
            yield _Change(f"sent to {each.destination}", each.sent_at, "sent", each)
        if each.proven_at:
            yield _Change(became, each.proven_at, "sent", each)
        if each.finished_at and each.state in {DeliveryState.REFUSED, DeliveryState.EXPIRED}:
            yield _Change(became, each.finished_at, "failed", each)


def _together(
    things: Iterable[Thing], at: Callable[[Thing], datetime], alike: Callable[[Thing], object]
) -> list[list[Thing]]:
    """Return things in groups of such as follow each other closely and are alike."""
    groups: list[list[Thing]] = []
    for thing in things:
        last = groups[-1][-1] if groups else None
        if last is not None and alike(last) == alike(thing) and at(thing) - at(last) <= TOGETHER:
            groups[-1].append(thing)
        else:
            groups.append([thing])
    return groups
