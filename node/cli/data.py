"""``mammonode data``: what a data set holds, and what is wrong with it."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from node.cli.options import JsonOption, print_json, progress, stdout_console

KINDS = "auto, manifest, inbreast, cbis-ddsm, cdd-cesm or folders."

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


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("data")(data)


def data(
    path: DataArgument,
    *,
    kind: KindOption = "auto",
    where: WhereOption = None,
    subset: SubsetOption = "",
    skip_unlabelled: SkipUnlabelledOption = False,
    leave_out_mismatched: LeaveOutOption = False,
    quick: Annotated[bool, typer.Option("--quick", help="Do not open the images: no look for duplicates.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Count what a data set holds, and look for leaks: masks that do not fit, images under two patients, no labels.

    The exit status is 1 when a training run on it would be refused; the reasons are printed.
    """
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
        found = survey(dataset, lambda: bar.advance(looking), skip_unlabelled=skip_unlabelled, look=not quick)
    if as_json:
        print_json(
            {
                "name": dataset.name,
                "folder": str(dataset.folder),
                "licence": dataset.licence,
                "attribution": dataset.attribution,
                **asdict(found),
            }
        )
    else:
        console = stdout_console()
        console.print(f"{dataset.name}, licence: {dataset.licence}")
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
