"""What the reader that ships finds on phantoms, make by make of detector: sensitivity by radius, false marks, image AUC.

Run: python benchmarks/phantom_reader.py FILE [--exams 24] [--seed 101] [--vendor a b c] [--twins] [--model NAME]
Reads exams as ``mammonode phantom`` writes them and adds a line of JSON for each to FILE; what stands there is not read
again, so that a run can be stopped. Then prints the tables of docs/phantoms.md from all of FILE. ``--twins`` reads the views
that have a mass without it; views that have none are their own twins. ``--exams 0`` prints only. One thread is used.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ai.breast import breast_geometry, breast_of
from ai.evaluation.detection import Curve, Events, HitRule, ImageDetections, match
from ai.evaluation.predictions import drawn
from ai.evaluation.statistics import auc, bootstrap
from ai.exam import Exam, ViewImage
from ai.models import open_model
from ai.phantom.exam import Woman
from ai.phantom.malignancy import bayes_auc
from ai.phantom.vendors import VENDORS
from ai.pixels import view_image
from ai.readers.base import Reader
from ai.readers.registry import load_reader
from config.settings import DEFAULT_MODEL
from node.phantom import phantom_exam

FPPI = (0.25, 0.5, 1.0, 2.0)
RADII = {"2.5 to 4 mm": (2.5, 4.0), "4 to 7 mm": (4.0, 7.0), "7 to 14 mm": (7.0, 14.1)}
LIMIT = 0.5
"""False marks per image at which masses are told by their radius."""

Said = dict[str, Any]


def main() -> None:
    """Read what is not read yet, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--exams", type=int, default=24)
    parser.add_argument("--seed", type=int, default=101)
    parser.add_argument("--vendor", nargs="+", choices=tuple(VENDORS), default=list(VENDORS))
    parser.add_argument("--twins", action="store_true")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    model = open_model(options.model)
    known = [json.loads(line) for line in options.file.read_text().splitlines()] if options.file.exists() else []
    wanted = [(seed, name) for seed in range(options.seed, options.seed + options.exams) for name in options.vendor]
    missing = sorted(set(wanted) - {(each["seed"], each["vendor"]) for each in known if each["twin"] is options.twins})
    if missing:
        reader = load_reader(model, "cpu", threads=1, threshold=0.0)
        canvas = model.card.architecture["canvas"]
        for seed, vendor in missing:
            said = read(reader, tuple(canvas), seed, vendor, twin=options.twins)
            known.append(said)
            with options.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(said) + "\n")
    tell(known, model.card.thresholds["mass"])


def read(reader: Reader, canvas: tuple[int, int], seed: int, vendor: str, *, twin: bool) -> Said:
    """Return what is in an exam, or in those views of its twin that the exam shows a mass in, and what the reader says."""
    made = phantom_exam(seed, vendor=VENDORS[vendor], masses=() if twin else None)
    sides = {lesion.laterality for lesion in Woman.draw(seed).lesions}  # both views of a breast show its masses
    shown = [each for each in made.views if each.view.laterality in sides or not twin]
    images = [view_image(made.image(each.view), each.view) for each in shown]
    found = reader.read(Exam(tuple(images))).images
    views = [
        {
            "view": str(each.view),
            "masses": [
                {
                    "box": mass.box,
                    "radius": mass.lesion.radius,
                    "chance": mass.lesion.malignancy,
                    "malignant": mass.lesion.malignant,
                }
                for mass in made.masses(each.view)
            ],
            "marks": [(mass.detection, tuple(map(float, mass.box))) for mass in said.masses],
            "malignancy": said.malignancy,
            "canvas_per_mm": per_mm(image, canvas),
        }
        for each, image, said in zip(shown, images, found, strict=True)
    ]
    return {"seed": seed, "vendor": vendor, "twin": twin, "views": views}


def per_mm(image: ViewImage, canvas: tuple[int, int]) -> float:
    """Return how many pixels of the canvas a millimetre of the image takes."""
    spacing = image.spacing.row if image.spacing else float("nan")
    return breast_geometry(image, breast_of(image), canvas).scale[1] / spacing


