"""The structured report: rule R3's form for every kind of answer, R2's succession, R4's scores, R11's millimetres."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset

from ai.exam import Laterality
from ai.findings import Match
from config.mix import ObjectMix, ReportClass, ResultKind
from node.identity import RESEARCH_USE_ONLY
from node.results.answer import Answer, AnswerStatus, Predecessor
from tests.answers import (
    FORMS,
    LEFT_CC,
    RIGHT,
    an_answer,
    an_unread_answer,
    encoded,
    phantom_headers,
    report_of,
    segmentations_of,
)

SUMMARIES = {
    "findings": "111242",
    "sizes in pixels": "111242",
    "no findings": "111241",
    "partial with findings": "111244",
    "partial without findings": "111243",
    "unilateral": "111242",
    "not analysed": "111245",
    "failed": "111245",
}


def items(parent: Dataset, concept: str) -> list[Dataset]:
    """Return the children of a content item that have this concept name."""
    children = parent.get("ContentSequence") or []
    return [
        child
        for child in children
        if child.get("ConceptNameCodeSequence") and child.ConceptNameCodeSequence[0].CodeValue == concept
    ]


def groups(report: Dataset) -> list[Dataset]:
    """Return the measurement groups of a report."""
    return items(items(report, "126010")[0], "125007")


def identifier(group: Dataset) -> str:
    """Return a group's tracking identifier."""
    return str(items(group, "112039")[0].TextValue)


def scores(group: Dataset) -> dict[str, float]:
    """Return a group's numbers by concept."""
    return {
        str(item.ConceptNameCodeSequence[0].CodeValue): float(item.MeasuredValueSequence[0].NumericValue)
        for item in group.ContentSequence
        if item.ValueType == "NUM"
    }


def comments(report: Dataset) -> list[str]:
    """Return the report's comments."""
    return [str(item.TextValue) for item in items(items(report, "C0034375")[0], "121106")]


def every_item(parent: Dataset) -> Iterator[Dataset]:
    for item in parent.get("ContentSequence") or []:
        yield item
        yield from every_item(item)


@pytest.mark.parametrize("form", FORMS)
def test_no_group_is_without_a_region(form: str) -> None:
    for group in groups(report_of(FORMS[form]())):
        assert [item.ValueType for item in items(group, "111030")] == ["SCOORD"]


@pytest.mark.parametrize("form", FORMS)
def test_each_image_has_one_group_round_its_border_with_the_summary_of_the_exam(form: str) -> None:
    answer = FORMS[form]()
    summaries = [group for group in groups(report_of(answer)) if items(group, "111017")]
    assert len(summaries) == len(answer.images)
    for image, group in zip(answer.images, summaries, strict=True):
        assert items(group, "111017")[0].ConceptCodeSequence[0].CodeValue == SUMMARIES[form]
        region = items(group, "111030")[0]
        rows, columns = image.header.Rows, image.header.Columns
        assert region.GraphicType == "POLYLINE"
        assert list(region.GraphicData)[:2] == list(region.GraphicData)[-2:] == [0.5, 0.5]
        assert list(region.GraphicData)[4:6] == [columns - 0.5, rows - 0.5]
        assert region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == image.uid
        assert identifier(group) == (
            f"NOT READ: {image.not_read}" if image.not_read else "Image summary, not a finding"
        )
        assert set(scores(group)) == (set() if image.not_read else {"image-score", "breast-score", "exam-score"})


@pytest.mark.parametrize("form", FORMS)
def test_the_summary_and_the_research_use_stand_outside_the_groups_too(form: str) -> None:
    report = report_of(FORMS[form]())
    evaluations = items(report, "C0034375")[0]
    assert items(evaluations, "111017")[0].ConceptCodeSequence[0].CodeValue == SUMMARIES[form]
    assert RESEARCH_USE_ONLY in comments(report)
    assert "research use only" in report.SeriesDescription
    assert "The model was trained on digitised film." in comments(report)


@pytest.mark.parametrize("form", FORMS)
def test_only_an_exam_whose_expected_views_were_all_read_is_complete(form: str) -> None:
    report = report_of(FORMS[form]())
    assert report.CompletionFlag == ("COMPLETE" if SUMMARIES[form] in ("111241", "111242") else "PARTIAL")
    assert report.VerificationFlag == "UNVERIFIED"


def test_a_partial_report_names_the_views_that_were_not_read_and_why() -> None:
    report = report_of(FORMS["partial with findings"]())
    told = " ".join(comments(report))
    assert "Views not read: L MLO." in told
    assert f"NOT READ: L CC {phantom_headers()[LEFT_CC].SOPInstanceUID}: spot compression" in told


