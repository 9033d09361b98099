"""Instances → four-view exam: complete, partial, unilateral, or nothing to read (rule R5). Pure: no clock, no database."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Self

from ai.exam import STANDARD_VIEWS, Laterality, View
from ai.words import counted
from config.policy import CompletionPolicy, PriorPolicy
from node.view_codes import says_unilateral
from node.views import ImageKind, refusal, standard_view
from storage.exams import ExamImage
from storage.index import InstanceRecord
from storage.states import Plan

WITHDRAWN = "withdrawn: "
"""How the sentence begins that says that an image was taken back, and why."""

REMOVED = "removed after its time"
"""The sentence that says that an image's file is not kept any more."""

NO_IMAGES = (ImageKind.NOT_AN_IMAGE, ImageKind.OWN_RESULT)


@dataclass(frozen=True)
class Candidate:
    """One instance of an exam's study.

    Attributes
    ----------
    instance_uid
        SOP Instance UID. Two candidates with one UID are equal: the index keeps one instance per UID (rule R6).
    kind, laterality, view
        As in ``node.views.Classification``.
    usable
        Whether it can be read as its view.
    obstacles
        Why not; empty when it is usable.
    acquired_at
        YYYYMMDDHHMMSS.FFFFFF, or '' when unknown.
    instance_number
        Instance Number, or None.
    unilateral
        Whether its descriptions order its breast alone.
    withdrawn
        Whether a rejection note has taken it back (rule R7).
    removed
        Whether its file was removed after its time.
    """

    instance_uid: str
    kind: ImageKind
    laterality: Laterality | None
    view: View | None
    usable: bool
    obstacles: tuple[str, ...] = ()
    acquired_at: str = ""
    instance_number: int | None = None
    unilateral: bool = False
    withdrawn: bool = False
    removed: bool = False

    def __post_init__(self) -> None:
        """Refuse a usable image without a standard view, and an unusable one without a reason."""
        if self.usable and self.view is None:
            raise ValueError(f"usable without a view: {self.instance_uid}")
        if not self.usable and not self.obstacles:
            raise ValueError(f"unusable without a reason: {self.instance_uid}")

    @classmethod
    def of(
        cls,
        record: InstanceRecord,
        withdrawn: str | None = None,
        *,
        removed: bool = False,
        accepts: Collection[ImageKind] = frozenset({ImageKind.FOR_PRESENTATION}),
    ) -> Self:
        """Return the candidate for an indexed instance.

        Parameters
        ----------
        record
            As the instance was indexed; what the reader of that time did not read, another one may.
        withdrawn
            Why it was taken back, if it was.
        removed
            Whether its file was removed after its time.
        accepts
            Kinds of image that the reader reads.
        """
        kind = ImageKind(record.kind)
        # The last reason tells where the view came from.
        obstacles = () if record.usable else tuple(each for each in record.reasons[:-1] if each != refusal(kind))
        if kind not in {*accepts, *NO_IMAGES}:
            obstacles = (refusal(kind), *obstacles)
        if removed:
            obstacles = (REMOVED,)
        if withdrawn:
            obstacles = (f"{WITHDRAWN}{withdrawn}",)
        laterality = Laterality(record.laterality) if record.laterality else None
        descriptions = (record.study.description, record.series.description)
        return cls(
            instance_uid=record.uid,
            kind=kind,
            laterality=laterality,
            view=standard_view(record.laterality, record.view_position),
            usable=not obstacles and withdrawn is None,
            obstacles=obstacles,
            acquired_at=record.acquired_at,
            instance_number=record.instance_number,
            unilateral=laterality is not None and says_unilateral(descriptions, laterality),
            withdrawn=withdrawn is not None,
            removed=removed,
        )

    @classmethod
    def decided(
        cls, record: InstanceRecord, image: ExamImage, *, accepts: Collection[ImageKind], removed: bool = False
    ) -> Self:
        """Return the candidate as it was when its exam's revision was closed, but for what this reader does not read."""
        taken_back = image.reason.startswith(WITHDRAWN)
        withdrawn = image.reason.removeprefix(WITHDRAWN) if taken_back else None
        refused = {kind for kind in accepts if refusal(kind) in image.reason}
        return cls.of(record, withdrawn, removed=removed, accepts=frozenset(accepts) - refused)

    @property
    def is_image(self) -> bool:
        """Whether it is an image at all, and not one of our own."""
        return self.kind not in NO_IMAGES

    @property
    def rank(self) -> tuple[bool, str, int, str]:
        """By which the greatest of repeated views is chosen, as `assemble` tells."""
        number = -(2**31) - 1 if self.instance_number is None else self.instance_number
        return self.kind is ImageKind.FOR_PRESENTATION, self.acquired_at, number, self.instance_uid


