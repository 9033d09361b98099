"""How well masses of the CC and MLO views are paired on film: true pairs, pairs of unrelated women, and a reader's.

Run: python benchmarks/matching.py MANIFEST [--model NAME] [--device cpu] [--threads 2]
The manifest is that of ``mammonode train``. The policy was chosen on the patients of parts 1 to 4 of its split; part 0,
on which the shipped model was not trained, is for the figures. Intervals: 1,000 bootstrap draws over patients.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ai.datasets.manifest import read_manifest
from ai.datasets.records import Box, Record, split_by_patient
from ai.evaluation.detection import HitRule, hits
from ai.evaluation.statistics import Figure, auc, bootstrap
from ai.exam import Exam, Spacing, SpacingRule, View, ViewImage, ViewPosition
from ai.findings import ExamFindings, Mass
from ai.models import open_model
from ai.pixels import file_image
from ai.readers.base import Reader
from ai.readers.lesions import measure
from ai.readers.matching import MatchingPolicy, NippleLine, Place, pair, places, units, view_line
from ai.readers.registry import load_reader


@dataclass(frozen=True, eq=False)
class Breast:
    """One breast with one mass in the CC and one in the MLO view."""

    cc: Record
    mlo: Record


@dataclass(frozen=True, eq=False)
class Seen:
    """An image without its pixels, its line, and its mass as the ellipse inscribed in the box."""

    image: ViewImage
    line: NippleLine
    mass: Mass


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    records, folder, policy = read_manifest(options.manifest), options.manifest.parent, MatchingPolicy()
    parts = split_by_patient(records, 5, 1)
    everyone = list(breasts(records))
    kept = [breast for breast in everyone if parts[breast.cc.patient_id] == 0]
    print(f"{policy}; all figures with 95 % intervals")
    for name, chosen in (("chosen on", [b for b in everyone if b not in kept]), ("kept", kept)):
        print(f"{name}: {len(chosen)} breasts of {len({b.cc.patient_id for b in chosen})} patients")
        for scale in ("own depth", "one scale"):
            true, false, depth = told(chosen, folder, policy, one_scale=scale == "one scale")
            print(f"  {scale}: true pairs {true}, pairs of different women {false}, AUC of the depth alone {depth:.3f}")
    if options.model:
        read(kept, folder, load_reader(open_model(options.model), options.device, options.threads))


def breasts(records: Sequence[Record]) -> Iterator[Breast]:
    """Yield the breasts that are seen in both views with one mass in each."""
    seen = {(record.patient_id, record.view): record for record in records if len(record.boxes) == 1}
    for (patient, view), cc in sorted(seen.items()):
        mlo = seen.get((patient, View(view.laterality, ViewPosition.MLO)))
        if view.position is ViewPosition.CC and mlo:
            yield Breast(cc, mlo)


def told(
    chosen: Sequence[Breast], folder: Path, policy: MatchingPolicy, *, one_scale: bool
) -> tuple[Figure, Figure, float]:
    """Return which part of the true pairs and of those of different women pass, and how well depth alone tells them."""
    ccs = [look(breast.cc, folder, policy, one_scale=one_scale) for breast in chosen]
    mlos = [look(breast.mlo, folder, policy, one_scale=one_scale) for breast in chosen]
    placed = [[placed_pair(cc, mlo) for mlo in mlos] for cc in ccs]
    passes = np.array([[bool(pair([a], [b], policy)) for a, b in row] for row in placed])
    depth = np.array([[abs(a.depth - b.depth) for a, b in row] for row in placed])
    patients = [breast.cc.patient_id for breast in chosen]
    others = np.array([[a != b for b in patients] for a in patients])

    def parts(drawn: list[int]) -> list[float]:
        wrong, counted = (passes & others).sum(1)[drawn].sum(), others.sum(1)[drawn].sum()
        return [float(np.diag(passes)[drawn].mean()), float(wrong / counted)]

    true, false = bootstrap(patients, parts, 1000)
    scores = np.concatenate([-np.diag(depth), -depth[others]])
    return true, false, ranked(scores, len(chosen))


def ranked(scores: NDArray[np.float64], positives: int) -> float:
    """Return the area under the ROC curve, a thousand negatives at a time."""
    blocks = [scores[positives:][start : start + 1000] for start in range(0, len(scores) - positives, 1000)]
    areas = [auc([*scores[:positives], *block], [True] * positives + [False] * len(block)) for block in blocks]
    return float(np.average(areas, weights=[len(block) for block in blocks]))


def look(record: Record, folder: Path, policy: MatchingPolicy, *, one_scale: bool) -> Seen:
    """Find the line of an image; with one scale every film of the set is taken to be equally wide."""
    image = file_image(folder / record.path, record.view)
    if one_scale:
        image = replace(image, spacing=Spacing(image.pixel_aspect, 1.0, SpacingRule.CALIBRATED))
    line = view_line(image, policy)
    return Seen(replace(image, pixels=np.zeros((1, 1), np.float32)), line, ellipse(record.boxes[0]))


def placed_pair(cc: Seen, mlo: Seen) -> tuple[Place, Place]:
    """Return where the masses of two images lie."""
    first, second = units(cc.image, mlo.image, (cc.line.depth, mlo.line.depth))
    return places(cc.image, [cc.mass], cc.line, first)[0], places(mlo.image, [mlo.mass], mlo.line, second)[0]


def ellipse(box: Box) -> Mass:
    """Return the ellipse inscribed in a box."""
    x, y, width, height = (round(value) for value in box)
    rows, columns = np.mgrid[:height, :width] + 0.5
    inside = ((columns / width - 0.5) ** 2 + (rows / height - 0.5) ** 2) <= 0.25
    return Mass(1, (y, x), inside, np.zeros((0, 2)), measure(inside, None), 1.0, None, 0)


def read(kept: Sequence[Breast], folder: Path, reader: Reader) -> None:
    """Print what a reader's own findings are paired to."""
    outcomes = [outcome(breast, folder, reader) for breast in kept]
    patients = [breast.cc.patient_id for breast in kept]

    def parts(drawn: list[int]) -> list[float]:
        found, right, pairs = np.array(outcomes)[drawn].sum(0)
        return [right / found, (pairs - right) / len(drawn), right / pairs]

    found, right, pairs = np.sum(outcomes, 0)
    print(
        f"{reader.model.name} on the kept breasts: found in both views in {found}, paired {right}; {pairs} pairs in all"
    )
    names = ("paired when found in both views", "wrong pairs per breast", "right among all pairs")
    for name, figure in zip(names, bootstrap(patients, parts, 1000), strict=True):
        print(f"  {name}: {figure}")


def outcome(breast: Breast, folder: Path, reader: Reader) -> tuple[bool, bool, int]:
    """Return whether the mass was found in both views, whether these findings are a pair, and how many pairs there are."""
    exam = Exam(tuple(file_image(folder / record.path, record.view) for record in (breast.cc, breast.mlo)))
    answer = reader.read(exam)
    cc, mlo = (on_mass(answer, record) for record in (breast.cc, breast.mlo))
    right = any(match.cc in cc and match.mlo in mlo for match in answer.matches)
    return bool(cc and mlo), right, len(answer.matches)


def on_mass(answer: ExamFindings, record: Record) -> set[int]:
    """Return the numbers of the findings whose centre lies in the record's box."""
    masses = [mass for image in answer.images if image.view == record.view for mass in image.masses]
    return {mass.number for mass in masses if hits(HitRule.CENTRE, mass.box, record.boxes[0])}


if __name__ == "__main__":
    main()