def test_a_report_that_reads_nothing_gives_the_reason_and_no_score() -> None:
    report = report_of(FORMS["failed"]())
    assert "the reader ran out of memory" in comments(report)
    assert not [
        item
        for item in every_item(report)
        if item.ValueType == "NUM" and "score" in item.ConceptNameCodeSequence[0].CodeValue
    ]


def test_scores_are_private_codes_that_deny_being_probabilities() -> None:
    named = [item.ConceptNameCodeSequence[0] for item in every_item(report_of(an_answer())) if item.ValueType == "NUM"]
    told = [code for code in named if code.CodingSchemeDesignator == "99MAMMONODE"]
    assert {code.CodeValue for code in told} == {"finding-score", "image-score", "breast-score", "exam-score"}
    assert all("not a probability" in code.CodeMeaning for code in told)
    assert all(len(code.CodeMeaning) <= 64 and len(code.CodeValue) <= 16 for code in told)
    assert not [code for code in named if code.CodeValue == "111047"]


def test_each_mass_has_its_outline_its_side_and_its_sizes() -> None:
    answer = an_answer()
    found = [mass for image in (answer.findings.images if answer.findings else ()) for mass in image.masses]
    told = [group for group in groups(report_of(answer)) if not items(group, "111017")]
    assert found
    assert len(told) == len(found)
    for mass, group in zip(found, told, strict=True):
        outline = [float(value) for value in items(group, "111030")[0].GraphicData]
        assert outline == pytest.approx(mass.contour.ravel().tolist())
        assert scores(group) == {
            "42798000": round(mass.size.area, 2),
            "103339001": round(mass.size.long_axis, 2),
            "103340004": round(mass.size.short_axis, 2),
            "finding-score": mass.suspicion,
        }
        site = items(group, "363698007")[0]
        assert items(site, "272741003")[0].ConceptCodeSequence[0].CodeMeaning[0] == identifier(group)[0]


@pytest.mark.parametrize(("millimetres", "unit"), [(True, "mm"), (False, "{pixels}")])
def test_a_length_says_its_unit_and_where_millimetres_come_from(millimetres: bool, unit: str) -> None:  # noqa: FBT001
    report = report_of(an_answer(millimetres=millimetres))
    axis = next(
        item
        for item in every_item(report)
        if item.ValueType == "NUM" and item.ConceptNameCodeSequence[0].CodeValue == "103339001"
    )
    assert axis.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == unit
    methods = [item.ConceptCodeSequence[0].CodeMeaning for item in items(axis, "370129005")]
    assert methods == (["ImagerPixelSpacing / EstimatedRadiographicMagnificationFactor"] if millimetres else [])


def test_the_most_suspicious_mass_comes_first_and_the_summaries_of_images_last() -> None:
    answer = an_answer()
    assert answer.findings
    # The least suspicious image first, so that the order of the images is not that of the masses.
    images = tuple(
        replace(image, masses=tuple(replace(mass, suspicion=50 + n) for mass in image.masses))
        for n, image in enumerate(answer.findings.images)
    )
    answer = replace(answer, findings=replace(answer.findings, images=images))
    told = [scores(group) for group in groups(report_of(answer))]
    suspicion = [each["finding-score"] for each in told if "finding-score" in each]
    assert suspicion == sorted(suspicion, reverse=True)
    assert len(set(suspicion)) > 1
    assert all("finding-score" in each for each in told[: len(suspicion)])


def test_report_and_segmentation_track_a_mass_by_the_same_identifiers() -> None:
    answer = an_answer()
    segments = [segment for made in segmentations_of(answer) for segment in made.dataset.SegmentSequence]
    masses = [group for group in groups(report_of(answer)) if not items(group, "111017")]
    assert {(s.TrackingID, s.TrackingUID) for s in segments} == {
        (identifier(g), items(g, "112040")[0].UID) for g in masses
    }
    assert len({segment.TrackingUID for segment in segments}) == len(segments)


def test_the_report_lists_its_images_and_its_segmentations_as_evidence() -> None:
    answer = an_answer()
    report = report_of(answer)

    def listed(sequence: list[Dataset]) -> set[str]:
        return {
            str(instance.ReferencedSOPInstanceUID)
            for study in sequence
            for series in study.ReferencedSeriesSequence
            for instance in series.ReferencedSOPSequence
        }

    assert listed(report.CurrentRequestedProcedureEvidenceSequence) == {image.uid for image in answer.images}
    assert listed(report.PertinentOtherEvidenceSequence) == {made.instance_uid for made in segmentations_of(answer)}


