"""Geometry there and back: a mask through a Segmentation, an outline through a mask."""

from io import BytesIO

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import dcmread

from ai.findings import ExamFindings, ImageFindings
from node.results.answer import Answer, AnswerStatus
from node.results.encode import to_bytes
from node.results.groups import border
from tests.answers import CREATED_AT, MODEL, RIGHT, a_mass, an_answer, segmentations_of, stored_masks

SIZES = st.tuples(st.integers(9, 40), st.integers(9, 40))


@st.composite
def masks(draw: st.DrawFn) -> list[NDArray[np.bool_]]:
    """Draw one to four masks of one size, any pixels set, at least one each."""
    rows, columns = draw(SIZES)
    count = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    drawn = [rng.random((rows, columns)) < draw(st.floats(0, 1)) for _ in range(count)]
    for mask in drawn:
        mask[draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))] = True
    return drawn


def answer_with(drawn: list[NDArray[np.bool_]]) -> Answer:
    """Return an answer of one image with these masks."""
    image = an_answer(read=RIGHT[:1]).images[0]
    image.header.Rows, image.header.Columns = drawn[0].shape
    told = tuple(a_mass(mask, number) for number, mask in enumerate(drawn, start=1))
    found = ImageFindings(image.uid, RIGHT[0], (image.header.Rows, image.header.Columns), told, 50, 0.5)
    findings = ExamFindings(MODEL, (found,), (), 50)
    return Answer("e1", 1, AnswerStatus.FINDINGS, CREATED_AT, (image,), MODEL, findings)


@given(masks())
def test_a_mask_read_back_from_the_file_is_the_mask(drawn: list[NDArray[np.bool_]]) -> None:
    made = segmentations_of(answer_with(drawn))[0]
    stored = dcmread(BytesIO(to_bytes(made.dataset)))
    np.testing.assert_array_equal(stored_masks(stored), np.stack(drawn))


@given(SIZES, st.floats(0.2, 0.8), st.floats(0.2, 0.8), st.floats(2, 15), st.floats(2, 15), st.floats(0, 180))
def test_an_outline_filled_again_is_the_mask_within_one_pixel(
    size: tuple[int, int], x: float, y: float, width: float, height: float, angle: float
) -> None:
    mask = np.zeros(size, np.uint8)
    cv2.ellipse(mask, ((x * size[1], y * size[0]), (width, height), angle), 1, -1)
    mask[int(y * size[0]), int(x * size[1])] = 1
    mass = a_mass(mask.astype(np.bool_))
    filled = np.zeros(size, np.uint8)
    # SCOORD's origin is the corner of the first pixel, OpenCV's its centre (PS3.3 C.18.6.1.2).
    cv2.fillPoly(filled, [np.round(mass.contour - 0.5).astype(np.int32)], (1,))
    wide, narrow = (
        cv2.dilate(mask, np.ones((3, 3), np.uint8)),
        cv2.erode(mask, np.ones((3, 3), np.uint8), borderValue=0),
    )
    assert not np.any(filled > wide)
    assert not np.any(narrow > filled)


@given(masks())
def test_an_outline_stays_within_the_image_and_is_closed(drawn: list[NDArray[np.bool_]]) -> None:
    for mask in drawn:
        points = a_mass(mask).contour
        assert (points[0] == points[-1]).all()
        assert (points >= 0).all()
        assert (points <= mask.shape[::-1]).all()


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_the_border_is_closed_and_within_the_image(rows: int, columns: int) -> None:
    points = border(rows, columns)
    assert points.shape == (5, 2)
    assert (points[0] == points[-1]).all()
    assert (points >= 0).all()
    assert (points <= [columns, rows]).all()
