"""The ways of reading that docs/ablation.md compares: what each makes of what the networks saw."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from statistics import fmean

import numpy as np
from ablation_passes import PASSES, Pass, Seen

from ai.datasets.records import Record
from ai.exam import ViewPosition
from ai.findings import Mass
from ai.networks.mass_fpn import STRIDE
from ai.pixels import file_image
from ai.readers.boxes import Boxes, fuse
from ai.readers.centres import CentreMaps, CentreRule, boxed_masses, candidates
from ai.readers.matching import MatchingPolicy, pair, places, units, view_line

OUTLINED, FIRST_OUTLINED, SECOND_OUTLINED = (
    next(one for one in PASSES if one.name == name) for name in ("outlined", "first-outlined", "second-outlined")
)
PAIRED_FROM = 0.1
"""Detection of a mark that is looked for in the other view."""
AS_SHIPPED = CentreRule()
BOTH, UPRIGHT, TURNED = (0, 1), (0,), (1,)
"""Which ways up are averaged."""


@dataclass(frozen=True, eq=False)
class Told:
    """What a row says of one image.

    Attributes
    ----------
    found
        Scores with boxes x, y, width, height.
    malignancy
        The image's.
    masses
        Where a row looks at more than boxes.
    marks
        Malignancies in the order of ``found``; empty where a row tells none.
    """

    found: tuple[tuple[float, tuple[float, float, float, float]], ...]
    malignancy: float
    masses: tuple[Mass, ...] = ()
    marks: tuple[float, ...] = ()


Ways = tuple[int, ...]
Say = Callable[[Mapping[str, Seen]], Told]
Together = Callable[[Sequence[Record], Sequence[Told], Path], list[Told]]


def alone(_records: Sequence[Record], answers: Sequence[Told], _folder: Path) -> list[Told]:
    """Leave each image its own malignancy."""
    return list(answers)


def by_breast(combine: Callable[[list[float]], float]) -> Together:
    """Give an image the malignancy of its breast."""

    def together(records: Sequence[Record], answers: Sequence[Told], _: Path) -> list[Told]:
        result = list(answers)
        for members in breasts(records):
            malignancy = combine([answers[place].malignancy for place in members])
            for place in members:
                result[place] = replace(answers[place], malignancy=malignancy)
        return result

    return together


def breasts(records: Sequence[Record]) -> list[list[int]]:
    """Return where the images of each breast stand."""
    found: dict[tuple[str, str], list[int]] = {}
    for place, record in enumerate(records):
        found.setdefault((record.patient_id, record.view.laterality), []).append(place)
    return list(found.values())


MEAN_OF_BREAST: Together = by_breast(fmean)


@dataclass(frozen=True)
class Row:
    """One way of reading.

    Attributes
    ----------
    group, title
        Where it stands, and what it is.
    passes
        Which it needs.
    say
        Makes findings of what the passes saw.
    together
        Changes them once all images of a breast are read; as shipped, each image tells the mean of its breast's views.
    base
        Title of the row that it is compared with; the shipped way's when empty.
    """

    group: str
    title: str
    passes: tuple[str, ...]
    say: Say
    base: str = ""
    together: Together = MEAN_OF_BREAST


@lru_cache(maxsize=64)
def shipped(seen: Seen, ways: Ways = BOTH, rule: CentreRule = AS_SHIPPED) -> tuple[Mass, ...]:
    """Return the masses of a network with boxes; kept, since many rows begin with the same."""
    if seen.centres is None or seen.distances is None:
        raise SystemExit("this network tells no boxes")
    told = (seen.mass, seen.malignant, seen.centres, seen.distances)
    maps = CentreMaps(*(values[list(ways)].mean(0) for values in told), STRIDE)
    return boxed_masses(maps, candidates(maps, rule), seen.geometry, None, rule, 0.0)


def told(masses: Sequence[Mass], malignancy: float) -> Told:
    """Return masses as scored boxes."""
    found = tuple((m.detection, tuple(map(float, m.box))) for m in masses)
    return Told(found, malignancy, marks=tuple(m.malignancy or 0.0 for m in masses))  # type: ignore[arg-type]


def by(name: str, ways: Ways = BOTH, rule: CentreRule = AS_SHIPPED) -> Say:
    """Read one pass of the shipped network."""
    return lambda seen: told(shipped(seen[name], ways, rule), float(seen[name].malignancy[list(ways)].mean()))


def ranked_by_suspicion(seen: Mapping[str, Seen]) -> Told:
    """Rank findings by detection times malignancy instead of detection alone."""
    masses = [replace(m, detection=m.suspicion / 100) for m in shipped(seen["shipped"])]
    return told(masses, float(seen["shipped"].malignancy.mean()))


def image_by_findings(seen: Mapping[str, Seen]) -> Told:
    """Take an image's malignancy from its most suspicious finding."""
    masses = shipped(seen["shipped"])
    return told(masses, max((m.suspicion / 100 for m in masses), default=0.0))