@dataclass(frozen=True)
class Assembly:
    """Which images of a study make the exam.

    Attributes
    ----------
    chosen
        View → SOP Instance UID, in the order of the standard views.
    spare
        View → SOP Instance UIDs of the others of that view that stand in when the chosen one cannot be read, the next first.
    rejected
        SOP Instance UID → reason, of every candidate that was not chosen.
    missing
        Expected views without an image; of a unilateral exam only that breast's views are expected.
    unilateral
        The breast, when only one was examined and that was meant; else None.
    """

    chosen: Mapping[View, str]
    spare: Mapping[View, tuple[str, ...]]
    rejected: Mapping[str, str]
    missing: tuple[View, ...]
    unilateral: Laterality | None

    @property
    def complete(self) -> bool:
        """Whether every expected view is there."""
        return not self.missing

    @property
    def in_order(self) -> tuple[tuple[View, str], ...]:
        """Views and SOP Instance UIDs of all that may be read, those of one view in the order in which they are tried."""
        return tuple((view, uid) for view, first in self.chosen.items() for uid in (first, *self.spare.get(view, ())))


def assemble(candidates: Iterable[Candidate], *, one_breast_suffices: bool = False) -> Assembly:
    """Choose one image per standard view; the order and the number of times that candidates come in change nothing.

    Of repeated views the rule chooses, in this order: For Presentation before other kinds; the latest acquisition (an
    image is repeated because the one before it was poor), one without a time last; the highest instance number, one
    without last; the greatest SOP Instance UID.

    Parameters
    ----------
    one_breast_suffices
        The site's setting that an exam of one breast is unilateral although no description says so.
    """
    offered = sorted(set(candidates), key=lambda candidate: candidate.rank, reverse=True)
    best: dict[View, Candidate] = {}
    spare: dict[View, list[str]] = {}
    rejected: dict[str, str] = {}
    for candidate in offered:
        if not candidate.usable or candidate.view is None:
            rejected[candidate.instance_uid] = "; ".join(candidate.obstacles)
        elif candidate.view in best:
            rejected[candidate.instance_uid] = why_not(candidate, best[candidate.view])
            spare.setdefault(candidate.view, []).append(candidate.instance_uid)
        else:
            best[candidate.view] = candidate
    chosen = {view: best[view] for view in STANDARD_VIEWS if view in best}
    side = only_side(offered, chosen, one_breast_suffices=one_breast_suffices)
    expected = [view for view in STANDARD_VIEWS if side in (None, view.laterality)]
    return Assembly(
        chosen={view: candidate.instance_uid for view, candidate in chosen.items()},
        spare={view: tuple(uids) for view, uids in spare.items()},
        rejected=dict(sorted(rejected.items())),
        missing=tuple(view for view in expected if view not in chosen),
        unilateral=side,
    )


@dataclass(frozen=True)
class Outcome:
    """What became of an exam's images once they were read.

    Attributes
    ----------
    views
        SOP Instance UID → view, of the images that were read, and of those chosen for a view of which none was read.
    not_read
        SOP Instance UID → why not, of every other candidate and of every image that could not be read.
    missing
        Expected views that were not read.
    stand_ins
        A sentence for each image that was read in another's place.
    """

    views: Mapping[str, View]
    not_read: Mapping[str, str]
    missing: tuple[View, ...]
    stand_ins: tuple[str, ...]


def outcome(
    candidates: Iterable[Candidate], not_read: Mapping[str, str], *, one_breast_suffices: bool = False
) -> Outcome:
    """Tell which images of an exam were read as what, when some could not be: the next of a view stood in for them.

    Parameters
    ----------
    candidates
        As for `assemble`.
    not_read
        SOP Instance UID → why an image that was to be read could not be.
    one_breast_suffices
        As for `assemble`.
    """
    offered = list(candidates)
    planned = assemble(offered, one_breast_suffices=one_breast_suffices)
    left = [
        replace(each, usable=False, obstacles=(not_read[each.instance_uid],)) if each.instance_uid in not_read else each
        for each in offered
    ]
    done = assemble(left)
    views = {done.chosen.get(view, first): view for view, first in planned.chosen.items()}
    unread = tuple(view for view in planned.chosen if view not in done.chosen)
    stand_ins = tuple(
        f"{view}: image {done.chosen[view]} was read in place of {first}, which could not be read: {not_read[first]}"
        for view, first in planned.chosen.items()
        if done.chosen.get(view, first) != first
    )
    return Outcome(views, done.rejected, (*planned.missing, *unread), stand_ins)


def why_not(candidate: Candidate, chosen: Candidate) -> str:
    """Say why another image of the same view was chosen."""
    words = ("is For Presentation", "was taken later", "has the higher number", "has the greater UID")
    steps = zip(candidate.rank, chosen.rank, words, strict=True)
    decisive = next(why for mine, other, why in steps if mine != other)
    return f"{candidate.view} repeated: {chosen.instance_uid} {decisive}"


