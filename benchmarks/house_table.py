"""Every published system and our own, trained on the same patients for the same number of examples, scored on the same.

Run: python benchmarks/house_table.py DATA --runs FOLDER [--device cuda] [--budget N] [--seconds S] [--rows NAME …]
     [--output docs/house.md]

DATA is anything `mammonode train` takes. Part 0 of 5 is held out (seed 1), one inner fold of 5 gives the validation loss.
Each row is trained, read and timed, and its figures are kept as FOLDER/ROW/row.json; a row that is there is not done
again, and one that was cut off goes on after its last whole epoch. Beside OUTPUT they are kept too (docs/house/rows), so
the table can be made row by row, on several days and machines. After each row OUTPUT and its picture are written anew.
`--plan` prints what each row would see and does nothing; `--rows` without a name only writes the page again.

Nothing here is a paper's own training: examples, batch and validation are cut to what a machine without a GPU does in an
hour. A row is called converged only when its validation loss says so.
"""

import argparse
import hashlib
import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from house_page import LIMITS, RULE, SEED, write
from house_rows import ROWS, Row, published

from ai.datasets.records import Dataset, Record, split_by_patient
from ai.datasets.registry import open_dataset
from ai.datasets.selection import select
from ai.errors import AIError, NoBreast
from ai.evaluation.detection import Curve, HitRule, match
from ai.evaluation.predictions import Prediction, detections, predict
from ai.evaluation.report import Report, report
from ai.exam import STANDARD_VIEWS, Exam, ViewImage
from ai.models import open_model
from ai.networks.registry import build
from ai.pixels import view_image
from ai.readers.base import Reader
from ai.readers.registry import load_reader
from ai.training.card import Provenance
from ai.training.history import HISTORY, Epoch, read_history
from ai.training.phases import Part, Precision
from ai.training.recipe import Recipe, Split, Tables, open_recipe
from ai.training.run import RUNS, Settings, train
from node.phantom import phantom_exam

SPLIT: Final = Split(seed=SEED, parts=5, part=0, folds=5)
SUBSET: Final = "house"
SHIPPED: Final = "mass-fpn-boxes"
PASSES: Final = 10
"""Examples of each training image below which no loss curve can tell that a network has learned what it can."""
WALL_FOR_VIEWS: Final = 20.0
"""Seconds after which no further view of the phantom exam is begun."""


