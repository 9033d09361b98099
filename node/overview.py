"""Pictures of an exam for people: the views with outlines and scores, as one page or one by one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ai.exam import STANDARD_VIEWS, View, ViewImage
from ai.findings import ImageFindings
from node.identity import RESEARCH_USE_ONLY

_TILE = 640  # height of a view on the page, pixels
_COLOURS = ((80, 80, 255), (0, 200, 255), (255, 200, 0))  # BGR: red, amber, cyan
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True, eq=False)
class Outline:
    """A closed contour in image coordinates (shape (n, 2), x and y), and what to write beside it."""

    contour: NDArray[np.float64]
    label: str


@dataclass(frozen=True, eq=False)
class Panel:
    """One view of a page."""

    image: ViewImage
    outlines: tuple[Outline, ...]
    caption: str


def panel(image: ViewImage, findings: ImageFindings | None) -> Panel:
    """Return a view with what was found in it."""
    if findings is None:
        return Panel(image, (), f"{image.view}  not read")
    outlines = tuple(Outline(mass.contour, f"{mass.number}: {mass.suspicion}") for mass in findings.masses)
    return Panel(image, outlines, f"{image.view}  score {findings.score}")


def draw_panel(panel: Panel, height: int = _TILE) -> NDArray[np.uint8]:
    """Draw one view.

    Returns
    -------
    numpy.ndarray
        BGR, uint8, ``height`` rows; the width follows the image's aspect.
    """
    rows, columns = panel.image.shape
    factor = height / (rows * panel.image.pixel_aspect)
    scale = np.array([factor, factor * panel.image.pixel_aspect])
    width = max(round(columns * factor), 1)
    grey = cv2.resize(panel.image.pixels, (width, height), interpolation=cv2.INTER_AREA)
    picture = np.repeat((255 * grey.clip(0, 1)).astype(np.uint8)[..., None], 3, axis=2)
    for index, outline in enumerate(panel.outlines):
        colour = _COLOURS[index % len(_COLOURS)]
        points = np.round(outline.contour * scale).astype(np.int32)
        cv2.polylines(picture, [points], isClosed=True, color=colour, thickness=2, lineType=cv2.LINE_AA)
        x, y = int(points[:, 0].max()) + 4, int(points[:, 1].mean())
        (label_width, _), _ = cv2.getTextSize(outline.label, _FONT, 0.55, 1)
        if x + label_width > width:
            x = int(points[:, 0].min()) - label_width - 4
        _write(picture, outline.label, (max(x, 0), max(y, 20)), 0.55, colour)
    _write(picture, panel.caption, (8, 22), 0.6, (255, 255, 255))
    return picture


def draw_page(exams: Sequence[tuple[str, Mapping[View, Panel]]], height: int = _TILE) -> NDArray[np.uint8]:
    """Draw exams below each other, their views in the usual order, with a title each.

    Parameters
    ----------
    exams
        Title, and panels by view; a view that is not there stays empty.

    Returns
    -------
    numpy.ndarray
        BGR, uint8.
    """
    strips = []
    for title, panels in exams:
        tiles = [draw_panel(panels[v], height) if v in panels else _empty(v, height) for v in STANDARD_VIEWS]
        row = np.hstack([np.pad(tile, ((0, 0), (2, 2), (0, 0))) for tile in tiles])
        header = np.full((34, row.shape[1], 3), 40, np.uint8)
        _write(header, title, (8, 24), 0.6, (255, 255, 255))
        strips.append(np.vstack([header, row]))
    width = max((strip.shape[1] for strip in strips), default=600)
    strips = [np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0))) for strip in strips]
    footer = np.full((30, width, 3), 40, np.uint8)
    _write(footer, f"{RESEARCH_USE_ONLY} Scores are 0 to 100, not probabilities.", (8, 21), 0.5, (200, 200, 200))
    return np.vstack([*strips, footer])


def _empty(view: View, height: int) -> NDArray[np.uint8]:
    tile = np.zeros((height, height // 2, 3), np.uint8)
    _write(tile, f"{view}  none", (8, 22), 0.6, (160, 160, 160))
    return tile


def _write(
    picture: NDArray[np.uint8], text: str, place: tuple[int, int], size: float, colour: tuple[int, int, int]
) -> None:
    x, y = place
    # A shadow keeps text readable on bright tissue.
    cv2.putText(picture, text, (x + 1, y + 1), _FONT, size, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.putText(picture, text, place, _FONT, size, colour, 1, cv2.LINE_AA)
