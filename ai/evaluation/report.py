"""Every figure of a reader on a data set, each with its interval, or with why it is not defined there."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ai.calibration import DOUBT
from ai.datasets.records import Record
from ai.datasets.truth import Truth, kind_of
from ai.evaluation import labels, overlap
from ai.evaluation.coco import Coco
from ai.evaluation.detection import Curve, Events, HitRule, match, ratio
from ai.evaluation.overlap import Overlap
from ai.evaluation.pipeline import Regions, end_to_end
from ai.evaluation.predictions import Evaluation, Prediction, detections, drawn, evaluate, figures, rules_of
from ai.evaluation.size import strata
from ai.evaluation.statistics import Figure, auc, bootstrap
from ai.words import counted

CONFIDENCES: Final = (0.2, 0.3, 0.5)
"""Thresholds of Madsen's end-to-end test."""
STRATUM_FPPI: Final = (0.25, 0.5, 1.0)
STRATUM_RULE: Final = HitRule.IOU20
"""Strata are counted as Agarwal et al. do."""
STRATUM_TARGETS: Final = ((HitRule.IOU50, 0.44), (HitRule.CENTRE, 0.5))
"""And where readers are compared (docs/model.md)."""
APART: Final = (0, 5, 15, 30, DOUBT, 101)
"""Bounds of how far apart the parts of a model are, points of the score."""

Statistic = Callable[[list[int]], Sequence[float]]


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes
    ----------
    name
        What it is.
    figure
        None when it is not defined.
    why
        Why not.
    counts
        Of what, where it is not of all images: how many of each.
    """

    name: str
    figure: Figure | None
    why: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Figures that belong together: ``key`` for scripts, ``title`` for people."""

    key: str
    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Report:
    """All figures.

    Attributes
    ----------
    evaluation
        What a model's card tells.
    threshold
        At which marks, image labels and pixels were counted.
    groups
        The others.
    """

    evaluation: Evaluation
    threshold: float
    groups: tuple[Group, ...]

    def plain(self) -> dict[str, Any]:
        """Return everything as plain values for JSON: value and both ends of the interval, rounded to 3 places."""
        return {
            **figures(self.evaluation),
            "threshold": self.threshold,
            **{
                group.key: {row.name: _rounded(row.figure) if row.figure else None for row in group.rows}
                for group in self.groups
            },
            "counts": {f"{g.key}: {r.name}": dict(r.counts) for g in self.groups for r in g.rows if r.counts},
            "not_defined": {f"{g.key}: {r.name}": r.why for g in self.groups for r in g.rows if r.figure is None},
        }


def report(predictions: Sequence[Prediction], threshold: float, repeats: int = 1000, *, weak: bool = False) -> Report:
    """Score predictions that hold all candidates.

    Parameters
    ----------
    threshold
        The model's own: smallest detection of a finding.
    repeats
        Bootstrap draws over patients.
    weak
        Whether the pixels of masses may be ellipses.
    """
    scored = _Scored(predictions, threshold, repeats)
    groups = [
        scored.marks(),
        scored.image_labels(),
        scored.pixels(weak=weak),
        scored.coco(),
        scored.pipeline(),
        scored.doubt(),
        scored.strata(),
    ]
    return Report(evaluate(predictions, repeats), threshold, tuple(groups))


