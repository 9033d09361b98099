"""The gate lets sound mammograms through without a word, and lets nothing of the challenge set through like that."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from ai.appearance import appearance
from ai.checks import Check, Verdict
from ai.errors import NoBreast
from ai.exam import STANDARD_VIEWS, Side, ViewImage
from ai.gate import STATISTICS, GatePolicy, Reference, noticed, shipped_reference, with_warnings
from ai.phantom.vendors import VENDORS, Vendor
from ai.pixels import chest_wall, view_image
from node.phantom import phantom_exam
from node.results.codes import WARNING_OF
from node.results.reasons import Reason
from node.views import classify
from tests.answers import LEFT_CC, an_answer, report_of
from tests.builders import L_CC, R_CC
from tests.challenge import FOREIGN, a_phantom, challenges, headers

ROOT = Path(__file__).parents[2]

CAUGHT: dict[str, tuple[Verdict, Check | None]] = {
    "inverted": (Verdict.NOT_ANALYSED, Check.INVERTED),
    "turned by 90 degrees": (Verdict.WARN, Check.TURNED),
    "turned by 180 degrees": (Verdict.WARN, Check.SIDE),
    "turned by 270 degrees": (Verdict.WARN, Check.TURNED),
    "mirrored": (Verdict.WARN, Check.SIDE),
    "upper quarter": (Verdict.WARN, Check.CUT),
    "implant": (Verdict.WARN, Check.PLATEAU),
    "few grey levels": (Verdict.WARN, Check.FEW_LEVELS),
    "overexposed": (Verdict.WARN, Check.CLIPPED),
    "CT slice": (Verdict.NOT_ANALYSED, Check.NO_CHEST_WALL),
    "chest": (Verdict.NOT_ANALYSED, Check.NO_OUTLINE),
    "hand": (Verdict.NOT_ANALYSED, Check.NO_CHEST_WALL),
    "noise": (Verdict.NOT_ANALYSED, Check.NOISE),
    "page of text": (Verdict.NOT_ANALYSED, Check.NOISE),
    "black page of text": (Verdict.NOT_ANALYSED, None),
    "MLO called CC": (Verdict.WARN, Check.VIEW),
    "CC called MLO": (Verdict.WARN, Check.VIEW),
}
"""What must follow, and what must be noticed; None where no breast may be found."""


@cache
def the_challenges() -> dict[str, ViewImage]:
    return challenges()


def told(image: ViewImage) -> tuple[Check, ...]:
    return noticed(image, appearance(image), GatePolicy(), shipped_reference())


def a_header(**changes: object) -> Dataset:
    header = a_phantom()
    for keyword, value in changes.items():
        setattr(header, keyword, value)
    return header


@pytest.mark.parametrize("vendor", VENDORS.values(), ids=lambda vendor: vendor.name)
def test_of_sound_phantoms_nothing_is_said_but_that_they_are_no_film(vendor: Vendor) -> None:
    for seed in (1, 2):
        exam = phantom_exam(seed, small=True, vendor=vendor)
        for view in STANDARD_VIEWS:
            assert set(told(view_image(exam.image(view), view))) <= {Check.UNLIKE}


def test_every_picture_of_the_challenge_set_is_expected_to_be_caught() -> None:
    assert set(CAUGHT) == set(the_challenges())


@pytest.mark.parametrize("name", CAUGHT)
def test_every_picture_of_the_challenge_set_is_caught(name: str) -> None:
    image = the_challenges()[name]
    verdict, check = CAUGHT[name]
    if check is None:
        with pytest.raises(NoBreast):
            told(image)
    else:
        found = told(image)
        assert check in found
        assert max((each.verdict for each in found), key=list(Verdict).index) is verdict


def test_what_is_no_mammogram_is_not_read() -> None:
    assert {CAUGHT[name][0] for name in FOREIGN} == {Verdict.NOT_ANALYSED}


def test_a_breast_that_runs_beyond_three_sides_is_read_while_its_outline_is_seen() -> None:
    image = the_challenges()["mirrored"]
    breast = np.argwhere(image.pixels > 0.1)
    (top, left), (bottom, right) = breast.min(0), breast.max(0)
    cut_y, cut_x = (bottom - top) // 10, (right - left) // 10
    closer = image.pixels[top + cut_y : bottom - cut_y, left + cut_x : right + 1]
    found = told(replace(image, pixels=np.ascontiguousarray(closer)))
    assert {check.verdict for check in found} == {Verdict.WARN}


@pytest.mark.parametrize(
    ("header", "check"),
    [
        ({"BreastImplantPresent": "YES"}, Check.IMPLANT),
        ({"ImagerPixelSpacing": None}, Check.NO_SPACING),
        ({"BitsStored": 8, "HighBit": 7}, Check.EIGHT_BITS),
        ({"BurnedInAnnotation": "YES"}, Check.BURNED_IN),
        ({"ImagerPixelSpacing": [70, 70]}, Check.ODD_SPACING),  # micrometres
    ],
)
def test_what_the_header_tells_is_a_warning(header: dict[str, object], check: Check) -> None:
    assert Check.named_in(view_image(a_header(**header), L_CC).warnings) == [check]
    assert check.verdict is Verdict.WARN


def test_the_header_refuses_what_it_must_of_the_challenge_set() -> None:
    assert {name: classify(header).reasons[0] for name, header in headers().items()} == {
        "For Processing twin": "For Processing, which the reader does not read"
    }
    assert not any(classify(header).usable for header in headers().values())
    assert classify(a_phantom()).usable


def test_a_small_breast_is_told() -> None:
    image = view_image(a_phantom(), L_CC)
    rows, columns = image.shape
    wide = np.zeros((3 * rows, 3 * columns), np.float32)
    wide[rows : 2 * rows, :columns] = image.pixels
    assert Check.SMALL in told(replace(image, pixels=wide))


def test_missing_spacing_eight_bits_and_what_is_unlike_never_refuse_by_themselves() -> None:
    for check in (Check.NO_SPACING, Check.EIGHT_BITS, Check.UNLIKE):
        assert check.verdict is Verdict.WARN


@pytest.mark.parametrize(
    ("orientation", "side"),
    [
        (["A", "R"], Side.LEFT),
        (["AR", "FP"], Side.LEFT),
        (["P", "FL"], Side.RIGHT),
        (["R", "P"], Side.BOTTOM),
        (["L", "A"], Side.TOP),
        (["L", "F"], None),
        (["", ""], None),
        ([], None),
        ("MLO", None),
        (None, None),
    ],
)
def test_the_chest_wall_lies_where_patient_orientation_says(orientation: list[str] | None, side: Side | None) -> None:
    assert chest_wall(a_header(PatientOrientation=orientation)) is side


def test_without_patient_orientation_nothing_is_said_of_the_side() -> None:
    mirrored = the_challenges()["mirrored"]
    assert Check.SIDE not in told(replace(mirrored, chest_wall=None))
    assert Check.SIDE not in told(replace(mirrored, view=R_CC, chest_wall=Side.RIGHT))


def test_an_image_that_lies_on_its_side_by_its_header_is_told() -> None:
    assert Check.TURNED in told(view_image(a_header(PatientOrientation=["R", "P"]), L_CC))


def test_the_reference_knows_its_own_from_others() -> None:
    seen = [
        appearance(view_image(image, view))
        for seed in range(4)
        for view, image in zip(STANDARD_VIEWS, phantom_exam(seed, small=True).images, strict=True)
    ]
    reference = Reference.of(seen)
    assert max(map(reference.distance, seen)) < reference.distance(appearance(the_challenges()["implant"]))
    assert shipped_reference().mean.shape == (len(STATISTICS),)


def test_warnings_are_told_once() -> None:
    image = with_warnings(view_image(a_phantom(), L_CC), [Check.UNLIKE, Check.UNLIKE])
    assert with_warnings(image, [Check.UNLIKE]).warnings == (Check.UNLIKE.words,)


def test_every_refusal_is_a_reason_and_every_warning_has_a_code() -> None:
    for check in Check:
        if check.verdict is Verdict.NOT_ANALYSED:
            [reason] = Reason.named_in([check.words])
            assert (reason.coded.value, reason.coded.meaning) == (check.code, check.meaning)
        else:
            assert WARNING_OF[check].value == check.code
        assert len(check.code) <= 16  # SH, PS3.5 6.2
        assert len(check.meaning) <= 64  # LO
        assert Check.named_in([check.words]) == [check]
    assert len({check.code for check in Check}) == len(Check)


def test_the_report_codes_the_warnings_of_an_image_that_was_read() -> None:
    answer = an_answer()
    assert answer.findings
    images = tuple(
        replace(image, warnings=(Check.CUT.words, Check.UNLIKE.words)) if image.view == LEFT_CC else image
        for image in answer.findings.images
    )
    report = report_of(replace(answer, findings=replace(answer.findings, images=images)))
    text = report.to_json()
    assert text.count(f'"{Check.CUT.code}"') == text.count(f'"{Check.UNLIKE.code}"') == 1
    assert f"{LEFT_CC}: {Check.CUT.words}" in text


def test_the_checks_are_documented_with_their_rates() -> None:
    chapter = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    checks, rates = chapter.split("\n## Checks\n")[1].split("\n## How often\n")
    rows = re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \| ([^|]+) \|$", checks, re.MULTILINE)
    assert rows == [(check.code, check.verdict.value, check.words) for check in Check]
    measured = re.findall(r"^\| `([a-z-]+)` (?:\| [0-9.]+ )+\|$", rates, re.MULTILINE)
    by_header = {Check.IMPLANT, Check.EIGHT_BITS, Check.NO_SPACING, Check.BURNED_IN, Check.ODD_SPACING, Check.TWIN}
    assert measured == ["no-breast", *(check.code for check in Check if check not in by_header)]
