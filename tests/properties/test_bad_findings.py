"""Odd findings and odd headers: objects in every form all the same, which say what the findings say."""

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset

from config.mix import ResultKind, SegmentationType
from node.results.edition import Edition
from node.results.encode import ResultObject, encode, to_bytes
from tests.answers import phantom_headers, without_spacing
from tests.bad import (
    ALL,
    BAD,
    MIDDLE,
    MIXES,
    UNREAD,
    Mask,
    all_objects,
    assert_all_said,
    drawn,
    dropping,
    edition,
    forty,
    read_answer,
)

pytestmark = [
    # The source's own long or malformed texts, which pydicom remarks on.
    pytest.mark.filterwarnings("ignore:The value length"),
    pytest.mark.filterwarnings("ignore:Invalid value for VR"),
]

NEEDED = {"StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", "Rows", "Columns"}


FEW = ("findings: holes", "header: lossy", "failed, nothing but the UIDs")


def read_back(given_edition: Edition) -> Iterator[tuple[ResultObject, Dataset]]:
    """Yield each object, those sent in another's place too, as it is read from its file."""
    for made in all_objects(given_edition):
        yield made, dcmread(BytesIO(to_bytes(made.dataset)))


@pytest.mark.parametrize(
    ("case", "mix"),
    [
        # In each run of the tests every case is judged in other forms, by dciodvfy too (test_result_validity.py).
        pytest.param(case, mix, marks=[] if mix == "usual forms" and case in FEW else pytest.mark.slow)
        for case in BAD
        for mix in MIXES
        if not (case in UNREAD and mix == "fractional")
    ],
)
def test_an_odd_answer_gets_every_object_in_every_form(case: str, mix: str) -> None:
    made_for = edition(BAD[case](), MIXES[mix])
    assert_all_said(made_for, read_back(made_for))


@pytest.mark.parametrize("case", ["findings: holes", "header: no spacing", "not analysed, lossy"])
def test_images_that_cannot_be_shown_take_nothing_but_their_pictures(case: str) -> None:
    with_pictures, without = ([made.kind for made in encode(edition(BAD[case](), pictures=p))] for p in (True, False))
    assert [kind for kind in with_pictures if kind is not ResultKind.SC_VIEW] == without


@pytest.mark.parametrize("case", [case for case in UNREAD if case.startswith("not analysed")])
def test_what_was_not_read_says_why(case: str) -> None:
    why = case.partition(", ")[2]
    for made, stored in read_back(edition(UNREAD[case]())):
        if made.kind in (ResultKind.SR, ResultKind.CAD_SR):
            assert why.encode() in to_bytes(stored)


def test_without_spacing_the_report_says_pixels_and_nothing_says_millimetres() -> None:
    answer = read_answer(MIDDLE, change=without_spacing, millimetres=False)
    for made, stored in read_back(edition(answer)):
        if made.kind is ResultKind.SR:
            units = {
                str(element.value[0].CodeValue)
                for element in stored.iterall()
                if element.keyword == "MeasurementUnitsCodeSequence"
            }
            assert units == {"1", "{pixels}"}
        if made.kind in (ResultKind.SEG, ResultKind.PMAP):
            measures = stored.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
            assert min(map(float, measures.PixelSpacing)) >= 1


@st.composite
def noise(draw: st.DrawFn) -> list[Mask]:
    """Draw one to eight masks of an image of any small size, any pixels set, at least one each."""
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    found = [rng.random(shape) < draw(st.floats(0, 1)) for _ in range(draw(st.integers(1, 8)))]
    for mask in found:
        mask[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))] = True
    return found


KEYWORDS = sorted({element.keyword for header in phantom_headers().values() for element in header} - NEEDED)


@given(noise(), st.sets(st.sampled_from(KEYWORDS)), st.sampled_from(sorted(MIXES)))
@settings(max_examples=15)
def test_any_findings_on_any_part_of_a_header_get_every_object(masks: list[Mask], gone: set[str], mix: str) -> None:
    made_for = edition(read_answer(masks, change=dropping(*gone)), MIXES[mix])
    assert_all_said(made_for, read_back(made_for))


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=[] if form == "BINARY" else pytest.mark.slow) for form in SegmentationType]
)
def test_forty_masses_in_a_view_have_forty_segments_groups_and_outlines(form: SegmentationType) -> None:
    answer = read_answer(forty((512, 416)))
    assert answer.findings
    for made, stored in read_back(edition(answer, replace(ALL, segmentation=form))):
        if made.kind is ResultKind.SEG:
            assert [segment.SegmentNumber for segment in stored.SegmentSequence if segment.SegmentNumber] == [
                *range(1, 41)
            ]
        if made.kind is ResultKind.GSPS:
            assert sum(len(layer.get("GraphicObjectSequence", [])) for layer in stored.GraphicAnnotationSequence) == 40
        if made.kind is ResultKind.SR:
            tracked = [element.value for element in stored.iterall() if element.keyword == "UID"]
            assert len(set(tracked)) == len(tracked) == 2 * (40 + 1) + 1  # the masses, the images and the device


def test_the_largest_image_gets_every_object() -> None:
    shape = (6000, 5000)
    masks = drawn(shape, np.s_[0:900, 0:700], np.s_[5000:6000, 4000:5000])
    masks[1][5300:5400, 4300:4400] = False
    made_for = edition(read_answer(masks))
    assert_all_said(made_for, read_back(made_for))
