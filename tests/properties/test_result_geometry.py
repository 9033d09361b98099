"""Every object puts a mass at the same place: masks there and back, outlines on their masks, whatever the view."""

from collections.abc import Iterator
from io import BytesIO

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from ai.breast import Geometry
from ai.exam import STANDARD_VIEWS, Laterality, View
from ai.findings import ExamFindings, ImageFindings, Mass
from ai.readers.lesions import LesionRule, find_masses
from config.mix import ObjectMix, ReportClass, ResultKind, SegmentationType
from node.results.answer import Answer, AnswerStatus
from node.results.encode import to_bytes
from tests.answers import CREATED_AT, MODEL, a_mass, an_answer, encoded, stored_masks

Mask = NDArray[np.bool_]
OUTLINED = (ResultKind.SR, ResultKind.CAD_SR, ResultKind.GSPS)
ORIENTATIONS = [["P", "L"], ["A", "R"], ["A", "FR"], ["P", "HL"], ["L", "F"], None]
"""Patient Orientation: rows to and from the chest wall, an oblique view, one turned by 90 degrees, and none."""


def answer_on(view: View, masses: tuple[Mass, ...], shape: tuple[int, int], orientation: list[str] | None) -> Answer:
    """Return an answer of one image with these masses."""
    image = an_answer(read=[view]).images[0]
    image.header.Rows, image.header.Columns = shape
    image.header.PatientOrientation = orientation
    found = ImageFindings(image.uid, view, shape, masses, 90, 0.9)
    return Answer("e1", 1, AnswerStatus.FINDINGS, CREATED_AT, (image,), MODEL, ExamFindings(MODEL, (found,), (), 90))


def made(answer: Answer, *kinds: ResultKind, form: SegmentationType = SegmentationType.BINARY) -> list[Dataset]:
    """Return objects as they are read from their files."""
    mix = ObjectMix(kinds, segmentation=form, report=ReportClass.COMPREHENSIVE)
    return [dcmread(BytesIO(to_bytes(each.dataset))) for each in encoded(answer, mix)]


@st.composite
def noise(draw: st.DrawFn) -> list[Mask]:
    """Draw one to five masks of an image of any small size, any pixels set, at least one each."""
    shape = draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    drawn = [rng.random(shape) < draw(st.floats(0, 1)) for _ in range(draw(st.integers(1, 5)))]
    for mask in drawn:
        mask[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))] = True
    return drawn


