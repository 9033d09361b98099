"""Views from headers: each source, each contradiction, and everything that makes an image unfit."""

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    BreastProjectionXRayImageStorageForPresentation,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForProcessing,
    GrayscaleSoftcopyPresentationStateStorage,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    KeyObjectSelectionDocumentStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    UltrasoundImageStorage,
    XRayRadiationDoseSRStorage,
)

from ai.exam import Laterality
from ai.pixels import chest_wall
from node.body_parts import BREAST, OTHER_PARTS
from node.headers import acquired_at, instance_number
from node.phantom import phantom_exam
from node.view_codes import ViewWords, read_text, says_unilateral
from node.views import ImageKind, classify
from tests.builders import (
    L_CC,
    L_MLO,
    R_CC,
    R_MLO,
    for_processing,
    frame_laterality,
    modifier_codes,
    own_result_header,
    quick_header,
    tomosynthesis_header,
    view_code,
)

LEFT, RIGHT = Laterality.LEFT, Laterality.RIGHT
UNCHECKED = "side not checked in the picture, Patient Orientation does not tell it"


def test_a_contact_view_for_presentation_is_usable() -> None:
    found = classify(quick_header(PatientOrientation=["A", "R"]))
    assert found.usable
    assert found.opens_exam
    assert found.view == L_CC
    assert found.kind is ImageKind.FOR_PRESENTATION
    assert found.reasons == ("laterality L from ImageLaterality; view CC from ViewPosition",)


def test_the_phantom_is_what_it_says() -> None:
    exam = phantom_exam(1, small=True, masses=())
    assert [classify(image).view for image in exam.images] == [R_CC, L_CC, R_MLO, L_MLO]
    assert all(classify(image).usable for image in exam.images)
    assert classify(for_processing(exam.images[0])).kind is ImageKind.FOR_PROCESSING


@pytest.mark.parametrize(
    ("attributes", "laterality"),
    [
        ({"Laterality": "R"}, RIGHT),
        ({"SharedFunctionalGroupsSequence": frame_laterality("R")}, RIGHT),
        ({"PerFrameFunctionalGroupsSequence": frame_laterality("L")}, LEFT),
        ({"ViewPosition": "RCC"}, RIGHT),
        ({"AcquisitionDeviceProcessingDescription": "L MLO"}, LEFT),
        ({"SeriesDescription": "R CC"}, RIGHT),
        ({"Laterality": "L", "SeriesDescription": "R CC"}, LEFT),
        ({"Laterality": "B"}, None),
        ({"Laterality": "U"}, None),
        ({}, None),
    ],
)
def test_laterality_comes_from(attributes: dict[str, Any], laterality: Laterality | None) -> None:
    found = classify(quick_header(ImageLaterality=None, **attributes))
    assert found.laterality is laterality
    assert found.usable == (laterality is not None)


@pytest.mark.parametrize(
    ("attributes", "position"),
    [
        ({"ViewPosition": "MLO"}, "MLO"),
        ({"ViewPosition": "LMLO"}, "MLO"),
        ({"ViewPosition": " mlo "}, "MLO"),
        ({"ViewPosition": "ML"}, "ML"),
        ({"ViewPosition": "XCCL"}, "XCCL"),
        ({"ViewPosition": "AP"}, "AP"),
        ({"ViewCodeSequence": view_code("399368009")}, "MLO"),
        ({"ViewCodeSequence": view_code("R-10226", scheme="SNM3")}, "MLO"),
        ({"ViewCodeSequence": view_code("R-10242", scheme="SRT")}, "CC"),
        ({"ViewCodeSequence": view_code("399260004")}, "ML"),
        ({"ViewCodeSequence": view_code("399368009", scheme="99X")}, None),
        ({"AcquisitionDeviceProcessingDescription": "L-MLO"}, "MLO"),
        ({"AcquisitionDeviceProcessingDescription": "MLO"}, "MLO"),
        ({"PatientOrientation": "MLO"}, "MLO"),
        ({"PatientOrientation": ["A", "R"]}, None),
        ({"SeriesDescription": "Left MLO"}, "MLO"),
        ({"SeriesDescription": "L CC, L MLO"}, None),
        ({"ViewPosition": "CC", "SeriesDescription": "L MLO"}, "CC"),
        ({"ViewPosition": "CC", "AcquisitionDeviceProcessingDescription": "MLO"}, "CC"),
        ({}, None),
    ],
)
def test_the_view_comes_from(attributes: dict[str, Any], position: str | None) -> None:
    found = classify(quick_header(**{"ViewPosition": None} | attributes))
    assert found.view_position == position
    assert found.usable == (position in ("CC", "MLO"))
    assert (found.view is not None) == found.usable


