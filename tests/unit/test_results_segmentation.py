"""The segmentation: the one form that viewers and DCMQI take, and what it says of each mass."""

from dataclasses import replace

import numpy as np
import pytest
from pydicom.dataset import Dataset

from ai.exam import STANDARD_VIEWS
from ai.findings import ExamFindings, ImageFindings
from ai.pixels import pixel_spacing
from config.mix import ObjectMix, ResultKind, SegmentationType
from node.results.answer import Answer, AnswerStatus
from node.results.encode import ResultObject
from tests.answers import (
    CREATED_AT,
    MODEL,
    RIGHT,
    a_mass,
    an_answer,
    encoded,
    phantom_headers,
    phantom_masks,
    segmentations_of,
    stored_masks,
    without_spacing,
)


def by_image(answer: Answer) -> dict[str, ResultObject]:
    """Return the Segmentations by the image they belong to."""
    return {str(made.image_uid): made for made in segmentations_of(answer)}


def told(answer: Answer) -> ExamFindings:
    assert answer.findings
    return answer.findings


def test_each_image_with_masses_has_one_segmentation_in_a_series_of_its_own() -> None:
    answer = an_answer()
    made = segmentations_of(answer)
    assert [seg.image_uid for seg in made] == [image.uid for image in told(answer).images if image.masses]
    assert len({seg.series_uid for seg in made}) == len({seg.dataset.SeriesNumber for seg in made}) == len(made) > 1
    assert {seg.study_uid for seg in made} == {str(answer.images[0].header.StudyInstanceUID)}


def test_an_exam_without_masses_has_no_segmentation() -> None:
    assert segmentations_of(an_answer(masses=False)) == []


def test_the_segments_are_the_masses_pixel_for_pixel() -> None:
    made = by_image(an_answer())
    for view in STANDARD_VIEWS:
        header = phantom_headers()[view]
        if phantom_masks()[view]:
            segmentation = made[str(header.SOPInstanceUID)].dataset
            assert (segmentation.Rows, segmentation.Columns) == (header.Rows, header.Columns)
            np.testing.assert_array_equal(stored_masks(segmentation), np.stack(phantom_masks()[view]))


def test_a_segment_says_number_side_score_colour_and_algorithm() -> None:
    answer = an_answer()
    for found in told(answer).images:
        if not found.masses:
            continue
        segments = by_image(answer)[found.uid].dataset.SegmentSequence
        side = found.view.laterality
        assert [segment.SegmentLabel for segment in segments] == [
            f"Mass {m.number} {side} score {m.suspicion}" for m in found.masses
        ]
        for segment in segments:
            assert len(segment.RecommendedDisplayCIELabValue) == 3
            assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "phantom-reader"
            modifier = segment.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0]
            assert modifier.CodeMeaning[0] == side


def test_viewers_find_the_geometry_they_need_and_no_frame_of_reference() -> None:
    for made in segmentations_of(an_answer()):
        segmentation = made.dataset
        shared = segmentation.SharedFunctionalGroupsSequence[0]
        spacing = pixel_spacing(next(h for h in phantom_headers().values() if h.SOPInstanceUID == made.image_uid))
        assert spacing
        assert [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing] == pytest.approx(
            [spacing.row, spacing.column]
        )
        assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
        for frame in segmentation.PerFrameFunctionalGroupsSequence:
            assert list(frame.PlanePositionSequence[0].ImagePositionPatient) == [0, 0, 0]
            source = frame.DerivationImageSequence[0].SourceImageSequence[0]
            assert source.ReferencedSOPInstanceUID == made.image_uid
        assert "FrameOfReferenceUID" not in segmentation
        assert segmentation.PatientOrientation


def test_without_any_spacing_lengths_count_pixels() -> None:
    shared = segmentations_of(an_answer(millimetres=False, change=without_spacing))[
        0
    ].dataset.SharedFunctionalGroupsSequence[0]
    assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == [1, 1]


def test_a_source_with_a_frame_of_reference_gives_the_same_form() -> None:
    def place(header: Dataset) -> None:
        header.FrameOfReferenceUID = "2.25.77"

    assert "FrameOfReferenceUID" not in segmentations_of(an_answer(change=place))[0].dataset


