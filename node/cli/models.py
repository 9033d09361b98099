"""Commands for models: list, train, evaluate, predict."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ai.errors import InvalidDataset
from ai.models import open_model, shipped_models
from node.cli.options import DEFAULT_MODEL, DeviceOption, JsonOption, ModelOption, ThreadsOption, print_json, progress

if TYPE_CHECKING:
    from ai.evaluation.predictions import Evaluation, Prediction

Manifest = Annotated[Path, typer.Argument(help="CSV with the columns file, patient_id, laterality, view.", exists=True)]
Where = Annotated[list[str] | None, typer.Option("--where", help="COLUMN=VALUE that a row must have; repeatable.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("models")(models)
    app.command("train")(train)
    app.command("evaluate")(evaluate)
    app.command("predict")(predict)


def models(*, as_json: JsonOption = False, model: Annotated[str, typer.Argument(help="Show one.")] = "") -> None:
    """List the models that came with this version, or show one model's card; weights are checked against it."""
    found = [open_model(model)] if model else shipped_models()
    for each in found:
        each.weights()
    if as_json or model:
        print_json([{"digest": each.digest, "folder": str(each.folder), **each.card.model_dump()} for each in found])
        return
    table = Table("name", "version", "reader", "digest", "trained on")
    for each in found:
        card = each.card
        table.add_row(card.name, card.version, card.reader, each.digest[:12], card.training.data)
    Console().print(table)


def train(
    manifest: Manifest,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for checkpoint and model; a run resumes here.")
    ],
    *,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 13,
    batch: Annotated[int, typer.Option(min=1, help="Images per step.")] = 8,
    seed: Annotated[int, typer.Option(help="Of every random choice, the split included.")] = 1,
    folds: Annotated[int, typer.Option(min=2, help="Parts that the patients are dealt to.")] = 5,
    fold: Annotated[int, typer.Option(min=0, help="The part that is kept for validation.")] = 0,
    canvas: Annotated[str, typer.Option(help="Rows x columns that the network sees, multiples of 32.")] = "512x320",
    pretrained: Annotated[bool, typer.Option(help="Start from EfficientNet-Lite0's ImageNet weights.")] = True,
    name: Annotated[str, typer.Option(help="The model's name, for its card and for reports.")] = "own-mass-fpn",
    data: Annotated[str, typer.Option(help="What the training data are, for the card.")] = "not stated",
    data_licence: Annotated[str, typer.Option(help="Their licence, for the card.")] = "not stated",
    attribution: Annotated[str, typer.Option(help="Whom to name for them, for the card.")] = "not stated",
    note: Annotated[list[str] | None, typer.Option(help="A sentence for every report; repeatable.")] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 0,
) -> None:
    """Train the mass reader on a manifest and evaluate it on the patients kept for validation.

    The run can be stopped at any time: the same command goes on after the last whole epoch. At the end OUTPUT holds a
    model directory (card.toml, model.safetensors) that `mammonode read`, `evaluate` and the node accept.
    """
    import torch  # noqa: PLC0415 (commands that need no model start without torch)

    from ai.datasets.manifest import read_manifest  # noqa: PLC0415
    from ai.datasets.records import split_by_patient  # noqa: PLC0415
    from ai.training.card import Provenance, write_card  # noqa: PLC0415
    from ai.training.loop import Step, TrainingPlan  # noqa: PLC0415
    from ai.training.loop import train as run  # noqa: PLC0415
    from ai.training.samples import load_samples  # noqa: PLC0415

    size = re.fullmatch(r"(\d+)x(\d+)", canvas)
    if size is None:
        raise typer.BadParameter(f"{canvas}: give rows and columns, for example 512x320")
    plan = TrainingPlan((int(size[1]), int(size[2])), epochs=epochs, batch=batch, seed=seed, pretrained=pretrained)
    records = read_manifest(manifest)
    places = split_by_patient(records, folds, seed)
    training = [r for r in records if places[r.patient_id] != fold]
    validation = [r for r in records if places[r.patient_id] == fold]
    if not training or not validation:
        raise InvalidDataset(f"{manifest}: fold {fold} of {folds} leaves no patient to train on or none to validate")
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if threads:
        torch.set_num_threads(threads)
    with progress() as bar:
        loading = bar.add_task("preparing images", total=len(training))
        samples = load_samples(manifest.parent, training, plan.canvas, lambda: bar.advance(loading))
        steps = len(samples) // batch
        task = bar.add_task("training", total=epochs * steps)

        def on_step(step: Step) -> None:
            description = f"training, epoch {step.epoch}/{epochs}, loss {step.loss:.3f}"
            bar.update(task, completed=(step.epoch - 1) * steps + step.step, description=description)

        run(plan, samples, output, where, on_step)
    provenance = Provenance(name, data, data_licence, attribution, tuple(note or ()))
    split = {"seed": seed, "folds": folds, "fold": fold}
    write_card(output, provenance, plan, split, training)
    predictions = _predict(str(output), manifest.parent, validation, device, threads, threshold=0.0)
    card = write_card(output, provenance, plan, split, training, predictions)
    typer.echo(f"wrote {card}", err=True)


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