def test_a_mediolateral_view_is_no_oblique_one() -> None:
    found = classify(quick_header(ViewPosition="ML"))
    assert found.view is None
    assert "ML is not a standard view" in found.reasons


def test_lateralities_that_contradict_make_it_unusable() -> None:
    found = classify(quick_header(ImageLaterality="L", Laterality="R"))
    assert (found.laterality, found.usable) == (None, False)
    assert found.reasons[0] == "laterality contradictory: L in ImageLaterality, R in Laterality"


def test_views_that_contradict_make_it_unusable() -> None:
    found = classify(quick_header(ViewPosition="CC", ViewCodeSequence=view_code("399368009")))
    assert (found.view_position, found.usable) == (None, False)
    assert found.reasons[0] == "view contradictory: CC in ViewPosition, MLO in ViewCodeSequence"


def test_cbis_headers_tell_their_view_in_patient_orientation() -> None:
    found = classify(
        quick_header(
            SOPClassUID=SecondaryCaptureImageStorage,
            ImageLaterality=None,
            Laterality="R",
            ViewPosition=None,
            PatientOrientation="MLO",
            PresentationIntentType=None,
            ImageType=None,
            EstimatedRadiographicMagnificationFactor=None,
        ),
        accepts=frozenset({ImageKind.SECONDARY_CAPTURE}),
    )
    assert found.view == R_MLO
    assert found.usable
    assert found.reasons == (f"laterality R from Laterality; view MLO from PatientOrientation; {UNCHECKED}",)


@pytest.mark.parametrize(
    ("orientation", "told"),
    [
        (["A", "R"], ""),
        (["P", "FL"], ""),
        (["AR", "FP"], ""),
        (["L", "A"], ""),
        (["L", "F"], UNCHECKED),
        (["", ""], UNCHECKED),
        (["A"], UNCHECKED),
        ("MLO", UNCHECKED),
        (None, UNCHECKED),
    ],
)
def test_the_last_sentence_says_where_the_side_cannot_be_checked(orientation: Any, told: str) -> None:
    found = classify(quick_header(PatientOrientation=orientation))
    assert found.usable
    assert found.reasons == (
        "; ".join(filter(None, ("laterality L from ImageLaterality", "view CC from ViewPosition", told))),
    )
    assert (chest_wall(quick_header(PatientOrientation=orientation)) is None) == bool(told)


@pytest.mark.parametrize(
    ("text", "region", "part"),
    [
        (None, None, ""),
        ("", None, ""),
        ("BREAST", None, ""),
        ("breast ", None, ""),
        ("LEFT BREAST", None, ""),
        ("MAMMA", None, ""),
        ("THORAX PA", None, ""),
        ("AXILLA", None, ""),
        ("CHEST", None, "CHEST"),
        (" hand", None, "HAND"),
        (None, ("76752008", "SCT"), ""),
        (None, ("T-04000", "SRT"), ""),
        (None, ("T-04000", "SNM3"), ""),
        (None, ("80248007", "SCT"), ""),
        (None, ("85562004", "SCT"), "HAND"),
        (None, ("T-D8700", "99SDM"), "HAND"),
        (None, ("85562004", "99X"), ""),
        (None, ("1", "SCT"), ""),
        ("CHEST", ("76752008", "SCT"), ""),
        ("BREAST", ("85562004", "SCT"), ""),
        ("MAMMA", ("816094009", "SCT"), "CHEST"),
        ("CHEST\\BREAST", None, ""),
        ("BREAST\\CHEST", None, ""),
        ("CHEST\\ABDOMEN", None, "ABDOMEN"),
        ("CHEST", ("T-04000", "99PMP"), ""),
    ],
)
def test_only_another_part_by_the_standards_own_terms_is_refused(
    text: str | None, region: tuple[str, str] | None, part: str
) -> None:
    item = Dataset()
    if region:
        item.CodeValue, item.CodingSchemeDesignator = region
    found = classify(quick_header(BodyPartExamined=text, AnatomicRegionSequence=[item]))
    assert found.usable is not bool(part)
    assert found.reasons[:-1] == ((f"body part {part}, not the breast",) if part else ())
    assert found.opens_exam


