"""The course of a training run: its epochs as history.csv and as a picture of its curves."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from ai.errors import InvalidHistory

HISTORY = "history.csv"
CURVES = "curves.png"


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
    _replace(path, text.getvalue().encode())


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
