"""The outbox on both databases."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine

from config.mix import ResultKind
from storage.database import reading, writing
from storage.deliveries import Delivery, deliveries_by_id
from storage.exams import hold
from storage.jobs import JobQueue
from storage.lanes import Pause, pause, pauses, resume
from storage.outbox import Outbox
from storage.results import ResultRecord
from storage.states import DeliveryState
from tests.records import LEASE, NOON, POLICY, SECOND, a_closed_exam, a_result, an_answer_waits, an_exam, resent


@pytest.fixture
def outbox(engine: Engine) -> Outbox:
    """Two reports of one exam, each for two destinations."""
    results = [a_result("2.25.2"), a_result("2.25.1")]
    return an_answer_waits(engine, results, {result.uid: ["pacs", "archive"] for result in results})


def first(outbox: Outbox, destination: str = "pacs") -> Delivery:
    return outbox.due(destination, NOON + timedelta(days=9), 9)[0]


def test_what_is_due_is_listed_oldest_first_for_one_destination(outbox: Outbox) -> None:
    due = outbox.due("pacs", NOON, 9)
    assert [delivery.result_uid for delivery in due] == ["2.25.2", "2.25.1"]
    assert {delivery.destination for delivery in due} == {"pacs"}
    assert outbox.due("pacs", NOON, 1) == due[:1]
    assert outbox.due("nowhere", NOON, 9) == []


def a_read_exam(engine: Engine, study: str, score: float | None, now: datetime = NOON, image: str = "") -> str:
    """Let an exam be answered with a score, its report wait for "pacs", and return the report's UID."""
    image = image or f"{study}.1.1"
    report = a_result(f"2.25.{image}")
    is_answered(engine, image, [report], study, score, now)
    return report.uid


def is_answered(
    engine: Engine,
    image: str,
    objects: Sequence[ResultRecord],
    study: str = "1.1",
    score: float | None = 50,
    now: datetime = NOON,
) -> None:
    """Let an image come and its exam be answered with a score and objects, which wait for "pacs"."""
    a_closed_exam(engine, image, study=study, now=now)
    queue = JobQueue(engine, POLICY, LEASE)
    job = queue.claim("ann", now)
    assert job is not None
    queue.finish(
        job,
        "ann",
        answer="findings",
        results=objects,
        destinations={made.uid: ["pacs"] for made in objects},
        timings={},
        now=now,
        suspicion=score,
    )
    assert queue.list_jobs(1)[0].suspicion == score


def an_object(kind: ResultKind, revision: int) -> ResultRecord:
    """Return what an answer has of a kind; its UID tells both."""
    uid = f"2.25.{revision}{list(ResultKind).index(kind)}"
    return a_result(uid, kind=str(kind), path=f"results/{uid}.dcm")


def test_the_most_suspicious_exam_is_sent_first_then_the_oldest_then_those_without_a_score(engine: Engine) -> None:
    uids = {
        name: a_read_exam(engine, f"1.{number}", score, NOON + number * SECOND)
        for number, (name, score) in enumerate(
            {"none": None, "low": 3, "high": 90.5, "zero": 0, "high later": 90.5}.items(), 1
        )
    }
    due = Outbox(engine, POLICY).due("pacs", NOON + timedelta(hours=1), 9)
    names = {uid: name for name, uid in uids.items()}
    assert [names[delivery.result_uid] for delivery in due] == ["high", "high later", "low", "zero", "none"]


def test_revisions_of_one_exam_stay_in_their_order_whatever_their_scores(engine: Engine) -> None:
    first = a_read_exam(engine, "1.1", 80)
    between = a_read_exam(engine, "1.2", 50, NOON + SECOND)
    an_exam(engine, "1.1.1.2", study="1.1", now=NOON + 2 * SECOND)
    queue = JobQueue(engine, POLICY, LEASE)
    a_closed_exam(engine, "1.1.1.3", study="1.1", now=NOON + 2 * SECOND)
    job = queue.claim("ann", NOON + 2 * SECOND)
    assert job is not None
    queue.finish(
        job,
        "ann",
        answer="no findings",
        results=[a_result("2.25.5")],
        destinations={"2.25.5": ["pacs"]},
        timings={},
        now=NOON + 3 * SECOND,
        suspicion=2,
    )
    due = Outbox(engine, POLICY).due("pacs", NOON + timedelta(hours=1), 9)
    assert [delivery.result_uid for delivery in due] == [first, "2.25.5", between]