def image_by_either(seen: Mapping[str, Seen]) -> Told:
    """Take the higher of the image's own malignancy and its most suspicious finding, as the score that is shown."""
    found = image_by_findings(seen)
    return replace(found, malignancy=max(found.malignancy, float(seen["shipped"].malignancy.mean())))


def by_turns(upright: str, turned: str) -> Say:
    """Read with one pass upright and with another upside down."""

    def say(seen: Mapping[str, Seen]) -> Told:
        one, two = seen[upright], seen[turned]
        ways = {f.name: getattr(one, f.name) for f in fields(Seen)} | {
            name: np.stack([getattr(one, name)[0], getattr(two, name)[1]])
            for name in ("mass", "malignant", "malignancy", "centres", "distances")
        }
        return by("both")({"both": Seen(**ways)})

    return say


def by_boxes(*names: str) -> Say:
    """Read with several passes, and make one of their boxes."""
    return lambda seen: agreed({n: shipped(seen[n], tuple(range(len(seen[n].mass)))) for n in names}, seen)


def agreed(masses: Mapping[str, Sequence[Mass]], seen: Mapping[str, Seen]) -> Told:
    """Return one answer of several: boxes that overlap by half are one, their scores averaged, 0 from one that is silent."""
    sides = []
    for each in masses.values():
        corners = [(x, y, x + w, y + h) for x, y, w, h in (m.box for m in each)]
        scores = np.array([m.detection for m in each], np.float64)
        sides.append(Boxes(np.array(corners, np.float64).reshape(-1, 4), scores))
    fused = fuse(sides)
    found = [
        (float(score), (float(x1), float(y1), float(x2 - x1), float(y2 - y1)))
        for (x1, y1, x2, y2), score in zip(fused.corners, fused.scores, strict=True)
    ]
    return Told(tuple(found), fmean(float(seen[name].malignancy.mean()) for name in masses))


def with_masses(seen: Mapping[str, Seen]) -> Told:
    """Read as shipped, and keep the masses."""
    masses = shipped(seen["shipped"])
    return replace(told(masses, float(seen["shipped"].malignancy.mean())), masses=masses)


def by_partner(change: Callable[[float, float | None], float]) -> Together:
    """Change detections, in breasts that were read in both views, by that of the mass they may be one lesion with."""

    def together(records: Sequence[Record], answers: Sequence[Told], folder: Path) -> list[Told]:
        result = list(answers)
        for members in breasts(records):
            by_view = {records[place].view.position: place for place in members}
            if len(by_view) < len(ViewPosition):
                continue
            cc, mlo = by_view[ViewPosition.CC], by_view[ViewPosition.MLO]
            pairs = dict(alike(records, answers, folder, cc, mlo))
            for place, other, partner in ((cc, mlo, pairs), (mlo, cc, {b: a for a, b in pairs.items()})):
                found = []
                for number, (score, box) in enumerate(answers[place].found, 1):
                    mate = answers[other].found[partner[number] - 1][0] if number in partner else None
                    found.append((change(score, mate), box))
                result[place] = replace(answers[place], found=tuple(found))
        return MEAN_OF_BREAST(records, result, folder)

    return together


def alike(records: Sequence[Record], answers: Sequence[Told], folder: Path, cc: int, mlo: int) -> list[tuple[int, int]]:
    """Return which masses of two views may be one lesion, by their numbers."""
    policy = MatchingPolicy()
    images = [file_image(folder / records[place].path, records[place].view) for place in (cc, mlo)]
    lines = [view_line(image, policy) for image in images]
    scales = units(images[0], images[1], (lines[0].depth, lines[1].depth))
    seen = [[mass for mass in answers[place].masses if mass.detection >= PAIRED_FROM] for place in (cc, mlo)]
    sides = [places(*each) for each in zip(images, seen, lines, scales, strict=True)]
    return pair(sides[0], sides[1], policy)


