"""Pictures of what a reader found: hits green, misses red, false marks white (the colours of Marita et al., figure 6)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ai.datasets.truth import kind_of, mass_mask
from ai.errors import AIError
from ai.evaluation.detection import HitRule, match
from ai.evaluation.predictions import PIXEL_TRUTH, Prediction, detections, shape_of_truth
from ai.pixels import file_image

Picture = NDArray[np.uint8]

HIT: Final = (80, 200, 0)  # as cv2 has it: blue, green, red
MISS: Final = (40, 40, 255)
FALSE: Final = (255, 255, 255)
SIDE: Final = 900
"""Longest side of a picture, pixels."""
THUMB: Final = 240
COLUMNS: Final = 6
INDEX: Final = "index.png"


def draw_all(
    predictions: Sequence[Prediction],
    folder: Path,
    output: Path,
    threshold: float,
    on_image: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Write one PNG per image and sheets of them all: ``index.png``, ``index-2.png`` and so on.

    Parameters
    ----------
    folder
        The data set's.
    output
        Where to; made when it is not there.
    threshold
        Smallest detection that is drawn.
    on_image
        Called after each image.
    """
    output.mkdir(parents=True, exist_ok=True)
    thumbs, written = [], []
    for p in predictions:
        picture = draw(p, folder, threshold)
        path = output / f"{Path(p.record.file).with_suffix('').as_posix().replace('/', '_')}.png"
        cv2.imwrite(str(path), picture)
        written.append(path)
        thumbs.append(_thumb(picture, f"{p.record.patient_id} {p.record.view}"))
        on_image()
    per_sheet = COLUMNS * COLUMNS
    for number, first in enumerate(range(0, len(thumbs), per_sheet), 1):
        path = output / (INDEX if number == 1 else f"index-{number}.png")
        cv2.imwrite(str(path), _sheet(thumbs[first : first + per_sheet]))
        written.append(path)
    return written


def draw(prediction: Prediction, folder: Path, threshold: float) -> Picture:
    """Draw one image.

    Where the masses' pixels are known: green what was marked rightly, red what was missed, white what was marked
    wrongly. Where boxes are: the box green when it was found (centre in box) and red when not, marks as outlines,
    green on a found mass and white else. A refused image says so; one that cannot be read is a grey plate as large as its truth.
    """
    record = prediction.record
    try:
        pixels = file_image(folder / record.path, record.view).pixels
    except AIError:
        pixels = np.full(shape_of_truth(record, folder), 0.2, np.float32)
    scale = min(SIDE / max(pixels.shape), 1.0)
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    picture: Picture = np.repeat(np.round(255 * small).astype(np.uint8)[..., None], 3, axis=2)
    if kind_of(record) in PIXEL_TRUTH:
        _paint(picture, prediction, folder, pixels.shape, threshold)
    else:
        _outline(picture, prediction, scale, threshold)
    if prediction.refused is not None:
        _write(picture, "refused", (8, 24))
    return picture


def _paint(picture: Picture, prediction: Prediction, folder: Path, shape: tuple[int, ...], threshold: float) -> None:
    rows, columns = shape
    truth, _ = mass_mask(prediction.record, folder, (rows, columns))
    found = np.zeros((rows, columns), np.bool_)
    for mass in prediction.findings.masses if prediction.findings else ():
        if mass.detection >= threshold:
            found[mass.window] |= mass.mask
    height, width = picture.shape[:2]
    for mask, colour in ((found & truth, HIT), (truth & ~found, MISS), (found & ~truth, FALSE)):
        part = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)[..., None] * 0.45
        picture[:] = np.round(picture * (1 - part) + np.array(colour) * part).astype(np.uint8)
        edges, _ = cv2.findContours((part > 0.22).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, edges, -1, colour, 1, cv2.LINE_AA)


def _outline(picture: Picture, prediction: Prediction, scale: float, threshold: float) -> None:
    kept = detections(prediction)
    events = match(HitRule.CENTRE, kept)
    shown = events.scores >= threshold
    found = set(events.found[shown].tolist())
    for k, box in enumerate(prediction.record.boxes):
        x, y, w, h = (round(v * scale) for v in box)
        cv2.rectangle(picture, (x, y), (x + w, y + h), HIT if k in found else MISS, 2, cv2.LINE_AA)
    masses = prediction.findings.masses if prediction.findings else ()
    for place, kind, score, visible in zip(events.order, events.kinds, events.scores, shown, strict=True):
        if not visible:
            continue
        colour = FALSE if kind < 0 else HIT
        points = np.round(masses[place].contour * scale).astype(np.int32)
        cv2.polylines(picture, [points], isClosed=True, color=colour, thickness=2, lineType=cv2.LINE_AA)
        x, y, _, _ = masses[place].box
        _write(picture, f"{score:.2f}", (round(x * scale), max(round(y * scale) - 4, 12)), colour)


def _thumb(picture: Picture, text: str) -> Picture:
    scale = THUMB / max(picture.shape[:2])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    plate = np.zeros((THUMB + 20, THUMB, 3), np.uint8)
    plate[: small.shape[0], : small.shape[1]] = small
    _write(plate, text, (4, THUMB + 14))
    return plate


def _sheet(thumbs: Sequence[Picture]) -> Picture:
    blank = np.zeros_like(thumbs[0])
    filled = [*thumbs, *[blank] * (-len(thumbs) % COLUMNS)]
    rows = [np.hstack(filled[i : i + COLUMNS]) for i in range(0, len(filled), COLUMNS)]
    return np.vstack(rows)


def _write(picture: Picture, text: str, place: tuple[int, int], colour: tuple[int, int, int] = FALSE) -> None:
    for ink, thickness in (((0, 0, 0), 3), (colour, 1)):
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, ink, thickness, cv2.LINE_AA)
