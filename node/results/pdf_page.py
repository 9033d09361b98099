"""The answer on one printed page: whose and when, the answer in words, its scores and masses, and the four views."""

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from types import MappingProxyType
from typing import Final

from PIL import Image
from pydicom.dataset import Dataset
from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import ImageReader, simpleSplit
from reportlab.pdfbase.pdfmetrics import registerFont, stringWidth
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from ai.exam import SpacingRule, View, ViewPosition
from ai.findings import ExamFindings, LengthUnit, Mass
from node.identity import MANUFACTURER, RESEARCH_USE_ONLY
from node.results.answer import Answer
from node.results.drawing import WORDS_CELL, draw_hanging
from node.results.edition import Edition
from node.results.pages import (
    LABELS,
    LONGEST,
    PRIMARY,
    SCORES,
    exam_scores,
    headline,
    notes,
    origin,
    panels,
    remarks,
    shortened,
)
from node.results.source import plain, source_header

TITLE: Final = "AI mammography summary - research use only"

FONT: Final = "Vera"
BOLD: Final = "VeraBd"
"""Bitstream Vera, which ReportLab brings: embedded, so that every printer has it."""

MARGIN: Final = 36.0
"""Points, of which an inch has 72; so are all lengths here."""

LEADING: Final = 1.35
"""Distance of lines, as a multiple of the letters' size."""

PICTURE_WIDTH: Final = 310.0
PICTURE_CELL: Final = (560, 448)
"""Pixels of a view: about 210 to the inch."""

FOOTER: Final = 84.0
"""Height that is kept for who answered and for the warning."""

TABLE: Final = 72.0
"""Height that is kept for the first rows of the table of masses."""

HEADS: Final = ("View", "Mass", "Score", "Axes", "Area", "Millimetres from", "Perhaps the same as")
STARTS: Final = (0, 46, 84, 124, 224, 294, 418)
"""Columns of the table of masses."""

SPACING: Final[Mapping[SpacingRule, str]] = MappingProxyType(
    {
        SpacingRule.CALIBRATED: "calibrated spacing",
        SpacingRule.MAGNIFICATION: "detector / magnification",
        SpacingRule.DETECTOR: "detector plane",
    }
)
"""Where millimetres come from (rule R11), in few words."""


class Sheet:
    """One page, written from the top; equal writing gives equal bytes."""

    def __init__(self, title: str) -> None:
        for name in (FONT, BOLD):
            registerFont(TTFont(name, f"{name}.ttf"))
        self._buffer = BytesIO()
        self._canvas = Canvas(self._buffer, pagesize=A4, invariant=1, pageCompression=1, initialFontName=FONT)
        self._canvas.setTitle(title)
        self._canvas.setAuthor(MANUFACTURER)
        self._canvas.setSubject(RESEARCH_USE_ONLY)
        self._canvas.setCreator(MANUFACTURER)
        self.width = A4[0] - 2 * MARGIN
        self.y = A4[1] - MARGIN
        """Where the next line begins, from the bottom of the page."""

    def write(self, text: str, size: float, *, font: str = FONT, width: float | None = None) -> None:
        """Write a sentence into as many lines as it takes."""
        for line in self.lines(text, size, font, width or self.width):
            self.y -= LEADING * size
            self._put(line, MARGIN, size, font)

    @staticmethod
    def lines(text: str, size: float, font: str, width: float) -> list[str]:
        """Return the lines that a sentence takes; a word that is wider than a line is broken."""
        lines: list[str] = []
        for line in simpleSplit(text, font, size, width):
            rest = line
            while rest:
                fits = next(n for n in range(len(rest), 0, -1) if n == 1 or stringWidth(rest[:n], font, size) <= width)
                lines.append(rest[:fits])
                rest = rest[fits:]
        return lines

    def row(self, values: Sequence[str], size: float, *, font: str = FONT) -> None:
        """Write values into the columns of the table."""
        self.y -= LEADING * size
        for value, start in zip(values, STARTS, strict=True):
            self._put(value, MARGIN + start, size, font)

    def space(self, height: float) -> None:
        """Leave room."""
        self.y -= height

    def rule(self) -> None:
        """Draw a line across the page."""
        self.y -= 6
        self._canvas.setLineWidth(0.6)
        self._canvas.line(MARGIN, self.y, MARGIN + self.width, self.y)

    def picture(self, image: Image.Image, width: float) -> float:
        """Draw a picture at the right below the last line, without loss, and return where it ends."""
        height = width * image.height / image.width
        bottom: float = self.y - 8 - height
        self._canvas.drawImage(ImageReader(image), MARGIN + self.width - width, bottom, width, height)
        return bottom

    def finished(self) -> bytes:
        """Return the document."""
        self._canvas.showPage()
        self._canvas.save()
        return self._buffer.getvalue()

    def _put(self, text: str, x: float, size: float, font: str) -> None:
        self._canvas.setFont(font, size)
        self._canvas.drawString(x, self.y, text)


