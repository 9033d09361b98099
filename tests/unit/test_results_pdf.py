"""The summary: one page whatever was found, with the whole answer in words that can be searched."""

import re
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pypdf import PageObject, PdfReader

from ai.exam import STANDARD_VIEWS, Laterality
from ai.findings import Match
from config.mix import ObjectMix, ResultKind
from node.identity import RESEARCH_USE_ONLY
from node.results.answer import Answer, AnswerStatus
from node.results.encode import to_bytes
from tests.answers import FORMS, MODEL, RIGHT, STANDS_IN, a_mass, an_answer, an_unread_answer, encoded, phantom_headers
from tests.builders import altered

SUMMARY = ObjectMix((ResultKind.PDF,))
VIEWS = [str(view) for view in STANDARD_VIEWS]


def object_of(answer: Answer) -> Dataset:
    """Return the summary of an answer."""
    [made] = encoded(answer, SUMMARY)
    return made.dataset


def page_of(answer: Answer) -> PageObject:
    """Return the only page of the document."""
    made = object_of(answer)
    document = bytes(made.EncapsulatedDocument)[: made.EncapsulatedDocumentLength]
    [page] = PdfReader(BytesIO(document), strict=True).pages
    return page


def text_of(answer: Answer) -> str:
    """Return what is written on the page, its lines joined."""
    return " ".join(page_of(answer).extract_text().split())


def with_masses(count: int) -> Answer:
    """Return an answer with so many masses in every view."""
    answer = an_answer()
    assert answer.findings is not None
    images = []
    for image in answer.findings.images:
        masks = [np.zeros(image.shape, np.bool_) for _ in range(count)]
        for number, mask in enumerate(masks):
            mask[10 + 9 * number : 18 + 9 * number, 40:60] = True
        masses = tuple(a_mass(mask, n, suspicion=99 - n) for n, mask in enumerate(masks, start=1))
        images.append(replace(image, masses=masses))
    return replace(answer, findings=replace(answer.findings, images=tuple(images)))


@pytest.mark.parametrize("form", FORMS)
def test_every_answer_has_one_page_that_says_what_it_is(form: str) -> None:
    answer = FORMS[form]()
    text = text_of(answer)
    for told in (
        "AI mammography summary - research use only",
        f"Patient ID {answer.images[0].header.PatientID}",
        f"Accession {answer.images[0].header.AccessionNumber}",
        "Study date 2026-01-10",
        f"Model {MODEL.name} {MODEL.version}",
        MODEL.digest,
        MODEL.notes[0],
        "2026-03-04 05:06+00:00, revision 1",
        "NOT FOR PRIMARY DIAGNOSIS.",
        RESEARCH_USE_ONLY,
    ):
        assert told in text
    assert "PHANTOM^" not in text
    assert "FOUR VIEWS" not in text


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ("findings", ("4 masses marked in 4 views.", "Exam 61, right breast 60, left breast 60.")),
        ("no findings", ("No mass found in 4 views.", "Images: R CC 60, L CC 60, R MLO 60, L MLO 60.")),
        ("partial with findings", ("PARTIAL: not all expected views", "Not read: L CC: spot compression")),
        ("partial without findings", ("PARTIAL: not all expected views", "Views not read: L CC, L MLO.")),
        ("unilateral", ("2 masses marked in 2 views.", "Exam 61, right breast 60.")),
        ("not analysed", ("NOT ANALYSED: there is no result.", "lossy compression")),
        ("failed", ("The reading FAILED: there is no result.", "the reader ran out of memory")),
    ],
)
def test_the_page_says_how_the_exam_was_answered(form: str, told: tuple[str, ...]) -> None:
    text = text_of(FORMS[form]())
    for sentence in told:
        assert sentence in text


def test_the_table_has_a_row_for_each_mass_with_its_size_and_where_the_millimetres_come_from() -> None:
    answer = an_answer()
    text = text_of(answer)
    assert answer.findings is not None
    for image in answer.findings.images:
        for mass in image.masses:
            size = mass.size
            row = f"{image.view} {mass.number} {mass.suspicion} {size.long_axis:.1f} x {size.short_axis:.1f} mm"
            assert f"{row} {size.area:.0f} mm2 detector / magnification" in text


def test_sizes_in_pixels_are_called_so() -> None:
    text = text_of(FORMS["sizes in pixels"]())
    assert "pixels no spacing known" in text
    assert " mm" not in text


def test_masses_that_may_be_one_lesion_name_each_other() -> None:
    answer = an_answer()
    assert answer.findings is not None
    match = Match(Laterality.LEFT, 1, 1)
    text = text_of(replace(answer, findings=replace(answer.findings, matches=(match,))))
    assert text.count("detector / magnification L MLO mass 1") == 1
    assert text.count("detector / magnification L CC mass 1") == 1


def test_forty_masses_in_each_view_stay_on_one_page_and_the_rest_is_counted() -> None:
    text = text_of(with_masses(40))
    rows = text.count("detector / magnification")
    assert rows >= 10
    assert f"and {160 - rows} more, none of a higher score: see the structured report" in text
    assert text.index("none of a higher score") < text.index("NOT FOR PRIMARY DIAGNOSIS.")


