"""Pictures for people: mammograms with outlines and scores, one by one, hung as a screening exam, or as a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ai.exam import STANDARD_VIEWS, Laterality, View
from ai.findings import ImageFindings
from ai.words import counted
from node.results.labels import Box, label_places, lead

Picture = NDArray[np.uint8]
"""Shape (rows, columns, 3), RGB."""

Colour = tuple[int, int, int]

COLOURS: Final = ((255, 60, 60), (255, 200, 0), (0, 200, 255), (255, 0, 255), (0, 255, 128))
"""Colours of masses 1, 2, …, over again after the last; none of them is a grey."""

WHITE: Final = (255, 255, 255)
QUIET: Final = (190, 190, 190)
WARNING: Final = (255, 190, 60)
BAND: Final = (36, 36, 36)

CELL: Final = (800, 640)
"""Rows and columns of a view on a page: the shape of the common detectors, 2560 by 2048 and 3328 by 2560."""

WORDS_CELL: Final = (240, 640)
"""The same of a page without any picture."""

SMALLEST: Final = 480
"""Rows and columns that a view by itself has at least, so that its words can be read."""

GAP: Final = 6
SUBPIXEL: Final = 4
"""Fractional bits of drawn coordinates."""


@dataclass(frozen=True, eq=False)
class Outline:
    """A closed contour, shape (n, 2), x and y as in ``ai.findings.Mass``, and what to write beside it."""

    contour: NDArray[np.float64]
    label: str


@dataclass(frozen=True, eq=False)
class Panel:
    """One view.

    Attributes
    ----------
    caption
        Stands above it.
    pixels
        Shape (rows, columns), dense tissue bright; None when there is nothing to show.
    outlines
        What was found, mass 1 first.
    words
        Stand in the place of a picture that is not there.
    aspect
        Height of a pixel divided by its width.
    """

    caption: str
    pixels: NDArray[np.uint8] | None = None
    outlines: tuple[Outline, ...] = ()
    words: str = ""
    aspect: float = 1.0

    def flipped(self, *, sideways: bool, upright: bool) -> "Panel":
        """Return it mirrored left to right (sideways), top to bottom (upright), or both."""
        if self.pixels is None or not (sideways or upright):
            return self
        rows, columns = self.pixels.shape
        scale = np.array([-1 if sideways else 1, -1 if upright else 1])
        shift = np.array([columns if sideways else 0, rows if upright else 0])
        pixels = self.pixels[:: -1 if upright else 1, :: -1 if sideways else 1]
        outlines = tuple(replace(outline, contour=outline.contour * scale + shift) for outline in self.outlines)
        return replace(self, pixels=np.ascontiguousarray(pixels), outlines=outlines)


@dataclass(frozen=True, eq=False)
class Page:
    """An exam on one page.

    Attributes
    ----------
    title
        What the page is.
    mark
        Stands out beside the title.
    lines
        Sentences below the title, the first one in bold.
    panels
        A view without one stays empty.
    footer
        Sentences below the views.
    """

    title: str
    mark: str
    lines: tuple[str, ...]
    panels: Mapping[View, Panel]
    footer: tuple[str, ...]


class Fit(NamedTuple):
    """Where a picture lies in its cell: rows and columns that it takes, its first column and its first row."""

    rows: int
    columns: int
    left: int
    top: int

    @classmethod
    def into(cls, shape: tuple[int, int], aspect: float, cell: tuple[int, int], align: float = 0.5) -> "Fit":
        """Return the largest picture that a cell takes.

        Parameters
        ----------
        shape
            Rows and columns of the image.
        aspect
            Height of its pixels divided by their width.
        cell
            Rows and columns of the cell.
        align
            0 puts it to the left, 1 to the right.
        """
        factor = min(cell[0] / (shape[0] * aspect), cell[1] / shape[1])
        rows, columns = max(round(shape[0] * aspect * factor), 1), max(round(shape[1] * factor), 1)
        return cls(rows, columns, round((cell[1] - columns) * align), (cell[0] - rows) // 2)


class Canvas:
    """Pixels to draw on, with the TrueType font that OpenCV brings: no font file is read, nothing depends on the site.

    Parameters
    ----------
    rows, columns
        Size.
    colour
        Background.
    """

    def __init__(self, rows: int, columns: int, colour: Colour = (0, 0, 0)) -> None:
        self.pixels: Picture = np.full((rows, columns, 3), colour, np.uint8)
        self._font = cv2.FontFace("sans")

    def width(self, text: str, size: int, weight: int = 400) -> int:
        """Return how many columns a text takes."""
        # On a canvas of the text's own width it would be wrapped, and measured too narrow.
        return cv2.getTextSize((1 << 20, 100), text, (0, 0), self._font, size, weight)[2]

    def wrapped(self, text: str, size: int, width: int, weight: int = 400, *, most: int | None = None) -> list[str]:
        """Return the lines that a text takes; a word that is wider than a line is cut, and the last of ``most`` lines."""
        lines = [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".strip()
            if self.width(longer, size, weight) <= width:
                lines[-1] = longer
            elif len(lines) == most:
                lines[-1] = self.cut(longer, size, width, weight)
                break
            else:
                lines += [self.cut(word, size, width, weight)]
        return [line for line in lines if line]

    def cut(self, text: str, size: int, width: int, weight: int = 400) -> str:
        """Return as much of a text as fits."""
        if self.width(text, size, weight) <= width:
            return text
        while text and self.width(f"{text}...", size, weight) > width:
            text = text[:-1]
        return f"{text}..." if text else ""

    def write(
        self,
        text: str,
        x: int,
        baseline: int,
        size: int,
        colour: Colour = WHITE,
        weight: int = 400,
        *,
        shadow: bool = False,
    ) -> None:
        """Write a text that fits; a shadow keeps it readable on bright tissue."""
        around = [(-1, -1), (1, -1), (-1, 1), (1, 1)] if shadow else []
        for right, down in around:
            cv2.putText(self.pixels, text, (x + right, baseline + down), (0, 0, 0), self._font, size, weight)
        cv2.putText(self.pixels, text, (x, baseline), colour, self._font, size, weight)

    def paste(self, picture: Picture, left: int, top: int) -> None:
        """Put a picture on it."""
        self.pixels[top : top + picture.shape[0], left : left + picture.shape[1]] = picture


def panel(view: View, pixels: NDArray[np.uint8], findings: ImageFindings | None, *, aspect: float = 1.0) -> Panel:
    """Return a view with what was found in it."""
    if findings is None:
        return Panel(f"{view}   NOT READ", pixels, aspect=aspect)
    outlines = tuple(Outline(mass.contour, f"{mass.number}: {mass.suspicion}") for mass in findings.masses)
    return Panel(
        f"{view}   image score {findings.score}   {masses_in_words(len(outlines))}", pixels, outlines, aspect=aspect
    )


def masses_in_words(count: int) -> str:
    """Return ``no mass``, ``1 mass``, ``2 masses`` …."""
    return counted(count, "mass", "masses") if count else "no mass"


def draw_panel(panel: Panel, cell: tuple[int, int] = CELL, align: float = 0.5) -> Picture:
    """Draw one view below its caption.

    Parameters
    ----------
    cell
        Rows and columns for the view alone.
    align
        0 puts a picture that is narrower than the cell to the left, 1 to the right.

    Returns
    -------
    numpy.ndarray
        As wide as the cell, higher by ``caption_rows(cell)``.
    """
    band = caption_rows(cell)
    canvas = Canvas(band + cell[0], cell[1])
    canvas.pixels[:band] = BAND
    size = max(round(band * 0.6), 8)
    colour = WHITE if panel.pixels is not None else WARNING
    canvas.write(canvas.cut(panel.caption, size, cell[1] - 16, 600), 8, round(band * 0.72), size, colour, 600)
    if panel.pixels is None:
        canvas.pixels[band:] = 20
        step, first = round(1.5 * size), cell[0] // 3
        lines = canvas.wrapped(panel.words, size, cell[1] - 48, most=max((cell[0] - first - size // 2) // step + 1, 1))
        for number, line in enumerate(lines):
            canvas.write(line, 24, band + first + step * number, size, QUIET)
    else:
        fit = Fit.into((panel.pixels.shape[0], panel.pixels.shape[1]), panel.aspect, cell, align)
        canvas.paste(_picture(panel.pixels, panel.outlines, fit, cell), 0, band)
    return canvas.pixels


def cell_of(panel: Panel, rows: int) -> tuple[int, int]:
    """Return a cell of so many rows for one view: as wide as its picture, and wide enough for words."""
    height, width = panel.pixels.shape if panel.pixels is not None else CELL
    return rows, max(round(rows * width / (height * panel.aspect)), SMALLEST)


def caption_rows(cell: tuple[int, int]) -> int:
    """Return the rows that a caption takes above a cell."""
    return min(max(cell[1] // 16, 24), 44)


def draw_hanging(panels: Mapping[View, Panel], cell: tuple[int, int] = CELL) -> Picture:
    """Draw four views as radiologists hang them: right beside left, CC above MLO, chest walls in the middle.

    Parameters
    ----------
    panels
        A view without one stays empty.
    cell
        Rows and columns of each view.
    """
    rows = caption_rows(cell) + cell[0]
    canvas = Canvas(2 * rows + GAP, 2 * cell[1] + GAP)
    for number, view in enumerate(STANDARD_VIEWS):
        shown = panels.get(view) or Panel(f"{view}   no image")
        left, top = hanging_place(number, cell)
        canvas.paste(draw_panel(shown, cell, 1 if view.laterality is Laterality.RIGHT else 0), left, top)
    return canvas.pixels


def hanging_place(number: int, cell: tuple[int, int]) -> tuple[int, int]:
    """Return first column and row of a standard view with its caption in the hanging, by its place in the list."""
    return (number % 2) * (cell[1] + GAP), (number // 2) * (caption_rows(cell) + cell[0] + GAP)


def draw_page(page: Page) -> Picture:
    """Draw an exam on one page: title and sentences, the four views, footer."""
    cell = CELL if any(panel.pixels is not None for panel in page.panels.values()) else WORDS_CELL
    views = draw_hanging(page.panels, cell)
    size = max(cell[1] // 30, 12)
    above = _band([(page.title, round(1.6 * size), 700), *_weighed(page.lines, size)], views.shape[1], page.mark)
    below = _band([(line, round(0.85 * size), 400) for line in page.footer], views.shape[1])
    return np.vstack([above, views, below])


def side_by_side(pictures: Sequence[Picture]) -> Picture:
    """Return pictures of any height in one row."""
    rows = max(picture.shape[0] for picture in pictures)
    return np.hstack([np.pad(p, ((0, rows - p.shape[0]), (0, 2 * GAP), (0, 0))) for p in pictures])


def png(picture: Picture) -> bytes:
    """Return a picture as a PNG file."""
    _, encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return encoded.tobytes()


def draw_single(panel: Panel, lines: Sequence[str], cell: tuple[int, int]) -> Picture:
    """Draw one view with its caption above and sentences below it."""
    view = draw_panel(panel, cell)
    size = max(round(caption_rows(cell) * 0.4), 13)
    return np.vstack([view, _band([(line, size, 400) for line in lines], view.shape[1])])


def _weighed(lines: Sequence[str], size: int) -> list[tuple[str, int, int]]:
    return [(line, size, 400 if number else 700) for number, line in enumerate(lines)]


def _band(lines: Sequence[tuple[str, int, int]], columns: int, mark: str = "") -> Picture:
    """Draw sentences, each with its size and weight, below each other; a mark stands at the right of the first."""
    measure = Canvas(1, 1)
    margin, rows = 12, 10
    placed = []
    for number, (text, size, weight) in enumerate(lines):
        room = columns - 2 * margin - (measure.width(mark, size, 700) + margin if mark and not number else 0)
        for line in measure.wrapped(text, size, room, weight):
            rows += round(1.45 * size)
            placed.append((line, rows, size, weight))
    canvas = Canvas(rows + 18, columns, BAND)
    for line, baseline, size, weight in placed:
        canvas.write(line, margin, baseline, size, WHITE, weight)
    if mark and placed:
        _, baseline, size, _ = placed[0]
        canvas.write(mark, columns - margin - canvas.width(mark, size, 700), baseline, size, WARNING, 700)
    return canvas.pixels


def _picture(pixels: NDArray[np.uint8], outlines: Sequence[Outline], fit: Fit, cell: tuple[int, int]) -> Picture:
    """Draw a mammogram into a cell, with its outlines and their labels."""
    canvas = Canvas(*cell)
    shrinks = fit.rows < pixels.shape[0] or fit.columns < pixels.shape[1]
    grey = cv2.resize(pixels, (fit.columns, fit.rows), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    canvas.paste(np.repeat(grey[..., None], 3, axis=2), fit.left, fit.top)
    # Half a pixel: OpenCV's coordinates begin in the middle of the first pixel, those of contours at its corner.
    scale = np.array([fit.columns / pixels.shape[1], fit.rows / pixels.shape[0]])
    drawn = [outline.contour * scale + (fit.left, fit.top) - 0.5 for outline in outlines]
    thick = max(round(cell[0] / 400), 2)
    for width in (thick + 2, thick):
        for number, points in reversed(list(enumerate(drawn))):  # the most suspicious one on top
            fixed = np.round(points * (1 << SUBPIXEL)).astype(np.int32)
            colour = COLOURS[number % len(COLOURS)] if width == thick else (0, 0, 0)
            cv2.polylines(
                canvas.pixels,
                [fixed],
                isClosed=True,
                color=colour,
                thickness=width,
                lineType=cv2.LINE_AA,
                shift=SUBPIXEL,
            )
    _write_labels(canvas, outlines, [Box.around(points) for points in drawn])
    return canvas.pixels


def _write_labels(canvas: Canvas, outlines: Sequence[Outline], boxes: Sequence[Box]) -> None:
    rows, columns = canvas.pixels.shape[:2]
    size = min(max(round(min(rows, 1.25 * columns) / (30 if len(outlines) <= 12 else 50)), 10), 32)
    sizes = [(canvas.width(outline.label, size, 700) + 4.0, 1.1 * size) for outline in outlines]
    for number, place in enumerate(label_places(boxes, sizes, (columns, rows), size / 3)):
        colour, label = COLOURS[number % len(COLOURS)], outlines[number].label
        x, y = round(place.left) + 2, round(place.bottom - 0.15 * size)
        if label:
            if line := lead(place, boxes[number], size):
                first, last = ((round(x), round(y)) for x, y in line)
                cv2.line(canvas.pixels, first, last, colour, 1, cv2.LINE_AA)
            canvas.write(label, x, y, size, colour, 700, shadow=True)
