"""Results sent to a PACS that accepts, warns, refuses, aborts, hangs, is down and comes back."""

import socket
from datetime import timedelta
from threading import Event
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, SegmentationStorage
from pynetdicom.association import Association
from sqlalchemy import Engine
from structlog.testing import capture_logs

from config.mix import ObjectMix, ResultKind, SegmentationType
from config.settings import Dicom
from node.errors import DestinationUnreachable
from node.scu import Peer, Sender
from node.sop_classes import STUDY_ROOT_FIND
from storage.deliveries import Delivery
from storage.files import InstanceReference, InstanceStore
from storage.outbox import Outbox
from storage.results import ResultRecord
from storage.states import DeliveryState
from tests.deliveries import SENDER, Deliveries, results, store
from tests.doors import a_destination
from tests.pacs import a_free_port, a_pacs, aborts, answers, hangs_until, waiting_results
from tests.records import NOON, POLICY, resent

__all__ = ["results", "store"]

# pynetdicom leaves the socket of a connection that failed to its destructor.
pytestmark = [pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"), pytest.mark.sqlite_alone]


def test_everything_goes_through_one_association_that_proposes_only_what_is_sent(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    with a_pacs() as (pacs, port):
        deliveries = Deliveries(engine, store, a_destination(port))
        assert deliveries.lane.deliver_due() == len(results)
        assert deliveries.lane.deliver_due() == 0
    assert pacs.received == [record.uid for record in results]
    assert {(delivery.state, delivery.status_code) for delivery in deliveries.all()} == {(DeliveryState.SENT, 0)}
    [proposed] = pacs.proposed
    assert sorted(proposed) == sorted(
        (sop_class, (syntax,))
        for sop_class in (SegmentationStorage, ComprehensiveSRStorage)
        for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    )


def test_nothing_that_is_sent_waits_for_an_acknowledgement(
    engine: Engine, store: InstanceStore, results: list[ResultRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []

    def sends(association: Association, path: Any) -> Dataset:
        line = association.dul.socket
        assert line is not None
        assert line.socket is not None
        waits.append(line.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        return to_send(association, path)

    to_send = Association.send_c_store
    monkeypatch.setattr(Association, "send_c_store", sends)
    with a_pacs() as (_, port):
        Deliveries(engine, store, a_destination(port)).lane.deliver_due()
    assert waits == [1] * len(results)


def test_a_destination_that_takes_only_implicit_vr_gets_it(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    with a_pacs(syntaxes=(ImplicitVRLittleEndian,)) as (pacs, port):
        Deliveries(engine, store, a_destination(port)).lane.deliver_due()
    assert pacs.syntaxes == [ImplicitVRLittleEndian] * len(results)


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007, 0x0111])
def test_a_warning_is_a_delivery_and_is_recorded(
    engine: Engine, store: InstanceStore, results: list[ResultRecord], status: int
) -> None:
    with a_pacs(answers(status)) as (_, port), capture_logs() as lines:
        deliveries = Deliveries(engine, store, a_destination(port))
        deliveries.lane.deliver_due()
    assert {(delivery.state, delivery.status_code) for delivery in deliveries.all()} == {(DeliveryState.SENT, status)}
    assert {(line["log_level"], line["status"]) for line in lines} == {("warning", f"{status:04X}H")}
    assert {line["exam"] for line in lines} == {deliveries.all()[0].exam_uid}


def test_a_temporary_refusal_is_tried_again_after_a_wait(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    with a_pacs(answers(*[0xA700] * len(results), 0x0000)) as (_, port):
        deliveries = Deliveries(engine, store, a_destination(port))
        deliveries.lane.deliver_due()
        assert {(d.state, d.status_code) for d in deliveries.all()} == {(DeliveryState.WAITING, 0xA700)}
        assert deliveries.lane.deliver_due() == 0
        assert deliveries.later() == len(results)
        assert deliveries.states() == {DeliveryState.SENT}
        assert {delivery.attempts for delivery in deliveries.all()} == {2}


@pytest.mark.parametrize(("status", "tries"), [(0x0122, 1), (0xA900, 1), (0xC000, 3)])
def test_a_permanent_refusal_ends_the_delivery(
    engine: Engine, store: InstanceStore, results: list[ResultRecord], status: int, tries: int
) -> None:
    with a_pacs(answers(status)) as (pacs, port):
        deliveries = Deliveries(engine, store, a_destination(port))
        for _ in range(tries):
            assert deliveries.states() == {DeliveryState.WAITING}
            deliveries.later()
        assert deliveries.states() == {DeliveryState.REFUSED}
        assert deliveries.later() == 0
    assert len(pacs.received) == tries * len(results)


def test_a_class_that_the_destination_does_not_take_is_refused_and_the_others_arrive(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    with a_pacs(classes=(ComprehensiveSRStorage,)) as (_, port):
        deliveries = Deliveries(engine, store, a_destination(port))
        deliveries.lane.deliver_due()
    assert {(d.kind, d.state, d.status_code) for d in deliveries.all()} == {
        ("SEG", DeliveryState.REFUSED, 0x0122),
        ("SR", DeliveryState.SENT, 0x0000),
    }


def delivered(deliveries: Deliveries) -> dict[str, Delivery]:
    """Send until nothing is due, and return the deliveries by SOP Instance UID."""
    while deliveries.lane.deliver_due():
        pass
    return {delivery.result_uid: delivery for delivery in deliveries.all()}


def test_a_form_that_is_refused_is_replaced_by_the_other_and_both_are_recorded(
    engine: Engine, store: InstanceStore
) -> None:
    waiting = waiting_results(store, engine, ["pacs"], mix=ObjectMix(segmentation=SegmentationType.LABELMAP))
    with a_pacs(classes=(SegmentationStorage, ComprehensiveSRStorage)) as (pacs, port), capture_logs() as logs:
        found = delivered(Deliveries(engine, store, a_destination(port)))
    others = {record.fallback_uid for record in waiting}
    assert None not in others
    assert set(found) == {record.uid for record in waiting} | others
    for record in waiting:
        assert (found[record.uid].state, found[record.uid].status_code) == (DeliveryState.REPLACED, 0x0122)
        other = found[record.fallback_uid or ""]
        assert (other.state, other.status_code, other.kind) == (DeliveryState.SENT, 0, record.kind)
    assert set(pacs.received) == others
    lines = [log for log in logs if "another form" in log["event"]]
    assert {line["instead"] for line in lines} == others
    assert {(line["log_level"], line["status"]) for line in lines} == {("warning", "0122H")}


def test_when_the_other_form_is_refused_too_that_is_final(engine: Engine, store: InstanceStore) -> None:
    waiting = waiting_results(store, engine, ["pacs"])
    with a_pacs(classes=(SegmentationStorage,)) as (_, port):
        found = delivered(Deliveries(engine, store, a_destination(port)))
    report = waiting[-1]
    assert found[report.uid].state is DeliveryState.REPLACED
    assert found[report.fallback_uid or ""].state is DeliveryState.REFUSED


def test_what_was_replaced_is_not_sent_again_but_its_other_form_is(engine: Engine, store: InstanceStore) -> None:
    waiting = waiting_results(store, engine, ["pacs"])
    with a_pacs(classes=(SegmentationStorage, ComprehensiveSRStorage)) as (_, port):
        deliveries = Deliveries(engine, store, a_destination(port))
        delivered(deliveries)
    report = waiting[-1]
    assert resent(engine, 1, deliveries.clock(), {"pacs": ResultKind}) == len(waiting)
    states = {delivery.result_uid: delivery.state for delivery in deliveries.all()}
    assert states.pop(report.uid) is DeliveryState.REPLACED
    assert set(states.values()) == {DeliveryState.WAITING}


def test_a_result_without_another_form_cannot_be_replaced(engine: Engine, results: list[ResultRecord]) -> None:
    outbox = Outbox(engine, POLICY)
    with pytest.raises(ValueError, match="no other form"):
        outbox.replaced(outbox.of_exam(1)[0], "not taken", 0x0122, NOON)


def test_a_destination_that_takes_none_of_our_classes_refuses_all(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    with a_pacs(classes=()) as (_, port):
        deliveries = Deliveries(engine, store, a_destination(port))
        assert deliveries.lane.deliver_due() == len(results)
    assert {(d.state, d.status_code) for d in deliveries.all()} == {(DeliveryState.REFUSED, 0x0122)}


def test_a_destination_that_does_not_know_us_is_tried_again(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    with a_pacs(callers=("SOMEBODY",)) as (_, port):
        deliveries = Deliveries(engine, store, a_destination(port))
        deliveries.lane.deliver_due()
    assert deliveries.states() == {DeliveryState.WAITING}
    assert all("Calling AE title not recognised" in (delivery.message or "") for delivery in deliveries.all())


def test_an_abort_costs_one_attempt_of_the_result_that_was_being_sent(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    with a_pacs(aborts) as (pacs, port):
        deliveries = Deliveries(engine, store, a_destination(port))
        assert deliveries.lane.deliver_due() == 1
        assert [delivery.attempts for delivery in deliveries.all()] == [1] + [0] * (len(results) - 1)
        pacs.behaviour = answers(0x0000)
        assert deliveries.lane.deliver_due() == len(results) - 1
        assert deliveries.later() == 1
    assert deliveries.states() == {DeliveryState.SENT}


def test_a_destination_that_hangs_is_given_up_and_tried_again(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    released = Event()
    impatient = Sender(Dicom(dimse_timeout=0.5, acse_timeout=20))
    with a_pacs(hangs_until(released)) as (pacs, port):
        deliveries = Deliveries(engine, store, a_destination(port), impatient)
        assert deliveries.lane.deliver_due() == 1
        first = deliveries.all()[0]
        assert (first.state, first.status_code, first.message) == (DeliveryState.WAITING, None, "no answer")
        released.set()
        pacs.behaviour = answers(0x0000)
        patient = Deliveries(engine, store, a_destination(port))
        patient.later()
    assert patient.states() == {DeliveryState.SENT}


def test_a_destination_that_was_down_gets_everything_when_it_is_back(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    port = a_free_port()
    deliveries = Deliveries(engine, store, a_destination(port))
    with capture_logs() as lines:
        assert deliveries.lane.deliver_due() == len(results)
    [line] = lines  # one association that did not come about is one line, found by every exam that waits for it
    assert (line["number"], len(line["exam"])) == (len(results), 1)
    assert "no connection" in line["message"]
    assert {(d.state, d.attempts) for d in deliveries.all()} == {(DeliveryState.WAITING, 1)}
    assert all("no connection" in (delivery.message or "") for delivery in deliveries.all())
    with a_pacs(port=port) as (pacs, _):
        assert deliveries.later() == len(results)
    assert pacs.received == [record.uid for record in results]
    assert deliveries.states() == {DeliveryState.SENT}


def test_a_handshake_that_fails_is_an_attempt(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    encrypted = a_destination(a_free_port()).model_copy(update={"tls": True})
    deliveries = Deliveries(engine, store, encrypted)
    assert deliveries.lane.deliver_due() == len(results)
    assert deliveries.lane.deliver_due() == 0
    assert {(each.state, each.attempts) for each in deliveries.all()} == {(DeliveryState.WAITING, 1)}
    assert all("there is no ca in [tls]" in (each.message or "") for each in deliveries.all())


def test_a_destination_that_stays_away_is_given_up_by_the_policy_with_a_loud_line(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    deliveries = Deliveries(engine, store, a_destination(a_free_port()))
    with capture_logs() as lines:
        while deliveries.states() == {DeliveryState.WAITING}:
            deliveries.later()
    assert deliveries.states() == {DeliveryState.EXPIRED}
    loud = [line["event"] for line in lines if line["log_level"] == "error"]
    assert loud == ["result given up; mammonode send sends it again"] * len(results)


@pytest.mark.parametrize("host", ["pacs..example.org", f"{'a' * 70}.example.org"])
def test_a_name_that_cannot_be_looked_up_is_no_destination(host: str) -> None:
    typed = a_destination(104).model_copy(update={"host": host})
    assert "PACS at" in SENDER.echo(typed).message
    assert SENDER.report(Peer("pacs", "PACS", host, 104), 1, Dataset()).status is None


def test_a_destination_that_aborts_before_it_is_asked_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    for request in (Association.send_c_echo, Association.send_c_find):

        def late(self: Association, *asked: object, then: Any = request) -> Any:
            self.abort()
            return then(self, *asked)

        monkeypatch.setattr(Association, request.__name__, late)
    with a_pacs(classes=[STUDY_ROOT_FIND]) as (_, port):
        assert "aborted" in SENDER.echo(a_destination(port)).message
        with pytest.raises(DestinationUnreachable, match="aborted"):
            SENDER.find(a_destination(port), [InstanceReference("1.2", "1.3", "1.4")])


def test_echo_tells_whether_a_destination_is_there_and_what_to_check() -> None:
    with a_pacs(callers=("MAMMONODE",)) as (_, port):
        answered = SENDER.echo(a_destination(port))
        refused = Sender(Dicom(ae_title="STRANGER")).echo(a_destination(port))
    away = SENDER.echo(a_destination(a_free_port()))
    assert (answered.answered, answered.message) == (True, "")
    assert timedelta(0) < timedelta(seconds=answered.seconds) < timedelta(seconds=20)
    assert not refused.answered
    assert "AE title" in refused.message
    assert not away.answered
    assert "no connection" in away.message