def test_a_second_revision_opens_a_new_series_and_says_so() -> None:
    first, second = (segmentations_of(replace(an_answer(), revision=revision))[0] for revision in (1, 2))
    assert first.series_uid != second.series_uid
    assert "rev 2" in second.dataset.SeriesDescription
    assert "research use only" in second.dataset.SeriesDescription
    assert len(second.dataset.SeriesDescription) <= 64


def in_form(answer: Answer, form: SegmentationType) -> list[Dataset]:
    mix = ObjectMix((ResultKind.SEG,), segmentation=form)
    return [made.dataset for made in encoded(answer, mix)]


def overlapping() -> Answer:
    """Return an answer whose second mass lies within the first, and whose third overlaps it."""
    image = an_answer(read=RIGHT[:1]).images[0]
    shape = (int(image.header.Rows), int(image.header.Columns))
    drawn = [np.zeros(shape, np.bool_) for _ in range(3)]
    for mask, window in zip(drawn, (np.s_[10:30, 10:30], np.s_[15:20, 15:20], np.s_[25:40, 20:50]), strict=True):
        mask[window] = True
    masses = tuple(a_mass(mask, n, suspicion=90 - 20 * n) for n, mask in enumerate(drawn, start=1))
    found = ImageFindings(image.uid, RIGHT[0], shape, masses, 70, 0.7)
    return Answer("e1", 1, AnswerStatus.FINDINGS, CREATED_AT, (image,), MODEL, ExamFindings(MODEL, (found,), (), 70))


def test_a_label_map_gives_a_pixel_to_the_most_suspicious_of_its_masses() -> None:
    answer = overlapping()
    (segmentation,) = in_form(answer, SegmentationType.LABELMAP)
    first, second, third = (mass.full_mask(told(answer).images[0].shape) for mass in told(answer).images[0].masses)
    expected = np.select([first, second, third], [1, 2, 3], 0)
    assert (second & first).sum() == second.sum()
    np.testing.assert_array_equal(segmentation.pixel_array, expected)
    np.testing.assert_array_equal(stored_masks(segmentation), [first, np.zeros_like(first), third & ~first])


def test_a_label_map_keeps_the_segment_of_a_mass_that_others_cover_and_describes_the_background() -> None:
    (segmentation,) = in_form(overlapping(), SegmentationType.LABELMAP)
    (binary,) = in_form(overlapping(), SegmentationType.BINARY)
    assert segmentation.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"
    background, *segments = segmentation.SegmentSequence
    assert (background.SegmentNumber, background.SegmentedPropertyTypeCodeSequence[0].CodeMeaning) == (0, "Background")
    assert segmentation.PixelPaddingValue == 0
    assert segments == list(binary.SegmentSequence)


def test_a_fractional_segmentation_has_nothing_between_none_and_the_whole_pixel_and_is_no_probability() -> None:
    answer = overlapping()
    (segmentation,) = in_form(answer, SegmentationType.FRACTIONAL)
    assert set(np.unique(segmentation.pixel_array).tolist()) == {0, segmentation.MaximumFractionalValue}
    assert segmentation.SegmentationFractionalType == "OCCUPANCY"
    assert not segmentation.file_meta.TransferSyntaxUID.is_encapsulated
    shape = told(answer).images[0].shape
    expected = [mass.full_mask(shape) for mass in told(answer).images[0].masses]
    np.testing.assert_array_equal(stored_masks(segmentation), expected)


@pytest.mark.parametrize("form", SegmentationType)
def test_every_form_has_the_geometry_that_viewers_need_and_a_name_of_its_own(form: SegmentationType) -> None:
    (segmentation,) = in_form(overlapping(), form)
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing[0] > 0
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        assert list(frame.PlanePositionSequence[0].ImagePositionPatient) == [0, 0, 0]
    assert "FrameOfReferenceUID" not in segmentation
    others = [in_form(overlapping(), other)[0].SOPInstanceUID for other in SegmentationType if other is not form]
    assert segmentation.SOPInstanceUID not in others
