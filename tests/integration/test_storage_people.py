"""What the pages stand on, on both databases: lists of exams, senders, attempts, pictures, actions, cancelled readings."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from node.exams import NO_IMAGES
from node.records import Origin
from node.senders import Senders
from storage import senders as kept_senders
from storage.actions import Action, actions_of_destination, actions_of_exam, record_action
from storage.attempts import attempts_of_exam
from storage.database import reading, writing
from storage.deliveries import not_got
from storage.errors import CannotCancel, DatabaseUnavailable, LeaseLost, NoSuchJob
from storage.exams import revise
from storage.figures import answers_since
from storage.index import add_instance
from storage.jobs import CANCELLED, JobQueue
from storage.outbox import Outbox
from storage.overview import (
    Wanted,
    bytes_kept,
    calling_aes,
    count_exams,
    last_success,
    oldest_waiting_job,
    readings_since,
    received_since,
    search_exams,
    study_of,
    typical_seconds,
)
from storage.previews import Preview, PreviewKind, announce_previews, previews_of
from storage.removals import Due, remove_files
from storage.senders import Context, News, Tally, add_news, forget, list_senders
from storage.states import DeliveryState, ExamState, JobState, Plan
from tests.records import LEASE, NOON, POLICY, SECOND, a_closed_exam, a_result, an_exam, an_instance

HOUR = timedelta(hours=1)


def a_read_exam(engine: Engine, *, score: float = 83) -> tuple[int, JobQueue, Outbox]:
    """Let an exam be read and its report wait for a destination; returns the exam's key."""
    queue, outbox = JobQueue(engine, POLICY, LEASE), Outbox(engine, POLICY)
    exam, _ = a_closed_exam(engine)
    job = queue.claim("worker", NOON + SECOND)
    assert job
    queue.finish(
        job,
        "worker",
        answer="findings",
        results=[a_result()],
        destinations={"2.25.1": ["pacs"]},
        timings={"total": 7.5},
        now=NOON + 9 * SECOND,
        suspicion=score,
    )
    return exam.id, queue, outbox


def test_exams_are_found_by_what_people_look_for(engine: Engine) -> None:
    key, _, _ = a_read_exam(engine)
    other = an_exam(engine, "1.2.9.1.1", study="1.2.9", now=NOON + HOUR)
    with reading(engine) as connection:

        def found(**wanted: object) -> list[int]:
            asked = Wanted(**wanted)  # type: ignore[arg-type]
            rows = search_exams(connection, asked, 10)
            assert count_exams(connection, asked) == len(rows)
            return [row.exam.id for row in rows]

        assert found() == [other.id, key]
        assert found(state=ExamState.ANSWERED) == found(least_score=83) == found(until=NOON + HOUR) == [key]
        assert found(state=ExamState.COLLECTING) == found(since=NOON + HOUR) == found(uid=other.uid[:6]) == [other.id]
        assert found(least_score=84) == found(calling_ae="OTHER") == found(uid="%") == []
        assert found(calling_ae="MODALITY") == [other.id, key]
        assert [row.exam.id for row in search_exams(connection, Wanted(), 1, 1)] == [key]
        [row] = search_exams(connection, Wanted(state=ExamState.ANSWERED), 10)
        assert (row.score, row.job_state, row.senders, row.images, row.study_date) == (
            *(83, JobState.DONE, ("MODALITY",), 1, "20260304"),
        )
        assert calling_aes(connection) == ["MODALITY"]
        assert study_of(connection, row.exam) == ("20260304", "Screening")