def test_a_revision_that_waits_to_be_tried_again_goes_before_a_later_one(engine: Engine) -> None:
    outbox = Outbox(engine, POLICY)
    earlier = a_read_exam(engine, "1.1", 80)
    outbox.again(first(outbox), "no connection", None, NOON)
    other = a_read_exam(engine, "1.2", 50)
    outbox.again(outbox.due("pacs", NOON, 9)[0], "no connection", None, NOON)
    assert outbox.due("pacs", NOON, 9) == []
    later = a_read_exam(engine, "1.1", 2, image="1.1.1.2")
    due = outbox.due("pacs", NOON, 9)
    assert [delivery.result_uid for delivery in due] == [earlier, later]
    assert all(outbox.still_due(delivery) for delivery in due)
    # Once it has failed again, it keeps nothing back.
    outbox.again(due[0], "out of resources", 0xA700, NOON)
    outbox.again(outbox.due("pacs", NOON, 9)[1], "out of resources", 0xA700, NOON)
    assert outbox.due("pacs", NOON, 9) == []
    assert {delivery.result_uid for delivery in outbox.latest(9)} == {earlier, other, later}


def test_what_a_later_answer_has_overtaken_is_not_sent_any_more(engine: Engine) -> None:
    outbox = Outbox(engine, POLICY)
    for study, suspicion in (("1.1", 80), ("1.2", 50)):
        a_read_exam(engine, study, suspicion)
    later = a_read_exam(engine, "1.1", 2, image="1.1.1.2")
    earlier, present, other = outbox.due("pacs", NOON, 9)
    outbox.again(earlier, "out of resources", 0xA700, NOON)
    [overtaken] = outbox.sent(present, 0, NOON)
    assert (overtaken.id, present.result_uid) == (earlier.id, later)
    assert outbox.due("pacs", NOON + timedelta(days=9), 9) == [other]
    ended = outbox.of_exam(earlier.exam_id)[0]
    assert (ended.state, ended.finished_at, ended.sent_at) == (DeliveryState.RECALLED, NOON, None)
    assert ended.message == "out of resources; a later answer was there first"
    # What was on its way at that moment tells that it arrived.
    outbox.sent(earlier, 0, NOON + SECOND)
    assert outbox.of_exam(earlier.exam_id)[0].sent_at == NOON + SECOND


REPORT, OUTLINE = ResultKind.SR, ResultKind.SEG


@pytest.mark.parametrize(
    ("waits", "comes", "overtaken"),
    [
        (REPORT, REPORT, True),
        (REPORT, OUTLINE, False),
        (OUTLINE, REPORT, True),
        (OUTLINE, OUTLINE, True),
        (ResultKind.CAD_SR, ResultKind.GSPS, False),
        (ResultKind.PDF, ResultKind.SC_VIEW, False),
        (REPORT, ResultKind.SC, True),
        (REPORT, ResultKind.REJECTION, False),
        (OUTLINE, ResultKind.REJECTION, True),
        (ResultKind.REJECTION, REPORT, False),
    ],
)
def test_only_what_tells_the_later_answer_overtakes_what_tells_the_earlier_one(
    engine: Engine, waits: ResultKind, comes: ResultKind, *, overtaken: bool
) -> None:
    outbox = Outbox(engine, POLICY)
    is_answered(engine, "1.1.1.1", [an_object(waits, 1)])
    is_answered(engine, "1.1.1.2", [an_object(comes, 2), an_object(ResultKind.PMAP, 2)])
    earlier, present, _ = outbox.due("pacs", NOON, 9)
    outbox.again(earlier, "out of resources", 0xA700, NOON)
    assert [each.id for each in outbox.sent(present, 0, NOON)] == [earlier.id] * overtaken
    assert (outbox.of_exam(1)[0].state is DeliveryState.RECALLED) is overtaken


