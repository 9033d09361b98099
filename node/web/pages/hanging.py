"""The standard views of an exam as its page hangs them, with what was found drawn upon them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ai.exam import STANDARD_VIEWS
from node.results.labels import Box, Point, label_places, lead
from storage.exams import ExamImage, ExamRecord
from storage.previews import Preview, PreviewKind
from storage.states import ExamState

LETTER: Final = 0.6
"""Width of a bold figure, colon or blank over its height, on average; measured on a label in Chromium: 0.57 to 0.59."""


@dataclass(frozen=True)
class Mark:
    """A mass as it is drawn.

    Attributes
    ----------
    number, score, size
        As in the answer.
    points
        Of its outline on the picture.
    label
        Left end of its label, and the line that the letters stand on.
    lead
        The line from a label to its outline where it stands further off.
    """

    number: int
    score: int
    size: str
    points: str
    label: tuple[float, float]
    lead: tuple[Point, Point] | None


@dataclass(frozen=True)
class Shown:
    """A standard view of the exam.

    Attributes
    ----------
    view
        As radiologists say it.
    image_uid
        None without an image.
    why
        Why it was not read; None when it was.
    score, warnings, marks
        What was found.
    width, height, letters
        Of its picture in the units of the marks, and how high their letters are: square, so that no letter is stretched.
    pictures
        Addresses of its pictures, by kind.
    """

    view: str
    image_uid: str | None
    why: str | None
    score: int | None
    width: int
    height: float
    letters: float
    warnings: tuple[str, ...]
    marks: tuple[Mark, ...]
    pictures: Mapping[str, str]


def views_of(
    exam: ExamRecord,
    answer: Mapping[str, Any] | None,
    pictures: Sequence[Preview],
    decided: Sequence[ExamImage],
    unused: Mapping[str, str],
) -> tuple[Shown, ...]:
    """Return the standard views of a revision.

    Parameters
    ----------
    answer
        Its facts; None without an answer.
    pictures, decided
        Its pictures, and which images it was closed with.
    unused
        View → why an image of it was not used.
    """
    told = {image["view"]: image for image in (answer or {}).get("images", ()) if image["view"]}
    chosen = {image.view: image.instance_uid for image in decided if image.chosen}
    none = "The exam is still being received." if _is_open(exam, decided) else "No image of this view."
    shown = []
    for standard in STANDARD_VIEWS:
        view = str(standard)
        image = told.get(view)
        uid = image["uid"] if image else chosen.get(view)
        own = {preview.kind: preview for preview in pictures if preview.image_uid == uid}
        addresses = {
            kind.value: f"/exams/{exam.uid}/pictures/{preview.job_id}/{preview.image_uid}/{kind}"
            for kind, preview in own.items()
        }
        read = image is not None and not image["not_read"]
        hung = own.get(PreviewKind.VIEW)
        width, height = _size(image) if image and read else (0, 0.0)
        shown.append(
            Shown(
                view=view,
                image_uid=uid,
                why=None if read else _why(image, uid, answer) or _said("Not used", unused.get(view)) or none,
                score=image["score"] if image and read else None,
                width=width,
                height=height,
                letters=_letters(width, height),
                warnings=tuple(image["warnings"]) if image and read else (),
                marks=tuple(_marks(image, hung)) if image and read else (),
                pictures=addresses,
            )
        )
    return tuple(shown)


def _is_open(exam: ExamRecord, decided: Sequence[ExamImage]) -> bool:
    return exam.state is ExamState.COLLECTING and not decided


def _why(image: Mapping[str, Any] | None, uid: str | None, answer: Mapping[str, Any] | None) -> str:
    if image is not None:
        return _said("Not read", image["not_read"])
    if uid is not None:
        return "Not read yet." if answer is None else "Not read."
    return ""


def _said(what: str, why: str | None) -> str:
    return f"{what}: {why.rstrip('.')}." if why else ""


def _size(image: Mapping[str, Any]) -> tuple[int, float]:
    """Return width and height of an image, in widths of its pixels; facts of earlier versions tell of square ones alone."""
    return image["columns"], image["rows"] * image.get("pixel_aspect", 1.0)


def _letters(width: float, height: float) -> float:
    return min(height, 1.25 * width) / 26


def _marks(image: Mapping[str, Any], hung: Preview | None) -> Iterator[Mark]:
    masses, (width, height) = image["masses"], _size(image)
    aspect, letters = height / image["rows"], _letters(width, height)
    outlines = [
        [
            (width - x if hung and hung.sideways else x, height - y * aspect if hung and hung.upright else y * aspect)
            for x, y in mass["contour"]
        ]
        for mass in masses
    ]
    boxes = [Box.around(points) for points in outlines]
    sizes = [(LETTER * letters * len(f"{mass['number']}: {mass['suspicion']}"), 1.1 * letters) for mass in masses]
    places = label_places(boxes, sizes, (width, height), 0.3 * letters)
    for mass, points, box, place in zip(masses, outlines, boxes, places, strict=True):
        unit = mass["unit"] if mass["unit"] == "mm" else "pixels"
        yield Mark(
            number=mass["number"],
            score=mass["suspicion"],
            size=f"{mass['long_axis']:.0f} x {mass['short_axis']:.0f} {unit}",
            points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points),
            label=(place.left, place.bottom - 0.2 * letters),
            lead=lead(place, box, letters),
        )


def place(view: str) -> int:
    """Return where a view stands in the usual order; others come last."""
    usual = [str(standard) for standard in STANDARD_VIEWS]
    return usual.index(view) if view in usual else len(usual)
