"""Every sentence that says why something was not read has its code, in the report too."""

from collections.abc import Iterable
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    BreastProjectionXRayImageStorageForPresentation,
    BreastTomosynthesisImageStorage,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)

from ai.checks import Check
from ai.errors import CutPixels, MisplacedValues, NoBreast, OtherSize, TooManyPixels, UndecodablePixels
from ai.exam import STANDARD_VIEWS
from node.exams import assemble, why_missing, why_not
from node.results.answer import AnswerStatus
from node.results.reasons import SCHEME, Reason
from node.views import DERIVED_KINDS, ImageKind, classify
from storage.jobs import CANCELLED
from tests.answers import RIGHT, an_answer, an_unread_answer, report_of
from tests.builders import a_candidate, quick_header, view_code

HEADERS: list[tuple[dict[str, Any], Reason]] = [
    ({"SOPClassUID": DigitalMammographyXRayImageStorageForProcessing}, Reason.PROCESSING),
    ({"SOPClassUID": BreastTomosynthesisImageStorage}, Reason.TOMOSYNTHESIS),
    ({"SOPClassUID": BreastProjectionXRayImageStorageForPresentation}, Reason.TOMOSYNTHESIS),
    ({"SOPClassUID": SecondaryCaptureImageStorage}, Reason.FOREIGN),
    ({"SOPClassUID": CTImageStorage}, Reason.FOREIGN),
    ({"SamplesPerPixel": 3}, Reason.FOREIGN),
    ({"NumberOfFrames": 2}, Reason.FOREIGN),
    ({"LossyImageCompression": "01"}, Reason.LOSSY),
    ({"ViewCodeSequence": view_code("399162004", "399163009")}, Reason.MODIFIED),
    ({"EstimatedRadiographicMagnificationFactor": "1.8"}, Reason.MODIFIED),
    ({"PartialView": "YES"}, Reason.MODIFIED),
    ({"QualityControlImage": "YES"}, Reason.QUALITY),
    ({"BodyPartExamined": "CHEST"}, Reason.FOREIGN),
    ({"Rows": 0}, Reason.UNDECODABLE),
    ({"ImageLaterality": None}, Reason.LATERALITY),
    ({"ImageLaterality": "R", "ViewPosition": "LCC"}, Reason.LATERALITY),
    ({"ViewPosition": None}, Reason.VIEW),
    ({"ViewPosition": "ML"}, Reason.VIEW),
    *(
        ({"ImageType": ["DERIVED", "PRIMARY", kind]}, Reason.TOMOSYNTHESIS if "tomo" in words else Reason.CONTRAST)
        for kind, words in DERIVED_KINDS.items()
    ),
]


@pytest.mark.parametrize(("attributes", "reason"), HEADERS)
def test_an_image_that_is_not_usable_has_this_code(attributes: dict[str, Any], reason: Reason) -> None:
    found = classify(quick_header(**attributes))
    assert not found.usable
    # The last sentence tells where the view came from.
    assert reason in Reason.named_in(found.reasons[:-1])
    assert Reason.OTHER not in Reason.named_in(found.reasons[:-1])


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        (str(UndecodablePixels("ValueError")), Reason.UNDECODABLE),
        (str(CutPixels()), Reason.UNDECODABLE),
        (str(MisplacedValues()), Reason.UNDECODABLE),
        (str(OtherSize()), Reason.UNDECODABLE),
        (str(TooManyPixels()), Reason.UNDECODABLE),
        (str(NoBreast("1.2.3")), Reason.NO_BREAST),
        (Check.INVERTED.words, Reason.INVERTED),
        (Check.NOISE.words, Reason.NOISE),
        (Check.NO_CHEST_WALL.words, Reason.NO_CHEST_WALL),
        (Check.NO_OUTLINE.words, Reason.NO_OUTLINE),
        ("The reading failed 3 times.", Reason.FAILED),
        (why_not(a_candidate("1.1"), a_candidate("1.2")), Reason.REPEATED),
        (f"R CC not read: {why_missing(RIGHT[0], ())}", Reason.MISSING),
        ("unilateral: R breast only", Reason.UNILATERAL),
        ("2 findings below this destination's threshold of 50.", Reason.HIDDEN),
        ("all images were withdrawn: Incorrect Modality Worklist Entry", Reason.WITHDRAWN),
        ("prior exam of 2019-03-04", Reason.PRIOR),
        ("R CC not read: removed after its time", Reason.REMOVED),
        (CANCELLED, Reason.CANCELLED),
        ("The images state different patients (Patient's Name); check whose they are.", Reason.IDENTITY),
        ("the moon was in the way", Reason.OTHER),
    ],
)
def test_a_sentence_has_this_code_and_no_other(sentence: str, reason: Reason) -> None:
    assert Reason.named_in([sentence]) == [reason]


