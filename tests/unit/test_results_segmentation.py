"""The segmentation: the one form that viewers and DCMQI take, and what it says of each mass."""

from dataclasses import replace

import numpy as np
import pytest
from pydicom.dataset import Dataset

from ai.exam import STANDARD_VIEWS
from ai.findings import ExamFindings
from ai.pixels import pixel_spacing
from node.results.answer import Answer
from node.results.encode import ResultObject
from node.results.seg import stored_masks
from tests.answers import an_answer, phantom_headers, phantom_masks, segmentations_of, without_spacing


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
    assert "revision 2" in second.dataset.SeriesDescription
    assert "research use only" in second.dataset.SeriesDescription
    assert len(second.dataset.SeriesDescription) <= 64