def test_the_algorithm_is_identified_from_the_model() -> None:
    report = report_of(an_answer())
    group = next(group for group in groups(report) if not items(group, "111017"))
    assert [items(group, code)[0].TextValue for code in ("111001", "111003", "111002")] == [
        "phantom-reader",
        "1.2",
        "digest=" + "ab" * 32,
    ]
    equipment = report.ContributingEquipmentSequence[-1]
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert (equipment.Manufacturer, equipment.ManufacturerModelName) == ("Mammonode", "phantom-reader")
    assert equipment.DeviceUID != report_of(with_other_model()).ContributingEquipmentSequence[-1].DeviceUID


def with_other_model() -> Answer:
    answer = an_answer()
    return replace(answer, model=replace(answer.model, digest="cd" * 32))


def test_a_second_revision_stays_in_the_series_and_names_its_predecessor() -> None:
    first = report_of(an_answer())
    former = Predecessor(
        str(first.StudyInstanceUID), str(first.SeriesInstanceUID), str(first.SOPClassUID), str(first.SOPInstanceUID)
    )
    second = report_of(replace(an_answer(read=RIGHT), revision=2, predecessors=(former,)))
    assert second.SeriesInstanceUID == first.SeriesInstanceUID
    assert second.SeriesDescription == first.SeriesDescription
    assert second.SOPInstanceUID != first.SOPInstanceUID
    reference = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in first


def test_an_image_without_rows_and_columns_still_has_its_group() -> None:
    header = Dataset()
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.2"
    header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID = "2.25.1", "2.25.2", "2.25.3"
    report = report_of(an_unread_answer(AnswerStatus.NOT_ANALYSED, header, reason="no pixel data"))
    assert [identifier(group) for group in groups(report)] == ["NOT READ: no pixel data"]


@pytest.mark.parametrize("value", [["A", ""], "AL", ["SIDEWAYS", "F"]])
def test_an_orientation_that_is_no_pair_of_directions_is_not_in_the_image_library(value: object) -> None:
    def change(header: Dataset) -> None:
        header.PatientOrientation = value

    texts = [item for item in every_item(report_of(an_answer(change=change))) if item.ValueType == "TEXT"]
    assert {"111043", "111044"}.isdisjoint(item.ConceptNameCodeSequence[0].CodeValue for item in texts)
    assert all(item.TextValue for item in texts)


def test_text_that_is_not_ascii_does_not_break_a_report_in_any_character_set() -> None:
    report = report_of(an_unread_answer(AnswerStatus.FAILED, reason="view \u2013 \u5de6 unclear"))
    assert "view - ? unclear" in comments(report)


def test_an_answer_that_contradicts_itself_is_refused() -> None:
    answer = an_answer()
    for wrong in (
        {"status": AnswerStatus.NO_FINDINGS},
        {"status": AnswerStatus.FAILED},
        {"findings": None},
        {"images": ()},
        {"images": answer.images[1:]},
        {"created_at": answer.created_at.replace(tzinfo=None)},
    ):
        with pytest.raises(ValueError, match=r"."):
            replace(answer, **wrong)


def with_match(answer: Answer) -> Answer:
    assert answer.findings
    return replace(answer, findings=replace(answer.findings, matches=(Match(Laterality.RIGHT, 1, 1),)))


def test_masses_that_may_be_one_lesion_are_named_in_a_sentence_and_in_no_group() -> None:
    matched, alone = report_of(with_match(an_answer())), report_of(an_answer())
    told = set(comments(matched)) - set(comments(alone))
    assert told == {"Mass 1 in R CC and mass 1 in R MLO may be one lesion."}
    assert [identifier(group) for group in groups(matched)] == [identifier(group) for group in groups(alone)]
    for group in groups(matched):
        assert [item.ValueType for item in items(group, "111030")] == ["SCOORD"]


@pytest.mark.parametrize("form", FORMS)
def test_both_classes_of_report_say_the_same_under_their_own_names(form: str) -> None:
    answer = FORMS[form]()
    (new,) = encoded(answer, ObjectMix((ResultKind.SR,), report=ReportClass.COMPREHENSIVE_3D))
    (old,) = encoded(answer, ObjectMix((ResultKind.SR,), report=ReportClass.COMPREHENSIVE))
    assert (new.sop_class_uid, old.sop_class_uid) == ("1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.33")
    assert new.fallback
    assert new.fallback.sop_class_uid == old.sop_class_uid
    assert old.fallback is None
    assert new.dataset.ContentSequence == new.fallback.dataset.ContentSequence == old.dataset.ContentSequence
    assert len({new.instance_uid, new.fallback.instance_uid, old.instance_uid}) == 3
    assert new.series_uid == new.fallback.series_uid