def test_what_a_destination_has_not_got_of_the_present_revision_is_told_with_its_exam(engine: Engine) -> None:
    exam, _ = a_closed_exam(engine)
    an_exam(engine, "1.2.9.1.1", study="1.2.9", now=NOON - HOUR)
    queue, outbox = JobQueue(engine, POLICY, LEASE), Outbox(engine, POLICY)
    job = queue.claim("worker", NOON)
    assert job
    results = [
        a_result(),
        a_result("2.25.2", kind="SEG"),
        a_result("2.25.3", kind="SEG"),
        a_result("2.25.4", kind="SC"),
    ]
    everywhere = {result.uid: ["pacs", "ris"] for result in results}
    queue.finish(job, "worker", answer="findings", results=results, destinations=everywhere, timings={}, now=NOON)

    def told() -> list[dict[str, tuple[str, ...]]]:
        with reading(engine) as connection:
            assert not_got(connection, []) == {}
            return [dict(row.not_got) for row in search_exams(connection, Wanted(), 10)]

    assert told() == [{}, {}]
    for delivery in outbox.of_exam(exam.id):
        if delivery.destination == "pacs" and delivery.kind != "SC":
            outbox.refused(delivery, "SOP class not supported", 0x0122, NOON)
        else:
            outbox.sent(delivery, 0, NOON)
    assert told() == [{"pacs": ("SEG", "SR")}, {}]
    with writing(engine) as connection:
        revise(connection, exam.id, NOON + HOUR)
    assert told() == [{}, {}]


def test_reports_of_others_are_no_images_and_their_sender_has_sent_none(engine: Engine) -> None:
    an_exam(engine)
    with writing(engine) as connection:
        add_instance(connection, an_instance("1.2.3.1.2", calling_ae="PACS", kind="not an image"))
        add_instance(connection, an_instance("1.2.3.1.3", calling_ae="RIS", kind="own result", own=True))
    with reading(engine) as connection:
        [row] = search_exams(connection, Wanted(apart=NO_IMAGES), 10)
        assert (row.images, row.senders) == (1, ("MODALITY",))
        for name, number in (("MODALITY", 1), ("PACS", 0), ("RIS", 0)):
            assert count_exams(connection, Wanted(calling_ae=name, apart=NO_IMAGES)) == number


def test_whose_images_there_are_is_told_once_each(engine: Engine) -> None:
    with writing(engine) as connection:
        assert calling_aes(connection) == []
        for number, name in enumerate(["ROOM 2", "ROOM 1", "", "ROOM 2", "OTHER"]):
            assert add_instance(connection, an_instance(f"1.2.3.1.{number}", calling_ae=name))
        assert calling_aes(connection) == ["", "OTHER", "ROOM 1", "ROOM 2"]


def test_a_score_is_that_of_the_present_revision(engine: Engine) -> None:
    key, _, _ = a_read_exam(engine)
    with writing(engine) as connection:
        revise(connection, key, NOON + HOUR)
    with reading(engine) as connection:
        assert search_exams(connection, Wanted(least_score=1), 10) == []
        assert [row.score for row in search_exams(connection, Wanted(), 10)] == [None]


def test_what_comes_after_a_reading_does_not_change_how_long_its_answer_took(engine: Engine) -> None:
    key, _, _ = a_read_exam(engine)
    with writing(engine) as connection:
        revise(connection, key, NOON + HOUR)
    with reading(engine) as connection:
        [read], [answered] = readings_since(connection, NOON), answers_since(connection, NOON)
    assert read.finished_at - read.last_image_at == 9 * SECOND
    assert answered.finished_at - answered.last_image_at == 9 * SECOND


def test_the_speed_of_readings_is_known(engine: Engine) -> None:
    with reading(engine) as connection:
        assert typical_seconds(connection) is None
        assert oldest_waiting_job(connection) is None
    _, job = a_closed_exam(engine, "1.2.9.1.1", study="1.2.9", now=NOON + HOUR)
    assert job
    with reading(engine) as connection:
        assert oldest_waiting_job(connection) == NOON + HOUR
        assert readings_since(connection, NOON) == []
    _, queue, outbox = a_read_exam(engine)
    with reading(engine) as connection:
        assert typical_seconds(connection) == 7.5
        [read] = readings_since(connection, NOON)
        assert (read.finished_at - read.last_image_at, read.timings) == (9 * SECOND, {"total": 7.5})
        assert readings_since(connection, NOON + HOUR) == []
        assert received_since(connection, NOON) == 2
        assert bytes_kept(connection) == (34_000_000, 9000)
        assert last_success(connection) == {}
    [delivery] = outbox.due("pacs", NOON + HOUR, 9)
    outbox.sent(delivery, 0, NOON + HOUR)
    with reading(engine) as connection:
        assert last_success(connection) == {"pacs": NOON + HOUR}
    assert queue.counts()[JobState.QUEUED] == 1