def test_every_reason_but_the_last_resort_is_tried_here() -> None:
    tried = {reason for _, reason in HEADERS}
    others = {
        Reason.NO_BREAST,
        Reason.INVERTED,
        Reason.NOISE,
        Reason.NO_CHEST_WALL,
        Reason.NO_OUTLINE,
        Reason.FAILED,
        Reason.REPEATED,
        Reason.MISSING,
        Reason.UNILATERAL,
        Reason.HIDDEN,
        Reason.CANCELLED,
        Reason.IDENTITY,
    }
    others |= {Reason.WITHDRAWN, Reason.PRIOR, Reason.REMOVED, Reason.CANCELLED}
    assert tried | others | {Reason.OTHER} == set(Reason)


def test_several_reasons_in_one_sentence_have_a_code_each_once() -> None:
    sentences = ["lossy compressed; view modifier: magnification", "lossy compressed"]
    assert Reason.named_in(sentences) == [Reason.LOSSY, Reason.MODIFIED]


def test_codes_are_short_strings_of_their_own() -> None:
    values = [reason.coded.value for reason in Reason]
    assert len(set(values)) == len(values)
    assert all(len(value) <= 16 for value in values)  # SH, PS3.3 8.1
    assert {reason.coded.scheme_designator for reason in Reason} == {SCHEME}


def codes_in(items: Iterable[Dataset]) -> list[str]:
    """Return the values of the private reason codes in a tree, in its order."""
    found = []
    for item in items:
        named = item.get("ConceptNameCodeSequence")
        if item.ValueType == "CODE" and named and named[0].CodeValue == "reason":
            found.append(str(item.ConceptCodeSequence[0].CodeValue))
        found += codes_in(item.get("ContentSequence") or ())
    return found


def test_the_report_codes_why_an_exam_was_not_analysed_for_every_image_and_for_the_exam() -> None:
    report = report_of(an_unread_answer(AnswerStatus.NOT_ANALYSED, reason="lossy compressed"))
    assert codes_in(report.ContentSequence) == ["lossy"] * (len(STANDARD_VIEWS) + 1)


def test_the_report_codes_why_a_view_was_not_read() -> None:
    view = next(view for view in STANDARD_VIEWS if view not in RIGHT)
    report = report_of(an_answer(read=RIGHT, complete=False, not_read={view: "view modifier: spot compression"}))
    assert codes_in(report.ContentSequence) == ["modified-view"]


def test_the_report_of_a_complete_exam_has_no_reason() -> None:
    assert codes_in(report_of(an_answer()).ContentSequence) == []


def test_every_kind_of_image_that_may_not_be_read_is_known() -> None:
    for kind in (ImageKind.FOR_PROCESSING, ImageKind.TOMOSYNTHESIS, ImageKind.PROJECTION, ImageKind.SECONDARY_CAPTURE):
        assert Reason.OTHER not in Reason.named_in([f"{kind}, which the reader does not read"])


def test_repeated_views_are_rejected_with_a_known_reason() -> None:
    rejected = assemble([a_candidate("1.1"), a_candidate("1.2")]).rejected
    assert Reason.named_in(rejected.values()) == [Reason.REPEATED]