def document(edition: Edition) -> bytes:
    """Return the answer as a PDF of one page (ISO 32000-1), A4."""
    answer = edition.answer
    sheet = Sheet(TITLE)
    sheet.write(TITLE, 15, font=BOLD)
    sheet.space(2)
    sheet.write(identity(answer), 9)
    sheet.rule()
    bottom = sheet.picture(_views(edition), PICTURE_WIDTH)
    _write_answer(sheet, answer, sheet.width - PICTURE_WIDTH - 14)
    sheet.y = min(sheet.y, bottom) - 6
    if answer.findings and answer.findings.count:
        _write_masses(sheet, answer.findings)
    sheet.y = MARGIN + FOOTER
    sheet.rule()
    _write_footer(sheet, answer)
    return sheet.finished()


def identity(answer: Answer) -> str:
    """Return whose exam it is: identifiers and date, without the name, which the object's header has."""
    header = source_header(answer.images[0].header)  # a copy: reading a text decodes it in place
    told = [
        f"{label} {plain(value)[:64]}"
        for label, value in (
            ("Patient ID", _text(header, "PatientID")),
            ("Accession", _text(header, "AccessionNumber")),
            ("Study date", _date(_text(header, "StudyDate"))),
        )
        if value
    ]
    return " | ".join(told) or "The images name neither patient nor accession."


def score_lines(findings: ExamFindings) -> Iterator[str]:
    """Yield the scores of the exam and its breasts, then those of the images."""
    yield f"{exam_scores(findings)}."
    yield f"Images: {', '.join(f'{image.view} {image.score}' for image in findings.images)}."


def mass_rows(findings: ExamFindings) -> list[tuple[str, ...]]:
    """Return the table of masses: a row for each, in the order of the images."""
    other = {}
    for match in findings.matches:
        cc, mlo = View(match.laterality, ViewPosition.CC), View(match.laterality, ViewPosition.MLO)
        other[cc, match.cc], other[mlo, match.mlo] = f"{mlo} mass {match.mlo}", f"{cc} mass {match.cc}"
    return [
        (str(image.view), str(mass.number), str(mass.suspicion), *_size(mass), other.get((image.view, mass.number), ""))
        for image in findings.images
        for mass in image.masses
    ]


def _size(mass: Mass) -> tuple[str, str, str]:
    size = mass.size
    if size.unit is LengthUnit.PIXEL or size.rule is None:
        return f"{size.long_axis:.0f} x {size.short_axis:.0f} pixels", f"{size.area:.0f} pixels", "no spacing known"
    return f"{size.long_axis:.1f} x {size.short_axis:.1f} mm", f"{size.area:.0f} mm2", SPACING[size.rule]


def _write_answer(sheet: Sheet, answer: Answer, width: float) -> None:
    """Write the answer in words, scores and remarks into a column."""
    sheet.space(4)
    sheet.write(headline(answer), 11.5, font=BOLD, width=width)
    sections = [
        ("Suspicion scores", list(score_lines(answer.findings)) if answer.findings else []),
        ("Remarks", shortened(remarks(answer), 50, LONGEST)),
    ]
    for title, lines in sections:
        if lines:
            sheet.space(8)
            sheet.write(title, 9, font=BOLD, width=width)
        for line in lines:
            if sheet.y - LEADING * 8 * len(sheet.lines(line, 8, FONT, width)) < MARGIN + FOOTER + TABLE:
                sheet.write(f"More {title.lower()}: see the structured report.", 8, width=width)
                return
            sheet.space(2)
            sheet.write(line, 8, width=width)


def _write_masses(sheet: Sheet, findings: ExamFindings) -> None:
    """Write a row for each mass, or for the most suspicious ones that the page has room for, and how many more there are."""
    size = 8
    sheet.row(HEADS, size, font=BOLD)
    rows = mass_rows(findings)
    room = int((sheet.y - MARGIN - FOOTER - 12) / (LEADING * size))
    count = len(rows) if len(rows) <= room else max(room - 1, 0)
    scores = [mass.suspicion for image in findings.images for mass in image.masses]
    shown = sorted(sorted(range(len(rows)), key=lambda place: -scores[place])[:count])
    for place in shown:
        sheet.row(rows[place], size)
    if count < len(rows):
        sheet.write(f"and {len(rows) - count} more, none of a higher score: see the structured report", size)


def _write_footer(sheet: Sheet, answer: Answer) -> None:
    for line in [
        *origin(answer),
        f"Digest of the model: {answer.model.digest[:64]}",
        *shortened(notes(answer), 3, 140),
    ]:
        sheet.write(line, 7)
    sheet.write(f"{SCORES} {LABELS}" if answer.findings else "", 7)
    sheet.write(f"{PRIMARY} {RESEARCH_USE_ONLY}", 8.5, font=BOLD)


def _views(edition: Edition) -> Image.Image:
    shown = panels(edition)
    cell = PICTURE_CELL if any(panel.pixels is not None for panel in shown.values()) else WORDS_CELL
    return Image.fromarray(draw_hanging(shown, cell))


def _text(header: Dataset, keyword: str) -> str:
    return str(header.get(keyword) or "").strip()


def _date(value: str) -> str:
    """Return a date (DA) with hyphens."""
    return f"{value[:4]}-{value[4:6]}-{value[6:]}" if len(value) == 8 and value.isdecimal() else value