def test_equal_attempts_in_a_row_are_one(engine: Engine) -> None:
    key, _, _ = a_read_exam(engine)
    outbox = Outbox(engine, replace(POLICY, attempts=9))

    def attempt(number: int, message: str) -> None:
        [delivery] = outbox.due("pacs", NOON + number * HOUR, 9)
        outbox.again(delivery, message, None, NOON + number * HOUR)

    attempt(1, "no answer")
    attempt(2, "no answer")
    attempt(3, "rejected")
    attempt(4, "no answer")
    [delivery] = outbox.due("pacs", NOON + 5 * HOUR, 9)
    outbox.sent(delivery, 0, NOON + 5 * HOUR)
    with reading(engine) as connection:
        [told] = attempts_of_exam(connection, key).values()
    assert [(each.message, each.times, each.state) for each in told] == [
        ("no answer", 2, DeliveryState.WAITING),
        ("rejected", 1, DeliveryState.WAITING),
        ("no answer", 1, DeliveryState.WAITING),
        (None, 1, DeliveryState.SENT),
    ]
    assert (told[0].first_at, told[0].last_at) == (NOON + HOUR, NOON + 2 * HOUR)


def test_what_people_did_is_kept_for_its_exam_or_lane(engine: Engine) -> None:
    exam = an_exam(engine)
    with writing(engine) as connection:
        for number in range(3):
            record_action(connection, Action("pause", f"Ada {number}", NOON + number * SECOND, destination="pacs"))
        record_action(connection, Action("resend", "Eve", NOON, exam.id, "pacs", "5 results"))
    with reading(engine) as connection:
        assert actions_of_exam(connection, exam.id) == [Action("resend", "Eve", NOON, exam.id, "pacs", "5 results")]
        assert [each.who for each in actions_of_destination(connection, "pacs", 2)] == ["Ada 2", "Ada 1"]


def test_pictures_of_a_later_run_take_the_place_of_former_ones_and_go_with_the_results(engine: Engine) -> None:
    key, queue, outbox = a_read_exam(engine)
    [job] = queue.list_jobs(1)

    def picture(kind: PreviewKind, path: str) -> Preview:
        return Preview(job.id, "1.2.3.1.1", kind, path, sideways=True, upright=False)

    for made in ([picture(PreviewKind.VIEW, "a"), picture(PreviewKind.MAP, "b")], [picture(PreviewKind.VIEW, "c")]):
        with writing(engine) as connection:
            announce_previews(connection, job.id, made)
        with reading(engine) as connection:
            assert previews_of(connection, job.id) == sorted(made, key=lambda each: each.kind)
    [delivery] = outbox.due("pacs", NOON + HOUR, 9)
    outbox.sent(delivery, 0, NOON + HOUR)
    with writing(engine) as connection:
        due = Due(NOON + HOUR, results_too=True, destinations=True, unproven=False)
        assert set(remove_files(connection, key, due, NOON + HOUR)) == {"c", a_result().path}
    with reading(engine) as connection:
        assert previews_of(connection, job.id) == []


# --- senders


def test_what_a_sender_did_adds_up_by_day(engine: Engine) -> None:
    key = ("MODALITY", "192.0.2.7")
    contexts = (Context("MG", ("Explicit", "Implicit"), "Explicit"), Context("SR", ("Implicit",), None))
    first = News(NOON, Tally(1, 0, 4, 1, {"full": 1}), contexts, "full", NOON)
    second = News(NOON + SECOND, Tally(1, 1, 2, 0, {"full": 2, "odd": 1}))
    with writing(engine) as connection:
        add_news(connection, {key: first, ("OTHER", ""): News(NOON)})
        add_news(connection, {key: second})
    with reading(engine) as connection:
        sender, other = list_senders(connection, "2026-01-01")
        assert list_senders(connection, "2027-01-01")[0].days == ()
    assert (sender.calling_ae, sender.address, other.calling_ae) == (*key, "OTHER")
    assert (sender.first_seen, sender.last_seen, sender.contexts) == (NOON, NOON + SECOND, contexts)
    assert (sender.refusal, sender.refused_at) == ("full", NOON)
    [(_, day)] = sender.days
    assert day == Tally(2, 1, 6, 1, {"full": 3, "odd": 1})


