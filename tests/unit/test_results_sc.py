"""Secondary Captures: every answer has its page, each view its picture; the marks are where the masses are."""

import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ai.exam import STANDARD_VIEWS, Laterality, View
from ai.findings import ImageFindings, Match
from config.mix import ObjectMix, ResultKind
from node.identity import RESEARCH_USE_ONLY
from node.results import pages
from node.results.answer import Answer, ImageAnswer
from node.results.drawing import CELL, Fit, caption_rows, hanging_place
from node.results.edition import Edition
from node.results.encode import ENCODERS, encode
from tests.answers import FORMS, LEFT_CC, RIGHT, STANDS_IN, a_mass, an_answer, an_edition, phantom_masks
from tests.builders import L_CC, R_CC, R_MLO

PICTURES = ObjectMix((ResultKind.SC, ResultKind.SC_VIEW))
ROOT = Path(__file__).parents[2]


def edition_of(answer: Answer, **pictures: NDArray[np.uint8]) -> Edition:
    """Return the edition of an answer for a destination of pictures."""
    made = an_edition(answer, PICTURES)
    return replace(made, pictures=pictures) if pictures else made


def page_of(answer: Answer) -> Dataset:
    """Return the page of an answer."""
    [made] = ENCODERS[ResultKind.SC](edition_of(answer))
    return made.dataset


def views_of(answer: Answer) -> dict[str | None, Dataset]:
    """Return the pictures of the views by the image that they belong to."""
    return {made.image_uid: made.dataset for made in ENCODERS[ResultKind.SC_VIEW](edition_of(answer))}


