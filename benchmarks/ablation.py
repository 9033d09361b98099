"""What each choice of the shipped reader is worth on the validation patients, without training: docs/ablation.md.

Run: python benchmarks/ablation.py MANIFEST --cache FOLDER [--before FOLDER] [--outlined MANIFEST]
                                   [--passes NAME …] [--images N] [--threads 2] [--runtime openvino]
                                   [--output docs/ablation.md]
MANIFEST is that of ``mammonode train`` on CBIS-DDSM; read are the patients whom the shipped model's card kept. Networks
see each image once, and what they say is kept in the cache (2 to 4 MB an image and pass): a run that was stopped goes on,
and other rows cost seconds. ``--before`` is the model that shipped before, `ai/weights/mass-fpn-lite0` in the history of
this repository; ``--outlined`` is CDD-CESM's manifest, narrowed to low-energy images with a mass tag, for Dice. Intervals
and differences: 1,000 bootstrap draws over patients, the same for all rows.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ablation_passes import PASSES, load, run
from ablation_rows import OUTLINES, ROWS, Row, Told
from numpy.typing import NDArray

from ai.datasets.folds import held_out_by
from ai.datasets.records import Record
from ai.datasets.registry import open_dataset
from ai.datasets.truth import mass_mask
from ai.evaluation.detection import Curve, HitRule, ImageDetections, match
from ai.evaluation.statistics import auc, dice
from ai.models import open_model
from ai.readers.runtime import Runtime
from config.settings import DEFAULT_MODEL

CENTRE_FPPI = (0.25, 0.5, 1.0)
IOU_FPPI = (0.04, 0.44, 1.21)
COLUMNS = (*(f"centre at {x:g}" for x in CENTRE_FPPI), *(f"IoU at {x:g}" for x in IOU_FPPI), "image AUC", "mass AUC")
DRAWS = 1000
ENOUGH = 60
"""Images that a row needs."""


def main() -> None:
    """Let the networks see what they have not seen, and tell what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--outlined", type=Path)
    parser.add_argument("--passes", nargs="*", choices=[one.name for one in PASSES])
    parser.add_argument("--images", type=int, help="no more than these of each pass, the first of the manifest")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--runtime", choices=list(Runtime), default=Runtime.TORCH, type=Runtime)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    import torch  # noqa: PLC0415 (after --help)

    if options.threads:
        torch.set_num_threads(options.threads)
    model = open_model(DEFAULT_MODEL)
    films = open_dataset(options.manifest)
    kept = held_out_by(model, films.records)
    images = {False: (films.folder, [r for r in films.records if r.patient_id in kept])}
    if options.outlined:
        chosen = open_dataset(options.outlined, where={"type": "DM", "has_mass_tag": "1"})
        images[True] = (chosen.folder, list(chosen.records))
    for one in PASSES:
        wanted = options.passes is None or one.name in options.passes
        if wanted and one.outlined in images:
            folder, records = images[one.outlined]
            run(one, model, folder, records[: options.images], options.cache, options.runtime)
    lines = list(figures(*images[False], options.cache))
    if options.outlined:
        lines += ["", *drawn(*images[True], options.cache, model.card.thresholds["mass"])]
    print("\n".join(lines))
    if options.output:
        write(options.output, lines)


def seen_by(names: Sequence[str], records: Sequence[Record], cache: Path) -> list[int]:
    """Return the places of the images that all of some passes have seen."""
    return [
        place
        for place, record in enumerate(records)
        if all((cache / name / f"{Path(record.file).stem}.npz").is_file() for name in names)
    ]


def figures(folder: Path, records: Sequence[Record], cache: Path) -> Iterator[str]:
    """Yield the table of rows whose passes have seen enough images."""
    first, by_title = ROWS[0], {row.title: row for row in ROWS}
    bases = {row.title: by_title[row.base] if row.base else first for row in ROWS}
    places = {row.title: seen_by([*row.passes, *bases[row.title].passes], records, cache) for row in ROWS}
    rows = [row for row in ROWS if len(places[row.title]) >= ENOUGH]
    passes = {one.name: one for one in PASSES}
    answers: dict[str, dict[int, Told]] = {row.title: {} for row in rows}
    for place, record in enumerate(records):
        asked = [row for row in rows if place in set(places[row.title])]
        seen = {
            name: load(passes[name], record, cache) for name in dict.fromkeys(n for row in asked for n in row.passes)
        }
        for row in asked:
            answers[row.title][place] = row.say(seen)

    def values(row: Row, where: Sequence[int]) -> NDArray[np.float64]:
        chosen = [records[place] for place in where]
        told = row.together(chosen, [answers[row.title][place] for place in where], folder)
        return measure(chosen, told, draws_of([record.patient_id for record in chosen]))

    yield f"{len(records)} images of {len({r.patient_id for r in records})} patients, {sum(len(r.boxes) for r in records)} masses."
    yield ""
    yield f"| | images | {' | '.join(COLUMNS)} |"
    yield "|---|---|" + "---|" * len(COLUMNS)
    group, of_bases = "", {}
    for row in rows:
        if row.group != group:
            group = row.group
            yield f"| *{group}* | |" + " |" * len(COLUMNS)
        where = places[row.title]
        own = values(row, where)
        if row is first:
            yield line(row.title, [str(len(where)), *(interval(column) for column in own.T)])
            continue
        key = bases[row.title].title, len(where)
        if key not in of_bases:
            of_bases[key] = values(bases[row.title], where)
        cells = (compared(a, b) for a, b in zip(own.T, of_bases[key].T, strict=True))
        yield line(row.title, [str(len(where)), *cells])