@pytest.mark.parametrize("text", ["CHEST", None])
def test_the_breast_as_primary_structure_of_the_chest_is_the_breast(text: str | None) -> None:
    chest, breast = Dataset(), Dataset()
    chest.CodeValue, chest.CodingSchemeDesignator = "816094009", "SCT"
    breast.CodeValue, breast.CodingSchemeDesignator = "76752008", "SCT"
    header = quick_header(
        BodyPartExamined=text, AnatomicRegionSequence=[chest], PrimaryAnatomicStructureSequence=[breast]
    )
    assert classify(header).usable


def test_the_codes_of_body_parts_are_those_of_the_standard() -> None:
    named = {code for names in cast("dict[str, dict[str, object]]", concepts["SCT"]).values() for code in names}
    for part, codes in OTHER_PARTS.items():
        assert part == part.upper()
        assert len(part) <= 16  # CS, PS3.5 6.2
        current = [code for code in codes.split() if code.isdigit()]
        assert set(current) <= named
        assert {code for code in codes.split() if not code.isdigit()} <= {mapping["SCT"].get(code) for code in current}
        assert not BREAST & set(codes.split())
    assert "BREAST" not in OTHER_PARTS


@pytest.mark.parametrize(
    ("attributes", "obstacle"),
    [
        ({"ViewCodeSequence": view_code("399162004", "399163009")}, "view modifier: magnification"),
        ({"ViewCodeSequence": view_code("R-10242", "R-102D7", scheme="SRT")}, "view modifier: spot compression"),
        ({"ViewCodeSequence": view_code("399162004", "399209000")}, "view modifier: implant displaced"),
        ({"ViewCodeSequence": view_code("399162004", "4711")}, "view modifier: unknown code 4711"),
        ({"ViewModifierCodeSequence": modifier_codes("399011000")}, "view modifier: axillary tail"),
        ({"ViewPosition": "CCID"}, "view modifier: implant displaced"),
        ({"ViewPosition": "CC ID"}, "view modifier: implant displaced"),
        ({"ViewPosition": "MLO-ID"}, "view modifier: implant displaced"),
        ({"ViewPosition": ["MLO", "AT"]}, "view modifier: axillary tail"),
        ({"SeriesDescription": "L CC Spot Mag"}, "view modifier: spot compression"),
        ({"EstimatedRadiographicMagnificationFactor": "1.8"}, "magnified 1.80 times"),
        ({"EstimatedRadiographicMagnificationFactor": "1.3"}, "magnified 1.30 times"),
        ({"PartialView": "YES"}, "partial view"),
        ({"LossyImageCompression": "01"}, "lossy compressed"),
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]}, "computed from tomosynthesis"),
        ({"ImageType": ["DERIVED", "PRIMARY", "", "RECOMBINED"]}, "contrast-enhanced, recombined"),
        ({"QualityControlImage": "YES"}, "quality control image"),
        ({"Rows": None}, "no pixels"),
        ({"NumberOfFrames": "2"}, "several frames"),
        ({"SamplesPerPixel": 3}, "colour image"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour image"),
        ({"ViewCodeSequence": view_code("127457009"), "ViewPosition": None}, "SPECIMEN is not a standard view"),
    ],
)
def test_it_is_not_usable_because(attributes: dict[str, Any], obstacle: str) -> None:
    found = classify(quick_header(**attributes))
    assert not found.usable
    assert obstacle in found.reasons[:-1]
    assert found.opens_exam


@pytest.mark.parametrize(
    "attributes",
    [
        {"EstimatedRadiographicMagnificationFactor": "1.15"},
        {"EstimatedRadiographicMagnificationFactor": None},
        {"BreastImplantPresent": "YES"},
        {"ViewCodeSequence": view_code("399162004")},
        {"ImageType": ["DERIVED", "PRIMARY", "", "LOW_ENERGY"]},
        {"SeriesDescription": "R MLO"},
        {"PartialView": None, "LossyImageCompression": None, "SamplesPerPixel": None},
    ],
)
def test_it_stays_usable_with(attributes: dict[str, Any]) -> None:
    assert classify(quick_header(**attributes)).usable