def tell(exams: Sequence[Said], threshold: float) -> None:
    """Print the tables."""
    print(
        f"Bayes AUC of masses: {bayes_auc():.3f}; false marks and sensitivity with 95 % intervals by bootstrap over women"
    )
    groups = {name: [each for each in exams if each["vendor"] == name] for name in VENDORS}
    for name, some in {**groups, "all": list(exams)}.items():
        if some:
            print(f"\n{name}: {len({each['seed'] for each in some if not each['twin']})} women")
            for words, figure in figures(some, threshold):
                print(f"| {words} | {figure} |")


def figures(exams: Sequence[Said], threshold: float) -> Iterator[tuple[str, str]]:
    """Yield name and value of each figure."""
    views = [(str(each["seed"]), view) for each in exams if not each["twin"] for view in each["views"]]
    women = [woman for woman, _ in views]
    events = [
        match(HitRule.CENTRE, ImageDetections(woman, tuple(map(tuple, boxes)), tuple(map(tuple, view["marks"]))))
        for woman, view in views
        for boxes in [[mass["box"] for mass in view["masses"]]]
    ]
    curve, masses = Curve(events), sum(len(view["masses"]) for _, view in views)
    for limit, figure in zip(
        FPPI, bootstrap(women, lambda idx: curve.sensitivity(FPPI, drawn(idx, len(views))), 1000), strict=True
    ):
        yield f"all {masses} masses at {limit} per image", f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"
    for name, (low, high) in RADII.items():
        of = [[k for k, m in enumerate(view["masses"]) if low <= m["radius"] < high] for _, view in views]
        some = [one.of(chosen) for one, chosen in zip(events, of, strict=True)]
        for words, found in (
            (f"at {LIMIT} per image", _sensitivity(women, some)),
            (f"at the model's threshold, {threshold}", _marked(women, some, threshold)),
        ):
            yield f"{sum(map(len, of))} masses of {name}, {words}", found
    free = [(str(each["seed"]), v["marks"]) for each in exams for v in each["views"] if not v["masses"]]
    counts = [sum(score >= threshold for score, _ in marks) for _, marks in free]
    (false,) = bootstrap([woman for woman, _ in free], lambda idx: [float(np.mean([counts[i] for i in idx]))], 1000)
    yield f"false marks in each of {len(free)} views without a mass", _told(false)
    for words, chosen in (("images", views), ("images with a mass", [each for each in views if each[1]["masses"]])):
        labels = [any(mass["malignant"] for mass in view["masses"]) for _, view in chosen]
        best = [1 - np.prod([1 - mass["chance"] for mass in view["masses"]]) for _, view in chosen]
        scores = [view["malignancy"] for _, view in chosen]

        def areas(idx: list[int], labels: Any = labels, scores: Any = scores, best: Any = best) -> list[float]:
            told = [labels[i] for i in idx]
            return [auc([scores[i] for i in idx], told), auc([best[i] for i in idx], told)]

        ours, ideal = bootstrap([woman for woman, _ in chosen], areas, 1000)
        yield f"AUC of {len(chosen)} {words}, {sum(labels)} malignant", _told(ours)
        yield "... ranked by the probability they were drawn with", _told(ideal)
    sides = [5 * view["canvas_per_mm"] for _, view in views]
    yield (
        "pixels of the canvas in 5 mm: least, median, most",
        f"{min(sides):.0f}, {np.median(sides):.0f}, {max(sides):.0f}",
    )


def _sensitivity(women: Sequence[str], events: Sequence[Events]) -> str:
    """Return sensitivity at LIMIT false marks per image, those of all images."""
    curve = Curve(events)
    (figure,) = bootstrap(women, lambda idx: curve.sensitivity((LIMIT,), drawn(idx, len(events))), 1000)
    return _told(figure)


def _marked(women: Sequence[str], events: Sequence[Events], threshold: float) -> str:
    """Return the share of masses that a finding's centre lies in."""
    found = [int(((one.kinds == 1) & (one.scores >= threshold)).sum()) for one in events]
    masses = [one.masses for one in events]

    def share(idx: list[int]) -> list[float]:
        whole = sum(masses[i] for i in idx)
        return [sum(found[i] for i in idx) / whole if whole else float("nan")]

    return _told(bootstrap(women, share, 1000)[0])


def _told(figure: Any) -> str:
    return f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"


if __name__ == "__main__":
    main()