def draws_of(patients: Sequence[str]) -> list[NDArray[np.int64]]:
    """Return the places of the images, then those of each bootstrap draw over patients."""
    members: dict[str, list[int]] = {}
    for place, patient in enumerate(patients):
        members.setdefault(patient, []).append(place)
    names, rng = sorted(members), np.random.default_rng(0)
    drawn = (rng.choice(names, len(names)) for _ in range(DRAWS))
    return [np.arange(len(patients)), *(np.array([i for p in each for i in members[p]]) for each in drawn)]


def measure(
    records: Sequence[Record], answers: Sequence[Told], draws: Sequence[NDArray[np.int64]]
) -> NDArray[np.float64]:
    """Return the figures of a row: a line for all images and one for each draw, a column for each of ``COLUMNS``."""
    curves = {
        rule: Curve(
            [
                match(rule, ImageDetections(r.patient_id, r.boxes, a.found))
                for r, a in zip(records, answers, strict=True)
            ]
        )
        for rule in (HitRule.CENTRE, HitRule.IOU50)
    }
    marks = list(of_masses(records, answers))
    where = np.array([place for place, _, _ in marks])
    scores = np.array([a.malignancy for a in answers])
    labels = np.array([bool(r.malignant) for r in records])
    result = []
    for draw in draws:
        counts = np.bincount(draw, minlength=len(records))
        result.append(
            [
                *curves[HitRule.CENTRE].sensitivity(CENTRE_FPPI, counts),
                *curves[HitRule.IOU50].sensitivity(IOU_FPPI, counts),
                auc(scores[draw].tolist(), labels[draw].tolist()),
                mass_auc(marks, counts[where]) if marks else np.nan,
            ]
        )
    return np.array(result)


def of_masses(records: Sequence[Record], answers: Sequence[Told]) -> Iterator[tuple[int, float, bool]]:
    """Yield place, malignancy and truth of the strongest mark on each mass that is found, as ``mammonode evaluate`` does."""
    for place, (record, answer) in enumerate(zip(records, answers, strict=True)):
        if record.agreed_malignancy is None or not answer.marks:
            continue
        kinds = match(HitRule.CENTRE, ImageDetections(record.patient_id, record.boxes, answer.found)).kinds
        ordered = sorted(zip(answer.found, answer.marks, strict=True), key=lambda each: -each[0][0])
        for (_, malignancy), kind in zip(ordered, kinds, strict=True):
            if kind == 1:
                yield place, malignancy, record.agreed_malignancy


def mass_auc(marks: Sequence[tuple[int, float, bool]], counts: NDArray[np.int64]) -> float:
    """Return the area under the curve of marks, each as often as its image was drawn."""
    scores = np.repeat([malignancy for _, malignancy, _ in marks], counts)
    labels = np.repeat([label for _, _, label in marks], counts)
    return auc(scores.tolist(), labels.tolist())


def drawn(folder: Path, records: Sequence[Record], cache: Path, threshold: float) -> Iterator[str]:
    """Yield the table of outlines against the pixels of masses; findings are shown from the card's threshold on."""
    rows = [row for row in OUTLINES if len(seen_by([row.one.name], records, cache)) == len(records)]
    if not rows:
        return
    draws = draws_of([record.patient_id for record in records])
    yield f"Dice on {len(records)} low-energy images of {len({r.patient_id for r in records})} patients of CDD-CESM, misses 0:"
    yield ""
    yield "| | Dice | where anything overlaps |"
    yield "|---|---|---|"
    first: NDArray[np.float64] | None = None
    scores: dict[str, list[float]] = {row.title: [] for row in rows}
    for record in records:
        truth: NDArray[np.bool_] | None = None
        for row in rows:
            seen = load(row.one, record, cache)
            if truth is None:
                truth = mass_mask(record, folder, seen.geometry.shape)[0]
            union = np.zeros(truth.shape, np.bool_)
            for mass in row.masses(seen):
                if mass.detection >= (threshold if row.threshold is None else row.threshold):
                    union[mass.window] |= mass.mask
            scores[row.title].append(dice(union, truth))
    for row in rows:
        each = np.array(scores[row.title])
        values = np.array([[each[p].mean(), each[p][each[p] > 0].mean()] for p in draws])
        cells = (
            [interval(c) for c in values.T]
            if first is None
            else [compared(a, b) for a, b in zip(values.T, first.T, strict=True)]
        )
        first = values if first is None else first
        yield line(row.title, cells)


def interval(values: NDArray[np.float64]) -> str:
    """Return a figure, and the 2.5 and 97.5 percentiles of its draws."""
    low, high = np.nanquantile(values[1:], (0.025, 0.975))
    return f"{values[0]:.3f} ({low:.2f} to {high:.2f})"


def compared(values: NDArray[np.float64], base: NDArray[np.float64]) -> str:
    """Return a figure and its difference from another row's, with the interval of the paired draws."""
    difference = values - base
    if np.isnan(values[0]):
        return ""
    if not np.abs(difference[~np.isnan(difference)]).any():
        return "the same"
    low, high = np.nanquantile(difference[1:], (0.025, 0.975))
    return f"{values[0]:.3f}, {difference[0]:+.3f} ({low:+.3f} to {high:+.3f})"


def line(title: str, cells: Sequence[str]) -> str:
    """Return a line of a table."""
    return f"| {title} | {' | '.join(cells)} |"


def write(path: Path, lines: Sequence[str]) -> None:
    """Put the tables between the marks of a page."""
    page = path.read_text(encoding="utf-8")
    marks = r"(<!-- measured -->\n).*?(<!-- end -->)"
    new, count = re.subn(marks, lambda m: f"{m[1]}\n" + "\n".join(lines) + f"\n\n{m[2]}", page, flags=re.DOTALL)
    if not count:
        raise SystemExit(f"{path}: the marks <!-- measured --> and <!-- end --> are missing")
    path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
