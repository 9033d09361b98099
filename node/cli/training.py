"""The command that trains a model."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ai.errors import InvalidDataset
from ai.models import open_model
from node.cli.options import DeviceOption, ThreadsOption, progress

if TYPE_CHECKING:
    from ai.evaluation.predictions import Prediction

Manifest = Annotated[Path, typer.Argument(help="CSV with the columns file, patient_id, laterality, view.", exists=True)]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("train")(train)


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


def _predict(
    model: str, folder: Path, records: list[Any], device: str, threads: int, threshold: float | None
) -> "list[Prediction]":
    from ai.evaluation.predictions import predict as run  # noqa: PLC0415
    from ai.readers.registry import load_reader  # noqa: PLC0415

    reader = load_reader(open_model(model), device, threads, threshold)
    with progress() as bar:
        task = bar.add_task("reading", total=len(records))
        return run(reader, folder, records, lambda: bar.advance(task))
