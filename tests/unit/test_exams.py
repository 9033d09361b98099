"""Exam assembly: which images are chosen, what is missing, and when an exam is closed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ai.exam import STANDARD_VIEWS, Laterality
from config.policy import CompletionPolicy
from node.exams import Assembly, Candidate, Close, Completeness, Wait, assemble, decide, outcome
from node.views import ImageKind, classify
from storage.index import SeriesRecord, StudyRecord
from storage.states import Plan
from tests.builders import L_CC, L_MLO, R_CC, R_MLO, a_candidate, quick_header
from tests.records import an_instance

POLICY = CompletionPolicy(timedelta(seconds=10), timedelta(seconds=300), timedelta(hours=2))
NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)
FOUR = tuple(a_candidate(f"1.{number}", view) for number, view in enumerate(STANDARD_VIEWS))


def decision(
    candidates: tuple[Candidate, ...], quiet: float, *, open_for: float = 600, one_breast_suffices: bool = False
) -> Wait | Close:
    """Decide ``quiet`` seconds after the last image."""
    return decide(
        assemble(candidates, one_breast_suffices=one_breast_suffices),
        candidates,
        opened_at=NOON - timedelta(seconds=open_for),
        last_image_at=NOON - timedelta(seconds=quiet),
        now=NOON,
        policy=POLICY,
    )


def test_four_views_make_a_complete_exam() -> None:
    assembly = assemble(FOUR)
    assert assembly == Assembly(
        chosen={R_CC: "1.0", L_CC: "1.1", R_MLO: "1.2", L_MLO: "1.3"},
        spare={},
        rejected={},
        missing=(),
        unilateral=None,
    )
    assert list(assembly.chosen) == list(STANDARD_VIEWS)
    assert assembly.complete


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ({"acquired_at": "20260110101600.000000"}, {}, "was taken later"),
        ({}, {"acquired_at": ""}, "was taken later"),
        ({"instance_number": 2}, {}, "has the higher number"),
        ({"instance_number": 0}, {"instance_number": None}, "has the higher number"),
        ({"instance_number": 1, "acquired_at": "2027"}, {"instance_number": 9}, "was taken later"),
        ({}, {}, "has the greater UID"),
        ({}, {"kind": ImageKind.FOR_PROCESSING, "acquired_at": "2027"}, "is For Presentation"),
    ],
)
def test_of_a_repeated_view_the_rule_chooses(first: dict[str, Any], second: dict[str, Any], why: str) -> None:
    winner, loser = a_candidate("1.9", **first), a_candidate("1.8", **second)
    for order in ((winner, loser), (loser, winner)):
        assembly = assemble(order)
        assert assembly.chosen == {L_CC: "1.9"}
        assert assembly.rejected == {"1.8": f"L CC repeated: 1.9 {why}"}


def test_images_of_one_view_are_tried_from_the_latest_to_the_earliest() -> None:
    times = {"1.7": "2026", "1.8": "2028", "1.9": "2027"}
    assembly = assemble(a_candidate(uid, acquired_at=time) for uid, time in times.items())
    assert assembly.in_order == ((L_CC, "1.8"), (L_CC, "1.9"), (L_CC, "1.7"))


def test_the_next_of_a_view_stands_in_for_one_that_cannot_be_read() -> None:
    repeats = [a_candidate(f"1.{number}", acquired_at=f"20{number}") for number in (27, 28, 29)]
    done = outcome([FOUR[0], *FOUR[2:], *repeats], {"1.29": "no pixels"})
    assert done.views == {"1.0": R_CC, "1.28": L_CC, "1.2": R_MLO, "1.3": L_MLO}
    assert done.not_read == {"1.29": "no pixels", "1.27": "L CC repeated: 1.28 was taken later"}
    assert done.missing == ()
    assert done.stand_ins == ("L CC: image 1.28 was read in place of 1.29, which could not be read: no pixels",)


def test_a_view_of_which_no_image_can_be_read_is_missing_and_keeps_its_first_choice() -> None:
    repeat = a_candidate("1.29", acquired_at="2029")
    done = outcome([*FOUR, repeat], {"1.29": "no pixels", "1.1": "no breast"})
    assert (done.missing, done.stand_ins) == ((L_CC,), ())
    assert done.views == {"1.0": R_CC, "1.29": L_CC, "1.2": R_MLO, "1.3": L_MLO}
    assert done.not_read == {"1.29": "no pixels", "1.1": "no breast"}


def test_a_breast_examined_alone_stays_so_when_one_of_its_images_cannot_be_read() -> None:
    done = outcome([FOUR[1], FOUR[3]], {"1.3": "no pixels"}, one_breast_suffices=True)
    assert done.missing == (L_MLO,)


def test_an_unusable_image_is_rejected_with_all_its_obstacles() -> None:
    lossy = a_candidate("1.9", acquired_at="2027", obstacles=("lossy compressed", "partial view"))
    assembly = assemble((*FOUR, lossy))
    assert assembly.complete
    assert assembly.rejected == {"1.9": "lossy compressed; partial view"}


def test_four_views_close_after_the_short_quiet_time() -> None:
    assert decision(FOUR, quiet=9) == Wait(NOON + timedelta(seconds=1))
    assert decision(FOUR, quiet=10) == Close(Plan.READ, Completeness.COMPLETE, ())


def test_three_views_close_after_the_long_quiet_time_and_name_the_fourth() -> None:
    assert decision(FOUR[:3], quiet=299) == Wait(NOON + timedelta(seconds=1))
    assert decision(FOUR[:3], quiet=300) == Close(
        Plan.READ, Completeness.PARTIAL, ("L MLO not read: no image received",)
    )


def test_a_view_that_came_unusable_is_missing_with_the_reason() -> None:
    lossy = a_candidate("1.9", L_MLO, obstacles=("lossy compressed",))
    assert decision((*FOUR[:3], lossy), quiet=300) == Close(
        Plan.READ, Completeness.PARTIAL, ("L MLO not read: lossy compressed",)
    )


def test_the_hard_cap_closes_although_images_keep_coming() -> None:
    assert isinstance(decision(FOUR[:1], quiet=1, open_for=7199), Wait)
    assert isinstance(decision(FOUR[:1], quiet=1, open_for=7200), Close)
    assert isinstance(decision(FOUR, quiet=1, open_for=7200), Close)


def test_for_processing_alone_waits_out_the_long_timer_and_is_not_analysed() -> None:
    obstacle = "For Processing, which the reader does not read"
    raw = tuple(
        a_candidate(f"1.{number}", view, kind=ImageKind.FOR_PROCESSING, obstacles=(obstacle,))
        for number, view in enumerate(STANDARD_VIEWS)
    )
    assert isinstance(decision(raw, quiet=299), Wait)
    assert decision(raw, quiet=300) == Close(Plan.NOT_ANALYSED, Completeness.NOTHING, (obstacle,))


def test_without_a_usable_image_every_obstacle_of_an_image_is_named_once() -> None:
    candidates = (
        a_candidate("1.1", obstacles=("lossy compressed",)),
        a_candidate("1.2", R_CC, obstacles=("lossy compressed", "partial view")),
        a_candidate("1.3", None, kind=ImageKind.NOT_AN_IMAGE, obstacles=("not an image",)),
    )
    assert decision(candidates, quiet=300) == Close(
        Plan.NOT_ANALYSED, Completeness.NOTHING, ("lossy compressed", "partial view")
    )


UNILATERAL = (a_candidate("1.1", L_CC, unilateral=True), a_candidate("1.2", L_MLO, unilateral=True))


def test_one_breast_is_unilateral_where_the_header_says_so() -> None:
    assembly = assemble(UNILATERAL)
    assert assembly.unilateral is Laterality.LEFT
    assert assembly.missing == ()
    assert isinstance(decision(UNILATERAL, quiet=299), Wait)
    assert decision(UNILATERAL, quiet=300) == Close(Plan.READ, Completeness.UNILATERAL, ("unilateral: L breast only",))


def test_one_breast_is_partial_where_nothing_says_unilateral() -> None:
    silent = tuple(replace(candidate, unilateral=False) for candidate in UNILATERAL)
    assert assemble(silent).missing == (R_CC, R_MLO)
    assert assemble(silent, one_breast_suffices=True).unilateral is Laterality.LEFT


@pytest.mark.parametrize(
    "other",
    [
        a_candidate("1.9", R_CC),
        a_candidate("1.9", R_CC, obstacles=("lossy compressed",)),
        a_candidate("1.9", None, laterality=Laterality.RIGHT, obstacles=("ML is not a standard view",)),
    ],
)
def test_any_image_of_the_other_breast_makes_it_partial(other: Candidate) -> None:
    assembly = assemble((*UNILATERAL, other), one_breast_suffices=True)
    assert assembly.unilateral is None
    assert R_MLO in assembly.missing


def test_one_view_of_one_breast_is_partial() -> None:
    assert assemble(UNILATERAL[:1], one_breast_suffices=True).unilateral is None


def test_both_cc_views_alone_are_partial() -> None:
    assert assemble(FOUR[:2], one_breast_suffices=True).missing == (R_MLO, L_MLO)


def test_a_candidate_is_made_of_an_indexed_instance() -> None:
    found = classify(quick_header(PartialView="YES"))
    record = an_instance(
        "1.5",
        kind=found.kind,
        laterality=found.laterality,
        view_position=found.view_position,
        usable=found.usable,
        reasons=found.reasons,
    )
    described = replace(
        record,
        study=StudyRecord("1.2", description="Unilateral mammogram"),
        series=SeriesRecord("1.2.3", description="L"),
    )
    assert Candidate.of(described) == Candidate(
        instance_uid="1.5",
        kind=ImageKind.FOR_PRESENTATION,
        laterality=Laterality.LEFT,
        view=L_CC,
        usable=False,
        obstacles=("partial view",),
        acquired_at=record.acquired_at,
        instance_number=1,
        unilateral=True,
    )
    assert not Candidate.of(record).unilateral


def test_a_usable_candidate_has_no_obstacles() -> None:
    found = classify(quick_header())
    record = an_instance(kind=found.kind, laterality="L", view_position="CC", usable=True, reasons=found.reasons)
    assert Candidate.of(record).obstacles == ()


def test_a_candidate_that_contradicts_itself_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="usable without a view"):
        a_candidate("1.1", None, usable=True)
    with pytest.raises(ValueError, match="unusable without a reason"):
        a_candidate("1.1", usable=False)
