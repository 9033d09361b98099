"""Proof of delivery: Storage Commitment as SCU on the same and on a new association, and C-FIND where it is missing."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from pydicom import Dataset

from config.mix import ResultKind
from config.settings import Caller, Destination, Dicom
from node.commitment import Prover, Reports
from node.delivery import Lane
from node.scu import Sender
from storage.commitments import Commitments
from storage.deliveries import Delivery
from storage.outbox import Outbox
from storage.states import DeliveryState
from tests.archives import Archive, a_report, an_archive
from tests.doors import Clock, Room, a_destination, an_open_door
from tests.pacs import a_free_port, waiting_results
from tests.peers import eventually
from tests.records import NOON, POLICY, resent

# pynetdicom leaves the socket of a connection that failed to its destructor.
pytestmark = [pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"), pytest.mark.sqlite_alone]

SENDER = Sender(Dicom(dimse_timeout=20, acse_timeout=5, network_timeout=20))
CALLERS = tuple(Caller(ae_title=name) for name in ("PACS", "OTHER"))


class Lanes:
    """A lane to an archive that is to prove what it was sent."""

    def __init__(self, room: Room, archive: Archive | int, proof: str, *, wait: float = 0) -> None:
        self.room = room
        self.results = waiting_results(room.store, room.engine, ["pacs"])
        self.clock = Clock()
        self.destination: Destination = a_destination(archive if isinstance(archive, int) else archive.port).model_copy(
            update={"proof": proof, "proof_timeout": 60.0}
        )
        self.wait = wait
        self.start()

    def start(self) -> None:
        """Begin with nothing but what is in the database, as a new process does."""
        self.outbox = Outbox(self.room.engine, POLICY)
        self.commitments = Commitments(self.room.engine, self.outbox)
        self.reports = Reports(self.commitments, [self.destination], self.clock)
        prover = Prover(
            *(self.destination, self.room.engine, self.outbox, self.commitments, SENDER, self.reports),
            wait=self.wait,
            clock=self.clock,
        )
        self.lane = Lane(
            self.destination, self.outbox, SENDER, self.room.store, poll=0.01, clock=self.clock, prover=prover
        )

    def all(self) -> list[Delivery]:
        return self.outbox.of_exam(1)

    def states(self) -> set[DeliveryState]:
        return {delivery.state for delivery in self.all()}

    def later(self, by: timedelta) -> None:
        self.clock.forward(by)
        self.lane.deliver_due()
        self.lane.prove_due()

    def report(self, archive: Archive, report: Dataset, **how: Any) -> int:
        """Let the archive report on an association of its own."""
        with an_open_door(self.room, self.reports, callers=CALLERS) as door:
            return archive.report(door.port, report, **how)


A_MINUTE = timedelta(minutes=1)


def test_without_proof_what_was_sent_is_delivered(room: Room) -> None:
    with an_archive() as archive:
        lanes = Lanes(room, archive, "none")
        lanes.later(timedelta(0))
        lanes.later(A_MINUTE)
    assert {(d.state, d.finished_at, d.sent_at, d.proven_at) for d in lanes.all()} == {
        (DeliveryState.SENT, NOON, NOON, None)
    }
    assert archive.asked == archive.queries == []


def test_a_report_on_the_same_association_commits_all_of_a_batch(room: Room) -> None:
    with an_archive() as archive:
        archive.reports_at_once = True
        lanes = Lanes(room, archive, "commitment", wait=20)
        lanes.later(timedelta(0))
        assert eventually(lambda: archive.told == [0x0000])
    [asked] = archive.asked
    assert [(item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) for item in asked.ReferencedSOPSequence] == [
        (record.sop_class_uid, record.uid) for record in lanes.results
    ]
    assert {(d.state, d.sent_at, d.proven_at, d.finished_at, d.attempts) for d in lanes.all()} == {
        (DeliveryState.COMMITTED, NOON, NOON, NOON, 1)
    }
    commitment = lanes.commitments.find(asked.TransactionUID)
    assert commitment
    assert commitment.answered_at == NOON
    assert set(commitment.reasons.values()) == {0}


def test_a_report_on_a_new_association_is_taken_even_by_another_process(room: Room) -> None:
    with an_archive() as archive:
        lanes = Lanes(room, archive, "commitment")
        lanes.later(timedelta(0))
        assert {(d.state, d.finished_at, d.proofs) for d in lanes.all()} == {(DeliveryState.SENT, None, 1)}
        lanes.start()
        assert lanes.report(archive, archive.report_for(archive.asked[0])) == 0x0000
        assert lanes.states() == {DeliveryState.COMMITTED}
        before = lanes.all()
        lanes.clock.forward(A_MINUTE)
        # Twice: answered with success, and nothing changes.
        assert lanes.report(archive, archive.report_for(archive.asked[0])) == 0x0000
        assert lanes.all() == before
        lanes.later(timedelta(days=1))
    assert len(archive.asked) == 1


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        *((reason, DeliveryState.WAITING) for reason in (0x0110, 0x0112, 0x0213, 0xABCD)),
        (0x0131, DeliveryState.SENT),
        *((reason, DeliveryState.REFUSED) for reason in (0x0119, 0x0122)),
    ],
)
def test_what_was_not_committed_is_sent_again_asked_for_again_or_given_up_by_its_reason(
    room: Room, reason: int, state: DeliveryState
) -> None:
    with an_archive() as archive:
        lanes = Lanes(room, archive, "commitment")
        lanes.later(timedelta(0))
        bad, *good = [record.uid for record in lanes.results]
        archive.reasons[bad] = reason
        assert lanes.report(archive, archive.report_for(archive.asked[0])) == 0x0000
        found = {d.result_uid: d for d in lanes.all()}
        assert found[bad].state is state
        assert "not committed: " in (found[bad].message or "")
        assert {found[uid].state for uid in good} == {DeliveryState.COMMITTED}
        archive.reasons.clear()
        lanes.later(POLICY.slow)
        if state is DeliveryState.REFUSED:
            assert (found[bad].status_code, len(archive.asked)) == (reason, 1)
            return
        assert len(archive.asked) == 2
        assert archive.asked[0].TransactionUID != archive.asked[1].TransactionUID
        assert {d.result_uid: d.attempts for d in lanes.all()}[bad] == (2 if state is DeliveryState.WAITING else 1)
        lanes.report(archive, archive.report_for(archive.asked[1]))
    assert lanes.states() == {DeliveryState.COMMITTED}


def test_what_is_never_committed_is_given_up_with_the_reason(room: Room) -> None:
    with an_archive() as archive:
        archive.reports_at_once = True
        lanes = Lanes(room, archive, "commitment", wait=20)
        archive.reasons = {record.uid: 0x0110 for record in lanes.results}
        while lanes.states() - {DeliveryState.EXPIRED}:
            lanes.later(POLICY.slow)
    assert {(d.message, d.status_code) for d in lanes.all()} == {("not committed: processing failure", 0x0110)}
    assert len(archive.asked) == max(d.attempts for d in lanes.all()) == POLICY.attempts


def test_a_report_that_is_late_or_partial_leaves_the_others_to_the_next_request(room: Room) -> None:
    with an_archive() as archive:
        lanes = Lanes(room, archive, "commitment")
        lanes.later(timedelta(0))
        first, *others = [record.uid for record in lanes.results]
        partial = a_report(archive.asked[0].TransactionUID, [first])
        assert lanes.report(archive, partial) == 0x0000
        assert [d.state for d in lanes.all() if d.result_uid == first] == [DeliveryState.COMMITTED]
        lanes.later(A_MINUTE)
        again = {str(item.ReferencedSOPInstanceUID) for item in archive.asked[1].ReferencedSOPSequence}
        assert again == set(others)
        # The first request's answer is still good.
        assert lanes.report(archive, archive.report_for(archive.asked[0])) == 0x0000
    assert lanes.states() == {DeliveryState.COMMITTED}


def test_a_destination_that_never_answers_is_asked_until_the_policy_gives_up(room: Room) -> None:
    with an_archive() as archive:
        lanes = Lanes(room, archive, "commitment")
        lanes.later(timedelta(0))
        while lanes.states() == {DeliveryState.SENT}:
            lanes.later(A_MINUTE)
        assert lanes.states() == {DeliveryState.EXPIRED}
        assert len(archive.asked) == POLICY.attempts
        # A late success is heeded even then.
        lanes.report(archive, archive.report_for(archive.asked[0]))
    assert lanes.states() == {DeliveryState.COMMITTED}


def test_a_failure_that_comes_after_the_object_was_sent_again_is_too_late(room: Room) -> None:
    with an_archive() as archive:
        lanes = Lanes(room, archive, "commitment")
        lanes.later(timedelta(0))
        lanes.clock.forward(A_MINUTE)
        resent(room.engine, 1, lanes.clock(), {"pacs": ResultKind})
        lanes.lane.deliver_due()
        late = a_report(archive.asked[0].TransactionUID, failed={record.uid: 0x0112 for record in lanes.results})
        assert lanes.report(archive, late) == 0x0000
        assert {(d.state, d.message) for d in lanes.all()} == {(DeliveryState.SENT, None)}


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"calling": "OTHER"}, 0x0110),
        ({"instance": "1.2.3"}, 0x0112),
        ({"kind": 3}, 0x0113),
    ],
)
def test_a_report_from_another_or_of_another_kind_is_refused(room: Room, how: dict[str, Any], status: int) -> None:
    with an_archive() as archive:
        lanes = Lanes(room, archive, "commitment")
        lanes.later(timedelta(0))
        assert lanes.report(archive, archive.report_for(archive.asked[0]), **how) == status
    assert lanes.states() == {DeliveryState.SENT}


def malformed() -> list[tuple[Dataset, int]]:
    """Return reports that cannot be taken, and what each is answered with."""
    without_uid = a_report("1.2.3", ["1.2"])
    del without_uid.TransactionUID
    without_reason = a_report("1.2.3", failed={"1.2": 0x0112})
    del without_reason.FailedSOPSequence[0].FailureReason
    return [
        (a_report("1.2.3", ["1.2"]), 0x0110),  # nobody asked
        (a_report("1.2.3"), 0x0115),
        (without_uid, 0x0115),
        (without_reason, 0x0115),
    ]


@pytest.mark.parametrize(("report", "status"), malformed())
def test_a_report_that_says_nothing_or_is_of_an_unknown_transaction_is_refused(
    room: Room, report: Dataset, status: int
) -> None:
    with an_archive() as archive:
        assert Lanes(room, archive, "commitment").report(archive, report) == status


def test_a_process_killed_before_its_request_went_out_asks_again(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with an_archive() as archive:
        lanes = Lanes(room, archive, "commitment")
        lanes.lane.deliver_due()
        with monkeypatch.context() as patch:
            patch.setattr(SENDER, "ask_commitment", killed)
            with pytest.raises(KeyboardInterrupt):
                lanes.lane.prove_due()
        lanes.start()
        assert lanes.lane.prove_due() == 0
        lanes.later(A_MINUTE)
        assert len(archive.asked) == 1
        lanes.report(archive, archive.report_for(archive.asked[0]))
    assert lanes.states() == {DeliveryState.COMMITTED}


def test_a_destination_that_refuses_the_request_is_asked_again(room: Room) -> None:
    with an_archive() as archive:
        archive.action_status = 0x0213
        lanes = Lanes(room, archive, "commitment")
        lanes.later(timedelta(0))
        assert {(d.state, "0213H" in (d.message or "")) for d in lanes.all()} == {(DeliveryState.SENT, True)}
        archive.action_status = 0x0000
        lanes.later(POLICY.first)
        lanes.report(archive, archive.report_for(archive.asked[-1]))
    assert lanes.states() == {DeliveryState.COMMITTED}


def test_where_there_is_no_commitment_what_was_sent_is_found_by_query(room: Room) -> None:
    with an_archive(commits=False) as archive:
        lanes = Lanes(room, archive, "commitment-or-find")
        lanes.later(timedelta(0))
        assert lanes.states() == {DeliveryState.SENT}
        assert all("does not take Storage Commitment" in (d.message or "") for d in lanes.all())
        lanes.later(POLICY.first)
    assert {(d.state, d.sent_at, d.proven_at) for d in lanes.all()} == {
        (DeliveryState.VERIFIED, NOON, NOON + POLICY.first)
    }
    assert all(query.StudyInstanceUID and query.SeriesInstanceUID for query in archive.queries)


def test_what_commitment_leaves_unanswered_is_found_by_query_and_a_late_commitment_counts_more(room: Room) -> None:
    with an_archive() as archive:
        lanes = Lanes(room, archive, "commitment-or-find")
        lanes.later(timedelta(0))
        lanes.later(A_MINUTE)
        assert lanes.states() == {DeliveryState.VERIFIED}
        lanes.report(archive, archive.report_for(archive.asked[0]))
    assert lanes.states() == {DeliveryState.COMMITTED}


def test_what_is_not_found_is_looked_for_and_then_sent_again(room: Room) -> None:
    with an_archive() as archive:
        lanes = Lanes(room, archive, "find")
        lanes.later(timedelta(0))
        assert archive.queries == []  # an archive may index late
        lost = lanes.results[0].uid
        del archive.held[lost]
        for _ in range(3):
            lanes.later(POLICY.slow)
        found = {d.result_uid: d for d in lanes.all()}
        assert (found[lost].state, found[lost].status_code) == (DeliveryState.WAITING, 0x0112)
        assert {d.state for uid, d in found.items() if uid != lost} == {DeliveryState.VERIFIED}
        lanes.later(POLICY.slow)
        lanes.later(POLICY.slow)
    assert lanes.states() == {DeliveryState.VERIFIED}
    assert archive.asked == []


@pytest.mark.parametrize("broken", ["status", "context", "away"])
def test_a_query_that_fails_proves_nothing_and_is_made_again(room: Room, broken: str) -> None:
    port = a_free_port()
    with an_archive(port=port, finds=broken != "context") as archive:
        lanes = Lanes(room, port, "find")
        lanes.later(timedelta(0))
        archive.find_status = 0xC000 if broken == "status" else 0
        held = archive.held
        if broken != "away":
            lanes.later(POLICY.first)
    if broken == "away":
        lanes.later(POLICY.first)
    assert {(d.state, d.finished_at) for d in lanes.all()} == {(DeliveryState.SENT, None)}
    assert all(d.message for d in lanes.all())
    with an_archive(port=port) as archive:
        archive.held = held
        lanes.later(POLICY.slow)
    assert lanes.states() == {DeliveryState.VERIFIED}


def test_nothing_is_asked_while_the_window_is_closed(room: Room) -> None:
    with an_archive() as archive:
        lanes = Lanes(room, archive, "commitment")
        lanes.lane.deliver_due()
        local: datetime = NOON.astimezone() + timedelta(hours=1)
        closed = (f"{local:%H:%M}-{local + timedelta(hours=1):%H:%M}",)
        lanes.lane.destination = lanes.destination.model_copy(update={"windows": closed})
        assert lanes.lane.prove_due() == 0
    assert archive.asked == []
