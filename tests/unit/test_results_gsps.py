"""Presentation states: outlines at their place, scores in words, and the source's own grey."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from ai.exam import STANDARD_VIEWS, Laterality
from ai.findings import ImageFindings, Mass
from ai.pixels import presentation_values
from config.mix import ObjectMix, ResultKind
from node.phantom import phantom_exam
from node.results.answer import Answer, ImageAnswer
from node.results.geometry import MOST_POINTS, thinned
from tests.answers import (
    FORMS,
    MODEL,
    RIGHT,
    a_mass,
    an_answer,
    encoded,
    findings,
    phantom_headers,
    segmentations_of,
)
from tests.builders import R_CC

STATES = ObjectMix((ResultKind.GSPS,))


@cache
def an_image() -> Dataset:
    """Return the R CC image of the answers, with its pixels; copy before changing it."""
    return phantom_exam(3, small=True).image(R_CC)


def states_of(answer: Answer) -> dict[str, Dataset]:
    """Return the presentation states of an answer by the image that they belong to."""
    return {made.image_uid or "": made.dataset for made in encoded(answer, STATES)}


def state_of(change: Callable[[Dataset], None]) -> Dataset:
    """Return the state of an R CC image whose header was changed."""
    return next(iter(states_of(an_answer(read=[R_CC], change=change)).values()))


def layer(state: Dataset, name: str) -> Dataset | None:
    """Return what is drawn in a layer."""
    return next((a for a in state.GraphicAnnotationSequence if a.GraphicLayer == name), None)


def summary(state: Dataset) -> str:
    """Return the sentences about the image."""
    words = layer(state, "AI TEXT")
    assert words is not None
    [text] = words.TextObjectSequence
    return str(text.UnformattedTextValue)


@pytest.mark.parametrize("form", FORMS)
def test_every_image_that_was_read_has_one_state_and_no_other_has(form: str) -> None:
    answer = FORMS[form]()
    states = states_of(answer)
    assert set(states) == {image.uid for image in answer.images if image.not_read is None}
    for uid, state in states.items():
        [series] = state.ReferencedSeriesSequence
        [reference] = series.ReferencedImageSequence
        assert reference.ReferencedSOPInstanceUID == uid
    assert len({state.SeriesInstanceUID for state in states.values()}) == len(states)


def test_outlines_and_labels_carry_contour_number_score_and_the_tracking_uid_of_the_segment() -> None:
    answer = an_answer()
    segments = {made.image_uid: made.dataset.SegmentSequence for made in segmentations_of(answer)}
    for image in answer.images:
        found = answer.findings_of(image)
        assert found is not None
        drawn = layer(states_of(answer)[image.uid], "AI OUTLINES")
        assert drawn is not None
        objects = zip(found.masses, drawn.GraphicObjectSequence, drawn.TextObjectSequence, strict=True)
        for (mass, outline, label), segment in zip(objects, segments[image.uid], strict=True):
            assert outline.GraphicType == "POLYLINE"
            assert outline.GraphicAnnotationUnits == label.BoundingBoxAnnotationUnits == "PIXEL"
            assert np.reshape(outline.GraphicData, (-1, 2)) == pytest.approx(mass.contour, abs=1e-3)
            assert outline.NumberOfGraphicPoints == len(mass.contour)
            assert outline.TrackingUID == label.TrackingUID == segment.TrackingUID
            assert outline.TrackingID == segment.TrackingID
            assert label.UnformattedTextValue == f"Mass {mass.number} score {mass.suspicion}"


def test_the_outline_of_one_pixel_goes_around_that_pixel() -> None:
    """PIXEL units begin with 0, 0 at the corner of the first pixel, whose other corner is 1, 1 (PS3.3 C.10.5)."""
    mask = np.zeros((512, 416), np.bool_)
    mask[7, 3] = True
    drawn = layer(state_with(a_mass(mask)), "AI OUTLINES")
    assert drawn is not None
    points = np.reshape(drawn.GraphicObjectSequence[0].GraphicData, (-1, 2))
    assert points.mean(axis=0)[0] == pytest.approx(3.5, abs=0.2)
    assert (points >= (3, 7)).all()
    assert (points <= (4, 8)).all()


def state_with(*masses: Mass) -> Dataset:
    """Return the state of an R CC image with these masses."""
    answer = an_answer(read=[R_CC])
    assert answer.findings is not None
    image = replace(answer.findings.images[0], masses=masses)
    return next(iter(states_of(replace(answer, findings=replace(answer.findings, images=(image,)))).values()))


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 380), (480, 0), (480, 380), (250, 200)])
def test_labels_stay_in_the_image(row: int, column: int) -> None:
    mask = np.zeros((512, 416), np.bool_)
    mask[row : row + 32, column : column + 36] = True
    drawn = layer(state_with(*(a_mass(mask, n) for n in range(1, 41))), "AI OUTLINES")
    assert drawn is not None
    for label in drawn.TextObjectSequence:
        (left, top), (right, bottom) = label.BoundingBoxTopLeftHandCorner, label.BoundingBoxBottomRightHandCorner
        assert 0 <= left < right <= 416
        assert 0 <= top < bottom <= 512


def test_an_image_of_one_pixel_has_a_state() -> None:
    header = deepcopy(phantom_headers()[R_CC])
    header.Rows = header.Columns = 1
    mask = np.ones((1, 1), np.bool_)
    image = ImageFindings(str(header.SOPInstanceUID), R_CC, (1, 1), (a_mass(mask),), 60, 0.6)
    found = replace(findings([R_CC]), images=(image,))
    answer = replace(an_answer(read=[R_CC]), images=(ImageAnswer(header, R_CC),), findings=found)
    [state] = states_of(answer).values()
    drawn = layer(state, "AI OUTLINES")
    assert drawn is not None
    assert 0 <= min(drawn.GraphicObjectSequence[0].GraphicData) <= max(drawn.GraphicObjectSequence[0].GraphicData) <= 1
    [area] = state.DisplayedAreaSelectionSequence
    assert area.DisplayedAreaBottomRightHandCorner == [2, 2]


def test_an_image_without_masses_says_so_and_draws_nothing() -> None:
    for state in states_of(an_answer(masses=False)).values():
        assert layer(state, "AI OUTLINES") is None
        assert [item.GraphicLayer for item in state.GraphicLayerSequence] == ["AI TEXT"]
        assert summary(state).startswith("AI: no mass, image score 60 (0-100, not a probability)")


def test_the_words_tell_count_model_and_research_use() -> None:
    for state in states_of(an_answer()).values():
        lines = summary(state).split("\r\n")
        assert lines[0] == "AI: 1 mass, image score 60 (0-100, not a probability)"
        assert f"{MODEL.name} {MODEL.version}, revision 1" in lines
        assert lines[-1] == "Research use only. Not for clinical diagnosis."


def test_the_words_of_a_partial_answer_name_the_views_that_were_not_read() -> None:
    for state in states_of(an_answer(read=RIGHT, complete=False)).values():
        assert "AI: not read: L CC, L MLO" in summary(state)


def test_the_words_tell_of_masses_below_the_threshold() -> None:
    made = encoded(an_answer(), ObjectMix((ResultKind.GSPS,), threshold=99))
    assert {summary(each.dataset).split("\r\n")[1] for each in made} == {"AI: 4 less suspicious not shown in this exam"}


@pytest.mark.parametrize(
    ("orientation", "left"), [(["P", "L"], 0), (["A", "R"], 0.64), ("A", 0), (None, 0), (["", ""], 0)]
)
def test_the_words_stand_on_the_nipples_side(orientation: object, left: float) -> None:
    def change(header: Dataset) -> None:
        header.PatientOrientation = orientation

    words = layer(state_of(change), "AI TEXT")
    assert words is not None
    [text] = words.TextObjectSequence
    assert text.BoundingBoxAnnotationUnits == "DISPLAY"
    assert text.BoundingBoxTopLeftHandCorner[0] == pytest.approx(left)


def test_laterality_is_that_of_the_view_and_the_whole_image_is_displayed() -> None:
    answer = an_answer()
    for image in answer.images:
        state = states_of(answer)[image.uid]
        assert image.view
        assert state.Laterality == image.view.laterality
        [area] = state.DisplayedAreaSelectionSequence
        assert area.DisplayedAreaTopLeftHandCorner == [1, 1]
        assert area.DisplayedAreaBottomRightHandCorner == [416, 512]
        assert area.PresentationPixelAspectRatio == [1, 1]


def test_a_header_without_laterality_has_that_of_the_view_that_was_read() -> None:
    def change(header: Dataset) -> None:
        del header.ImageLaterality

    assert state_of(change).Laterality == Laterality.RIGHT


@pytest.mark.parametrize(
    ("spacing", "ratio", "told"),
    [
        ([0.2, 0.1], None, [2000, 1000]),
        (None, [2, 1], [2000, 1000]),
        (None, None, [1, 1]),
        ([0.00001, 0.1], None, [1, 1]),
        ([100, 0.1], [1, 2], [500, 1000]),
    ],
)
def test_pixels_that_are_not_square_are_shown_as_they_are_read(
    spacing: list[float] | None, ratio: list[int] | None, told: list[int]
) -> None:
    def change(header: Dataset) -> None:
        header.ImagerPixelSpacing, header.PixelAspectRatio = spacing, ratio

    [area] = state_of(change).DisplayedAreaSelectionSequence
    assert area.PresentationPixelAspectRatio == told


def voi_lut(header: Dataset, first: int = 0) -> None:
    lut = Dataset()
    lut.add_new("LUTDescriptor", "SS" if first < 0 else "US", [4096, first, 16])
    lut.LUTData = (np.sqrt(np.arange(4096) / 4095) * 65535).astype("<u2").tobytes()
    lut["LUTData"].VR = "OW"
    header.VOILUTSequence = [lut]


def sigmoid(header: Dataset) -> None:
    header.VOILUTFunction = "SIGMOID"


def single_window(header: Dataset) -> None:
    header.WindowCenter, header.WindowWidth = "1200", "800"


def no_window(header: Dataset) -> None:
    for keyword in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation"):
        delattr(header, keyword)


def monochrome1(header: Dataset) -> None:
    header.PhotometricInterpretation, header.PresentationLUTShape = "MONOCHROME1", "INVERSE"


def no_rescale_type(header: Dataset) -> None:
    header.RescaleSlope, header.RescaleIntercept = "2", "-100"
    del header.RescaleType


def no_rescale(header: Dataset) -> None:
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        delattr(header, keyword)


def modality_lut(header: Dataset) -> None:
    no_rescale(header)
    lut = Dataset()
    lut.LUTDescriptor = [4096, 0, 16]
    lut.ModalityLUTType = "US"
    lut.LUTData = (np.arange(4096) * 16).tolist()
    lut["LUTData"].VR = "US"
    header.ModalityLUTSequence = [lut]
    header.WindowCenter, header.WindowWidth = "30000", "50000"


def negative_lut(header: Dataset) -> None:
    header.RescaleIntercept = "-1000"
    voi_lut(header, -1000)


CHANGES = (
    *(sigmoid, single_window, no_window, monochrome1, voi_lut, negative_lut),
    *(no_rescale_type, no_rescale, modality_lut),
)


@pytest.mark.parametrize("change", [lambda _: None, *CHANGES])
def test_the_image_is_as_grey_under_the_state_as_its_sender_meant_it(change: Callable[[Dataset], None]) -> None:
    image = deepcopy(an_image())
    change(image)
    state = state_of(change)
    assert "WindowCenter" not in state
    values = apply_modality_lut(image.pixel_array, state)
    for item in state.get("SoftcopyVOILUTSequence", ()):
        values = (
            lut_values(values, item)
            if "VOILUTSequence" in item
            else apply_voi_lut(values, windowed(item, image, state))
        )
    shown = (values - values.min()) / float(np.ptp(values))
    if state.PresentationLUTShape == "INVERSE":
        shown = 1 - shown
    assert shown == pytest.approx(presentation_values(image), abs=1e-4)


def windowed(item: Dataset, image: Dataset, state: Dataset) -> Dataset:
    """Return a window with what pydicom wants to know of the stored values and the rescaling."""
    described = deepcopy(item)
    described.PhotometricInterpretation = "MONOCHROME2"
    described.BitsStored, described.PixelRepresentation = image.BitsStored, image.PixelRepresentation
    for keyword in ("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"):
        if keyword in state:
            described[keyword] = state[keyword]
    return described


def lut_values(values: NDArray[np.float64], item: Dataset) -> NDArray[np.float64]:
    """Return values looked up in a VOI LUT (PS3.3 C.11.2.1.1)."""
    [lut] = item.VOILUTSequence
    entries, first, _ = lut.LUTDescriptor
    table = np.frombuffer(lut.LUTData, "<u2").astype(np.float64)
    index: NDArray[np.int64] = np.clip(np.rint(values).astype(np.int64) - first, 0, entries - 1)
    return table[index]


def test_the_first_of_several_windows_is_taken_with_its_function() -> None:
    [item] = state_of(sigmoid).SoftcopyVOILUTSequence
    assert (item.WindowCenter, item.WindowWidth, item.VOILUTFunction) == (2048, 4096, "SIGMOID")


def test_a_source_without_any_window_gets_none() -> None:
    assert "SoftcopyVOILUTSequence" not in state_of(no_window)


def test_a_lut_of_all_16_bits_has_the_length_zero() -> None:
    def change(header: Dataset) -> None:
        voi_lut(header)
        header.VOILUTSequence[0].LUTDescriptor = [0, 0, 16]
        header.VOILUTSequence[0].LUTData = bytes(1 << 17)

    [item] = state_of(change).SoftcopyVOILUTSequence
    assert list(item.VOILUTSequence[0].LUTDescriptor) == [0, 0, 16]


def test_no_date_is_that_of_the_clock() -> None:
    for state in states_of(an_answer()).values():
        assert state.PresentationCreationDate == "20260304"
        assert str(state.PresentationCreationTime).startswith("050607")
        assert "ContentDate" not in state


def test_a_long_outline_is_thinned_to_what_an_element_holds_and_stays_where_it_is() -> None:
    angle = np.linspace(0, 2 * np.pi, 30_000)
    radius = 2000 + 3 * np.sin(4000 * angle)
    contour = np.stack([2500 + radius * np.cos(angle), 2500 + radius * np.sin(angle)], axis=1)
    short = thinned(contour)
    assert len(short) <= MOST_POINTS
    assert short[0] == pytest.approx(short[-1])
    assert np.hypot(*(short - 2500).T) == pytest.approx(2000, abs=5)
    assert thinned(contour[:100]) is not None
    assert (thinned(contour[:100]) == contour[:100]).all()


def test_series_are_told_apart_by_view_and_number() -> None:
    states = list(states_of(an_answer()).values())
    assert [state.SeriesNumber for state in states] == [19100, 19101, 19102, 19103]
    assert [str(view) in state.SeriesDescription for view, state in zip(STANDARD_VIEWS, states, strict=True)] == [
        True
    ] * 4