def main() -> None:
    """Train, score and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=Path, required=True, help="folder for models and row.json files")
    parser.add_argument("--output", type=Path, help="Markdown file; its picture goes into a folder of the same name")
    parser.add_argument("--rows", nargs="*", choices=[row.name for row in ROWS], help="in this order; all if not given")
    parser.add_argument("--budget", type=int, default=4000, help="most examples that a row sees in training")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="of training that a row should take, by its cost"
    )
    parser.add_argument("--batch", type=int, default=8, help="largest batch: short courses need steps")
    parser.add_argument("--validation-examples", type=int, default=32, help="of each epoch")
    parser.add_argument("--training-images", type=int, default=0, help="the first so many patients' images; 0 is all")
    parser.add_argument("--validation-images", type=int, default=0, help="held-out images that are scored; 0 is all")
    parser.add_argument(
        "--slow-images", type=int, default=0, help="the same for systems that read slowly; 0 is as many"
    )
    parser.add_argument("--stride", type=int, default=56, help="of Agarwal's windows when reading, pixels")
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="where to train and score, and to time readers beside the CPU")
    parser.add_argument("--fast", action="store_true", help="on a GPU: not the same bit by bit, but sooner")
    parser.add_argument(
        "--no-timing", action="store_true", help="leave it to --judge-again, when the machine is at rest"
    )
    parser.add_argument("--plan", action="store_true", help="print the plan and stop")
    parser.add_argument(
        "--judge-again",
        action="store_true",
        help="only time the readers of rows that are there, on a machine at rest, and look at their courses anew",
    )
    options = parser.parse_args()
    names = {row.name: row for row in ROWS}
    rows = list(ROWS) if options.rows is None else [names[name] for name in options.rows]
    if not rows:
        write(options.runs, options.output)
        return
    if options.plan:
        for row in rows:
            seen = examples(row, options) if row.recipe else 0
            print(f"{row.name:20} {seen:6} examples, {seen * row.cost / 60:5.1f} minutes of training")
        return
    torch.set_num_threads(options.threads)
    if options.judge_again:
        judge_again(rows, options)
        return
    dataset = with_subset(open_dataset(options.data), options.training_images)
    for row in rows:
        folder = options.runs / row.name
        if not (folder / "row.json").is_file():
            print(f"{time.strftime('%H:%M:%S')} {row.name}", flush=True)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                told = made(row, dataset, folder, options)
            except (AIError, RuntimeError, MemoryError) as error:  # the other rows need not wait for this one
                print(f"  {row.name} failed: {error}", flush=True)
                continue
            (folder / "row.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
        if options.output:
            write(options.runs, options.output)
    print(time.strftime("%H:%M:%S"), "done")


def judge_again(rows: Sequence[Row], options: argparse.Namespace) -> None:
    """Time the readers of rows that are there, one after the other, judge their courses, and write the table anew."""
    for row in rows:
        path = options.runs / row.name / "row.json"
        if path.is_file():
            told = json.loads(path.read_text(encoding="utf-8"))
            if row.recipe:
                told |= course(shortened(row, options), path.parent / "model")
            told |= timed(row, path.parent, options)
            path.write_text(json.dumps(told, indent=1), encoding="utf-8")
            print(f"{row.name:20} {told['exam_seconds']:6.1f} s per exam on the CPU", flush=True)
    if options.output:
        write(options.runs, options.output)


def opened(row: Row, folder: Path, device: str, threads: int) -> Reader:
    """Return a row's reader with all its candidates."""
    return load_reader(open_model(f"{folder / 'model'}/" if row.recipe else SHIPPED), device, threads, 0.0)


