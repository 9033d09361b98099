"""Commitments and requests for them, on both databases."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, insert

from config.mix import ResultKind
from storage.commitment_requests import Asked, CommitmentRequests, Held, held
from storage.commitments import Commitments, Said, Verdict
from storage.database import reading, writing
from storage.index import add_instance
from storage.outbox import Outbox
from storage.states import DeliveryState
from storage.tables import removals
from tests.records import NOON, POLICY, SECOND, a_result, an_answer_waits, an_instance, resent

COMMITTED = Said(Verdict.COMMITTED, 0)
LOST = Said(Verdict.SEND_AGAIN, 0x0112, "no such object instance")
ITEMS = (Asked("1.2.840.10008.5.1.4.1.1.1.2", "1.2.3.1.1"), Asked("1.2.840.10008.5.1.4.1.1.1.2", "1.2.3.1.2"))


@pytest.fixture
def outbox(engine: Engine) -> Outbox:
    """Three reports that were sent and are to be proven."""
    results = [a_result(f"2.25.{number}") for number in (1, 2, 3)]
    outbox = an_answer_waits(engine, results, {result.uid: ["pacs"] for result in results})
    for delivery in outbox.due("pacs", NOON, 9):
        outbox.sent(delivery, 0, NOON, prove_at=NOON)
    return outbox


def states(outbox: Outbox) -> list[DeliveryState]:
    return [delivery.state for delivery in outbox.of_exam(1)]


def test_what_is_asked_for_is_looked_at_again_only_later(engine: Engine, outbox: Outbox) -> None:
    commitments = Commitments(engine, outbox)
    sent = outbox.unproven("pacs", NOON, 9)
    commitments.ask("1.2.9", sent, NOON, NOON + SECOND)
    assert outbox.unproven("pacs", NOON, 9) == []
    assert [d.proofs for d in outbox.unproven("pacs", NOON + SECOND, 9)] == [1, 1, 1]
    found = commitments.find("1.2.9")
    assert found
    assert (found.destination, found.asked_at, found.answered_at) == ("pacs", NOON, None)
    assert found.reasons == {"2.25.1": None, "2.25.2": None, "2.25.3": None}
    assert commitments.find("1.2.8") is None


def test_an_answer_counts_once_item_by_item(engine: Engine, outbox: Outbox) -> None:
    commitments = Commitments(engine, outbox)
    commitments.ask("1.2.9", outbox.unproven("pacs", NOON, 9), NOON, NOON + SECOND)
    settled = commitments.answer("1.2.9", {"2.25.1": COMMITTED, "2.25.2": LOST, "2.25.7": LOST}, NOON + SECOND)
    assert [(each.delivery.result_uid, each.state) for each in settled] == [
        ("2.25.1", DeliveryState.COMMITTED),
        ("2.25.2", DeliveryState.WAITING),
    ]
    assert states(outbox) == [DeliveryState.COMMITTED, DeliveryState.WAITING, DeliveryState.SENT]
    assert commitments.answer("1.2.9", {"2.25.1": LOST, "2.25.2": LOST}, NOON + SECOND) == []
    found = commitments.find("1.2.9")
    assert found
    assert (found.answered_at, found.reasons["2.25.2"]) == (None, 0x0112)
    commitments.answer("1.2.9", {"2.25.2": COMMITTED, "2.25.3": COMMITTED}, NOON + 2 * SECOND)
    assert set(states(outbox)) == {DeliveryState.COMMITTED}
    found = commitments.find("1.2.9")
    assert found
    assert found.answered_at == NOON + 2 * SECOND


def test_what_is_sent_anew_by_a_person_is_not_ended_by_old_proof(engine: Engine, outbox: Outbox) -> None:
    commitments = Commitments(engine, outbox)
    commitments.ask("1.2.9", outbox.unproven("pacs", NOON, 9), NOON, NOON + SECOND)
    resent(engine, 1, NOON + SECOND, {"pacs": ResultKind})
    commitments.answer("1.2.9", dict.fromkeys(("2.25.1", "2.25.2", "2.25.3"), COMMITTED), NOON + SECOND)
    assert set(states(outbox)) == {DeliveryState.WAITING}


def test_a_request_is_kept_until_its_report_has_arrived(engine: Engine) -> None:
    requests = CommitmentRequests(engine, POLICY)
    request = requests.take("1.2.9", "MODALITY", "192.0.2.7", ITEMS, NOON, NOON + SECOND)
    assert (request.items, request.duplicate) == (ITEMS, False)
    assert requests.due(NOON, 9) == []
    assert requests.due(NOON + SECOND, 9) == [request]
    assert requests.again(request, "no answer", NOON + SECOND)
    assert requests.due(NOON + SECOND, 9) == []
    [again] = requests.due(NOON + timedelta(hours=1), 9)
    assert again.attempts == 1
    requests.reported(again, NOON + SECOND)
    assert requests.due(NOON + timedelta(days=1), 9) == []


def test_who_took_a_request_has_time_to_report_though_all_other_waits_are_shorter(engine: Engine) -> None:
    requests, patience = CommitmentRequests(engine, POLICY), 3 * POLICY.slow
    request = requests.take("1.2.9", "MODALITY", "192.0.2.7", ITEMS, NOON, NOON + patience)
    assert requests.due(NOON, 9, patience=patience) == []
    assert requests.due(NOON + patience, 9, patience=patience) == [request]
    assert requests.due(NOON - SECOND, 9, patience=patience) == [request]  # the clock was put back


def test_the_same_request_again_is_the_known_one_and_another_under_its_uid_is_a_duplicate(engine: Engine) -> None:
    requests = CommitmentRequests(engine, POLICY)
    first = requests.take("1.2.9", "MODALITY", "192.0.2.7", ITEMS, NOON, NOON)
    requests.reported(first, NOON)
    again = requests.take("1.2.9", "MODALITY", "192.0.2.7", ITEMS[::-1], NOON + SECOND, NOON + SECOND)
    assert again.id == first.id
    assert requests.due(NOON + SECOND, 9) == [again]
    # Its report has the whole time once more.
    assert (again.asked_at, again.attempts) == (NOON + SECOND, 0)
    assert requests.take("1.2.9", "MODALITY", "192.0.2.7", ITEMS[:1], NOON, NOON).duplicate
    assert requests.take("1.2.9", "OTHER", "192.0.2.7", ITEMS, NOON, NOON).duplicate


def test_of_many_instances_those_that_are_indexed_are_held(engine: Engine) -> None:
    with writing(engine) as connection:
        add_instance(connection, an_instance("1.2.3.1.1"))
    many = [f"1.2.4.{number}" for number in range(1200)]
    with reading(engine) as connection:
        found = held(connection, ["1.2.3.1.1", *many])
    record = an_instance("1.2.3.1.1")
    assert found == {"1.2.3.1.1": Held(record.sop_class_uid, record.path, record.size)}


def test_what_was_removed_is_not_held(engine: Engine) -> None:
    record = an_instance("1.2.3.1.1")
    with writing(engine) as connection:
        add_instance(connection, record)
        connection.execute(insert(removals).values(path=record.path, removed_at=NOON, unlinked=False))
    with reading(engine) as connection:
        assert held(connection, [record.uid]) == {}
