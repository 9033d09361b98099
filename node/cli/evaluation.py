"""Commands that run a model over a data set: evaluate, predict."""

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ai.errors import InvalidDataset
from ai.outputs import writable_file, writable_folder
from ai.words import counted
from config.settings import DEFAULT_MODEL
from node.cli.data import (
    DataArgument,
    FoldsFileOption,
    KindOption,
    LeaveOutOption,
    SkipUnlabelledOption,
    SubsetOption,
    WhereOption,
    conditions,
)
from node.cli.options import (
    DeviceOption,
    JsonOption,
    ModelOption,
    ThreadsOption,
    named_model,
    print_json,
    progress,
    require_extra,
    stdout_console,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai.datasets.records import Dataset, Record
    from ai.datasets.sources import Source
    from ai.evaluation.predictions import Evaluation, Prediction
    from ai.evaluation.report import Group, Report

ValidationOption = Annotated[
    bool, typer.Option("--validation", help="Only the patients that the model's card kept for validation.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("evaluate")(evaluate)
    app.command("predict")(predict)
    app.command("calibrate")(calibrate)


def evaluate(
    data: DataArgument,
    *,
    model: ModelOption = DEFAULT_MODEL,
    validation: ValidationOption = False,
    where: WhereOption = None,
    kind: KindOption = "auto",
    subset: SubsetOption = "",
    skip_unlabelled: SkipUnlabelledOption = False,
    leave_out_mismatched: LeaveOutOption = False,
    folds_file: FoldsFileOption = None,
    repeats: Annotated[int, typer.Option(min=1, help="Bootstrap draws over patients.")] = 1000,
    threshold: Annotated[
        float, typer.Option(help="Smallest candidate that is asked of the reader; FROC wants all. -1: the model's own.")
    ] = 0.0,
    weak_dice: Annotated[
        bool, typer.Option("--weak-dice", help="Score pixels against ellipses where only boxes are known.")
    ] = False,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder for a PNG per image: hits green, misses red, false marks white.")
    ] = None,
    froc: Annotated[Path | None, typer.Option(help="File for the FROC curves, .png or .svg.")] = None,
    card: Annotated[
        Path | None, typer.Option(help="Folder for a model card: card.md with FROC, ROC and reliability as PNG.")
    ] = None,
    append: Annotated[
        bool, typer.Option("--append", help="Add what is measured here to the card that is there, as of a further set.")
    ] = False,
    as_json: JsonOption = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 0,
) -> None:
    """Score a model on a labelled data set, each figure with a patient-bootstrap 95 % interval (docs/evaluation.md).

    FROC by four hit rules, AUC, the findings and image labels at the model's threshold, Dice and IoU in the papers'
    ways, COCO's average precision, Madsen's end-to-end test, and sensitivity by size, margin, density, view and the
    like. Every image is in every denominator; one that the reader refuses keeps its misses. Figures that the data set cannot give
    say why.
    """
    from ai.datasets.selection import select  # noqa: PLC0415
    from ai.evaluation.report import report  # noqa: PLC0415

    _check_outputs(model, froc, pictures, card, append=append)
    images = _images(
        data,
        kind,
        where,
        model,
        folds_file,
        validation=validation,
        leave_out_mismatched=leave_out_mismatched,
        scored=True,
    )
    chosen = select(images.records, skip_unlabelled=skip_unlabelled, subset=subset)
    source = _known(images, chosen)
    own = named_model(model).card.thresholds.get("mass", 0.5)
    level = own if threshold < 0 else max(own, threshold)
    asked = None if threshold < 0 else threshold
    predictions = _predict(
        model, images.folder, chosen, device, threads, asked, level=level, weak=weak_dice, scored=True
    )
    result = report(predictions, level, repeats, weak=weak_dice)
    if as_json:
        print_json({**result.plain(), "caveats": source.caveats})
    else:
        _print_report(result, source)
    if froc is not None:
        _plot(froc, predictions, model)
    if card is not None:
        part = "the validation part of " if validation else ""
        named = replace(source, name=", ".join([f"{part}{source.name}", *(where or ())]))
        _write_card(card, model, named, predictions, result, repeats, held_out=validation, append=append)
    if pictures is not None:
        _draw(pictures, predictions, images.folder, level)


def calibrate(
    folder: Annotated[Path, typer.Argument(help="Model directory, whose card gets the calibration.", exists=True)],
    data: DataArgument,
    *,
    population: Annotated[str, typer.Option(help="Whose exams these are, for reports; else words of our own.")] = "",
    skip_unlabelled: SkipUnlabelledOption = False,
    folds_file: FoldsFileOption = None,
    repeats: Annotated[int, typer.Option(min=1, help="Bootstrap draws over patients.")] = 1000,
    as_json: JsonOption = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 0,
) -> None:
    """Fit what a model's scores mean as probabilities, on the patients that its card kept, and write it into the card.

    A logistic curve for findings, images, breasts and exams (docs/calibration.md). What is told of how well they hold
    comes from curves that were fitted without the patients they are judged on. The model gets another digest.
    """
    from ai.calibration import Level  # noqa: PLC0415
    from ai.datasets.selection import select  # noqa: PLC0415
    from ai.evaluation.calibration import calibrate as fitted  # noqa: PLC0415
    from ai.evaluation.calibration import reliability, scores  # noqa: PLC0415
    from ai.evaluation.model_card import write_calibration  # noqa: PLC0415

    model = str(folder.resolve())
    images = _images(data, "auto", None, model, folds_file, validation=True, scored=True)
    chosen = select(images.records, skip_unlabelled=skip_unlabelled)
    predictions = _predict(model, images.folder, chosen, device, threads, 0.0, scored=True)
    levels = scores(predictions, named_model(model).card.thresholds.get("mass", 0.5))
    words = (
        population
        or f"{counted(len(levels[Level.EXAM]), 'exam')} of {images.source.name} that the model was not trained on"
    )
    calibration = fitted(levels, words)
    judged = {level: reliability(scored, repeats) for level, scored in levels.items()}
    write_calibration(folder, calibration)
    told = [
        {
            "level": level.value,
            "scores": one.count,
            "cancers": one.cancers,
            **calibration.curve(level).model_dump(),
            "error": str(one.error),
            "brier": str(one.brier),
            "brier of the prevalence alone": round(one.brier_of_prevalence, 3),
        }
        for level, one in judged.items()
    ]
    if as_json:
        print_json(told)
        return
    table = Table(*told[0])
    for row in told:
        table.add_row(*map(str, row.values()))
    stdout_console().print(table)
    typer.echo(f"wrote {folder / 'card.toml'}; digest {named_model(model).digest[:12]}", err=True)


def predict(
    data: DataArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON file to write.")],
    *,
    model: ModelOption = DEFAULT_MODEL,
    validation: ValidationOption = False,
    where: WhereOption = None,
    kind: KindOption = "auto",
    folds_file: FoldsFileOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 0,
) -> None:
    """Read every image of a data set (JPEG, PNG or DICOM) and write detections and image scores as JSON.

    {"images": [{"file", "malignancy"}], "detections": [{"file", "bbox": [x, y, w, h], "score", "malignancy"}]}, boxes
    in pixels of the image file. All candidates are written, however weak. A refused image says why under "refused".
    """
    from ai.evaluation.predictions import to_json  # noqa: PLC0415

    writable_file(output)
    images = _images(data, kind, where, model, folds_file, validation=validation)
    predictions = _predict(model, images.folder, images.records, device, threads, 0.0)
    output.write_text(json.dumps(to_json(predictions), indent=1), encoding="utf-8")
    refused = [p for p in predictions if p.refused]
    typer.echo(f"{counted(len(predictions), 'image')} read, {len(refused)} refused, wrote {output}", err=True)


@dataclass(frozen=True)
class _Images:
    """The images of a data set that were asked for; paths are relative to the folder.

    Attributes
    ----------
    learned
        Patients of the set whom the model may have been trained on, as far as its card tells.
    kept_some
        Whether it kept any for validation.
    """

    source: "Source"
    folder: Path
    records: "Sequence[Record]"
    learned: Collection[str]
    kept_some: bool


def _images(
    data: Path,
    kind: str,
    where: list[str] | None,
    called: str,
    folds_file: Path | None,
    *,
    validation: bool,
    leave_out_mismatched: bool = False,
    scored: bool = False,
) -> _Images:
    from ai.datasets.folds import held_out_by, learned_from, learnt_from_all, read_folds  # noqa: PLC0415
    from ai.datasets.registry import open_dataset  # noqa: PLC0415

    whole = open_dataset(data, kind, leave_out_mismatched=leave_out_mismatched)
    records: Sequence[Record] = whole.records
    if where:
        records = open_dataset(data, kind, where=conditions(where), leave_out_mismatched=leave_out_mismatched).records
    model, folds, dealt = named_model(called), read_folds(folds_file) if folds_file else None, whole
    if validation:
        try:
            kept = held_out_by(model, whole.records, folds)
        except InvalidDataset:
            if not where:
                raise
            dealt = replace(whole, records=tuple(records))
            kept = held_out_by(model, records, folds)
        if not kept:
            raise InvalidDataset(
                f"{model.card.name} has learnt from all patients of {data}: nobody is left to validate on"
            )
        if scored:
            _check_pictures(dealt, kept)
        records = [r for r in records if r.patient_id in kept]
    if not records:
        raise InvalidDataset(f"{data}: no image is left")
    learned = learned_from(model, whole.records, folds) or learned_from(model, records, folds)
    return _Images(whole.source, whole.folder, records, learned, not learnt_from_all(model))


def _known(images: _Images, chosen: "Sequence[Record]") -> "Source":
    """Return the source of images, with a caveat where the model was trained on their patients."""
    patients = {record.patient_id for record in chosen}
    if not (learned := patients.intersection(images.learned)):
        return images.source
    caveat = (
        f"{len(learned)} of the {len(patients)} patients {'is' if len(learned) == 1 else 'are'} of the part that the model was "
        "trained on, so these figures are "
        f"better than it deserves{'; --validation scores those that it kept' if images.kept_some else ''}."
    )
    return replace(images.source, caveats=(caveat, *images.source.caveats))


def _check_pictures(whole: "Dataset", kept: set[str]) -> None:
    """Refuse a picture on both sides: a model that has seen it would look better than it is."""
    from ai.datasets.leaks import check_duplicates, find_duplicates  # noqa: PLC0415

    with progress() as bar:
        task = bar.add_task("looking for pictures that the model was trained on", total=len(whole.records))
        pairs = find_duplicates(whole, lambda: bar.advance(task), skip_unusable=True)
    check_duplicates(pairs, {record.patient_id: int(record.patient_id in kept) for record in whole.records})


def _predict(
    model: str,
    folder: Path,
    records: "Sequence[Record]",
    device: str,
    threads: int,
    threshold: float | None,
    *,
    level: float = 0.0,
    weak: bool = False,
    scored: bool = False,
) -> "list[Prediction]":
    from ai.evaluation.predictions import predict as run  # noqa: PLC0415
    from ai.readers.registry import load_reader  # noqa: PLC0415

    reader = load_reader(named_model(model), device, threads, threshold)
    with progress() as bar:
        task = bar.add_task("reading", total=len(records))
        on_image = partial(bar.advance, task)
        return run(reader, folder, records, on_image, threshold=level, weak=weak, scored=scored)


def _plot(path: Path, predictions: "Sequence[Prediction]", model: str) -> None:
    from ai.evaluation.detection import match  # noqa: PLC0415
    from ai.evaluation.plots import froc, plot_froc  # noqa: PLC0415
    from ai.evaluation.predictions import detections, rules_of  # noqa: PLC0415

    curves = [froc(rule.value, [match(rule, detections(p)) for p in predictions]) for rule in rules_of(predictions)]
    images, masses = len(predictions), sum(len(p.record.boxes) for p in predictions)
    plot_froc(curves, path, f"{model}: {counted(images, 'image')}, {counted(masses, 'mass', 'masses')}")
    typer.echo(f"wrote {path}", err=True)


def _write_card(
    folder: Path,
    model: str,
    data: "Source",
    predictions: "Sequence[Prediction]",
    result: "Report",
    repeats: int,
    *,
    held_out: bool,
    append: bool,
) -> None:
    from ai.evaluation.model_card import append_to_model_card, write_model_card  # noqa: PLC0415

    if append:
        path = append_to_model_card(folder, data, result)
    else:
        path = write_model_card(folder, named_model(model), data, predictions, result, repeats, held_out=held_out)
    typer.echo(f"wrote {path}", err=True)


def _check_outputs(model: str, froc: Path | None, pictures: Path | None, card: Path | None, *, append: bool) -> None:
    """Refuse, before an image is read, what could not be written at the end."""
    if froc is not None:
        if froc.suffix not in {".png", ".svg"}:
            raise typer.BadParameter(f"{froc}: give a file that ends in .png or .svg", param_hint="--froc")
        writable_file(froc)
    for folder in (pictures, card):
        if folder is not None:
            writable_folder(folder)
    if froc is not None or card is not None:
        require_extra("matplotlib")
    if append:
        from ai.evaluation.model_card import check_model_card  # noqa: PLC0415

        if card is None:
            raise typer.BadParameter("name the folder of the card with --card", param_hint="--append")
        check_model_card(card, named_model(model))


def _draw(output: Path, predictions: "Sequence[Prediction]", folder: Path, level: float) -> None:
    from ai.evaluation.pictures import draw_all  # noqa: PLC0415

    with progress() as bar:
        task = bar.add_task("drawing", total=len(predictions))
        written = draw_all(predictions, folder, output, level, lambda: bar.advance(task))
    typer.echo(f"wrote {counted(len(written), 'picture')}, see {output / 'index.png'}", err=True)


def _print_report(result: "Report", source: "Source") -> None:
    _print_evaluation(result.evaluation)
    console = stdout_console()
    for group in result.groups:
        console.print(_table(group))
    for caveat in source.caveats:
        console.print(caveat, markup=False, highlight=False)
    console.print("95 % intervals by bootstrap over patients. Research use only.")


def _table(group: "Group") -> Table:
    table = Table("figure", "value", title=group.title, title_justify="left")
    for row in group.rows:
        table.add_row(row.name, str(row.figure) if row.figure else f"not defined: {row.why}")
    return table


def _print_evaluation(result: "Evaluation") -> None:
    from ai.evaluation.detection import FPPI  # noqa: PLC0415

    console = stdout_console()
    console.print(
        f"{counted(result.images, 'image')} of {counted(result.patients, 'patient')}, "
        f"{counted(result.masses, 'mass', 'masses')}, {counted(result.refused, 'image')} refused"
    )
    table = Table("sensitivity at false positives per image", *map(str, result.detection))
    for row, limit in enumerate(FPPI):
        values = (str(found[row]) if result.masses else "not defined: no mass" for found in result.detection.values())
        table.add_row(str(limit), *values)
    console.print(table)
    for label, figure in (
        ("image AUC, malignant against other", result.image_auc),
        ("mass AUC, found masses", result.mass_auc),
        ("Dice of all candidates that were asked for, misses count 0", result.dice),
        ("the same, where anything overlaps", result.dice_found),
    ):
        console.print(f"{label}: {figure or 'not defined: the data set or the reader does not say'}")