@dataclass(frozen=True)
class _Scored:
    predictions: Sequence[Prediction]
    threshold: float
    repeats: int
    events: dict[HitRule, list[Events]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for rule in rules_of(self.predictions):
            self.events[rule] = [match(rule, detections(p)) for p in self.predictions]

    def marks(self) -> Group:
        """Sensitivity, false positives and precision of the findings that are shown."""
        without = [not p.record.boxes for p in self.predictions]
        rows: list[Row] = []
        for rule, events in self.events.items():
            kept = [e.kinds[e.scores >= self.threshold] for e in events]
            hits, false = (np.array([int((k == kind).sum()) for k in kept]) for kind in (1, -1))
            masses, negative = np.array([e.masses for e in events]), np.array(without)

            def values(
                idx: list[int],
                hits: Any = hits,
                false: Any = false,
                masses: Any = masses,
                negative: Any = negative,
            ) -> list[float]:
                n, found, wrong = drawn(idx, len(masses)), (hits + false), false
                return [
                    ratio((n * hits).sum(), (n * masses).sum()),
                    ratio((n * wrong).sum(), n.sum()),
                    ratio((n * hits).sum(), (n * found).sum()),
                    ratio((n * wrong).sum(), (n * found).sum()),
                    ratio((n * wrong * negative).sum(), (n * negative).sum()),
                ]

            names = {
                "sensitivity": NO_MASS,
                "false positives per image": "",
                "precision": NO_MARK,
                "1 - precision": NO_MARK,
                "false positives per image without a mass": NO_NEGATIVE,
            }
            rows += self._rows({f"{name}, {rule.value}": why for name, why in names.items()}, values)
        rows += self._refused()
        return Group("marks", f"findings at the threshold {self.threshold:g}", tuple(rows))

    def image_labels(self) -> Group:
        """Images called right by whether anything is marked, and the areas under their ROC curves."""
        marks = [max((m.detection for m in p.findings.masses), default=0.0) if p.findings else 0.0 for p in self._all]
        positive = [bool(p.record.boxes) for p in self._all]
        plain = [
            (labels.plain_label(marked=mark >= self.threshold and mark > 0, positive=mass), mass)
            for mark, mass in zip(marks, positive, strict=True)
        ]
        judged = [i for i, p in enumerate(self._all) if p.record.malignant is not None]

        def values(idx: list[int]) -> list[float]:
            known = [i for i in idx if self._all[i].record.malignant is not None]
            return [
                *_label_figures(labels.count(plain[i] for i in idx)),
                auc([marks[i] for i in idx], [positive[i] for i in idx]),
                auc([marks[i] for i in known], [bool(self._all[i].record.malignant) for i in known]),
            ]

        names = {
            "accuracy": "",
            "specificity": NO_NEGATIVE,
            "sensitivity": NO_MASS,
            "F1": NO_MASS,
            "AUC, a mass or none, by the strongest candidate": "needs images with and without a mass",
            "AUC, malignant or not, by the strongest candidate": "no image says whether it is malignant"
            if not judged
            else "needs malignant and other images",
        }
        return Group(
            "image_labels", "images, by whether anything is marked", (*self._rows(names, values), *self._refused())
        )

    def pixels(self, *, weak: bool) -> Group:
        """Dice and intersection over union in the ways of the papers, and the thesis' image labels."""
        ellipses = any(kind_of(p.record) is Truth.ELLIPSE for p in self._all)
        key, title = "pixels", "pixels, at the same threshold"
        if ellipses and weak:
            key, title = "pixels_weak", f"{title}, against inscribed ellipses: weak"
        lacking = sum(p.pixels is None for p in self._all)
        names = {
            "Dice, images with a mass, misses 0": NO_MASS,
            "Dice, images with a mass, misses 0, standard deviation": NO_MASS,
            "IoU, images with a mass, misses 0": NO_MASS,
            "Dice, images with overlap": NO_OVERLAP,
            "Dice, images with overlap, standard deviation": NO_OVERLAP,
            "IoU, images with overlap": NO_OVERLAP,
            "IoU, images with overlap, standard deviation": NO_OVERLAP,
            "Dice, pooled": NO_MASS,
            "IoU, pooled": NO_MASS,
            "Dice, pooled, true regions only": NO_OVERLAP,
            "IoU, pooled, true regions only": NO_OVERLAP,
            "thesis accuracy": "",
            "thesis specificity": "no image is a TN or an FP",
            "thesis sensitivity": NO_MASS,
            "thesis F1": NO_MASS,
        }
        if lacking:
            why = f"of {counted(lacking, 'image')} with a mass only boxes are known; --weak-dice takes ellipses in them"
            return Group(key, title, tuple(Row(name, None, why) for name in names))
        every = [p.pixels for p in self._all if p.pixels is not None]

        def values(idx: list[int]) -> list[float]:
            return _pixel_figures([every[i] for i in idx])

        return Group(key, title, tuple(self._rows(names, values)))

    def coco(self) -> Group:
        """Average precision and recall over all candidates."""
        table = Coco([detections(p) for p in self._all])
        names = table.table(np.ones(len(self._all), int))
        rows = self._rows(
            {name: f"{NO_MASS} of that size" if name[-1].islower() else NO_MASS for name in names},
            lambda idx: list(table.table(drawn(idx, len(self._all))).values()),
        )
        return Group("coco", "average precision and recall (COCO), all candidates, sizes in pixels of the file", rows)

    def pipeline(self) -> Group:
        """Madsen's end-to-end test."""
        regions = []
        for p, events in zip(self._all, self.events[HitRule.IOU50], strict=True):
            masses = p.findings.masses if p.findings else ()
            said = [masses[k].malignancy for k in events.order]
            values = np.array([math.nan if v is None else v for v in said], float)
            regions.append(Regions(events, values, p.record.agreed_malignancy))
        unknown = "the reader does not classify, or no found mass' malignancy is known"
        rows: list[Row] = []
        for limit in CONFIDENCES:

            def scores(idx: list[int], limit: float = limit) -> list[float]:
                one = end_to_end([regions[i] for i in idx], limit)
                blind = math.nan if not one.judged else 1.0
                return [
                    one.found,
                    one.true,
                    one.localised,
                    one.classified,
                    one.both * blind,
                    one.false_share,
                    one.wrong_share * blind,
                ]

            names = {
                "regions found": "",
                "masses found": "",
                "localised": NO_MASS,
                "classified": unknown,
                "both": unknown,
                "1 - precision": NO_MARK,
                "regions not both right": unknown,
            }
            rows += self._rows({f"{name}, confidence {limit}": why for name, why in names.items()}, scores)
        return Group("end_to_end", "detector and classifier as one (Madsen), IoU >= 0.5", tuple(rows))

    def doubt(self) -> Group:
        """What scores are worth, by how far apart the parts of the model are that speak for themselves."""
        breasts: dict[tuple[str, str], list[int]] = {}
        for i, p in enumerate(self._all):
            if p.findings and p.findings.malignancy is not None and p.findings.span and p.record.malignant is not None:
                breasts.setdefault((p.record.patient_id, p.record.view.laterality.value), []).append(i)
        judged = [_judged([self._all[i] for i in images]) for images in breasts.values()]
        first = [images[0] for images in breasts.values()]
        rows: list[Row] = []
        for low, high in pairwise(APART):
            some = [k for k, one in enumerate(judged) if low <= one.apart < high]

            def values(idx: list[int], some: list[int] = some) -> list[float]:
                n = drawn(idx, len(self._all))
                again = [judged[k] for k in some for _ in range(n[first[k]])]
                return [auc([one.malignancy for one in again], [one.cancer for one in again])]

            why = "needs breasts with and without a cancer" if judged else "the reader tells no span"
            counts = {"breasts": len(some), "cancers": sum(judged[k].cancer for k in some)}
            name = f"AUC of breasts, parts {low} to {min(high - 1, 100)} points apart"
            rows += self._rows({name: why}, values, counts)
        return Group("doubt", "what scores are worth, by how far apart the parts of the model are", tuple(rows))

    def strata(self) -> Group:
        """Sensitivity by size, pathology, margin and subtlety of the mass, by density, view and side."""
        rows: list[Row] = []
        for name, members in self._image_strata():
            curves = {rule: Curve([events[i] for i in members]) for rule, events in self.events.items()}
            place = {image: k for k, image in enumerate(members)}

            def within(idx: list[int], curves: _Curves = curves, place: Mapping[int, int] = place) -> list[float]:
                return _sensitivity(curves, drawn([place[i] for i in idx if i in place], len(place)))

            masses = sum(len(self._all[i].record.boxes) for i in members)
            rows += self._rows(_stratum_names(name), within, {"masses": masses, "images": len(members)})
        for name, kept in self._mass_strata():
            curves = {
                rule: Curve([e.of(kept.get(i, ())) for i, e in enumerate(events)])
                for rule, events in self.events.items()
            }
            rows += self._rows(
                _stratum_names(name),
                lambda idx, c=curves: _sensitivity(c, drawn(idx, len(self._all))),  # type: ignore[misc]
                {"masses": sum(map(len, kept.values())), "images": len(kept)},
            )
        return Group(
            "strata", f"sensitivity by stratum, {STRATUM_RULE.value} where no other rule is named", tuple(rows)
        )

    @property
    def _all(self) -> Sequence[Prediction]:
        return self.predictions

    def _image_strata(self) -> Iterator[tuple[str, list[int]]]:
        """Images with a mass, or without, that share something; strata without a mass have no sensitivity."""
        keys: dict[str, list[int]] = {}
        for i, p in enumerate(self._all):
            keys.setdefault(f"view {p.record.view.position}", []).append(i)
            keys.setdefault(f"side {p.record.view.laterality}", []).append(i)
            if p.record.source:
                keys.setdefault(f"set {p.record.source}", []).append(i)
            if p.record.density is not None:
                keys.setdefault(f"density {p.record.density}", []).append(i)
        for name in sorted(keys):
            if any(self._all[i].record.boxes for i in keys[name]):
                yield name, keys[name]

    def _mass_strata(self) -> Iterator[tuple[str, Mapping[int, Sequence[int]]]]:
        """Masses that share something; false positives are those of all images."""
        sizes = [(i, k, extent) for i, p in enumerate(self._all) for k, extent in enumerate(p.sizes)]
        for name, masses in strata(sizes).items():
            yield f"size {name}", masses
        said: dict[str, dict[int, list[int]]] = {}
        for i, p in enumerate(self._all):
            # Their order against the boxes is not known: only where all masses of an image agree.
            for name, values in _said_of_masses(p.record):
                if len(set(values)) == 1 and values[0] != "n/a":
                    said.setdefault(f"{name} {values[0]}", {})[i] = list(range(len(p.record.boxes)))
        yield from sorted(said.items())

    def _refused(self) -> tuple[Row, ...]:
        """Return which part of the images without a mass the reader refused: they are counted as called right."""
        negative = np.array([not p.record.boxes for p in self._all])
        refused = np.array([p.findings is None for p in self._all])

        def values(idx: list[int]) -> list[float]:
            n = drawn(idx, len(negative)) * negative
            return [ratio((n * refused).sum(), n.sum())]

        return self._rows({"refused, of the images without a mass": NO_NEGATIVE}, values)

    def _rows(
        self, names: Mapping[str, str], statistic: Statistic, counts: Mapping[str, int] | None = None
    ) -> tuple[Row, ...]:
        """Name to why it may be undefined, and what computes all of them."""
        found = bootstrap([p.record.patient_id for p in self._all], statistic, self.repeats)
        return tuple(
            Row(name, None, why or "there is nothing to count", counts or {})
            if math.isnan(figure.value)
            else Row(name, figure, counts=counts or {})
            for (name, why), figure in zip(names.items(), found, strict=True)
        )


NO_MASS: Final = "no mass"
NO_NEGATIVE: Final = "every image has a mass"
NO_MARK: Final = "nothing is marked"
NO_OVERLAP: Final = "no mark overlaps a mass"


def _label_figures(counts: labels.Counts) -> list[float]:
    return [counts.accuracy, counts.specificity, counts.sensitivity, counts.f1]


def _pixel_figures(pixels: Sequence[Overlap]) -> list[float]:
    some = [o for o in pixels if o.truth]
    dice, iou = [o.dice for o in some], [o.iou for o in some]
    over_dice, over_iou = overlap.conditional(dice), overlap.conditional(iou)
    true = overlap.true_regions(pixels)
    label = labels.count((labels.thesis_label(o), bool(o.truth)) for o in pixels)
    blind = 1.0 if some else math.nan
    return [
        overlap.mean(dice),
        overlap.deviation(dice),
        overlap.mean(iou),
        overlap.mean(over_dice),
        overlap.deviation(over_dice),
        overlap.mean(over_iou),
        overlap.deviation(over_iou),
        overlap.pooled_dice(pixels) * blind,
        overlap.pooled_iou(pixels) * blind,
        overlap.pooled_dice(true),
        overlap.pooled_iou(true),
        label.accuracy,
        label.specificity,
        label.sensitivity,
        label.f1 * blind,
    ]


def _said_of_masses(record: Record) -> Iterator[tuple[str, Sequence[str]]]:
    kinds = ["malignant" if word.startswith("MALIGNANT") else "benign" for word in record.pathologies]
    yield "pathology", kinds
    yield "margin", [word.lower().replace("_", " ") for word in record.margins]
    yield "subtlety", [str(level) for level in record.subtlety]


@dataclass(frozen=True)
class _Judged:
    """A breast: what is said of it, by how many points its parts differ, and the truth."""

    malignancy: float
    apart: int
    cancer: bool


def _judged(views: Sequence[Prediction]) -> _Judged:
    found = [p.findings for p in views if p.findings]
    spans = [image.span for image in found if image.span]
    apart = max(high for _, high in spans) - max(low for low, _ in spans)
    return _Judged(max(image.malignancy or 0.0 for image in found), apart, any(p.record.malignant for p in views))


_Curves = Mapping[HitRule, Curve]


def _sensitivity(curves: _Curves, counts: NDArray[np.int64]) -> list[float]:
    """Return a stratum's sensitivities, NaN for a draw without a mass in it."""
    asked = [(STRATUM_RULE, STRATUM_FPPI), *((rule, (limit,)) for rule, limit in STRATUM_TARGETS)]
    known = bool(curves[STRATUM_RULE].masses(counts))
    return [
        value if known else math.nan for rule, limits in asked for value in curves[rule].sensitivity(limits, counts)
    ]


def _stratum_names(name: str) -> dict[str, str]:
    told = [f"at {limit:g} per image" for limit in STRATUM_FPPI]
    told += [f"{rule.value} at {limit:g} per image" for rule, limit in STRATUM_TARGETS]
    return {f"{name}, {each}": NO_MASS for each in told}


def _rounded(figure: Figure) -> list[float | None]:
    return [None if math.isnan(v) else round(v, 3) for v in (figure.value, figure.low, figure.high)]