@st.composite
def blobs(draw: st.DrawFn) -> Mask:
    """Draw one connected region without holes, with spurs and bays, anywhere in an image, its border included."""
    shape = draw(st.tuples(st.integers(12, 60), st.integers(12, 60)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    smooth = cv2.GaussianBlur(rng.random(shape).astype(np.float32), (0, 0), draw(st.floats(0.8, 4)))
    return filled_part(smooth > np.quantile(smooth, draw(st.floats(0.3, 0.95))))


def filled_part(mask: Mask) -> Mask:
    """Return the part that an outline goes round: the largest, with its holes filled."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    part = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(part, [max(found, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return part.astype(np.bool_)


def items(parent: Dataset) -> Iterator[Dataset]:
    for item in parent.get("ContentSequence") or []:
        yield item
        yield from items(item)


def outlines(target: Dataset) -> dict[str, NDArray[np.float64]]:
    """Return the outlines of masses that an object draws, by Tracking UID."""
    if "GraphicAnnotationSequence" in target:
        drawn = [
            graphic for layer in target.GraphicAnnotationSequence for graphic in layer.get("GraphicObjectSequence", [])
        ]
        assert {graphic.GraphicAnnotationUnits for graphic in drawn} <= {"PIXEL"}
        return {str(graphic.TrackingUID): points(graphic) for graphic in drawn}
    found = {}
    for item in items(target):
        inner = list(item.get("ContentSequence") or [])
        tracking = [str(each.UID) for each in inner if each.get("ValueType") == "UIDREF" and named(each) == "112040"]
        drawn = [each for each in inner if each.get("ValueType") == "SCOORD" and each.GraphicType == "POLYLINE"]
        whole = [
            each
            for each in inner
            if each.get("ValueType") == "TEXT" and str(each.TextValue).startswith("Image summary")
        ]
        if tracking and drawn and not whole:
            found[tracking[0]] = points(drawn[0])
    return found


def named(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in item else ""


def points(item: Dataset) -> NDArray[np.float64]:
    return np.array(item.GraphicData, np.float64).reshape(-1, 2)


def assert_within_a_pixel(outline: NDArray[np.float64], mask: Mask) -> None:
    """Fill an outline again: it covers the mask without its outermost pixels, and nothing beyond those next to it."""
    assert (outline[0] == outline[-1]).all()
    assert (outline >= 0).all()
    assert (outline <= mask.shape[::-1]).all()
    again = np.zeros(mask.shape, np.uint8)
    # SCOORD's origin is the corner of the first pixel, OpenCV's its centre (PS3.3 C.18.6.1.2).
    cv2.fillPoly(again, [np.round(16 * (outline - 0.5)).astype(np.int32)], (1,), shift=4)
    whole, square = mask.astype(np.uint8), np.ones((3, 3), np.uint8)
    assert not np.any(again > cv2.dilate(whole, square))
    assert not np.any(cv2.erode(whole, square, borderValue=0) > again)


@pytest.mark.parametrize("form", SegmentationType)
@given(noise())
def test_masks_come_back_from_the_file_as_they_were(form: SegmentationType, drawn: list[Mask]) -> None:
    masses = tuple(a_mass(mask, n) for n, mask in enumerate(drawn, start=1))
    (stored,) = made(answer_on(STANDARD_VIEWS[0], masses, drawn[0].shape, ["P", "L"]), ResultKind.SEG, form=form)
    expected = np.stack(drawn)
    if form is SegmentationType.LABELMAP:
        expected &= np.cumsum(expected, axis=0) == 1  # the first, which is the most suspicious, has the pixel
    np.testing.assert_array_equal(stored_masks(stored), expected)


@given(blobs(), st.sampled_from(STANDARD_VIEWS), st.sampled_from(ORIENTATIONS))
def test_every_outline_lies_on_the_mask_of_its_segment(mask: Mask, view: View, orientation: list[str] | None) -> None:
    answer = answer_on(view, (a_mass(mask),), (mask.shape[0], mask.shape[1]), orientation)
    segmentation, *others = made(answer, ResultKind.SEG, *OUTLINED)
    (segment,) = segmentation.SegmentSequence
    (stored,) = stored_masks(segmentation)
    assert len(others) == len(OUTLINED)
    for target in others:
        found = outlines(target)
        assert list(found) == [segment.TrackingUID]
        assert_within_a_pixel(found[segment.TrackingUID], stored)


@st.composite
def placed(draw: st.DrawFn) -> tuple[Geometry, tuple[float, float]]:
    """Draw a crop, mirrored or not, of an image, and a place on its canvas."""
    rows, columns = draw(st.integers(60, 200)), draw(st.integers(60, 200))
    x, y = draw(st.integers(0, columns - 50)), draw(st.integers(0, rows - 50))
    width, height = draw(st.integers(50, columns - x)), draw(st.integers(50, rows - y))
    scale = min(80 / width, 96 / height) * draw(st.floats(0.7, 1))
    geometry = Geometry((rows, columns), (x, y, width, height), draw(st.booleans()), (scale, scale), (96, 80))
    across, down = geometry.covered
    return geometry, (draw(st.floats(0.3, 0.7)) * across, draw(st.floats(0.3, 0.7)) * down)


@given(placed(), st.floats(3, 7), st.floats(3, 7), st.sampled_from(STANDARD_VIEWS))
def test_what_the_network_sees_is_in_every_object_where_it_is_in_the_image(
    drawn: tuple[Geometry, tuple[float, float]], wide: float, high: float, view: View
) -> None:
    geometry, centre = drawn
    y, x = np.mgrid[:96, :80] + 0.5
    seen = np.exp(-(((x - centre[0]) / wide) ** 2 + ((y - centre[1]) / high) ** 2)).astype(np.float32)
    masses = find_masses(seen, seen, geometry, None, LesionRule(), 0)
    segmentation, *others = made(answer_on(view, masses, geometry.shape, ["P", "L"]), ResultKind.SEG, *OUTLINED)
    (stored,) = stored_masks(segmentation)
    place = geometry.points_to_image(np.array([centre], np.float64))[0]
    rows, columns = np.nonzero(stored)
    pixel = max(1 / geometry.scale[0], 1)
    assert np.abs([columns.mean() + 0.5, rows.mean() + 0.5] - place).max() < pixel
    for target in others:
        (outline,) = outlines(target).values()
        assert_within_a_pixel(outline, stored)
        low, high_ = outline.min(0), outline.max(0)
        assert np.abs((low + high_) / 2 - place).max() < 1.5 * pixel


@given(
    st.integers(1, 40), st.integers(1, 40), st.data(), st.sampled_from(STANDARD_VIEWS), st.sampled_from(ORIENTATIONS)
)
def test_one_pixel_is_outlined_round_its_centre_which_is_half_a_pixel_from_its_corner(
    rows: int, columns: int, data: st.DataObject, view: View, orientation: list[str] | None
) -> None:
    row, column = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    mask = np.zeros((rows, columns), np.bool_)
    mask[row, column] = True
    for target in made(answer_on(view, (a_mass(mask),), (rows, columns), orientation), *OUTLINED):
        (outline,) = outlines(target).values()
        assert (outline.min(0) + outline.max(0)) / 2 == pytest.approx([column + 0.5, row + 0.5], abs=1e-4)
        assert (outline >= [column, row]).all()
        assert (outline <= [column + 1, row + 1]).all()
        assert np.ptp(outline, axis=0).min() > 0


@pytest.mark.parametrize("laterality", Laterality)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_known_rectangle_has_known_corners(laterality: Laterality, orientation: list[str] | None) -> None:
    mask = np.zeros((20, 30), np.bool_)
    mask[4:9, 11:20] = True
    view = next(view for view in STANDARD_VIEWS if view.laterality is laterality)
    for target in made(answer_on(view, (a_mass(mask),), (20, 30), orientation), *OUTLINED):
        (outline,) = outlines(target).values()
        # Rows 4 to 8 and columns 11 to 19: through the centres of the corner pixels.
        assert {tuple(point) for point in outline.tolist()} == {(11.5, 4.5), (19.5, 4.5), (19.5, 8.5), (11.5, 8.5)}