def test_an_earlier_report_goes_out_while_the_later_one_is_refused(engine: Engine) -> None:
    outbox = Outbox(engine, POLICY)
    for revision in (1, 2):
        is_answered(engine, f"1.1.1.{revision}", [an_object(kind, revision) for kind in (OUTLINE, REPORT)])
    outline, report, *later = outbox.due("pacs", NOON, 9)
    outbox.sent(outline, 0, NOON)
    outbox.again(report, "out of resources", 0xA700, NOON)
    assert outbox.sent(later[0], 0, NOON) == []
    outbox.refused(later[1], "cannot understand", 0xC000, NOON)
    [due] = outbox.due("pacs", NOON + timedelta(hours=1), 9)
    assert due.id == report.id


@pytest.mark.parametrize("there", [True, False])
def test_what_is_missing_is_sent_again_unless_a_later_answer_is_there(engine: Engine, *, there: bool) -> None:
    outbox = Outbox(engine, POLICY)
    a_read_exam(engine, "1.1", 80)
    outbox.sent(first(outbox), 0, NOON, prove_at=NOON)
    a_read_exam(engine, "1.1", 2, image="1.1.1.2")
    if there:
        assert outbox.sent(first(outbox), 0, NOON) == []
    earlier = outbox.of_exam(1)[0]
    with writing(engine) as connection:
        state = outbox.proofs.missing(connection, earlier, "not found", 0x0112, NOON)
    assert state is (DeliveryState.RECALLED if there else DeliveryState.WAITING)
    assert bool(outbox.of_exam(1)[0].finished_at) is there


def test_a_missing_report_is_sent_again_although_a_later_outline_is_there(engine: Engine) -> None:
    outbox = Outbox(engine, POLICY)
    is_answered(engine, "1.1.1.1", [an_object(kind, 1) for kind in (OUTLINE, REPORT)])
    for each in outbox.due("pacs", NOON, 9):
        outbox.sent(each, 0, NOON, prove_at=NOON)
    is_answered(engine, "1.1.1.2", [an_object(OUTLINE, 2)])
    outbox.sent(first(outbox), 0, NOON)
    with writing(engine) as connection:
        states = [
            outbox.proofs.missing(connection, each, "not found", 0x0112, NOON)
            for each in outbox.of_exam(1)
            if each.proofs == 0
        ]
    assert states[:2] == [DeliveryState.RECALLED, DeliveryState.WAITING]


def test_of_two_answers_to_one_revision_the_other_form_of_the_earlier_one_goes_first(engine: Engine) -> None:
    forms = [a_result("2.25.3"), a_result("2.25.2", fallback_uid="2.25.3", path="results/other")]
    outbox = an_answer_waits(engine, forms, {"2.25.2": ["pacs"]})
    queue = JobQueue(engine, POLICY, LEASE)
    queue.retry(1, NOON)
    job = queue.claim("ann", NOON)
    assert job is not None
    destinations, now = {"2.25.4": ["pacs"]}, NOON + SECOND / 2
    queue.finish(
        *(job, "ann"), answer="findings", results=[a_result("2.25.4")], destinations=destinations, timings={}, now=now
    )
    outbox.replaced(outbox.due("pacs", NOON, 9)[0], "not supported", 0x0122, NOON + SECOND)
    assert [each.result_uid for each in outbox.due("pacs", NOON + SECOND, 9)] == ["2.25.3", "2.25.4"]
    assert [each.result_uid for each in outbox.sent(outbox.due("pacs", NOON, 9)[1], 0, NOON + SECOND)] == ["2.25.3"]


def test_what_was_read_again_is_not_overtaken_by_what_it_supersedes(engine: Engine, outbox: Outbox) -> None:
    for delivery in outbox.due("pacs", NOON, 9):
        outbox.again(delivery, "no connection", None, NOON)
    queue = JobQueue(engine, POLICY, LEASE)
    queue.retry(1, NOON)
    job = queue.claim("ann", NOON)
    assert job is not None
    destinations = {"2.25.3": ["pacs"]}
    now = NOON + SECOND / 2
    queue.finish(
        *(job, "ann"), answer="findings", results=[a_result("2.25.3")], destinations=destinations, timings={}, now=now
    )
    assert [delivery.result_uid for delivery in outbox.due("pacs", now, 9)] == ["2.25.2", "2.25.1", "2.25.3"]


