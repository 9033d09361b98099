"""The card of a freshly trained model."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomlkit

from ai.datasets.records import Record
from ai.evaluation.detection import HitRule, match, threshold_at
from ai.evaluation.predictions import Prediction, detections, evaluate, figures
from ai.models import CARD, ModelCard
from ai.readers.lesions import LesionRule
from ai.training.loop import WEIGHTS, TrainingPlan

OPERATING_FPPI = 0.25
"""False positives per image at which findings are shown: about one per four-view exam."""


@dataclass(frozen=True)
class Provenance:
    """What people must know of a model: its name, where its training data come from, and what reports must say.

    Attributes
    ----------
    name
        Of the model.
    data, licence, attribution
        Of the training data.
    notes
        Sentences for every report.
    """

    name: str
    data: str
    licence: str
    attribution: str
    notes: tuple[str, ...] = ()


def write_card(
    folder: Path,
    provenance: Provenance,
    plan: TrainingPlan,
    split: Mapping[str, int],
    training: Sequence[Record],
    predictions: Sequence[Prediction] | None = None,
) -> Path:
    """Write card.toml beside the weights.

    Parameters
    ----------
    folder
        Holds model.safetensors.
    provenance
        Name, data, licence.
    plan, split
        How the model was trained, and on which patients.
    training
        The images it was trained on.
    predictions
        All candidates on the validation images; they give the threshold and the evaluation figures. None writes the
        card that is needed to make them.
    """
    threshold, evaluation = 0.5, {}
    if predictions is not None:
        events = [match(HitRule.CENTRE, detections(p)) for p in predictions]
        threshold = math.ceil(1000 * threshold_at(events, OPERATING_FPPI)) / 1000
        evaluation = {"validation": figures(evaluate(predictions))}
    rule = LesionRule()
    card = {
        "name": provenance.name,
        "version": f"{datetime.now(UTC):%Y.%m.%d}",
        "reader": "mass_fpn",
        "licence": "Apache-2.0",
        "architecture": {"encoder": plan.encoder, "canvas": list(plan.canvas)},
        "thresholds": {"mass": threshold, "candidate": rule.candidate, "outline": rule.outline},
        "use": {
            "statement": "Research use only. Marks and scores masses in standard mammographic views.",
            "accepts": ["FOR PRESENTATION"],
            "notes": list(provenance.notes),
        },
        "training": {
            "data": provenance.data,
            "licence": provenance.licence,
            "attribution": provenance.attribution,
            "start": "EfficientNet-Lite0, ImageNet, RangiLyu/EfficientNet-Lite, Apache-2.0"
            if plan.pretrained
            else "random",
            "patients": len({r.patient_id for r in training}),
            "images": len(training),
            "plan": {**_plain(asdict(plan)), "split": dict(split)},
        },
        "weights": [{"file": WEIGHTS, "sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()}],
        "evaluation": evaluation,
    }
    ModelCard.model_validate(card)
    path = folder / CARD
    path.write_text(tomlkit.dumps(card), encoding="utf-8")
    return path


def _plain(value: Any) -> Any:
    """Tuples as lists, as TOML has them."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value
