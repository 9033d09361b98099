"""Deliveries that an operator waives, on both databases."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from config.mix import ResultKind
from storage.database import reading, writing
from storage.deliveries import Delivery
from storage.lanes import Pause, pause
from storage.outbox import Outbox
from storage.removals import Due, obstacles, removable_exams
from storage.states import DeliveryState
from storage.waiving import Waivable, Wanted, waivable, waive
from tests.records import NOON, POLICY, SECOND, a_result, an_answer_waits, resent

SERVED = frozenset({"pacs"})
WORDS = "waived by eve: it has no SEG"
LATER = NOON + timedelta(days=9)


@pytest.fixture
def outbox(engine: Engine) -> Outbox:
    """Segmentation and report of one exam, each for two destinations, of which one has gone from the settings."""
    made = [a_result("2.25.1", kind="SEG"), a_result("2.25.2")]
    return an_answer_waits(engine, made, {each.uid: ["pacs", "gone"] for each in made})


def to(outbox: Outbox, destination: str) -> list[Delivery]:
    return [each for each in outbox.of_exam(1) if each.destination == destination]


def found(engine: Engine, **only: Any) -> list[tuple[str, str]]:
    with reading(engine) as connection:
        return [(each.destination, each.kind) for each in waivable(connection, Wanted(SERVED, **only))]


def waived(engine: Engine, **only: Any) -> list[Waivable]:
    with writing(engine) as connection:
        return waive(connection, 1, Wanted(SERVED, **only), WORDS, NOON + SECOND)


def states(outbox: Outbox) -> Mapping[tuple[str, str], str]:
    return {(each.destination, each.kind): str(each.state) for each in outbox.of_exam(1)}


def paused(engine: Engine, destination: str = "pacs") -> None:
    with writing(engine) as connection:
        pause(connection, Pause(destination, NOON, "eve", ""))


def test_what_was_refused_or_has_expired_or_is_for_nobody_may_be_waived(engine: Engine, outbox: Outbox) -> None:
    gone = [("gone", "SEG"), ("gone", "SR")]
    assert found(engine) == gone
    segmentation, report = to(outbox, "pacs")
    outbox.refused(segmentation, "no", 0x0122, NOON)
    assert sorted(found(engine)) == [*gone, ("pacs", "SEG")]
    waits = Outbox(engine, replace(POLICY, give_up_after=timedelta(0)))
    assert waits.again(report, "no connection", None, NOON) is DeliveryState.EXPIRED
    assert sorted(found(engine)) == [*gone, ("pacs", "SEG"), ("pacs", "SR")]
    for only, expected in (
        ({"destination": "pacs", "kind": "SEG"}, [("pacs", "SEG")]),
        ({"destination": "gone"}, gone),
        ({"state": DeliveryState.REFUSED}, [("pacs", "SEG")]),
        ({"exam_id": 2}, []),
    ):
        assert sorted(found(engine, **only)) == expected


def test_what_waits_in_a_paused_lane_is_waived_only_when_it_is_asked_for(engine: Engine, outbox: Outbox) -> None:
    assert found(engine, destination="pacs", state=DeliveryState.WAITING) == []
    paused(engine)
    assert found(engine, destination="pacs") == []
    assert found(engine, destination="pacs", state=DeliveryState.WAITING) == [("pacs", "SEG"), ("pacs", "SR")]
    assert waived(engine, destination="pacs", state=DeliveryState.WAITING, kind="SEG")
    assert states(outbox)["pacs", "SEG"] == "waived"
    assert states(outbox)["pacs", "SR"] == "waiting"


def test_a_waived_delivery_says_who_and_why_after_what_the_destination_said(engine: Engine, outbox: Outbox) -> None:
    outbox.refused(to(outbox, "pacs")[0], "SOP class not supported", 0x0122, NOON)
    assert len(waived(engine)) == 3
    segmentation = to(outbox, "pacs")[0]
    assert (segmentation.state, segmentation.status_code) == (DeliveryState.WAIVED, 0x0122)
    assert segmentation.message == f"SOP class not supported; {WORDS}"
    assert {each.message for each in to(outbox, "gone")} == {WORDS}
    # Once more changes nothing.
    assert waived(engine) == []
    assert to(outbox, "pacs")[0] == segmentation


def test_nobody_waits_for_what_was_waived_until_it_is_sent_again(engine: Engine, outbox: Outbox) -> None:
    due = Due(LATER, results_too=True, destinations=True, unproven=False)
    segmentation, report = to(outbox, "pacs")
    outbox.refused(segmentation, "no", 0x0122, NOON)
    outbox.sent(report, 0, NOON)
    with reading(engine) as connection:
        assert {(each.destination, each.state) for each in obstacles(connection, due)} == {
            ("pacs", DeliveryState.REFUSED),
            ("gone", DeliveryState.WAITING),
        }
        assert removable_exams(connection, due, 9) == []
    waived(engine)
    with reading(engine) as connection:
        assert obstacles(connection, due) == []
        assert len(removable_exams(connection, due, 9)) == 1
    assert outbox.due("gone", LATER, 9) == []
    assert list(outbox.oldest_waiting()) == []
    assert resent(engine, 1, NOON, {"pacs": ResultKind}) == 2
    assert states(outbox) == {
        ("pacs", "SEG"): "waiting",
        ("pacs", "SR"): "waiting",
        ("gone", "SEG"): "waived",
        ("gone", "SR"): "waived",
    }
    assert to(outbox, "pacs")[0].message is None


def test_what_a_lane_has_in_hand_is_sent_when_it_was_accepted_and_waived_when_not(
    engine: Engine, outbox: Outbox
) -> None:
    segmentation, report = outbox.due("pacs", NOON, 9)
    paused(engine)
    assert len(waived(engine, state=DeliveryState.WAITING, destination="pacs")) == 2
    assert not outbox.still_due(segmentation)
    outbox.sent(segmentation, 0, NOON + 2 * SECOND)
    outbox.again(report, "no connection", None, NOON + 2 * SECOND)
    assert (states(outbox)["pacs", "SEG"], states(outbox)["pacs", "SR"]) == ("sent", "waived")
    outbox.refused(report, "no", 0x0122, NOON + 2 * SECOND)
    assert states(outbox)["pacs", "SR"] == "waived"


def test_what_is_to_be_proven_may_be_waived_and_proof_counts_all_the_same(engine: Engine, outbox: Outbox) -> None:
    for each in to(outbox, "gone"):
        outbox.sent(each, 0, NOON, prove_at=NOON)
    assert len(waived(engine, state=DeliveryState.SENT)) == 2
    with writing(engine) as connection:
        first, second = to(outbox, "gone")
        assert outbox.proofs.proven(connection, first, DeliveryState.COMMITTED, LATER) is DeliveryState.COMMITTED
        assert outbox.proofs.missing(connection, second, "not there", 0x0112, LATER) is DeliveryState.WAIVED


def test_no_other_form_goes_out_of_what_was_waived_meanwhile(engine: Engine) -> None:
    forms = [a_result("2.25.3"), a_result("2.25.2", fallback_uid="2.25.3", path="results/other")]
    outbox = an_answer_waits(engine, forms, {"2.25.2": ["pacs"]})
    [in_hand] = outbox.due("pacs", NOON, 9)
    paused(engine)
    waived(engine, state=DeliveryState.WAITING)
    outbox.replaced(in_hand, "not supported", 0x0122, NOON)
    assert [each.state for each in outbox.of_exam(1)] == [DeliveryState.WAIVED]


def test_what_was_accepted_keeps_no_exam_once_no_proof_is_asked_for(engine: Engine, outbox: Outbox) -> None:
    for each in outbox.of_exam(1):
        outbox.sent(each, 0, NOON, prove_at=NOON)
    due: dict[str, Any] = {"results_too": True, "destinations": True, "unproven": False}
    for not_asked, kept in ((set(), {"pacs", "gone"}), ({"pacs"}, {"gone"}), ({"pacs", "gone"}, set())):
        which = Due(LATER, not_asked=frozenset(not_asked), **due)
        with reading(engine) as connection:
            assert {each.destination for each in obstacles(connection, which)} == kept
            assert bool(removable_exams(connection, which, 9)) is (not kept)


def test_only_what_a_destination_is_to_get_by_now_is_sent_again(engine: Engine, outbox: Outbox) -> None:
    for each in outbox.of_exam(1):
        outbox.refused(each, "no", 0x0122, NOON)
    assert resent(engine, 1, NOON, {"pacs": (ResultKind.SR,), "elsewhere": ResultKind}) == 1
    assert states(outbox) == {
        ("pacs", "SEG"): "refused",
        ("pacs", "SR"): "waiting",
        ("gone", "SEG"): "refused",
        ("gone", "SR"): "refused",
    }
    assert resent(engine, 1, NOON, {}) == 0