@pytest.mark.parametrize(
    ("syntax", "usable"), [(JPEGBaseline8Bit, False), (JPEGLosslessSV1, True), (JPEG2000Lossless, True)]
)
def test_the_transfer_syntax_tells_lossy_from_lossless(syntax: UID, *, usable: bool) -> None:
    header = quick_header()
    header.file_meta.TransferSyntaxUID = syntax
    assert classify(header).usable == usable


@pytest.mark.parametrize(
    ("header", "kind", "opens"),
    [
        (quick_header(SOPClassUID=DigitalMammographyXRayImageStorageForProcessing), ImageKind.FOR_PROCESSING, True),
        (quick_header(PresentationIntentType="FOR PROCESSING"), ImageKind.FOR_PROCESSING, True),
        (tomosynthesis_header(), ImageKind.TOMOSYNTHESIS, True),
        (
            quick_header(SOPClassUID=MultiFrameGrayscaleWordSecondaryCaptureImageStorage, NumberOfFrames=60),
            ImageKind.TOMOSYNTHESIS,
            True,
        ),
        (quick_header(SOPClassUID=BreastProjectionXRayImageStorageForPresentation), ImageKind.PROJECTION, True),
        (quick_header(SOPClassUID=SecondaryCaptureImageStorage), ImageKind.SECONDARY_CAPTURE, True),
        (quick_header(SOPClassUID=SecondaryCaptureImageStorage, Modality="OT"), ImageKind.SECONDARY_CAPTURE, False),
        (quick_header(SOPClassUID=UltrasoundImageStorage, Modality="US"), ImageKind.OTHER_IMAGE, False),
        (quick_header(SOPClassUID=CTImageStorage, Modality="CT"), ImageKind.OTHER_IMAGE, False),
        (quick_header(SOPClassUID="1.2.840.113619.4.2", Modality="OT"), ImageKind.OTHER_IMAGE, False),
        (quick_header(SOPClassUID="1.2.840.113619.4.2", Rows=None), ImageKind.NOT_AN_IMAGE, False),
        (quick_header(SOPClassUID=XRayRadiationDoseSRStorage, Rows=None), ImageKind.NOT_AN_IMAGE, False),
        (quick_header(SOPClassUID=KeyObjectSelectionDocumentStorage, Rows=None), ImageKind.NOT_AN_IMAGE, False),
        (quick_header(SOPClassUID=GrayscaleSoftcopyPresentationStateStorage), ImageKind.NOT_AN_IMAGE, False),
        (quick_header(SOPClassUID=SegmentationStorage, Modality="SEG"), ImageKind.NOT_AN_IMAGE, False),
        (own_result_header(), ImageKind.OWN_RESULT, False),
        (Dataset(), ImageKind.NOT_AN_IMAGE, False),
    ],
)
def test_the_kind_is(header: Dataset, kind: ImageKind, *, opens: bool) -> None:
    found = classify(header)
    assert (found.kind, found.opens_exam, found.usable) == (kind, opens, False)
    assert len(found.reasons) >= 2


def test_tomosynthesis_shows_a_view_although_it_is_not_read() -> None:
    found = classify(tomosynthesis_header())
    assert found.view == L_CC
    assert found.reasons[0] == "tomosynthesis, which the reader does not read"


def test_a_reader_may_accept_for_processing() -> None:
    header = quick_header(SOPClassUID=DigitalMammographyXRayImageStorageForProcessing)
    assert classify(header, frozenset({ImageKind.FOR_PROCESSING})).usable


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("R MLO", ViewWords(RIGHT, "MLO")),
        ("LCC", ViewWords(LEFT, "CC")),
        ("LEFT_CC", ViewWords(LEFT, "CC")),
        ("LMLO", ViewWords(LEFT, "MLO")),
        ("LMO", ViewWords(None, "LMO")),
        ("LLM", ViewWords(LEFT, "LM")),
        ("LM", ViewWords(None, "LM")),
        ("RMCC", ViewWords(RIGHT, "CC", ("magnification",))),
        ("L MLO-ID", ViewWords(LEFT, "MLO")),
        ("RMLOID", ViewWords(RIGHT, "MLO", ("implant displaced",))),
        ("RCCS", ViewWords(RIGHT, "CC", ("spot compression",))),
        ("Screening MLOs", ViewWords(None, "MLO")),
        ("CCs, MLOs", ViewWords()),
        ("HTML CCD", ViewWords()),
        ("L/R CC", ViewWords(None, "CC")),
        ("", ViewWords()),
    ],
)
def test_words_in_a_text(text: str, found: ViewWords) -> None:
    assert read_text(text) == found


