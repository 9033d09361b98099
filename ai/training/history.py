"""The course of a training run: its epochs as history.csv and as a picture of its curves."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from ai.errors import InvalidHistory
from ai.training.durable import whole_file

HISTORY = "history.csv"
CURVES = "curves.png"

TRAINING, VALIDATION = "#0072b2", "#d55e00"
"""Colours of the two curves, told apart by all eyes (Okabe and Ito)."""


@dataclass(frozen=True)
class Epoch:
    """One epoch.

    Attributes
    ----------
    phase, epoch
        Counted from 1, the epoch within its phase.
    training, validation
        Mean losses over the examples seen; validation is None without validation examples.
    learning_rate
        Of the last step.
    seconds
        Wall time, validation included.
    examples
        Training examples seen.
    """

    phase: int
    epoch: int
    training: float
    validation: float | None
    learning_rate: float
    seconds: float
    examples: int


def kept_epochs(history: Sequence[Epoch], keep: Literal["best", "last"] = "best") -> tuple[int, ...]:
    """Return the places in ``history`` of the epochs whose weights the phases keep, one of each phase so far.

    The earlier of two equal ones; the last where there was no validation.
    """
    places: dict[int, int] = {}
    for place, row in enumerate(history):
        before = history[places[row.phase]].validation if row.phase in places else None
        if before is None or row.validation is None or keep == "last" or row.validation < before:
            places[row.phase] = place
    return tuple(places.values())


def write_history(history: Sequence[Epoch], path: Path) -> None:
    """Write one row per epoch, numbers in full; an empty validation loss is none."""
    text = io.StringIO()
    table = csv.DictWriter(text, [f.name for f in fields(Epoch)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(row) for row in history)
    with whole_file(path) as file:
        file.write(text.getvalue().encode())


def read_history(path: Path) -> tuple[Epoch, ...]:
    """Read what :func:`write_history` wrote.

    Raises
    ------
    InvalidHistory
        When the file is not there or not of this form.
    """
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        return tuple(
            Epoch(
                int(row["phase"]),
                int(row["epoch"]),
                float(row["training"]),
                float(row["validation"]) if row["validation"] else None,
                float(row["learning_rate"]),
                float(row["seconds"]),
                int(row["examples"]),
            )
            for row in rows
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InvalidHistory(f"{path}: {error}") from error


def draw_curves(history: Sequence[Epoch], path: Path, title: str, keep: Literal["best", "last"] = "best") -> None:
    """Draw both losses over the epochs of all phases as a PNG, with the phases' borders and the kept epochs.

    The losses are on a logarithmic axis, unless one is 0 or less.
    """
    # Half a second, for a picture now and then.
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    at = range(1, len(history) + 1)
    borders = [x for x, row in zip(at, history, strict=True) if row.epoch == 1]
    for first, end in zip(borders, [*borders[1:], len(history) + 1], strict=True):  # phases may have other losses
        rows = history[first - 1 : end - 1]
        names = ("training", "validation") if first == 1 else (None, None)
        axes.plot(range(first, end), [row.training for row in rows], color=TRAINING, marker=".", label=names[0])
        validated = [row.validation for row in rows if row.validation is not None]
        if validated:
            axes.plot(range(first, end), validated, color=VALIDATION, marker=".", label=names[1])
        if len(borders) > 1:
            axes.axvline(first - 0.5, color="grey", linestyle=":")
            where = (first - 0.4, 1.01)
            axes.annotate(f"phase {rows[0].phase}", where, xycoords=axes.get_xaxis_transform(), color="grey")
    kept = kept_epochs(history, keep)
    shown = [row.training if row.validation is None else row.validation for row in (history[k] for k in kept)]
    axes.plot([k + 1 for k in kept], shown, "o", mfc="none", mec="black", ms=11, ls="none", label="kept")
    if min(loss for row in history for loss in (row.training, row.validation) if loss is not None) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter("{x:.3g}")
        axes.yaxis.set_major_formatter("{x:.3g}")
    axes.set_title(title, pad=18)
    axes.set(xlabel="epoch", ylabel="loss", xlim=(0.5, len(history) + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend()
    with whole_file(path) as file:
        figure.savefig(file, format="png")
