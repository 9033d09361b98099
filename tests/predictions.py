"""Predictions as readers give them, made by hand."""

import numpy as np

from ai.datasets.records import Box, Record
from ai.evaluation.predictions import Prediction
from ai.findings import ImageFindings, LengthUnit, Mass, ModelIdentity, Size
from tests.builders import L_CC

SQUARE: Box = (10, 10, 10, 10)
ELSEWHERE: Box = (60, 60, 10, 10)
MODEL = ModelIdentity("truth", "1", "0" * 64)


def a_mass(box: tuple[int, int, int, int], detection: float = 0.9, malignancy: float | None = 0.5) -> Mass:
    x, y, width, height = box
    size = Size(float(width * height), width, height, LengthUnit.PIXEL, None)
    contour = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y]], float)
    return Mass(1, (y, x), np.ones((height, width), np.bool_), contour, size, detection, malignancy, 50)


def a_prediction(record: Record, *masses: Mass, malignancy: float = 0.5, dice: float | None = None) -> Prediction:
    findings = ImageFindings(record.file, L_CC, (80, 60), masses, round(100 * malignancy), malignancy)
    return Prediction(record, findings, None, dice)


def a_record(number: int, **changes: object) -> Record:
    fields = {"boxes": (SQUARE,), "malignant": True, "pathologies": ("MALIGNANT",)} | changes
    return Record(f"{number}.png", f"P{number}", L_CC, **fields)  # type: ignore[arg-type]