def test_a_clock_that_was_put_back_changes_no_order_of_an_exam_s_answers(engine: Engine, outbox: Outbox) -> None:
    then = NOON - timedelta(days=7)
    read_again = JobQueue(engine, POLICY, LEASE)
    read_again.retry(1, then)
    job = read_again.claim("ann", then)
    assert job is not None
    read_again.finish(
        *(job, "ann"),
        answer="findings",
        results=[a_result("2.25.3")],
        destinations={"2.25.3": ["pacs"]},
        timings={},
        now=then,
    )
    other = a_read_exam(engine, "1.2", None, then)
    revised = a_read_exam(engine, "1.2.3", None, then, image="1.2.3.1.2")
    due = [delivery.result_uid for delivery in outbox.due("pacs", then, 9)]
    assert [uid for uid in due if uid != other] == ["2.25.2", "2.25.1", "2.25.3", revised]


def test_what_is_in_hand_is_not_given_out_again(outbox: Outbox) -> None:
    first_one, second = outbox.due("pacs", NOON, 9)
    assert outbox.due("pacs", NOON, 9, {first_one.id}) == [second]
    assert outbox.due("pacs", NOON, 9, {first_one.id, second.id}) == []


def test_a_paused_lane_gives_nothing_out_until_it_is_resumed(engine: Engine, outbox: Outbox) -> None:
    with writing(engine) as connection:
        assert pause(connection, Pause("pacs", NOON, "ann", "migration"))
        assert not pause(connection, Pause("pacs", NOON + SECOND, "bob", ""))
    assert outbox.due("pacs", NOON, 9) == []
    assert len(outbox.due("archive", NOON, 9)) == 2
    with reading(engine) as connection:
        assert pauses(connection) == {"pacs": Pause("pacs", NOON, "ann", "migration")}
    with writing(engine) as connection:
        assert resume(connection, "pacs")
        assert not resume(connection, "pacs")
    assert len(outbox.due("pacs", NOON, 9)) == 2


def test_a_destination_may_have_a_policy_of_its_own(engine: Engine, outbox: Outbox) -> None:
    patient = replace(POLICY, first=timedelta(hours=1), slow=timedelta(hours=1))
    own = Outbox(engine, POLICY, {"archive": patient})
    for name in ("pacs", "archive"):
        own.again(first(own, name), "no answer", None, NOON)
    waits = {d.destination: d.not_before - NOON for d in own.of_exam(1) if d.attempts}
    assert waits == {"pacs": SECOND, "archive": timedelta(hours=1)}


def test_it_is_known_since_when_the_oldest_waits(outbox: Outbox) -> None:
    assert outbox.oldest_waiting() == {"pacs": NOON, "archive": NOON}
    for delivery in outbox.due("pacs", NOON, 9):
        outbox.sent(delivery, 0, NOON)
    assert outbox.oldest_waiting() == {"archive": NOON}


def test_a_delivery_knows_its_object_and_its_exam(outbox: Outbox) -> None:
    delivery = first(outbox)
    result = a_result("2.25.2")
    assert (delivery.path, delivery.size, delivery.kind, delivery.sop_class_uid) == (
        result.path,
        result.size,
        result.kind,
        result.sop_class_uid,
    )
    assert delivery.revision == 1
    assert delivery.log_context() == {
        "delivery": delivery.id,
        "destination": "pacs",
        "exam": delivery.exam_uid,
        "revision": 1,
        "result": "2.25.2",
    }


def test_what_was_sent_is_no_longer_due_there(outbox: Outbox) -> None:
    outbox.sent(first(outbox), 0xB007, NOON + SECOND, "elements discarded")
    assert [delivery.result_uid for delivery in outbox.due("pacs", NOON, 9)] == ["2.25.1"]
    assert len(outbox.due("archive", NOON, 9)) == 2
    sent = outbox.of_exam(1)[0]
    assert (sent.state, sent.status_code, sent.message) == (DeliveryState.SENT, 0xB007, "elements discarded")
    assert (sent.attempts, sent.first_attempt_at, sent.finished_at) == (1, NOON + SECOND, NOON + SECOND)
    assert (sent.sent_at, sent.proven_at, sent.proofs) == (NOON + SECOND, None, 0)


