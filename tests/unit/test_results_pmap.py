"""The Parametric Map: the network's output on its own grid, over the whole image, and never called a probability."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ai.findings import ImageFindings
from ai.pixels import pixel_spacing
from config.mix import PROFILES, ObjectMix, ResultKind
from node.results.answer import Answer
from node.results.encode import ResultObject
from tests.answers import FORMS, an_answer, encoded, phantom_headers, without_spacing

MIX = ObjectMix((ResultKind.PMAP,))


def values(target: Dataset) -> NDArray[np.float32]:
    return np.frombuffer(target.FloatPixelData, "<f4").reshape(target.Rows, target.Columns)


def with_maps(answer: Answer, grid: tuple[int, int] | None) -> Answer:
    """Return the answer with maps on another grid, or without maps."""
    assert answer.findings
    drawn = None if grid is None else np.linspace(0, 1, grid[0] * grid[1], dtype=np.float32).reshape(grid)
    images = tuple(replace(image, probability=drawn) for image in answer.findings.images)
    return replace(answer, findings=replace(answer.findings, images=images))


def found(answer: Answer, made: ResultObject) -> ImageFindings:
    assert answer.findings
    return next(image for image in answer.findings.images if image.uid == made.image_uid)


def test_every_image_that_was_read_has_a_map_in_a_series_of_its_own_with_the_readers_values() -> None:
    answer = an_answer()
    made = encoded(answer, MIX)
    assert len(made) == len({each.series_uid for each in made}) == 4
    for each in made:
        np.testing.assert_array_equal(values(each.dataset), found(answer, each).probability)
        source = each.dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID == each.image_uid


def test_a_reader_without_maps_has_none_and_an_exam_without_findings_has_them() -> None:
    assert encoded(with_maps(an_answer(), None), MIX) == ()
    assert len(encoded(an_answer(masses=False), MIX)) == 4


def test_another_map_is_another_object_and_changes_no_other() -> None:
    every = replace(MIX, objects=(ResultKind.PMAP, ResultKind.SEG, ResultKind.SR))
    answer = with_maps(an_answer(), (32, 24))
    assert answer.findings
    images = tuple(
        replace(image, probability=np.nextafter(np.asarray(image.probability), np.float32(1)))
        for image in answer.findings.images
    )
    other = replace(answer, findings=replace(answer.findings, images=images))
    before, after = ({made.instance_uid: made.kind for made in encoded(each, every)} for each in (answer, other))
    assert {before[uid] for uid in before.keys() & after.keys()} == {ResultKind.SEG, ResultKind.SR}
    assert {before[uid] for uid in before.keys() - after.keys()} == {ResultKind.PMAP}


@pytest.mark.parametrize("form", ["not analysed", "failed"])
def test_an_exam_that_was_not_read_has_no_map(form: str) -> None:
    assert encoded(FORMS[form](), MIX) == ()


@pytest.mark.parametrize("grid", [(128, 104), (100, 37), (1, 1), (512, 416)])
@pytest.mark.parametrize("spaced", [True, False])
def test_the_map_covers_the_area_of_the_source_whatever_its_grid(grid: tuple[int, int], *, spaced: bool) -> None:
    answer = an_answer() if spaced else an_answer(millimetres=False, change=without_spacing)
    for each in encoded(with_maps(answer, grid), MIX):
        target, header = each.dataset, next(h for h in phantom_headers().values() if h.SOPInstanceUID == each.image_uid)
        spacing = pixel_spacing(header)
        assert spacing
        row, column = (spacing.row, spacing.column) if spaced else (1, 1)
        high, wide = map(float, target.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing)
        x, y, z = target.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient
        # The centre of the source's first pixel is the origin: its area begins half a pixel before.
        assert [x - wide / 2, y - high / 2] == pytest.approx([-column / 2, -row / 2], abs=1e-5)
        assert [wide * target.Columns, high * target.Rows] == pytest.approx(
            [column * header.Columns, row * header.Rows], rel=1e-6
        )
        assert z == 0


def test_the_values_are_said_to_be_no_calibrated_probability() -> None:
    for each in encoded(an_answer(), MIX):
        (mapping,) = each.dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
        quantity = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
        assert quantity.CodingSchemeDesignator == "99MAMMONODE"
        assert "not a calibrated probability" in quantity.CodeMeaning
        assert "not a calibrated probability" in mapping.LUTExplanation
        assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
        assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"


def test_the_map_names_its_algorithm_side_and_use() -> None:
    answer = an_answer()
    for each in encoded(answer, MIX):
        target = each.dataset
        algorithm = target.ContributingEquipmentSequence[-1]
        assert algorithm.ManufacturerModelName == "phantom-reader"
        assert algorithm.SoftwareVersions[0] == "1.2"
        assert target.ContentQualification == "RESEARCH"
        anatomy = target.SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0]
        assert anatomy.FrameLaterality == found(answer, each).view.laterality
        assert "research use only" in target.SeriesDescription


def test_the_frame_of_reference_is_the_maps_own() -> None:
    made = encoded(an_answer(), MIX)
    assert len({each.dataset.FrameOfReferenceUID for each in made}) == 4
    again = encoded(an_answer(), MIX)
    assert [each.dataset.FrameOfReferenceUID for each in again] == [each.dataset.FrameOfReferenceUID for each in made]


def test_no_profile_has_maps() -> None:
    assert all(ResultKind.PMAP not in mix.objects for mix in PROFILES.values())