def only_side(
    offered: Iterable[Candidate], chosen: Mapping[View, Candidate], *, one_breast_suffices: bool
) -> Laterality | None:
    """Return the breast of a unilateral exam: both of its views are there, no image of the other breast, and it was meant."""
    sides = {candidate.laterality for candidate in offered if candidate.is_image and not candidate.withdrawn}
    if len(chosen) != 2 or len({view.laterality for view in chosen}) != 1:
        return None
    (side,) = {view.laterality for view in chosen}
    meant = one_breast_suffices or all(candidate.unilateral for candidate in chosen.values())
    return side if meant and sides <= {side, None} else None


class Completeness(StrEnum):
    """How much of an exam is there when it is closed."""

    #: The four standard views.
    COMPLETE = "complete"
    #: Both views of the one breast that was to be examined.
    UNILATERAL = "unilateral"
    #: Some expected views; the missing ones are named.
    PARTIAL = "partial"
    #: No image that can be read.
    NOTHING = "nothing to read"


@dataclass(frozen=True)
class Wait:
    """The exam may still grow; look again then, or when an image arrives."""

    until: datetime


@dataclass(frozen=True)
class Close:
    """The exam is to be answered with what is there.

    Attributes
    ----------
    plan
        What the job is to do.
    completeness
        How much is there.
    reasons
        Sentences for the answer: what is missing or was taken back, and why; empty when complete.
    """

    plan: Plan
    completeness: Completeness
    reasons: tuple[str, ...]


def decide(
    assembly: Assembly,
    candidates: Iterable[Candidate],
    *,
    opened_at: datetime,
    last_image_at: datetime,
    now: datetime,
    policy: CompletionPolicy,
) -> Wait | Close:
    """Say whether an exam is closed now or awaits more images.

    The four standard views close it after a short quiet time, anything less after a long one, since nothing tells that
    no more will come; the hard cap closes it although images keep arriving. Once closed it stays so as time passes.

    Parameters
    ----------
    assembly, candidates
        What `assemble` made, and of what.
    opened_at, last_image_at
        When the present revision began to collect, and when its last image arrived; aware.
    now
        Aware.
    """
    quiet = policy.complete_quiet if len(assembly.chosen) == len(STANDARD_VIEWS) else policy.incomplete_quiet
    due = min(last_image_at + quiet, opened_at + policy.hard_cap)
    return Wait(due) if now < due else closed_with(assembly, candidates)


def closed_with(assembly: Assembly, candidates: Iterable[Candidate]) -> Close:
    """Say how an exam is closed with what is there, as `decide` does when its time has come."""
    images = [candidate for candidate in candidates if candidate.is_image]
    withdrawn = sorted({obstacle for image in images if image.withdrawn for obstacle in image.obstacles})
    if images and all(image.withdrawn for image in images):
        return Close(Plan.NOT_ANALYSED, Completeness.NOTHING, (f"all images were {', '.join(withdrawn)}",))
    if not assembly.chosen:
        obstacles = sorted({obstacle for image in images for obstacle in image.obstacles}) or ["no image received"]
        return Close(Plan.NOT_ANALYSED, Completeness.NOTHING, tuple(obstacles))
    if assembly.unilateral:
        reasons = [f"unilateral: {assembly.unilateral} breast only"]
        completeness = Completeness.UNILATERAL
    else:
        reasons = [f"{view} not read: {why_missing(view, images)}" for view in assembly.missing]
        completeness = Completeness.COMPLETE if assembly.complete else Completeness.PARTIAL
    count = sum(image.withdrawn for image in images)
    told = [f"{counted(count, 'image')} {why}" for why in withdrawn]
    return Close(Plan.READ, completeness, (*reasons, *told))


def prior_of(records: Iterable[InstanceRecord], policy: PriorPolicy) -> date | None:
    """Return the date of an exam's study when the exam is a prior.

    What counts is how old the study was when the first image came, in the time zone of this node, so that an image that
    comes late, again or corrected makes no prior of an exam that was read. A study without a date is none.
    """
    images = [record for record in records if record.opens_exam]
    if not images:
        return None
    try:
        taken = datetime.strptime(images[0].study.date.replace(".", ""), "%Y%m%d").date()  # noqa: DTZ007 (a date)
    except ValueError:
        return None
    received = min(record.received_at for record in images).astimezone().date()
    return taken if policy.is_prior(taken, received) else None


def why_missing(view: View, images: Iterable[Candidate]) -> str:
    """Say why a view has no image: none came, or those that did could not be read."""
    obstacles = {obstacle for image in images if image.view == view for obstacle in image.obstacles}
    return ", ".join(sorted(obstacles)) or "no image received"