def test_the_most_suspicious_masses_are_in_a_table_that_has_no_room_for_all() -> None:
    text = text_of(with_masses(40))
    rows = re.findall(r"([RL] (?:CC|MLO)) (\d+) (\d+) [\d.]+ x", text)
    assert {view for view, _, _ in rows} == {"R CC", "L CC", "R MLO", "L MLO"}
    assert min(int(score) for *_, score in rows) >= 98 - len(rows) // 4
    assert [view for view, _, _ in rows] == sorted((view for view, _, _ in rows), key=VIEWS.index)


def test_a_table_that_fits_is_whole() -> None:
    text = text_of(with_masses(3))
    assert text.count("detector / magnification") == 12
    assert "see the structured report" not in text


@pytest.mark.parametrize("word", ["a reason in words ", "W" * 70 + " ", "1.2.840.10008.5." * 12 + " "])
def test_many_long_remarks_stay_beside_the_picture_and_above_the_footer(word: str) -> None:
    reasons = tuple(f"{n} {word * 12}"[:300] for n in range(60))
    page = page_of(replace(with_masses(40), reasons=reasons))
    places: list[tuple[float, float, str]] = []
    page.extract_text(visitor_text=lambda text, _, matrix, *__: places.append((matrix[4], matrix[5], text)))
    text = " ".join(page.extract_text().split())
    assert "More remarks: see the structured report." in text
    assert "none of a higher score: see the structured report" in text
    assert all(36 <= y < 842 - 36 for x, y, told in places if told.strip())
    lowest = min(y for _, y, told in places if "structured report" in told)
    assert lowest > max(y for _, y, told in places if told.startswith("Model "))


def test_an_image_that_stood_in_for_another_is_told_to_the_last_word() -> None:
    told = text_of(replace(an_answer(), reasons=(STANDS_IN,)))
    assert STANDS_IN.replace(" ", "") in "".join(told.split())


def test_changes_and_what_is_hidden_are_told() -> None:
    answer = replace(an_answer(), changes=("R CC: one mass more than in revision 1.",), revision=2)
    assert "R CC: one mass more than in revision 1." in text_of(answer)
    [made] = encoded(answer, ObjectMix((ResultKind.PDF,), threshold=99))
    document = PdfReader(BytesIO(made.dataset.EncapsulatedDocument))
    text = " ".join(document.pages[0].extract_text().split())
    assert "No mass shown in 4 views." in text
    assert "4 findings below this destination's threshold of 99." in text


def test_the_views_are_pictured_with_marks_and_fonts_travel_with_the_page() -> None:
    page = page_of(an_answer())
    [picture] = page.images
    assert picture.image is not None
    pixels = np.asarray(picture.image.convert("RGB"), np.int16)
    assert (np.ptp(pixels, axis=2) > 60).sum() > 500
    fonts = [font.get_object() for font in page["/Resources"]["/Font"].values()]  # type: ignore[index]
    assert fonts
    assert all("/FontFile2" in font["/FontDescriptor"].get_object() for font in fonts)
    without = np.asarray(page_of(an_answer(masses=False)).images[0].image, np.int16)
    assert not (np.ptp(without, axis=2) > 60).any()


def test_a_header_without_identifiers_is_said_to_be_so() -> None:
    bare = altered(next(iter(phantom_headers().values())), PatientID="", AccessionNumber="", StudyDate="")
    answer = an_unread_answer(AnswerStatus.NOT_ANALYSED, bare, reason="no pixels")
    assert "The images name neither patient nor accession." in text_of(answer)


def test_text_that_is_not_latin_is_replaced() -> None:
    answer = an_answer(read=RIGHT)
    for image in answer.images:
        image.header.PatientID = "患者1"
    assert "Patient ID ??1" in text_of(answer)


def test_the_object_describes_its_document() -> None:
    answer = FORMS["partial with findings"]()
    made = object_of(answer)
    assert made.SOPClassUID == "1.2.840.10008.5.1.4.1.1.104.1"
    assert made.Modality == "DOC"
    assert made.MIMETypeOfEncapsulatedDocument == "application/pdf"
    assert made.ConversionType == "WSD"
    # Patient ID and study date are on the page.
    assert made.BurnedInAnnotation == "YES"
    assert made.DocumentTitle == "AI mammography summary - research use only"
    assert made.ConceptNameCodeSequence[0].CodeValue == "111036"
    assert made.VerificationFlag == "UNVERIFIED"
    assert [item.ReferencedSOPInstanceUID for item in made.SourceInstanceSequence] == [i.uid for i in answer.images]
    assert bytes(made.EncapsulatedDocument).startswith(b"%PDF-")
    assert len(made.EncapsulatedDocument) % 2 == 0
    assert len(made.EncapsulatedDocument) - made.EncapsulatedDocumentLength in (0, 1)
    assert bytes(made.EncapsulatedDocument)[: made.EncapsulatedDocumentLength].rstrip().endswith(b"%%EOF")
    assert len(made.EncapsulatedDocument) < 2_000_000


def test_nothing_in_the_document_is_from_the_clock() -> None:
    answer = an_answer()
    assert to_bytes(object_of(answer)) == to_bytes(object_of(answer))
    document = bytes(object_of(answer).EncapsulatedDocument)
    assert b"2026" not in PdfReader(BytesIO(document)).metadata.creation_date_raw.encode()  # type: ignore[union-attr]


def test_the_acquisition_equipment_is_told_where_the_source_tells_it() -> None:
    purposes = [
        item.PurposeOfReferenceCodeSequence[0].CodeValue
        for item in object_of(an_answer()).ContributingEquipmentSequence
    ]
    assert purposes == ["109101", "109102"]