def coloured(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return where a picture is clearly not grey."""
    return np.asarray(np.ptp(picture.astype(np.int16), axis=2) > 60, np.bool_)


def cell_of_view(page: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    """Return a view's cell, without its caption; a page's views end where its footer begins."""
    footer = page.shape[0] - 1
    dark = (page[:, 1] == 36).all(axis=1)
    while dark[footer]:
        footer -= 1
    top_of_views = footer + 1 - (2 * (CELL[0] + caption_rows(CELL)) + 6)
    left, top = hanging_place(STANDARD_VIEWS.index(view), CELL)
    first = top_of_views + top + caption_rows(CELL)
    return page[first : first + CELL[0], left : left + CELL[1]]


@pytest.mark.parametrize("form", FORMS)
def test_every_answer_has_one_page_and_every_image_that_was_read_one_picture(form: str) -> None:
    answer = FORMS[form]()
    page = page_of(answer)
    assert [item.ReferencedSOPInstanceUID for item in page.SourceImageSequence] == [i.uid for i in answer.images]
    assert set(views_of(answer)) == {image.uid for image in answer.images if image.not_read is None}
    assert page.Rows <= 2500
    assert page.Columns <= 2000
    assert (page.PhotometricInterpretation, page.SamplesPerPixel, page.BitsAllocated) == ("RGB", 3, 8)
    assert page.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert page.pixel_array.shape == (page.Rows, page.Columns, 3)


def test_each_views_mass_is_outlined_at_its_place_on_the_page() -> None:
    answer = an_answer()
    page = page_of(answer).pixel_array
    for view, [mask] in phantom_masks().items():
        cell = cell_of_view(page, view)
        rows, columns = mask.shape
        fit = Fit.into(mask.shape, 1.0, CELL, 1 if view.laterality is Laterality.RIGHT else 0)
        down, across = np.nonzero(mask)
        expected = (
            fit.left + (across.min() + across.max() + 1) / 2 * fit.columns / columns,
            fit.top + (down.min() + down.max() + 1) / 2 * fit.rows / rows,
        )
        height, width = (np.ptp(axis) + 1 for axis in (down, across))
        # The outline alone: the label is beside it.
        reach = 0.5 * width * fit.columns / columns + 4, 0.5 * height * fit.rows / rows + 4
        marked = coloured(cell)
        y, x = np.nonzero(marked)
        near = (abs(x - expected[0]) < reach[0]) & (abs(y - expected[1]) < reach[1])
        assert near.sum() > 60
        assert ((x[near].min() + x[near].max()) / 2, (y[near].min() + y[near].max()) / 2) == pytest.approx(
            expected, abs=3
        )
        # Everything else that is coloured is the label: on one side, as high as its letters.
        rest = np.stack([x[~near], y[~near]])
        assert np.ptp(rest[1]) < 30
        assert np.ptp(rest[0]) < 90


def test_no_view_is_coloured_without_findings() -> None:
    answer = an_answer(masses=False)
    page = page_of(answer).pixel_array
    for view in STANDARD_VIEWS:
        assert not coloured(cell_of_view(page, view)).any()
    for picture in views_of(answer).values():
        assert not coloured(picture.pixel_array).any()


def test_the_breast_is_to_be_seen_on_the_page() -> None:
    page = page_of(an_answer()).pixel_array
    for view in STANDARD_VIEWS:
        cell = cell_of_view(page, view)
        chest_wall = cell[300:500, -20:] if view.laterality is Laterality.RIGHT else cell[300:500, :20]
        assert chest_wall.mean() > 30
        far = cell[300:500, :20] if view.laterality is Laterality.RIGHT else cell[300:500, -20:]
        assert far.mean() < 5


def test_a_view_that_was_not_read_shows_no_picture() -> None:
    answer = FORMS["partial with findings"]()
    page = page_of(answer).pixel_array
    for view in STANDARD_VIEWS:
        cell = cell_of_view(page, view)
        bright = (cell > 60).mean()
        assert bright > 0.2 if view in RIGHT else 0.001 < bright < 0.03


@pytest.mark.parametrize("told", ["spot compression", "No breast can be seen."])
def test_why_a_view_was_not_read_ends_with_one_full_stop(told: str) -> None:
    answer = an_answer(read=RIGHT, complete=False, not_read={LEFT_CC: told})
    assert pages.why(answer, LEFT_CC) == f"Not read: {told.rstrip('.')}."


@pytest.mark.parametrize("form", ["not analysed", "failed"])
def test_an_answer_without_findings_has_a_page_of_words(form: str) -> None:
    page = page_of(FORMS[form]())
    assert page.Rows < 1200
    assert (page.pixel_array > 150).any()


def test_a_mirrored_source_is_hung_the_usual_way() -> None:
    """The same pixels, once as they are and once stored from the other side and said to be so."""
    answer = an_answer(read=[R_CC])
    [uid] = [image.uid for image in answer.images]
    made = edition_of(answer)
    usual = pages.panels(made)[R_CC]

    def flip(header: Dataset) -> None:
        header.PatientOrientation = ["A", "R"]

    found = answer.findings
    assert found is not None
    [image] = found.images
    mask = image.masses[0].full_mask(image.shape)[::-1, ::-1]
    turned = replace(image, masses=(a_mass(mask),))
    other = an_answer(read=[R_CC], change=flip)
    other = replace(other, findings=replace(found, images=(turned,)))
    pixels = np.ascontiguousarray(made.pictures[uid][::-1, ::-1])
    hung = pages.panels(replace(edition_of(other), pictures={uid: pixels}))[R_CC]
    assert usual.pixels is not None
    assert hung.pixels is not None
    assert (hung.pixels == usual.pixels).all()
    box, expected = hung.outlines[0].contour.min(axis=0), usual.outlines[0].contour.min(axis=0)
    assert box == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("view", "orientation", "turned"),
    [
        (R_CC, ["P", "L"], (False, False)),
        (R_CC, ["A", "L"], (True, False)),
        (R_CC, ["P", "R"], (False, True)),
        (L_CC, ["A", "R"], (False, False)),
        (L_CC, ["P", "R"], (True, False)),
        (L_CC, ["A", "L"], (False, True)),
        (R_MLO, ["P", "FL"], (False, False)),
        (R_MLO, ["A", "HR"], (True, True)),
        (R_MLO, ["AL", "F"], (True, False)),
        (R_CC, None, (False, False)),
        (R_CC, "AL", (False, False)),
    ],
)
def test_patient_orientation_tells_how_an_image_is_hung(
    view: View, orientation: object, turned: tuple[bool, bool]
) -> None:
    header = Dataset()
    header.PatientOrientation = orientation
    assert tuple(pages.turned(ImageAnswer(header, view), view).values()) == turned


@pytest.mark.parametrize(
    ("spacing", "ratio", "aspect"), [([0.2, 0.1], None, 2), (None, [2, 1], 2), ([0.00001, 0.1], None, 1)]
)
def test_pixels_that_are_not_square_are_drawn_as_they_are_read(
    spacing: list[float] | None, ratio: list[int] | None, aspect: float
) -> None:
    def change(header: Dataset) -> None:
        header.ImagerPixelSpacing, header.PixelAspectRatio = spacing, ratio

    panel = pages.panels(edition_of(an_answer(change=change)))[R_CC]
    assert panel.aspect == pytest.approx(aspect)


def test_a_page_claims_no_side_and_a_view_its_own() -> None:
    answer = an_answer()
    page = page_of(answer)
    assert "ImageLaterality" not in page
    assert not page.Laterality
    assert not page.PatientOrientation
    for image in answer.images:
        picture = views_of(answer)[image.uid]
        assert image.view
        assert picture.Laterality == image.view.laterality
        assert picture.PatientOrientation == image.header.PatientOrientation
        assert [item.ReferencedSOPInstanceUID for item in picture.SourceImageSequence] == [image.uid]


def test_what_is_burned_in_identifies_nobody_unless_a_source_does() -> None:
    def burned(header: Dataset) -> None:
        header.BurnedInAnnotation = "YES"

    assert page_of(an_answer()).BurnedInAnnotation == "NO"
    assert page_of(an_answer(change=burned)).BurnedInAnnotation == "YES"
    assert {view.BurnedInAnnotation for view in views_of(an_answer(change=burned)).values()} == {"YES"}


def test_a_source_that_is_not_shown_burns_nothing_in() -> None:
    answer = an_answer(read=RIGHT, complete=False, not_read={LEFT_CC: "spot compression"})
    answer.images[-1].header.BurnedInAnnotation = "YES"
    assert page_of(answer).BurnedInAnnotation == "NO"


@pytest.mark.parametrize("form", FORMS)
def test_pictures_say_what_they_are_not_for(form: str) -> None:
    answer = FORMS[form]()
    for picture in (page_of(answer), *views_of(answer).values()):
        assert "NOT FOR PRIMARY DIAGNOSIS" in picture.DerivationDescription
        assert RESEARCH_USE_ONLY in picture.DerivationDescription
        assert RESEARCH_USE_ONLY in picture.ImageComments
        assert picture.ConversionType == "WSD"
        assert "DateOfSecondaryCapture" not in picture
        assert "PixelSpacing" not in picture


@pytest.mark.parametrize(
    ("shape", "size"), [((2000, 1600), (1000, 800)), ((512, 416), (480, 480)), ((1, 1), (480, 480))]
)
def test_a_view_has_half_its_resolution_and_room_for_words(shape: tuple[int, int], size: tuple[int, int]) -> None:
    answer = an_answer(read=[R_CC])
    assert answer.findings is not None
    [image] = answer.images
    image.header.Rows, image.header.Columns = shape
    found = ImageFindings(image.uid, R_CC, shape, (a_mass(np.ones(shape, np.bool_)),), 60, 0.6)
    answer = replace(answer, findings=replace(answer.findings, images=(found,)))
    made = replace(edition_of(answer), pictures={image.uid: np.full(shape, 77, np.uint8)})
    [picture] = [each.dataset for each in ENCODERS[ResultKind.SC_VIEW](made)]
    assert picture.Columns == size[1]
    assert 0 < picture.Rows - size[0] < 260
    assert (picture.pixel_array == 77).all(axis=2).sum() > 0.5 * size[0] * size[0]


# What the page says.


def words_of(answer: Answer) -> str:
    """Return all words of the page."""
    page = pages.page(edition_of(answer))
    panels = [part for panel in page.panels.values() for part in (panel.caption, panel.words)]
    return "\n".join([page.title, page.mark, *page.lines, *panels, *page.footer])


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ("findings", ["4 masses marked in 4 views.", "Exam 61, right breast 60, left breast 60 (suspicion scores)."]),
        ("no findings", ["No mass found in 4 views.", "R CC   image score 60   no mass"]),
        (
            "partial with findings",
            ["PARTIAL: not all expected views were read. 2 masses marked in 2 views.", "Not read: spot compression."],
        ),
        ("partial without findings", ["PARTIAL", "No mass found in 2 views.", "Views not read: L CC, L MLO."]),
        ("unilateral", ["2 masses marked in 2 views.", "L CC   no image", "none was expected"]),
        ("not analysed", ["NOT ANALYSED: there is no result.", "lossy compression", "L CC   NOT READ"]),
        ("failed", ["The reading FAILED: there is no result.", "the reader ran out of memory"]),
    ],
)
def test_the_page_says_how_the_exam_was_answered(form: str, told: Iterable[str]) -> None:
    words = words_of(FORMS[form]())
    for sentence in told:
        assert sentence in words
    for always in ("RESEARCH USE ONLY", "NOT FOR PRIMARY DIAGNOSIS", RESEARCH_USE_ONLY, "phantom-reader 1.2"):
        assert always in words
    assert "The model was trained on digitised film." in words
    assert ("not probabilities" in words) is (form not in {"not analysed", "failed"})


def test_the_page_says_what_changed_what_is_hidden_and_what_belongs_together() -> None:
    answer = replace(an_answer(), changes=("L MLO was added.",), revision=2)
    assert answer.findings is not None
    answer = replace(answer, findings=replace(answer.findings, matches=(Match(Laterality.RIGHT, 1, 1),)))
    words = words_of(answer)
    assert "L MLO was added." in words
    assert "revision 2" in words
    assert "Mass 1 in R CC and mass 1 in R MLO may be one lesion." in words
    hidden = words_of(answer.shown_above(99))
    assert "No mass shown in 4 views." in hidden
    assert "4 findings below this destination's threshold of 99." in hidden


def test_a_repeated_image_is_named_beside_the_one_that_was_read() -> None:
    answer = an_answer(read=[R_CC], not_read={LEFT_CC: "repeated: another image"})
    more = replace(answer.images[1], view=R_CC)
    words = words_of(replace(answer, images=(answer.images[0], more)))
    assert "Not read: R CC: repeated: another image" in words
    assert "R CC   image score 60   1 mass" in words


def test_four_images_that_were_not_read_for_one_reason_are_told_once() -> None:
    assert words_of(FORMS["not analysed"]()).count("Not read: an image: lossy compression") == 1


def test_an_image_that_stood_in_for_another_is_told_to_the_last_word() -> None:
    assert STANDS_IN in words_of(replace(an_answer(), reasons=(STANDS_IN,)))


def test_words_are_shortened_and_say_how_many_are_left_out() -> None:
    lines = pages.shortened([f"line {n}" for n in range(12)], 8, 20)
    assert len(lines) == 8
    assert lines[-1] == "And 5 more remarks: see the structured report."
    assert pages.shortened(["x" * 30], 8, 20) == ["x" * 17 + "..."]


def test_a_page_of_many_long_reasons_stays_small() -> None:
    reasons = tuple(f"reason {n}: " + "very long " * 40 for n in range(60))
    assert page_of(replace(an_answer(), reasons=reasons)).Rows <= 2500


ENCODE = """
import hashlib
from config.mix import ObjectMix, ResultKind
from node.results.encode import to_bytes
from tests.answers import an_answer, encoded
kinds = (ResultKind.GSPS, ResultKind.SC, ResultKind.SC_VIEW, ResultKind.PDF)
for made in encoded(an_answer(), ObjectMix(kinds)):
    print(made.kind, hashlib.sha256(to_bytes(made.dataset)).hexdigest())
"""


def test_another_process_makes_the_same_bytes() -> None:
    command = [sys.executable, "-c", ENCODE]
    told = [subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout for _ in range(2)]
    assert told[0] == told[1]
    assert len(told[0].splitlines()) == 10


def test_the_mix_gives_the_order() -> None:
    made = encode(edition_of(an_answer()))
    assert [each.kind for each in made] == [ResultKind.SC, *[ResultKind.SC_VIEW] * 4]
    assert len({each.series_uid for each in made}) == 5