def timed(row: Row, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return seconds per exam on the CPU, and on the GPU where one is used."""
    told: dict[str, Any] = exam_seconds(opened(row, folder, "cpu", options.threads))
    if torch.device(options.device).type == "cuda":
        reader = opened(row, folder, options.device, options.threads)
        exam_seconds(reader)  # the first time finds its kernels
        told["gpu_exam_seconds"] = exam_seconds(reader)["exam_seconds"]
        told["gpu"] = torch.cuda.get_device_name(options.device)
    return told


def budget(options: argparse.Namespace) -> str:
    """Return what each row that is trained here may cost, in words."""
    seconds = (
        "" if math.isinf(options.seconds) else f"{options.seconds:g} seconds of training on two cores by its cost, and "
    )
    images = f"the {options.training_images} images" if options.training_images else "all images"
    return (
        f"{seconds}at most {options.budget} examples (patches, crops and "
        f"regions count as images do), batches of at most {options.batch}, learning from {images} of the first patients by "
        "their hash, less a fifth of those patients for the validation loss"
    )


def machine(options: argparse.Namespace) -> str:
    """Return on what a row was trained, and when."""
    if torch.device(options.device).type == "cuda":
        place = torch.cuda.get_device_name(options.device)
    else:
        place = f"{options.threads} processor threads ({torch.backends.cpu.get_cpu_capability()})"
    return f"{place}, {time.strftime('%Y-%m-%d')}"


def examples(row: Row, options: argparse.Namespace) -> int:
    """Return how many examples a row sees."""
    return int(min(options.budget, options.seconds / row.cost))


def with_subset(dataset: Dataset, images: int) -> Dataset:
    """Return the set with the images to train on marked: those of the first patients, by their hash."""
    places = split_by_patient(dataset.records, SPLIT.parts, SPLIT.seed)
    training = ordered([r for r in dataset.records if places[r.patient_id] != SPLIT.part])
    last = {r.patient_id for r in (training[:images] if images else training)}
    return replace(
        dataset,
        records=tuple(replace(r, subset=SUBSET if r.patient_id in last else None) for r in dataset.records),
    )


def ordered(records: Sequence[Record]) -> list[Record]:
    """Return the records by their patients' hashes: the first ones are a fair draw, and always the same."""
    return sorted(records, key=lambda r: (hashlib.sha256(r.patient_id.encode()).hexdigest(), r.file))


def made(row: Row, dataset: Dataset, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train a row, score it and time it."""
    told: dict[str, Any] = {"name": row.name, "title": row.title}
    if row.recipe:
        recipe = shortened(row, options)
        begin = time.monotonic()
        train(
            recipe,
            dataset,
            folder / "model",
            Provenance(row.name, dataset.source),
            Settings(
                device=torch.device(options.device),
                threads=options.threads,
                precision=Precision.AUTO,
                repeatable=not options.fast,
                folds=(0,),
                budget=examples(row, options),
                subset=SUBSET,
                evaluate=False,
            ),
            Quiet(),
        )
        told |= {"training_seconds": time.monotonic() - begin, **course(recipe, folder / "model")}
        told |= {"budget": budget(options), "machine": machine(options)}
        print(f"  {time.strftime('%H:%M:%S')} scoring", flush=True)
    model = open_model(f"{folder / 'model'}/" if row.recipe else SHIPPED)
    reader = opened(row, folder, options.device, options.threads)
    places = split_by_patient(dataset.records, SPLIT.parts, SPLIT.seed)
    held_out = ordered([r for r in select(dataset.records) if places[r.patient_id] == SPLIT.part])
    most = (options.slow_images if row.slow else 0) or options.validation_images or len(held_out)
    chosen = held_out[:most]
    begin = time.monotonic()
    threshold = model.card.thresholds["mass"]
    predictions = predict(reader, dataset.folder, chosen, threshold=threshold, weak=True, scored=True)
    told["scoring_seconds"] = time.monotonic() - begin
    told |= scored(predictions, threshold, options.repeats)
    told["start"] = model.card.training.start
    if not options.no_timing:
        told |= timed(row, folder, options)
    if not row.recipe:
        [part] = model.card.training.plan["parts"]
        told["parameters"] = sum(p.numel() for p in build(part["network"], part["options"]).parameters())
        epochs = sum(phase["epochs"] for phase in part["phases"])
        told["examples"] = epochs * (model.card.training.images // part["batch"]) * part["batch"]
    told["published"] = published(row)
    return told


def shortened(row: Row, options: argparse.Namespace) -> Recipe:
    """Return a row's recipe on the house's patients, with smaller batches and fewer validation examples.

    A fixed threshold spares the reading of the validation fold: curves and areas do without one.
    """
    recipe = open_recipe(row.recipe)
    recipe = recipe if row.start else recipe.at_random()
    parts = tuple(
        Part.model_validate(
            part.model_dump()
            | {
                "batch": min(part.batch, options.batch),
                "accumulation": 1,
                "validation_examples": options.validation_examples,
            }
        )
        for part in recipe.parts
    )
    architecture = dict(recipe.reader.architecture)
    if "stride" in architecture:
        architecture["stride"] = options.stride
    thresholds = {"mass": 0.5, **recipe.reader.thresholds}
    return recipe.model_copy(
        update={
            "parts": parts,
            "split": SPLIT,
            "images": "all",
            "complete_exams": False,
            "reader": Tables(architecture=architecture, thresholds=thresholds),
        }
    )


def course(recipe: Recipe, model: Path) -> dict[str, Any]:
    """Return what the histories say: examples seen, and whether each part has converged."""
    histories = {p.role: read_history(model / RUNS / "fold-0" / p.role / HISTORY) for p in recipe.parts}
    images = open_model(f"{model}/").card.training.images
    why = {role: unfinished(history, images) for role, history in histories.items()}
    return {
        "recipe": recipe.name,
        "examples": sum(row.examples for history in histories.values() for row in history),
        "parameters": sum(p.numel() for part in recipe.parts for p in build(part.network, part.options).parameters()),
        "converged": not any(why.values()),
        "why": "; ".join(f"{role}: {text}" if len(why) > 1 else text for role, text in why.items() if text),
    }


def unfinished(history: Sequence[Epoch], images: int) -> str:
    """Return why a course is not over, by its length and the epochs of its last phase; or "".

    It is over when it saw ``PASSES`` examples of each of the training images or more, the best validation loss lies
    before the last fifth of ten epochs or more, and the training loss of that fifth is less than 1 % lower than that of
    the fifth before.
    """
    seen = sum(row.examples for row in history)
    if seen < PASSES * images:
        return f"{seen} examples of {images} images are fewer than {PASSES} of each"
    epochs = [row for row in history if row.phase == history[-1].phase and row.validation is not None]
    if len(epochs) < 10:
        return f"{len(epochs)} epochs in the last phase tell nothing"
    fifth = -(-len(epochs) // 5)
    losses = [row.validation or 0.0 for row in epochs]
    before, after = min(losses[:-fifth]), min(losses[-fifth:])
    if after < before:
        return f"the best epoch is in the last fifth, {100 * (before - after) / max(abs(before), 1e-9):.1f} % lower"
    earlier, later = (
        statistics.fmean(row.training for row in part) for part in (epochs[-2 * fifth : -fifth], epochs[-fifth:])
    )
    fell = (earlier - later) / max(abs(earlier), 1e-9)
    return f"the training loss still fell by {100 * fell:.1f} % from fifth to fifth" if fell >= 0.01 else ""


def scored(predictions: Sequence[Prediction], threshold: float, repeats: int) -> dict[str, Any]:
    """Return the figures of the table, and the points of the curve."""
    result = report(predictions, threshold, repeats, weak=True)
    _, found, false = Curve([match(RULE, detections(p)) for p in predictions]).points()
    plain = result.plain()
    return {
        "images": plain["images"],
        "patients": plain["patients"],
        "masses": plain["masses"],
        "refused": plain["refused"],
        "sensitivity": {str(f): plain["sensitivity_at_fppi"][RULE.value][str(f)] for f in LIMITS},
        "sensitivity_iou50": {str(f): plain["sensitivity_at_fppi"][HitRule.IOU50.value][str(f)] for f in LIMITS},
        **area(result, plain),
        "weak_dice": next(iter((plain.get("pixels_weak") or plain["pixels"]).values())),
        "froc": {"fppi": false.tolist(), "sensitivity": found.tolist()},
    }


def area(result: Report, plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the image AUC by malignancy, or by the strongest candidate where the reader does not classify."""
    if result.evaluation.image_auc is not None:
        return {"auc": plain["image_auc"], "auc_by": "malignancy"}
    return {"auc": plain["image_labels"]["AUC, malignant or not, by the strongest candidate"], "auc_by": "candidates"}


def exam_seconds(reader: Reader) -> dict[str, Any]:
    """Return seconds per four-view exam: the full-size phantom's views one by one, until time is up, times what is left."""
    spent, read = 0.0, 0
    for image in phantom_views():
        begin = time.monotonic()
        try:
            reader.read(Exam((image,)))
        except NoBreast:
            continue
        spent, read = spent + time.monotonic() - begin, read + 1
        if spent > WALL_FOR_VIEWS:
            break
    return {"exam_seconds": spent * len(STANDARD_VIEWS) / max(read, 1), "views_timed": read}


@cache
def phantom_views() -> tuple[ViewImage, ...]:
    """Return the four views of a full-size phantom exam; drawing them takes a while."""
    return tuple(view_image(image, view) for view, image in zip(STANDARD_VIEWS, phantom_exam(7).images, strict=True))


class Quiet:
    """Tells the end of each epoch alone."""

    def images(self, what: str, done: int, total: int) -> None:
        """Say nothing of single images."""

    def step(self, fold: int, part: Part, step: Any) -> None:
        """Print a line at each epoch's end."""
        if step.step == step.steps:
            told = f"phase {step.phase} epoch {step.epoch}: loss {step.loss:.4f}, {step.done}/{step.total} steps"
            print(f"  {time.strftime('%H:%M:%S')} fold {fold} {part.role} {told}", flush=True)

    def says(self, what: str) -> None:
        """Print what a user should know."""
        print(f"  {what}", flush=True)


if __name__ == "__main__":
    main()
