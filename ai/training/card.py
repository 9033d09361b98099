"""The card of a freshly trained model."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomlkit

from ai.calibration import Calibration
from ai.datasets.records import Record
from ai.datasets.sources import Source
from ai.errors import ModelError
from ai.models import CARD, ModelCard, read_card
from ai.training.durable import whole_file

OPERATING_FPPI = 0.25
"""False positives per image at which findings are shown: about one per four-view exam."""


@dataclass(frozen=True)
class Provenance:
    """What people must know of a model: its name, where its training data come from, and what reports must say.

    Attributes
    ----------
    name
        Of the model.
    source
        Of the training data.
    notes
        Sentences for every report.
    """

    name: str
    source: Source
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Content:
    """What a training run knows for the card.

    Attributes
    ----------
    reader, statement
        Of the system.
    architecture, thresholds
        The reader's tables.
    start
        What the networks started from.
    training
        The images that were not held out.
    plan
        What was done; its table ``split`` says who was held out.
    weights
        Files beside the card.
    evaluation
        Figures, by the images that they were measured on.
    calibration
        Another model's, where that stands for this one's too; None keeps that of the card that is there.
    selection
        What was chosen on whom, where another model's figures stand for this one's.
    """

    reader: str
    statement: str
    architecture: Mapping[str, Any]
    thresholds: Mapping[str, float]
    start: str
    training: Sequence[Record]
    plan: Mapping[str, Any]
    weights: Sequence[str]
    evaluation: Mapping[str, Any]
    calibration: Calibration | None = None
    selection: Sequence[str] = ()


def write_card(folder: Path, provenance: Provenance, content: Content) -> Path:
    """Write card.toml beside the weights, all of it or nothing.

    Weights that were trained from GMIC's stay under its licence, and the card says so. The calibration of a card that is
    there stays where weights, plan and thresholds do.
    """
    card = {
        "name": provenance.name,
        "version": f"{datetime.now(UTC):%Y.%m.%d}",
        "reader": content.reader,
        "licence": "AGPL-3.0" if "AGPL-3.0" in content.start else "Apache-2.0",
        "selection": content.selection,
        "architecture": content.architecture,
        "thresholds": content.thresholds,
        "use": {
            "statement": content.statement,
            "accepts": ["FOR PRESENTATION"],
            "notes": provenance.notes,
        },
        "training": {
            "data": provenance.source.name,
            "licence": provenance.source.licence,
            "attribution": provenance.source.attribution,
            "caveats": provenance.source.caveats,
            "start": content.start,
            "patients": len({record.patient_id for record in content.training}),
            "images": len(content.training),
            "plan": content.plan,
        },
        "weights": [{"file": file, "sha256": _digest(folder / file)} for file in content.weights],
        "evaluation": content.evaluation,
    }
    path = folder / CARD
    plain = as_in_card(card)
    calibration = content.calibration or _calibration(path, ModelCard.model_validate(plain))
    if calibration is not None:
        plain["calibration"] = calibration.model_dump()
    with whole_file(path) as file:
        file.write(tomlkit.dumps(plain).encode())
    return path


def _calibration(path: Path, new: ModelCard) -> Calibration | None:
    """Return the calibration of the card that is there, if it is the same model's."""
    try:
        old = read_card(path)
    except ModelError:
        return None
    same = old.weights == new.weights and old.training.plan == new.training.plan and old.thresholds == new.thresholds
    return old.calibration if same else None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def as_in_card(value: Any) -> Any:
    """Return plain values as TOML has them: tuples as lists, and nothing for None."""
    if isinstance(value, Mapping):
        return {str(key): as_in_card(one) for key, one in value.items() if one is not None}
    return [as_in_card(one) for one in value] if isinstance(value, (tuple, list)) else value
