"""Commands for data sets: what one holds and what is wrong with it, and who is in which fold."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ai.datasets.sources import NOT_STATED, SHEET
from ai.outputs import writable_file
from node.cli.options import JsonOption, named_model, print_json, progress, stdout_console

if TYPE_CHECKING:
    from ai.datasets.sources import Source

KINDS = "auto, manifest, inbreast, cbis-ddsm, cdd-cesm, folders or collection."

DataArgument = Annotated[Path, typer.Argument(help="CSV manifest, or the folder of a data set (docs/data.md).")]
KindOption = Annotated[str, typer.Option("--kind", help=f"The data set's form: {KINDS}")]
WhereOption = Annotated[
    list[str] | None, typer.Option("--where", help="COLUMN=VALUE that a manifest's row must have; repeatable.")
]
SubsetOption = Annotated[str, typer.Option("--subset", help="Only the publishers' part of this name.")]
SkipUnlabelledOption = Annotated[
    bool, typer.Option("--skip-unlabelled", help="Leave out images that are not labelled, instead of refusing them.")
]
LeaveOutOption = Annotated[
    bool,
    typer.Option("--leave-out-mismatched", help="Leave out images with a mask of another size (CBIS-DDSM has some)."),
]
FoldsFileOption = Annotated[
    Path | None,
    typer.Option(
        "--folds-file", help="Who is in which part, as `mammonode folds` wrote it; else the split's seed says."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("data")(data)
    app.command("folds")(folds)


def data(
    path: DataArgument,
    *,
    kind: KindOption = "auto",
    where: WhereOption = None,
    subset: SubsetOption = "",
    skip_unlabelled: SkipUnlabelledOption = False,
    leave_out_mismatched: LeaveOutOption = False,
    folds_file: FoldsFileOption = None,
    quick: Annotated[bool, typer.Option("--quick", help="Do not open the images: no look for duplicates.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Count what a data set holds, and look for leaks: masks that do not fit, images under two patients, no labels.

    Its licence and what its figures cannot be trusted for are told first. The exit status is 1 when a training run on it
    would be refused; the reasons are printed.
    """
    from ai.datasets.folds import read_folds  # noqa: PLC0415
    from ai.datasets.registry import open_dataset  # noqa: PLC0415 (keeps --help quick)
    from ai.datasets.selection import of_subset  # noqa: PLC0415
    from ai.datasets.survey import survey  # noqa: PLC0415

    with progress() as bar:
        opening = bar.add_task("opening", total=None)
        dataset = open_dataset(
            path,
            kind,
            lambda: bar.advance(opening),
            where=conditions(where),
            leave_out_mismatched=leave_out_mismatched,
        )
        bar.remove_task(opening)
        if subset:
            dataset = replace(dataset, records=tuple(of_subset(dataset.records, subset)))
        looking = bar.add_task("looking at images", total=len(dataset.records), visible=not quick)
        found = survey(
            dataset,
            lambda: bar.advance(looking),
            skip_unlabelled=skip_unlabelled,
            look=not quick,
            folds=read_folds(folds_file) if folds_file else None,
        )
    if as_json:
        print_json({**asdict(dataset.source), "folder": str(dataset.folder), **asdict(found)})
    else:
        console = stdout_console()
        for told in _told(dataset.source):
            console.print(told, markup=False, highlight=False)
        counts = Table("count", "", show_header=False)
        for what, number in found.counts.items():
            counts.add_row(what, str(number))
        for what, shares in found.shares.items():
            counts.add_row(f"images by {what}", ", ".join(f"{name}: {number}" for name, number in shares.items()))
        console.print(counts)
        for note in found.notes:
            console.print(f"note: {note}", markup=False, highlight=False)
    for fault in found.faults:
        typer.secho(f"training would be refused: {fault}", err=True, fg=typer.colors.RED)
    if found.faults:
        raise typer.Exit(1)


def folds(
    path: DataArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file to write: patient_id, fold.")],
    *,
    parts: Annotated[int, typer.Option(min=2, help="How many folds.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the chance among patients who are alike.")] = 1,
    held_out_of: Annotated[
        str, typer.Option("--held-out-of", help="Fold 0 are the patients that this model's card kept.")
    ] = "",
    kind: KindOption = "auto",
    leave_out_mismatched: LeaveOutOption = False,
) -> None:
    """Deal a data set's patients to folds that are alike, and write who is in which into a file.

    Alike in malignancy, number of images, density and size of the masses, as far as the set tells. `train`, `evaluate`
    and `calibrate` take the file with --folds-file, and a recipe names it as split.file. It holds patient IDs.
    """
    from ai.datasets.folds import balance, held_out_by, stratified, write_folds  # noqa: PLC0415
    from ai.datasets.registry import open_dataset  # noqa: PLC0415

    writable_file(output)
    records = open_dataset(path, kind, leave_out_mismatched=leave_out_mismatched).records
    kept = held_out_by(named_model(held_out_of), records) if held_out_of else set()
    dealt = stratified(records, parts, seed, kept)
    write_folds(dealt, output)
    table = Table("fold", *map(str, range(parts)))
    for what, numbers in balance(records, dealt).items():
        table.add_row(what, *map(str, numbers))
    stdout_console().print(table)
    typer.echo(f"wrote {output}", err=True)


def _told(source: "Source") -> Iterator[str]:
    yield f"{source.name}, licence: {source.licence}"
    yield f"to be named: {source.attribution}"
    yield from (f"caveat: {caveat}" for caveat in source.caveats)
    if source.licence == NOT_STATED:
        yield f"Say in {SHEET} beside the images whose they are and under which licence (docs/data.md)."


def conditions(where: list[str] | None) -> dict[str, str]:
    """Return the columns and values of ``--where``.

    Raises
    ------
    typer.BadParameter
        When one is not COLUMN=VALUE.
    """
    for item in where or ():
        if "=" not in item:
            raise typer.BadParameter(f"{item}: give COLUMN=VALUE", param_hint="--where")
    return dict(item.partition("=")[::2] for item in where or ())