@pytest.mark.parametrize(
    ("descriptions", "meant"),
    [
        (("Mammography unilateral",), True),
        (("MAMMO DIAG LEFT",), True),
        (("Left mammogram", "L CC"), True),
        (("Screening mammography", "L CC"), False),
        (("Right mammogram",), False),
        (("Mammography bilateral, left unilateral spot",), False),
        (("Mammo left and right",), False),
        (("Unilateral mammogram", "R CC"), False),
        (("", ""), False),
    ],
)
def test_a_description_orders_the_left_breast_alone(descriptions: tuple[str, ...], *, meant: bool) -> None:
    assert says_unilateral(descriptions, LEFT) == meant


@pytest.mark.parametrize(
    ("attributes", "moment"),
    [
        ({}, "20260110101500.000000"),
        ({"AcquisitionTime": "101500.25"}, "20260110101500.250000"),
        ({"AcquisitionTime": "1015"}, "20260110101500.000000"),
        ({"AcquisitionDateTime": "20260111080910.5+0100"}, "20260111080910.500000"),
        ({"AcquisitionDate": None, "ContentDate": "20260112", "ContentTime": "111213"}, "20260112111213.000000"),
        ({"AcquisitionTime": None}, ""),
        ({"AcquisitionDate": None}, ""),
    ],
)
def test_the_moment_of_acquisition(attributes: dict[str, Any], moment: str) -> None:
    assert acquired_at(quick_header(**attributes)) == moment


def test_the_instance_number_is_a_number_or_none() -> None:
    assert instance_number(quick_header(InstanceNumber="12")) == 12
    assert instance_number(quick_header(InstanceNumber=None)) is None
    assert instance_number(garbled("InstanceNumber", "IS", b"99999999999")) is None
    assert instance_number(garbled("InstanceNumber", "IS", b"one")) is None


def garbled(keyword: str, vr: str, value: bytes) -> Dataset:
    """Return a header with an element as it comes from a file, not yet converted."""
    header = quick_header()
    tag = Tag(tag_for_keyword(keyword) or 0)
    header[tag] = RawDataElement(tag, vr, len(value), value, 0, is_implicit_VR=False, is_little_endian=True)
    return header


READ_KEYWORDS = [
    "SOPClassUID",
    "Manufacturer",
    "Modality",
    "PresentationIntentType",
    "ImageType",
    "ImageLaterality",
    "Laterality",
    "ViewPosition",
    "ViewCodeSequence",
    "ViewModifierCodeSequence",
    "SharedFunctionalGroupsSequence",
    "AcquisitionDeviceProcessingDescription",
    "PatientOrientation",
    "SeriesDescription",
    "EstimatedRadiographicMagnificationFactor",
    "NumberOfFrames",
    "Rows",
    "SamplesPerPixel",
    "InstanceNumber",
    "AcquisitionDateTime",
    "AcquisitionTime",
]


@given(
    keyword=st.sampled_from(READ_KEYWORDS),
    vr=st.sampled_from(["CS", "DS", "IS", "US", "SQ", "UI", "LO", "PN", "TM", "DT", "FD", "OB", "UN", "AT", "ZZ"]),
    value=st.binary(max_size=24) | st.text("CMLORX\\\0 1.", max_size=24).map(str.encode),
)
def test_no_odd_header_raises_and_what_is_said_fits_a_database(keyword: str, vr: str, value: bytes) -> None:
    header = garbled(keyword, vr, value)
    found = classify(header)
    acquired_at(header), instance_number(header)
    assert found.reasons
    assert found.usable <= (found.view is not None)
    assert found.usable or len(found.reasons) >= 2
    # PostgreSQL takes no NUL in a text.
    assert "\0" not in "".join((*found.reasons, *found.modifiers, found.view_position or ""))


@given(missing=st.sets(st.sampled_from(READ_KEYWORDS)))
def test_no_missing_attribute_raises(missing: set[str]) -> None:
    found = classify(quick_header(**dict.fromkeys(missing)))
    if missing & {"ImageLaterality", "ViewPosition", "SOPClassUID", "Rows"}:
        assert not found.usable