def test_it_is_known_when_the_next_is_due(outbox: Outbox) -> None:
    assert outbox.next_at("nowhere", proofs=True) is None
    assert outbox.next_at("pacs", proofs=False) == NOON
    one, other = outbox.due("pacs", NOON, 9)
    outbox.again(one, "no route to host", None, NOON)
    outbox.sent(other, 0, NOON, prove_at=NOON + SECOND)
    assert outbox.next_at("pacs", proofs=True) == NOON + SECOND
    retry = outbox.next_at("pacs", proofs=False)
    assert retry == NOON + POLICY.first
    assert outbox.due("pacs", retry - SECOND, 9) == []
    assert len(outbox.due("pacs", retry, 9)) == 1
    outbox.sent(first(outbox), 0, retry)
    assert outbox.next_at("pacs", proofs=False) is None
    assert outbox.next_at("pacs", proofs=True) == NOON + SECOND
    assert outbox.next_at("archive", proofs=False) == NOON


def test_a_failed_attempt_is_made_again_after_the_policy_s_delay(outbox: Outbox) -> None:
    assert outbox.again(first(outbox), "association refused", None, NOON) is DeliveryState.WAITING
    assert [delivery.result_uid for delivery in outbox.due("pacs", NOON, 9)] == ["2.25.1"]
    delivery = outbox.due("pacs", NOON + SECOND, 9)[0]
    assert (delivery.attempts, delivery.message, delivery.first_attempt_at) == (1, "association refused", NOON)
    outbox.again(delivery, "association refused", 0xA700, NOON + SECOND)
    delivery = first(outbox)
    assert (delivery.not_before, delivery.first_attempt_at, delivery.last_attempt_at) == (
        NOON + 3 * SECOND,
        NOON,
        NOON + SECOND,
    )


def test_a_clock_that_was_put_back_holds_up_no_delivery(outbox: Outbox) -> None:
    back = NOON - timedelta(days=30)
    assert len(outbox.due("pacs", back, 9)) == 2
    delivery = first(outbox)
    outbox.again(delivery, "no answer", None, NOON)
    assert outbox.due("pacs", NOON, 1) != [first(outbox)]
    assert {due.id for due in outbox.due("pacs", back, 9)} >= {delivery.id}
    outbox.sent(first(outbox), 0, NOON, prove_at=NOON + SECOND)
    assert outbox.unproven("pacs", NOON, 9) == []
    assert len(outbox.unproven("pacs", back, 9)) == 1
    assert outbox.unproven("pacs", back, 9, patience=timedelta(days=31)) == []


def test_a_delivery_expires_when_the_policy_gives_up(outbox: Outbox) -> None:
    states = [outbox.again(first(outbox), "no answer", None, NOON) for _ in range(3)]
    assert states == [DeliveryState.WAITING, DeliveryState.WAITING, DeliveryState.EXPIRED]
    expired = outbox.of_exam(1)[0]
    assert (expired.state, expired.attempts, expired.finished_at, expired.message) == (
        DeliveryState.EXPIRED,
        3,
        NOON,
        "no answer",
    )


def test_a_delivery_expires_by_age(engine: Engine, outbox: Outbox) -> None:
    give_up_after = 20 * POLICY.slow
    patient = Outbox(engine, replace(POLICY, attempts=None, give_up_after=give_up_after))
    now, state = NOON, DeliveryState.WAITING
    while state is DeliveryState.WAITING:
        assert now <= NOON + give_up_after
        state = patient.again(first(outbox), "no answer", None, now)
        now += POLICY.slow
    assert state is DeliveryState.EXPIRED
    assert now - POLICY.slow == NOON + give_up_after