ONE_WAY = "upright alone"
ROWS = (
    Row("", "**as shipped**: both ways up", ("shipped",), by("shipped")),
    Row("Ways up", ONE_WAY, ("shipped",), by("shipped", UPRIGHT)),
    Row("Ways up", "upside down alone", ("shipped",), by("shipped", TURNED)),
    *(
        Row(
            "Boxes", f"one mass from an overlap of {x:g} (0.2)", ("shipped",), by("shipped", rule=CentreRule(overlap=x))
        )
        for x in (0.05, 0.35, 0.5)
    ),
    *(
        Row("Boxes", f"at most {n} boxes an image (20)", ("shipped",), by("shipped", rule=CentreRule(most=n)))
        for n in (3, 8)
    ),
    *(
        Row("Boxes", f"centres from {x:g} on (0.02)", ("shipped",), by("shipped", rule=CentreRule(candidate=x)))
        for x in (0.05, 0.1)
    ),
    *(
        Row("Outlines", f"{words} (0.7)", ("shipped",), by("shipped", rule=CentreRule(fits=x)))
        for words, x in (
            ("from an IoU with the box of 0.5", 0.5),
            ("from 0.8", 0.8),
            ("never: the ellipse in the box", 1.0),
        )
    ),
    Row("Scores", "findings ranked by suspicion, not detection", ("shipped",), ranked_by_suspicion),
    Row("Scores", "image by its worst finding, not its own output", ("shipped",), image_by_findings),
    Row("Scores", "image by the higher of both", ("shipped",), image_by_either),
    Row("Two views", "each image by its own", ("shipped",), with_masses, together=alone),
    Row("Two views", "image by the worst of its breast's views", ("shipped",), with_masses, together=by_breast(max)),
    Row(
        "Two views",
        "a mark is as sure as the one it is paired with",
        ("shipped",),
        with_masses,
        together=by_partner(lambda own, mate: max(own, mate or 0.0)),
    ),
    Row(
        "Two views",
        "a mark that is paired with none is half as sure",
        ("shipped",),
        with_masses,
        together=by_partner(lambda own, mate: own / 2 if mate is None else own),
    ),
    Row(
        "Preparation, one way up",
        "the whole picture, not the breast",
        ("whole-picture",),
        by("whole-picture", UPRIGHT),
        ONE_WAY,
    ),
    Row("Preparation, one way up", "proportions not restored", ("squeezed",), by("squeezed", UPRIGHT), ONE_WAY),
    Row(
        "Preparation, one way up",
        "grey values as stored, not stretched",
        ("as-stored",),
        by("as-stored", UPRIGHT),
        ONE_WAY,
    ),
    Row("Resolution, one way up", "640 x 416 (768 x 480)", ("smaller",), by("smaller", UPRIGHT), ONE_WAY),
    Row("Resolution, one way up", "960 x 608", ("larger",), by("larger", UPRIGHT), ONE_WAY),
    Row("Resolutions together", "and 960 x 608 upright", ("shipped", "larger"), by_boxes("shipped", "larger")),
    Row(
        "Resolutions together",
        "and 640 x 416 and 960 x 608 upright",
        ("shipped", "smaller", "larger"),
        by_boxes("shipped", "smaller", "larger"),
    ),
    Row("Networks", "the first alone, the model that shipped before", ("first",), by("first")),
    Row("Networks", "the second alone", ("second",), by("second")),
    Row("Networks", "the first upright, the second upside down", ("first", "second"), by_turns("first", "second")),
    Row("Networks", "the second upright, the first upside down", ("first", "second"), by_turns("second", "first")),
    Row("Networks", "boxes of both, made one", ("first", "second"), by_boxes("first", "second")),
)


@dataclass(frozen=True)
class Outlines:
    """One way of drawing masses whose pixels are known; findings from a threshold on, None that of the card."""

    title: str
    one: Pass
    masses: Callable[[Seen], Sequence[Mass]]
    threshold: float | None = None


OUTLINES = (
    Outlines("**as shipped**: both ways up", OUTLINED, shipped),
    Outlines(ONE_WAY, OUTLINED, lambda seen: shipped(seen, UPRIGHT)),
    *(
        Outlines(title, OUTLINED, lambda seen, x=x: shipped(seen, rule=CentreRule(fits=x)))
        for title, x in (
            ("outlines from an IoU with the box of 0.5 (0.7)", 0.5),
            ("from 0.8", 0.8),
            ("never: the ellipse in the box", 1.0),
        )
    ),
    Outlines("the first network alone, the model that shipped before", FIRST_OUTLINED, shipped, 0.29),
    Outlines("the second alone", SECOND_OUTLINED, shipped, 0.302),
)
