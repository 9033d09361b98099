"""Commands that run a model over a data set: evaluate, predict."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ai.errors import InvalidDataset
from ai.models import open_model
from node.cli.options import DEFAULT_MODEL, DeviceOption, JsonOption, ModelOption, ThreadsOption, print_json, progress

if TYPE_CHECKING:
    from ai.evaluation.predictions import Evaluation, Prediction

Manifest = Annotated[Path, typer.Argument(help="CSV with the columns file, patient_id, laterality, view.", exists=True)]
Where = Annotated[list[str] | None, typer.Option("--where", help="COLUMN=VALUE that a row must have; repeatable.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("evaluate")(evaluate)
    app.command("predict")(predict)


def evaluate(
    manifest: Manifest,
    *,
    model: ModelOption = DEFAULT_MODEL,
    validation: Annotated[
        bool, typer.Option(help="Only the patients that the model's card kept for validation.")
    ] = False,
    where: Where = None,
    repeats: Annotated[int, typer.Option(min=1, help="Bootstrap draws over patients.")] = 1000,
    threshold: Annotated[float, typer.Option(help="Smallest detection that counts; FROC wants all of them.")] = 0.0,
    as_json: JsonOption = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 0,
) -> None:
    """Score a model on a labelled data set: FROC, image and mass AUC, Dice, each with a patient-bootstrap 95 % interval.

    Every image is in every denominator; one that the reader refuses keeps its misses. Dice needs masks of the images'
    names in a folder `masks` beside the manifest, and the model's own threshold: give `--threshold -1`.
    """
    from ai.evaluation.predictions import evaluate as score  # noqa: PLC0415
    from ai.evaluation.predictions import figures  # noqa: PLC0415

    records = _records(manifest, where, model if validation else None)
    chosen = None if threshold < 0 else threshold
    result = score(_predict(model, manifest.parent, records, device, threads, chosen), repeats)
    if as_json:
        print_json(figures(result))
    else:
        _print_evaluation(result)


def predict(
    manifest: Manifest,
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON file to write.")],
    *,
    model: ModelOption = DEFAULT_MODEL,
    validation: Annotated[
        bool, typer.Option(help="Only the patients that the model's card kept for validation.")
    ] = False,
    where: Where = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 0,
) -> None:
    """Read every image of a manifest (JPEG, PNG or DICOM beside it) and write detections and image scores as JSON.

    {"images": [{"file", "malignancy"}], "detections": [{"file", "bbox": [x, y, w, h], "score", "malignancy"}]}, boxes
    in pixels of the image file. All candidates are written, however weak. A refused image says why under "refused".
    """
    from ai.evaluation.predictions import to_json  # noqa: PLC0415

    records = _records(manifest, where, model if validation else None)
    predictions = _predict(model, manifest.parent, records, device, threads, threshold=0.0)
    output.write_text(json.dumps(to_json(predictions), indent=1), encoding="utf-8")
    refused = [p for p in predictions if p.refused]
    typer.echo(f"{len(predictions)} images read, {len(refused)} refused, wrote {output}", err=True)


def _records(manifest: Path, where: list[str] | None, split_of: str | None) -> list[Any]:
    from ai.datasets.manifest import read_manifest  # noqa: PLC0415
    from ai.datasets.records import split_by_patient  # noqa: PLC0415

    filters = dict(item.partition("=")[::2] for item in where or ())
    records = read_manifest(manifest, filters)
    if split_of is not None:
        split = open_model(split_of).card.training.plan["split"]
        places = split_by_patient(read_manifest(manifest), split["folds"], split["seed"])
        records = [r for r in records if places[r.patient_id] == split["fold"]]
    if not records:
        raise InvalidDataset(f"{manifest}: no row is left")
    return records


def _predict(
    model: str, folder: Path, records: list[Any], device: str, threads: int, threshold: float | None
) -> "list[Prediction]":
    from ai.evaluation.predictions import predict as run  # noqa: PLC0415
    from ai.readers.registry import load_reader  # noqa: PLC0415

    reader = load_reader(open_model(model), device, threads, threshold)
    with progress() as bar:
        task = bar.add_task("reading", total=len(records))
        return run(reader, folder, records, lambda: bar.advance(task))


def _print_evaluation(result: "Evaluation") -> None:
    from ai.evaluation.detection import FPPI  # noqa: PLC0415

    console = Console()
    console.print(
        f"{result.images} images of {result.patients} patients, {result.masses} masses, {result.refused} images refused"
    )
    table = Table("sensitivity at false positives per image", *map(str, result.detection))
    for row, limit in enumerate(FPPI):
        table.add_row(str(limit), *(str(values[row]) for values in result.detection.values()))
    console.print(table)
    for label, figure in (
        ("image AUC, malignant against other", result.image_auc),
        ("mass AUC, found masses", result.mass_auc),
        ("Dice, misses count 0", result.dice),
        ("Dice, where anything overlaps", result.dice_found),
    ):
        if figure is not None:
            console.print(f"{label}: {figure}")
    console.print("95 % intervals by bootstrap over patients. Research use only.")
