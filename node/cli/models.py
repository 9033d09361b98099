"""Commands for models: list, evaluate, predict."""

import json
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
    group = typer.Typer(no_args_is_help=True, help="Models: list, show and verify them, and install your own.")
    for command in (list_models, show, verify, install):
        group.command(command.__name__.removesuffix("_models"))(command)
    app.add_typer(group, name="models")
    app.command("evaluate")(evaluate)
    app.command("predict")(predict)


Name = Annotated[str, typer.Argument(help="Name of a shipped or installed model, or a model directory.")]
Names = Annotated[list[str] | None, typer.Argument(help="As for show; without any, all shipped and installed ones.")]


def list_models(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the models that the node finds by name: those that came with this version, then the installed ones."""
    table = Table("name", "where", "version", "reader", "digest", "trained on")
    told = []
    for folder in model_folders(_installed(config)):
        where = "shipped" if folder.parent == SHIPPED else "installed"
        row: dict[str, Any] = {"name": folder.name, "where": where, "folder": str(folder)}
        try:
            model = Model(folder, read_card(folder / CARD))
        except ModelError as error:
            told.append(row | {"fault": str(error)})
            table.add_row(folder.name, where, "", "", "", str(error), style="red")
            continue
        card = model.card
        told.append(row | _facts(model))
        table.add_row(folder.name, where, card.version, card.reader, model.digest[:12], card.training.data)
    if as_json:
        print_json(told)
    else:
        Console().print(table)


def show(name: Name, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show a model's card: what it is for, what it was trained on, its networks, thresholds, weights and figures."""
    model = open_model(name, _installed(config))
    if as_json:
        print_json({"folder": str(model.folder), **_facts(model)})
        return
    table = Table("key", "value")
    for key, value in _flat({"folder": model.folder, **_facts(model)}):
        table.add_row(key, value)
    Console().print(table)


def verify(names: Names = None, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Try models as the node would: card, reader, digests of all weights, networks that these tensors fit.

    Exit status 1 when a model has a fault; every weights file that is missing or another one is named.
    """
    from ai.installation import verify as faults_of  # noqa: PLC0415 (keeps --help quick)

    installed = _installed(config)
    told = []
    for name in names or [folder.name for folder in model_folders(installed)]:
        try:
            model = open_model(name, installed)
            found = {"name": name, "digest": model.digest, "faults": [str(fault) for fault in faults_of(model)]}
        except ModelError as error:
            found = {"name": name, "digest": "", "faults": [str(error)]}
        told.append(found)
    if as_json:
        print_json(told)
    for found in () if as_json else told:
        for fault in found["faults"]:
            typer.echo(f"{typer.style('FAIL', fg=typer.colors.RED)} {found['name']}: {fault}")
        if not found["faults"]:
            typer.echo(f"{typer.style('ok  ', fg=typer.colors.GREEN)} {found['name']}, digest {found['digest'][:12]}")
    raise typer.Exit(1 if any(found["faults"] for found in told) else 0)


def install(
    source: Annotated[Path, typer.Argument(help="Model directory, or a ZIP of one.", exists=True)],
    *,
    into: Annotated[Path | None, typer.Option(help="Models folder; else reader.models_folder of the settings.")] = None,
    config: ConfigOption = None,
) -> None:
    """Copy a model into the models folder once it is verified; the node then finds it by the name on its card.

    Nothing is ever overwritten: another model of that name is refused.
    """
    from ai.installation import install as run  # noqa: PLC0415 (as above)

    model, new = run(source, into or _installed(config))
    typer.echo(f"{model.folder} {'installed' if new else 'was there already'}, digest {model.digest[:12]}", err=True)
    typer.echo(f'[reader]\nmodel = "{model.card.name}"')


def _installed(config: Path | None) -> Path:
    return load_settings(config).reader.models_folder


def _facts(model: Model) -> dict[str, Any]:
    return {"digest": model.digest, **model.card.model_dump(mode="json")}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every value of nested tables with its dotted key."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for number, item in enumerate(value):
                yield from _flat(item, f"{prefix}{key}.{number}.")
        else:
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)


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
