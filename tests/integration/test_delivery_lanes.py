"""Lanes: exams that are held, files that are gone, pauses and windows, several associations, several destinations."""

import struct
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Event

import pydicom
import pytest
from pydicom import Dataset
from pynetdicom import association
from sqlalchemy import Engine
from structlog.testing import capture_logs

from config.settings import Delivery as DeliverySettings
from node.delivery import DeliveryService, Lane
from node.pace import Pace
from node.progress import Part
from storage.database import writing
from storage.deliveries import Delivery
from storage.errors import BucketUnavailable
from storage.exams import hold, recall
from storage.files import InstanceStore
from storage.jobs import JobQueue
from storage.lanes import Pause, pause, resume
from storage.outbox import Outbox
from storage.results import ResultRecord
from storage.states import DeliveryState
from tests.deliveries import SENDER, Deliveries, results, store
from tests.doors import a_destination
from tests.pacs import a_free_port, a_pacs, answers, hangs_until, waiting_results
from tests.peers import eventually
from tests.records import LEASE, NOON, POLICY, a_closed_exam

__all__ = ["results", "store"]

# pynetdicom leaves the socket of a connection that failed to its destructor.
pytestmark = [pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"), pytest.mark.sqlite_alone]


def test_a_held_exam_is_not_delivered_until_it_is_let_go(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    with a_pacs() as (_, port):
        deliveries = Deliveries(engine, store, a_destination(port))
        with writing(engine) as connection:
            hold(connection, deliveries.all()[0].exam_id, held=True)
        assert deliveries.lane.deliver_due() == 0
        with writing(engine) as connection:
            hold(connection, deliveries.all()[0].exam_id, held=False)
        assert deliveries.lane.deliver_due() == len(results)


def test_an_exam_that_is_held_while_it_is_being_sent_goes_no_further(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    def then_held(_: object) -> int:
        with writing(engine) as connection:
            hold(connection, deliveries.all()[0].exam_id, held=True)
        return 0x0000

    with a_pacs(then_held) as (pacs, port):
        deliveries = Deliveries(engine, store, a_destination(port))
        assert deliveries.lane.deliver_due() == 1
        assert deliveries.lane.deliver_due() == 0
    assert pacs.received == [results[0].uid]
    first, *others = deliveries.all()
    assert first.state is DeliveryState.SENT
    assert {(delivery.state, delivery.attempts) for delivery in others} == {(DeliveryState.WAITING, 0)}


def test_a_result_whose_file_is_gone_stops_no_other(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    store.resolve(results[0].path).unlink()
    with a_pacs() as (_, port):
        deliveries = Deliveries(engine, store, a_destination(port))
        deliveries.lane.deliver_due()
    first, *others = deliveries.all()
    assert (first.state, first.message) == (DeliveryState.WAITING, "the file cannot be sent: FileNotFoundError")
    assert {delivery.state for delivery in others} == {DeliveryState.SENT}


def test_a_result_of_which_a_part_is_left_is_not_sent(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    path = store.resolve(results[-1].path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with a_pacs() as (pacs, port):
        deliveries = Deliveries(engine, store, a_destination(port))
        deliveries.lane.deliver_due()
        assert pacs.received == [each.uid for each in results[:-1]]
        damaged = deliveries.all()[-1]
        assert (damaged.state, damaged.status_code, damaged.attempts) == (DeliveryState.WAITING, None, 1)
        assert "is damaged" in (damaged.message or "")
        path.write_bytes(whole)
        deliveries.later()
        assert pacs.received == [each.uid for each in results]


def test_a_file_that_nobody_can_make_sense_of_stops_no_other(
    engine: Engine, store: InstanceStore, results: list[ResultRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    def dcmread(path: str) -> Dataset:
        if path.endswith(results[0].path):
            raise struct.error
        return pydicom.dcmread(path)

    monkeypatch.setattr(association, "dcmread", dcmread)
    with a_pacs() as (pacs, port):
        deliveries = Deliveries(engine, store, a_destination(port))
        deliveries.lane.deliver_due()
        assert pacs.received == [each.uid for each in results[1:]]
    assert deliveries.all()[0].message == "the file cannot be sent: error"


def test_an_exam_that_is_held_while_its_results_are_fetched_is_not_delivered(
    engine: Engine, store: InstanceStore, results: list[ResultRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = store.resolve

    def then_held(path: str) -> Path:
        with writing(engine) as connection:
            hold(connection, 1, held=True)
        return resolve(path)

    monkeypatch.setattr(store, "resolve", then_held)
    with a_pacs() as (pacs, port):
        deliveries = Deliveries(engine, store, a_destination(port))
        assert deliveries.lane.deliver_due() == 0
        assert pacs.received == []
    assert deliveries.states() == {DeliveryState.WAITING}


def test_what_is_recalled_while_it_is_being_sent_tells_that_the_destination_has_it(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    def then_recalled(_: object) -> int:
        with writing(engine) as connection:
            recall(connection, 1, NOON)
        return 0xB000

    with a_pacs(then_recalled) as (pacs, port):
        deliveries = Deliveries(engine, store, a_destination(port))
        assert deliveries.lane.deliver_due() == 1
    assert pacs.received == [results[0].uid]
    first, *others = deliveries.all()
    assert (first.state, first.sent_at, first.status_code) == (DeliveryState.RECALLED, deliveries.clock(), 0xB000)
    assert {(each.state, each.sent_at) for each in others} == {(DeliveryState.RECALLED, None)}


def test_an_object_that_a_bucket_does_not_give_holds_up_no_other_exam(
    engine: Engine, store: InstanceStore, results: list[ResultRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(results[-1], uid="2.25.7", path="results/other.dcm")
    (store.root / other.path).write_bytes(store.resolve(results[-1].path).read_bytes())
    a_closed_exam(engine, "1.2.3.7.1", study="1.2.3.7")
    queue = JobQueue(engine, POLICY, LEASE)
    job = queue.claim("worker", NOON)
    assert job
    queue.finish(
        job, "worker", answer="none", results=[other], destinations={other.uid: ["pacs"]}, timings={}, now=NOON
    )
    asked, resolve = [], store.resolve

    def lacking(path: str) -> Path:
        asked.append(path)
        if path != other.path:
            raise BucketUnavailable("read: SlowDownRead")
        return resolve(path)

    def gone() -> None:
        raise BucketUnavailable("list: Connect")

    monkeypatch.setattr(store, "resolve", lacking)
    with a_pacs() as (pacs, port):
        deliveries = Deliveries(engine, store, a_destination(port))
        with monkeypatch.context() as patch:
            patch.setattr(store, "reach", gone)
            with pytest.raises(BucketUnavailable, match="Connect"):
                deliveries.lane.deliver_due()
        assert len(asked) == 1
        with pytest.raises(BucketUnavailable, match="SlowDownRead"):
            deliveries.lane.deliver_due()
        assert pacs.received == [results[-1].uid]
        assert {(each.state, each.attempts) for each in deliveries.all()} == {(DeliveryState.WAITING, 0)}
        assert asked[1:] == [results[0].path, other.path]
        monkeypatch.setattr(store, "resolve", resolve)
        deliveries.lane.deliver_due()
        assert deliveries.states() == {DeliveryState.SENT}


def test_several_associations_share_what_waits_and_send_nothing_twice(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    released = Event()
    with a_pacs(hangs_until(released)) as (pacs, port):
        deliveries = Deliveries(engine, store, a_destination(port).model_copy(update={"associations": 2}))
        service = DeliveryService([deliveries.lane])
        service.start()
        try:
            assert eventually(lambda: len(pacs.received) == 2)
            assert deliveries.states() == {DeliveryState.WAITING}
            released.set()
            assert eventually(lambda: deliveries.states() == {DeliveryState.SENT})
        finally:
            released.set()
            service.stop()
    assert sorted(pacs.received) == sorted(record.uid for record in results)


def answered_again(engine: Engine, store: InstanceStore, former: ResultRecord) -> None:
    """Let another image lead to the exam's next revision, whose report waits for "pacs"."""
    report = replace(former, uid="2.25.7", path="results/next.dcm")
    (store.root / report.path).write_bytes(store.resolve(former.path).read_bytes())
    a_closed_exam(engine, "1.2.3.1.2", now=NOON)
    queue = JobQueue(engine, POLICY, LEASE)
    job = queue.claim("worker", NOON)
    assert job
    queue.finish(
        job, "worker", answer="none", results=[report], destinations={report.uid: ["pacs"]}, timings={}, now=NOON
    )


def test_an_answer_that_a_later_one_has_overtaken_does_not_follow_it(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    answered_again(engine, store, results[-1])
    with a_pacs(answers(0xA700, 0x0000)) as (pacs, port), capture_logs() as lines:
        deliveries = Deliveries(engine, store, a_destination(port))
        assert deliveries.lane.deliver_due() == len(results) + 1
        deliveries.later()
        assert len(pacs.received) == len(results) + 1
    first, *others = deliveries.all()
    assert (first.state, first.status_code) == (DeliveryState.RECALLED, 0xA700)
    assert {each.state for each in others} == {DeliveryState.SENT}
    [line] = [line for line in lines if "overtaken" in line["event"]]
    assert (line["delivery"], line["revision"], line["log_level"]) == (first.id, 1, "info")


def test_no_association_takes_a_later_answer_while_another_has_an_earlier_one_in_hand(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    answered_again(engine, store, results[-1])
    with a_pacs() as (pacs, port):
        deliveries = Deliveries(engine, store, a_destination(port).model_copy(update={"associations": 2}))
        lane, due = deliveries.lane, deliveries.outbox.due
        with ExitStack() as hands:
            shares = [hands.enter_context(lane._in_hand(due)) for _ in range(len(results) + 1)]  # noqa: SLF001
            assert [each.revision for share in shares for each in share] == [1] * len(results)
        while lane.deliver_due():
            pass
        assert len(pacs.received) == len(results) + 1
    assert deliveries.states() == {DeliveryState.SENT}


def test_a_paused_lane_sends_nothing_and_loses_no_time(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    with a_pacs() as (_, port):
        deliveries = Deliveries(engine, store, a_destination(port))
        with writing(engine) as connection:
            pause(connection, Pause("pacs", NOON, "ann", "migration"))
        deliveries.clock.forward(timedelta(days=30))
        assert deliveries.lane.deliver_due() == 0
        with writing(engine) as connection:
            resume(connection, "pacs")
        assert deliveries.lane.deliver_due() == len(results)
    assert deliveries.states() == {DeliveryState.SENT}


def test_a_closed_window_sends_nothing_and_one_that_closes_lets_the_object_at_hand_end(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    local = NOON.astimezone()
    window = f"{local:%H:%M}-{local + timedelta(hours=1):%H:%M}"

    def at_the_end(_: object) -> int:
        deliveries.clock.now = NOON + timedelta(hours=1)
        return 0x0000

    with a_pacs(at_the_end) as (pacs, port):
        destination = a_destination(port).model_copy(update={"windows": (window,)})
        deliveries = Deliveries(engine, store, destination)
        deliveries.clock.now = NOON - timedelta(minutes=1)
        assert deliveries.lane.deliver_due() == 0
        deliveries.clock.now = NOON
        assert deliveries.lane.deliver_due() == 1
        assert deliveries.lane.deliver_due() == 0
        assert [d.attempts for d in deliveries.all()] == [1] + [0] * (len(results) - 1)
        deliveries.clock.now = NOON + timedelta(days=1)
        pacs.behaviour = answers(0x0000)
        assert deliveries.lane.deliver_due() == len(results) - 1
    assert deliveries.states() == {DeliveryState.SENT}


def test_a_destination_that_is_back_after_a_week_gets_what_its_own_policy_still_waits_for(
    engine: Engine, store: InstanceStore, results: list[ResultRecord]
) -> None:
    port = a_free_port()
    destination = a_destination(port).model_copy(
        update={"quick_retries": 1, "first_retry": 30, "slowest_retry": 3600 * 12, "give_up_days": 8}
    )
    deliveries = Deliveries(engine, store, destination)
    while deliveries.clock.now < NOON + timedelta(days=7):
        deliveries.lane.deliver_due()
        assert deliveries.states() == {DeliveryState.WAITING}
        deliveries.clock.forward(timedelta(hours=12))
    with a_pacs(port=port) as (pacs, _):
        assert deliveries.lane.deliver_due() == len(results)
    assert pacs.received == [record.uid for record in results]
    assert {(d.state, d.attempts) for d in deliveries.all()} == {(DeliveryState.SENT, 15)}


def test_one_dead_destination_does_not_stop_another(engine: Engine, store: InstanceStore) -> None:
    results = waiting_results(store, engine, ["dead", "pacs"])
    released = Event()
    with a_pacs(hangs_until(released)) as (_, dead_port), a_pacs() as (pacs, port):
        dead = Deliveries(engine, store, a_destination(dead_port, "dead"))
        alive = Deliveries(engine, store, a_destination(port))
        service = DeliveryService([dead.lane, alive.lane])
        service.start()
        try:
            assert eventually(lambda: alive.states() == {DeliveryState.SENT})
            assert dead.states() == {DeliveryState.WAITING}
        finally:
            released.set()
            service.stop()
    assert pacs.received == [record.uid for record in results]


def test_many_lanes_that_hang_hold_up_a_stop_no_longer_than_one(engine: Engine, store: InstanceStore) -> None:
    released = Event()

    class Hanging(Lane):
        def run(self, pace: Pace, part: Part | None = None) -> None:  # noqa: ARG002 (a lane's)
            released.wait(60)

    many = DeliverySettings()
    lane = Hanging(a_destination(1).model_copy(update={"associations": 60}), Outbox(engine, many.policy), SENDER, store)
    service = DeliveryService([lane])
    service.start()
    begun = time.monotonic()
    service.stop(timeout=0.2)
    took = time.monotonic() - begun
    released.set()
    assert took < 6


def test_a_lane_outlives_a_database_that_is_away(
    engine: Engine, store: InstanceStore, results: list[ResultRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_pacs() as (_, port):
        deliveries = Deliveries(engine, store, a_destination(port))
        failures = iter([ValueError("a bug"), ValueError("another")])
        due = deliveries.outbox.due

        def failing(*args: object) -> list[Delivery]:
            if error := next(failures, None):
                raise error
            return due(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(deliveries.outbox, "due", failing)
        service = DeliveryService([deliveries.lane])
        service.start()
        try:
            assert eventually(lambda: deliveries.states() == {DeliveryState.SENT})
        finally:
            service.stop()
