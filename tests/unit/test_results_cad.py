"""The Mammography CAD SR: what breast workstations are told, for every kind of answer (rules R2, R3 and R4)."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ComprehensiveSRStorage, MammographyCADSRStorage

from ai.exam import STANDARD_VIEWS, Laterality, ViewPosition
from ai.findings import ImageFindings, Mass, Match
from config.mix import FindingCodes, ObjectMix, ResultKind
from node.identity import RESEARCH_USE_ONLY
from node.results.answer import Answer, AnswerStatus, Predecessor
from node.results.cad_findings import centre
from node.results.cad_items import coded
from node.results.encode import to_bytes
from node.results.seg import tracking_identifier
from tests.answers import (
    FORMS,
    LEFT_CC,
    RIGHT,
    a_mass,
    an_answer,
    an_edition,
    an_unread_answer,
    encoded,
    phantom_headers,
    report_of,
)
from tests.template_rows import TABLE
from tests.templates import children, code_of, judge, resolve

CAD = ObjectMix((ResultKind.CAD_SR,))
SRT = ObjectMix((ResultKind.CAD_SR,), finding_codes=FindingCodes.SRT)
RIGHT_MATCH = Match(Laterality.RIGHT, 1, 1)


def cad_of(answer: Answer, mix: ObjectMix = CAD) -> Dataset:
    return encoded(answer, mix)[0].dataset


def walk(item: Dataset) -> Iterator[Dataset]:
    for child in children(item):
        yield child
        yield from walk(child)


def named(item: Dataset, concept: str) -> list[Dataset]:
    """Return the items of this concept below an item, at any depth."""
    return [each for each in walk(item) if code_of(each, "ConceptNameCodeSequence").value == concept]


def told(item: Dataset, concept: str) -> str:
    """Return the code value of the one item of this concept."""
    (found,) = named(item, concept)
    return code_of(found, "ConceptCodeSequence").value


def matched() -> Answer:
    answer = an_answer()
    assert answer.findings is not None
    return replace(answer, findings=replace(answer.findings, matches=(RIGHT_MATCH,)))


def masses_of(answer: Answer) -> list[tuple[ImageFindings, Mass]]:
    assert answer.findings is not None
    return [(image, mass) for image in answer.findings.images for mass in image.masses]


def images_of(document: Dataset, item: Dataset) -> list[str]:
    """Return the SOP Instance UIDs of the images that an item links to."""
    links = [each for each in children(item) if "ReferencedContentItemIdentifier" in each]
    found = [resolve(document, link.ReferencedContentItemIdentifier)[-1] for link in links]
    return [str(each.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for each in found]


SUMMARIES = {
    "findings": ("111242", "111222", "111225"),
    "sizes in pixels": ("111242", "111222", "111225"),
    "no findings": ("111241", "111222", "111225"),
    "partial with findings": ("111244", "111223", "111225"),
    "partial without findings": ("111243", "111222", "111225"),
    "unilateral": ("111242", "111222", "111225"),
    "not analysed": ("111245", "111225", "111225"),
    "failed": ("111245", "111224", "111224"),
}
"""CAD Processing and Findings Summary, Summary of Detections, Summary of Analyses (rule R3)."""


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_what_was_done(form: str) -> None:
    document = cad_of(FORMS[form]())
    assert tuple(told(document, concept) for concept in ("111017", "111064", "111065")) == SUMMARIES[form]
    assert document.SOPClassUID == document.file_meta.MediaStorageSOPClassUID == MammographyCADSRStorage
    assert document.CompletionFlag == ("COMPLETE" if SUMMARIES[form][0] in ("111241", "111242") else "PARTIAL")
    assert (document.VerificationFlag, document.Modality) == ("UNVERIFIED", "SR")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_for_research_only_and_gives_the_same_reasons_as_the_report(form: str) -> None:
    answer = FORMS[form]()
    words = named(cad_of(answer), "111033")[0].TextValue.split("\r\n")
    assert words[0] == RESEARCH_USE_ONLY
    assert {item.TextValue for item in named(report_of(answer), "121106")} <= set(words)


@pytest.mark.parametrize("form", FORMS)
def test_every_image_is_in_the_library_and_in_the_evidence(form: str) -> None:
    answer = FORMS[form]()
    document = cad_of(answer)
    library = children(document)[1]
    wanted = [image.uid for image in answer.images]
    assert [str(each.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for each in children(library)] == wanted
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    evidence = {
        (str(series.SeriesInstanceUID), str(each.ReferencedSOPInstanceUID))
        for series in study.ReferencedSeriesSequence
        for each in series.ReferencedSOPSequence
    }
    assert evidence == {(str(image.header.SeriesInstanceUID), image.uid) for image in answer.images}


def test_every_mass_is_a_finding_on_its_image() -> None:
    answer = an_answer()
    document, uids = cad_of(answer), an_edition(answer, CAD).uids
    found = named(document, "111059")
    assert len(found) == len(masses_of(answer)) == 4
    for item, (image, mass) in zip(found, masses_of(answer), strict=True):
        assert code_of(item, "ConceptCodeSequence") == Code("129793001", "SCT", "")
        assert told(item, "111056") == "111150"
        (identifier,), (uid,) = named(item, "112039"), named(item, "112040")
        assert identifier.TextValue == tracking_identifier(image.view, mass)
        assert uids.tracking(image.uid, mass.number) == uid.UID
        (center,), (outline,) = named(item, "111010"), named(item, "111041")
        assert images_of(document, center) == images_of(document, outline) == [image.uid]
        column, row = center.GraphicData
        assert mass.full_mask(image.shape)[int(row), int(column)]
        assert (column % 1, row % 1) == (0.5, 0.5)
        assert outline.GraphicType == "POLYLINE"
        np.testing.assert_allclose(np.reshape(outline.GraphicData, (-1, 2)), mass.contour, atol=1e-3)
        sizes = [float(named(item, concept)[0].MeasuredValueSequence[0].NumericValue) for concept in SIZES]
        assert sizes == [round(value, 2) for value in (mass.size.long_axis, mass.size.short_axis, mass.size.area)]


SIZES = ("103339001", "103340004", "42798000")


def test_findings_share_their_tracking_uids_with_the_report() -> None:
    answer = an_answer()
    report = report_of(answer)
    groups = {
        item.UID for group in named(report, "125007") for item in named(group, "112040") if named(group, "121071")
    }
    assert {item.UID for item in named(cad_of(answer), "112040")} == groups


def test_sizes_in_pixels_have_no_row() -> None:
    document = cad_of(FORMS["sizes in pixels"]())
    assert not [item for concept in SIZES for item in named(document, concept)]
    assert len(named(document, "111059")) == 4
    assert not named(document, "111026")
    assert all("Sizes by: none, no spacing." in item.TextValue for item in named(document, "111033")[1:])


def test_scores_are_words_and_no_probabilities() -> None:
    answer = an_answer()
    document = cad_of(answer)
    assert not named(document, "111047")
    assert not named(document, "111012")
    overall, *each = [item.TextValue for item in named(document, "111033")]
    assert "Exam: suspicion score 61." in overall
    assert "R breast: suspicion score 60." in overall
    assert "L MLO: suspicion score 60." in overall
    for words, (image, mass) in zip(each, masses_of(answer), strict=True):
        assert f"{tracking_identifier(image.view, mass)}: suspicion score {mass.suspicion}." in words
        assert "not probabilities" in words
        assert "EstimatedRadiographicMagnificationFactor" in words


def test_a_pair_of_masses_is_a_composite_feature() -> None:
    answer = matched()
    document = cad_of(answer)
    (composite,) = named(document, "111015")
    assert code_of(composite, "ConceptCodeSequence") == Code("129788004", "SCT", "")
    assert (told(composite, "111016"), told(composite, "111057")) == ("111154", "111158")
    inside = named(composite, "111059")
    assert [item.RelationshipType for item in inside] == ["INFERRED FROM"] * 2
    right = [image.uid for image in answer.images if image.view in RIGHT]
    assert [images_of(document, named(item, "111010")[0])[0] for item in inside] == right
    assert len(named(document, "111059")) == 4
    assert len(named(document, "111034")) == 3
    words = named(named(document, "111034")[0], "111033")[0].TextValue
    assert words.startswith("R CC mass 1: suspicion score 83, R MLO mass 1: suspicion score 83.")
    assert told(document, "111065") == "111222"
    (analysis,) = named(document, "111004")
    assert code_of(analysis, "ConceptCodeSequence") == Code("133884007", "SCT", "")
    assert images_of(document, analysis) == right


def test_a_match_with_a_mass_that_is_not_there_is_no_pair() -> None:
    answer = an_answer()
    assert answer.findings is not None
    answer = replace(answer, findings=replace(answer.findings, matches=(Match(Laterality.LEFT, 1, 9),)))
    document = cad_of(answer)
    assert not named(document, "111015")
    assert len(named(document, "111059")) == 4


def test_a_partial_answer_names_the_image_that_was_not_read() -> None:
    answer = FORMS["partial with findings"]()
    document = cad_of(answer)
    good, bad = named(document, "111063")[0], named(document, "111025")[0]
    assert images_of(document, children(good)[0]) == [image.uid for image in answer.images if not image.not_read]
    assert images_of(document, children(bad)[0]) == [image.uid for image in answer.images if image.not_read]
    words = named(document, "111033")[0].TextValue
    assert "Views not read: L MLO." in words
    assert "spot compression" in words


def test_a_failed_answer_names_all_images_and_one_that_was_not_analysed_none() -> None:
    failed = FORMS["failed"]()
    document = cad_of(failed)
    for heading in ("111025", "111024"):
        assert images_of(document, children(named(document, heading)[0])[0]) == [image.uid for image in failed.images]
    unread = cad_of(FORMS["not analysed"]())
    assert not [item for concept in ("111063", "111025", "111062", "111024") for item in named(unread, concept)]


def test_an_image_that_a_complete_exam_does_without_has_not_failed() -> None:
    document = cad_of(an_answer(read=RIGHT, not_read={LEFT_CC: "repeated: another image of the view was read"}))
    assert told(document, "111064") == "111222"
    assert not named(document, "111025")
    assert "repeated" in named(document, "111033")[0].TextValue


def test_srt_codes_are_for_old_workstations() -> None:
    modern, legacy = cad_of(matched()), cad_of(matched(), SRT)
    schemes = {
        code[0].CodingSchemeDesignator
        for item in walk(legacy)
        for code in (item.get("ConceptCodeSequence"), item.get("ConceptNameCodeSequence"))
        if code
    }
    assert schemes == {"DCM", "SRT", "RFC5646"}
    pairs = list(zip(walk(modern), walk(legacy), strict=True))
    assert all(
        code_of(new, "ConceptCodeSequence") == code_of(old, "ConceptCodeSequence")
        for new, old in pairs
        if new.get("ValueType") == "CODE"
    )
    assert code_of(named(legacy, "111059")[0], "ConceptCodeSequence").value == "F-01796"
    assert code_of(named(legacy, "111015")[0], "ConceptCodeSequence").value == "F-01791"


def test_the_library_tells_what_the_header_tells() -> None:
    entry = children(children(cad_of(an_answer()))[1])[0]
    header = phantom_headers()[STANDARD_VIEWS[0]]
    assert told(entry, "111027") == "73056007"
    assert told(entry, "111031") == "399162004"
    assert [named(entry, concept)[0].TextValue for concept in ("111044", "111043")] == list(header.PatientOrientation)
    assert named(entry, "111060")[0].Date == header.StudyDate
    assert named(entry, "111019")[0].Time == header.ContentTime
    spacing = named(entry, "111026")[0].MeasuredValueSequence[0]
    assert spacing.NumericValue == 1000 * header.ImagerPixelSpacing[1]
    assert spacing.MeasurementUnitsCodeSequence[0].CodeValue == "um"


def changed_entry(**attributes: object) -> Dataset:
    """Return the library entry of an image whose header has other attributes; None takes one away."""

    def change(header: Dataset) -> None:
        for keyword, value in attributes.items():
            if value is None:
                header.pop(keyword, None)
            else:
                setattr(header, keyword, value)

    answer = an_answer(read=RIGHT[:1], change=change)
    document = cad_of(answer)
    assert judge(document, TABLE) == []
    return children(children(document)[1])[0]


def test_rows_and_columns_keep_their_spacing() -> None:
    entry = changed_entry(ImagerPixelSpacing=["0.1", "0.0655"])
    values = [named(entry, concept)[0].MeasuredValueSequence[0].NumericValue for concept in ("111026", "111066")]
    assert values == [65.5, 100]


@pytest.mark.parametrize("spacing", [["0", "0.1"], ["0.1"], ["-1", "-1"], None])
def test_a_spacing_that_is_none_is_left_out(spacing: list[str] | None) -> None:
    entry = changed_entry(ImagerPixelSpacing=spacing, PixelSpacing=None)
    assert not named(entry, "111026")


def test_what_the_header_leaves_out_is_derived_or_left_out() -> None:
    entry = changed_entry(
        ImageLaterality=None,
        ViewCodeSequence=None,
        PatientOrientation=None,
        ContentDate=None,
        ContentTime=None,
        StudyTime=None,
    )
    assert (told(entry, "111027"), told(entry, "111031")) == ("73056007", "399162004")
    assert len(children(entry)) == 5


@pytest.mark.parametrize("stated", ["B", "X"])
def test_the_side_of_an_image_that_was_read_is_the_one_it_was_read_as(stated: str) -> None:
    assert told(changed_entry(ImageLaterality=stated, Laterality="R"), "111027") == "73056007"


def test_view_modifiers_are_told_in_the_destination_s_scheme() -> None:
    view = coded(Code("R-10226", "SNM3", "medio-lateral oblique"))
    view.ViewModifierCodeSequence = [
        coded(Code("R-102D2", "SRT", "Cleavage")),
        coded(Code("unknown", "99SITE", "Something else")),
        coded(Code("399163009", "SCT", "Magnification")),
    ]
    entry = changed_entry(ViewCodeSequence=[view])
    assert told(entry, "111031") == "399368009"
    modifiers = [code_of(item, "ConceptCodeSequence") for item in named(entry, "111032")]
    assert [(code.value, code.scheme_designator) for code in modifiers] == [("399161006", "SCT"), ("399163009", "SCT")]


@pytest.mark.parametrize("orientation", [["A"], ["", ""], "PL"])
def test_an_orientation_that_is_none_is_left_out(orientation: object) -> None:
    assert not named(changed_entry(PatientOrientation=orientation), "111044")


def test_the_centre_of_a_mass_with_a_hole_lies_in_the_mass() -> None:
    mask = np.zeros((40, 40), np.bool_)
    mask[5:30, 5:30] = True
    mask[8:27, 8:27] = False
    column, row = centre(a_mass(mask))
    assert mask[int(row), int(column)]


def test_an_outline_has_no_more_points_than_an_element_holds() -> None:
    answer = an_answer(read=RIGHT[:1])
    assert answer.findings is not None
    (image,) = answer.findings.images
    turns = np.linspace(0, 2 * np.pi, 20001)
    winding = np.stack([200 + 90 * np.cos(turns), 250 + 90 * np.sin(turns)], axis=1)
    long = replace(image, masses=(replace(image.masses[0], contour=winding),))
    document = cad_of(replace(answer, findings=replace(answer.findings, images=(long,))))
    (outline,) = named(document, "111041")
    assert 4 * len(outline.GraphicData) <= 65534
    assert outline.GraphicData[:2] == outline.GraphicData[-2:]
    assert to_bytes(document)


def test_a_revision_stays_in_the_series_and_names_its_cad_predecessor_alone() -> None:
    answer = an_answer()
    first = cad_of(answer)
    former = [
        Predecessor(
            str(first.StudyInstanceUID), str(first.SeriesInstanceUID), str(cls), str(first.SOPInstanceUID) + end
        )
        for cls, end in ((ComprehensiveSRStorage, ".1"), (MammographyCADSRStorage, ""))
    ]
    second = cad_of(replace(answer, revision=2, predecessors=tuple(former)))
    assert second.SeriesInstanceUID == first.SeriesInstanceUID
    assert (first.InstanceNumber, second.InstanceNumber) == (1, 2)
    assert second.SOPInstanceUID != first.SOPInstanceUID
    (study,) = second.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (reference,) = series.ReferencedSOPSequence
    assert series.SeriesInstanceUID == first.SeriesInstanceUID
    assert reference.ReferencedSOPClassUID == MammographyCADSRStorage
    assert reference.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in first


@pytest.mark.parametrize("form", FORMS)
def test_equal_answers_give_equal_bytes(form: str) -> None:
    assert to_bytes(cad_of(FORMS[form]())) == to_bytes(cad_of(FORMS[form]()))
    assert cad_of(FORMS[form]()).ContentDate == "20260304"


def test_the_patient_is_the_source_s() -> None:
    def change(header: Dataset) -> None:
        header.SpecificCharacterSet, header.PatientName = "ISO_IR 192", "山田^花子"
        header.PatientID, header.AccessionNumber = "P 7", "A 9"

    document = cad_of(an_answer(change=change))
    assert (document.SpecificCharacterSet, document.PatientName) == ("ISO_IR 192", "山田^花子")
    assert (document.PatientID, document.AccessionNumber) == ("P 7", "A 9")
    assert document.SeriesDescription.endswith("research use only")
    assert document.ContributingEquipmentSequence[-1].SoftwareVersions[0] == "1.2"


def test_an_image_without_view_or_header_attributes_has_a_valid_entry() -> None:
    header = Dataset()
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID"):
        setattr(header, keyword, getattr(phantom_headers()[LEFT_CC], keyword))
    answer = an_unread_answer(AnswerStatus.NOT_ANALYSED, header, reason="no view in the header")
    document = cad_of(answer)
    assert judge(document, TABLE, [header]) == []
    assert not children(children(children(document)[1])[0])


def test_views_are_the_two_of_screening() -> None:
    document = cad_of(an_answer())
    codes = [told(entry, "111031") for entry in children(children(document)[1])]
    wanted = {ViewPosition.CC: "399162004", ViewPosition.MLO: "399368009"}
    assert codes == [wanted[view.position] for view in STANDARD_VIEWS]
