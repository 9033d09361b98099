"""``mammonode phantom``: synthetic exams with exact truth."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ai.outputs import writable_folder
from ai.words import counted
from node.cli.options import progress

FIRST = datetime(2026, 1, 10, 8, 0, tzinfo=UTC)
"""When the first exam is taken, unless it is told; the others follow by a quarter of an hour."""


class VendorChoice(StrEnum):
    """Makes of detector; ``all`` takes them in turn."""

    A = "a"
    B = "b"
    C = "c"
    ALL = "all"


class TruthChoice(StrEnum):
    """Forms of truth beside the manifest."""

    NONE = "none"
    JSON = "json"
    SEG = "seg"
    BOTH = "both"


class FunctionChoice(StrEnum):
    """VOI LUT Function, or none."""

    NONE = "none"
    LINEAR = "linear"
    LINEAR_EXACT = "linear-exact"
    SIGMOID = "sigmoid"


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("phantom")(phantom)


def phantom(
    folder: Annotated[Path, typer.Argument(help="Where to write; made if it is not there, and it must be empty.")],
    *,
    exams: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the first; the others follow. A seed gives the same exam.")] = 1,
    vendor: Annotated[
        VendorChoice, typer.Option(help="Make of the detector: pixels of 0.1 mm (a), 0.07 (b), 0.05 (c); all in turn.")
    ] = VendorChoice.A,
    truth: Annotated[
        TruthChoice, typer.Option(help="Beside manifest.csv: truth.json, a DICOM Segmentation for each view, or both.")
    ] = TruthChoice.BOTH,
    twins: Annotated[
        bool, typer.Option("--twins", help="Also write each exam without its masses, otherwise equal.")
    ] = False,
    for_processing: Annotated[
        bool, typer.Option("--for-processing", help="Also write each view as a For Processing image.")
    ] = False,
    voi_function: Annotated[
        FunctionChoice, typer.Option(help="VOI LUT Function of the windows; none leaves it out.")
    ] = FunctionChoice.NONE,
    one_series: Annotated[bool, typer.Option("--one-series", help="All views in one series.")] = False,
    small: Annotated[bool, typer.Option("--small", help="512 x 416 pixels of 0.45 mm: quick, for trying.")] = False,
) -> None:
    """Write synthetic four-view exams with exact truth, as DICOM; for trying and checking only (docs/phantoms.md).

    Every exam is marked as a phantom, of a patient that cannot be taken for one. `manifest.csv` is what `mammonode
    evaluate` takes.
    """
    from ai.errors import Unwritable  # noqa: PLC0415 (keeps --help quick)
    from ai.phantom.vendors import VENDORS  # noqa: PLC0415
    from node.phantom import Form, VoiFunction, phantom_exam  # noqa: PLC0415
    from node.phantom_files import TruthForms, write_exam, write_manifest  # noqa: PLC0415

    if any(writable_folder(folder).iterdir()):
        raise Unwritable(f"{folder}: is not empty, and nothing is overwritten; name another folder")
    forms = TruthForms(
        json=truth in (TruthChoice.JSON, TruthChoice.BOTH), segmentations=truth in (TruthChoice.SEG, TruthChoice.BOTH)
    )
    function = VoiFunction.NONE if voi_function is FunctionChoice.NONE else VoiFunction[voi_function.name]
    form = Form(function, one_series=one_series, for_processing=for_processing)
    makes = list(VENDORS.values()) if vendor is VendorChoice.ALL else [VENDORS[vendor.value]]
    rows: list[dict[str, Any]] = []
    with progress() as bar:
        task = bar.add_task("exams", total=exams)
        for number in range(exams):
            woman = f"PHANTOM-{seed + number}"
            for name, masses in ((woman, None), (f"{woman}-TWIN", ()))[: 2 if twins else 1]:
                exam = phantom_exam(
                    seed + number,
                    patient_id=name,
                    masses=masses,
                    small=small,
                    acquired_at=FIRST + number * timedelta(minutes=15),
                    vendor=makes[number % len(makes)],
                    form=form,
                )
                rows += write_exam(exam, folder / name.lower(), forms, woman)
            write_manifest(rows, folder)
            bar.advance(task)
    typer.echo(f"wrote {counted(len(rows), 'view')} of {counted(exams, 'exam')}: {folder / 'manifest.csv'}", err=True)
