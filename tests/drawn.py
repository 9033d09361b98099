"""Drawn mammograms for tests of the ai package: small, quick, with a known breast and known masses."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

SHAPE = (160, 120)

Disc = tuple[int, int, int]
"""x, y and radius in pixels, as in a left breast."""


def a_breast(shape: tuple[int, int] = SHAPE, *, right: bool = False, mass: Disc | None = None) -> NDArray[np.float32]:
    """Return half an ellipse on black, with a bright disc; chest wall at the left, or at the right."""
    rows, columns = shape
    image = np.zeros(shape, np.uint8)
    cv2.ellipse(image, (0, rows // 2), (columns * 6 // 10, rows * 2 // 5), 0, 0, 360, (120,), -1)
    if mass:
        cv2.circle(image, mass[:2], mass[2], (230,), -1)
    pixels = image[:, ::-1] if right else image
    return np.ascontiguousarray(pixels, np.float32) / np.float32(255)


def a_data_set(folder: Path, patients: int = 6) -> Path:
    """Write a manifest with one 8-bit PNG per patient, two of three with a mass, and return its path."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(patients):
        right, mass = number % 2 == 1, (25 + number, 70 + 4 * number, 9)
        x, y, radius = mass
        shown, malignant = number % 3 < 2, number % 3 == 0
        left = SHAPE[1] - 1 - x - radius if right else x - radius
        pixels = a_breast(right=right, mass=mass if shown else None)
        file = f"images/{number:03d}.png"
        cv2.imwrite(str(folder / file), np.round(255 * pixels).astype(np.uint8))
        row = {
            "file": file,
            "patient_id": f"P{number}",
            "laterality": "R" if right else "L",
            "view": "CC",
            "malignant": str(int(malignant)),
            "pathologies": ("MALIGNANT" if malignant else "BENIGN") if shown else "",
            "boxes_xywh": json.dumps([[left, y - radius, 2 * radius + 1, 2 * radius + 1]] if shown else []),
        }
        rows.append(row)
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file_:
        writer = csv.DictWriter(file_, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return manifest