def test_what_senders_did_while_the_database_was_away_is_written_down_later(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise DatabaseUnavailable

    senders, origin = Senders(engine, lambda: NOON), Origin("MG1", "MAMMONODE", "192.0.2.1", "a1")
    senders.refused(origin, "away")
    with monkeypatch.context() as patch:
        patch.setattr("node.senders.add_news", away)
        with pytest.raises(DatabaseUnavailable):
            senders.write_down()
    senders.stored(origin)
    assert [senders.write_down() for _ in range(3)] == [1, 1, 0]
    with reading(engine) as connection:
        [sender] = list_senders(connection, "2000-01-01")
    [(_, tally)] = sender.days
    assert (tally.images, tally.images_refused, tally.reasons) == (1, 1, {"away": 1})


def test_whoever_calls_under_ever_new_names_fills_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_senders, "MOST_SENDERS", 3)
    with writing(engine) as connection:
        for number in range(5):
            add_news(connection, {(f"NAME{number}", ""): News(NOON + number * SECOND, Tally(1))})
        assert forget(connection, NOON) == 2
        assert [each.calling_ae for each in list_senders(connection, "")] == ["NAME4", "NAME3", "NAME2"]
        assert forget(connection, NOON + timedelta(days=500)) == 0
        assert all(each.days == () for each in list_senders(connection, ""))


def test_of_too_many_reasons_the_rest_is_counted_together() -> None:
    tally = Tally()
    for number in range(kept_senders.MOST_REASONS + 5):
        tally.refuse(f"reason {number}")
    assert len(tally.reasons) == kept_senders.MOST_REASONS + 1
    assert tally.reasons["other reasons"] == 5


# --- cancelled readings


def test_a_cancelled_reading_is_handed_out_to_be_answered_not_read(engine: Engine) -> None:
    queue = JobQueue(engine, POLICY, LEASE)
    _, number = a_closed_exam(engine)
    held = queue.claim("worker", NOON)
    assert held
    queue.cancel(number, NOON + SECOND)
    assert not queue.renew(held, "worker", NOON + SECOND)
    with pytest.raises(LeaseLost):
        queue.finish(held, "worker", answer="findings", results=[], destinations={}, timings={}, now=NOON + SECOND)
    again = queue.claim("other", NOON + SECOND)
    assert again
    assert (again.plan, again.reasons, again.exhausted) == (Plan.NOT_ANALYSED, ("L CC missing", CANCELLED), False)
    with pytest.raises(CannotCancel):
        queue.cancel(number, NOON + SECOND)
    queue.finish(again, "other", answer="not analysed", results=[], destinations={}, timings={}, now=NOON + SECOND)
    with pytest.raises(CannotCancel):
        queue.cancel(number, NOON + SECOND)
    queue.retry(number, NOON + SECOND)
    after_all = queue.claim("worker", NOON + SECOND)
    assert after_all
    assert (after_all.plan, after_all.reasons) == (Plan.READ, ("L CC missing",))


def test_what_is_not_there_or_not_present_cannot_be_cancelled(engine: Engine) -> None:
    queue = JobQueue(engine, POLICY, LEASE)
    exam, number = a_closed_exam(engine)
    with pytest.raises(NoSuchJob):
        queue.cancel(number + 1, NOON)
    with writing(engine) as connection:
        revise(connection, exam.id, NOON + SECOND)
    with pytest.raises(CannotCancel):
        queue.cancel(number, NOON + SECOND)