def test_time_in_which_nothing_could_be_tried_counts_for_nothing(engine: Engine, outbox: Outbox) -> None:
    patient = Outbox(engine, replace(POLICY, attempts=None))
    patient.again(first(outbox), "no answer", None, NOON)
    on_again = NOON + timedelta(days=8)
    assert patient.again(first(outbox), "no answer", None, on_again) is DeliveryState.WAITING
    assert patient.again(first(outbox), "no answer", None, on_again + SECOND) is DeliveryState.WAITING
    proven = first(outbox)
    patient.sent(proven, 0, on_again, prove_at=on_again + SECOND)
    with writing(engine) as connection:
        [sent] = deliveries_by_id(connection, [proven.id])
        later = on_again + timedelta(days=8)
        assert patient.proofs.ask_again(connection, sent, "no report", later) is DeliveryState.SENT
        assert patient.proofs.missing(connection, sent, "not there", None, later) is DeliveryState.WAITING
        [waits] = deliveries_by_id(connection, [proven.id])
    assert patient.again(waits, "no answer", None, later + SECOND) is DeliveryState.WAITING


def test_a_pause_between_sending_and_proof_counts_for_nothing(engine: Engine, outbox: Outbox) -> None:
    patient = Outbox(engine, replace(POLICY, attempts=None))
    on_again, minute = NOON + timedelta(days=8), timedelta(minutes=1)
    patient.sent(first(outbox), 0, NOON, prove_at=NOON)
    with writing(engine) as connection:
        patient.proofs.asked(connection, patient.unproven("pacs", on_again, 9), on_again, on_again + minute)
    [sent] = patient.unproven("pacs", on_again + minute, 9)
    with writing(engine) as connection:
        assert patient.proofs.ask_again(connection, sent, "no report", on_again + minute) is DeliveryState.SENT
        [sent] = deliveries_by_id(connection, [sent.id])
        state = patient.proofs.missing(connection, sent, "not there", None, on_again + minute)
        assert state is DeliveryState.WAITING
    # From then on it has the whole time, and no more.
    for late, then in ((-minute, DeliveryState.WAITING), (minute, DeliveryState.EXPIRED)):
        now = on_again + POLICY.give_up_after + late
        assert patient.again(replace(patient.of_exam(1)[0], not_before=now), "no answer", None, now) is then


def test_what_was_refused_for_good_is_not_tried_again(outbox: Outbox) -> None:
    outbox.refused(first(outbox), "SOP class not supported", 0x0122, NOON)
    refused = outbox.of_exam(1)[0]
    assert (refused.state, refused.status_code, refused.finished_at) == (DeliveryState.REFUSED, 0x0122, NOON)
    assert first(outbox).id != refused.id


def test_a_late_failure_does_not_undo_a_success(outbox: Outbox) -> None:
    delivery = first(outbox)
    outbox.sent(delivery, 0, NOON)
    outbox.again(delivery, "time-out", None, NOON)
    assert outbox.of_exam(1)[0].state is DeliveryState.SENT


def test_nothing_of_a_held_exam_is_due_until_it_is_released(engine: Engine, outbox: Outbox) -> None:
    for held, due in ((True, 0), (False, 2)):
        with writing(engine) as connection:
            hold(connection, 1, held=held)
        assert len(outbox.due("pacs", NOON, 9)) == due


def test_resending_begins_anew_for_one_destination_or_all(engine: Engine, outbox: Outbox) -> None:
    for destination in ("pacs", "archive"):
        outbox.refused(first(outbox, destination), "", 0x0122, NOON)
    assert resent(engine, 1, NOON + SECOND, {"pacs": ResultKind}) == 2
    fresh = first(outbox)
    assert (fresh.state, fresh.attempts, fresh.status_code, fresh.finished_at) == (DeliveryState.WAITING, 0, None, None)
    assert len(outbox.due("archive", NOON + SECOND, 9)) == 1
    assert resent(engine, 1, NOON, dict.fromkeys(["pacs", "archive"], ResultKind)) == 4
    assert len(outbox.due("archive", NOON, 9)) == 2
    assert resent(engine, 2, NOON, {"pacs": ResultKind}) == 0


def test_deliveries_are_counted_by_destination_and_state(outbox: Outbox) -> None:
    outbox.sent(first(outbox), 0, NOON)
    nothing = dict.fromkeys(DeliveryState, 0)
    assert outbox.counts() == {
        "pacs": nothing | {DeliveryState.SENT: 1, DeliveryState.WAITING: 1},
        "archive": nothing | {DeliveryState.WAITING: 2},
    }
