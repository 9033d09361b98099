"""Files that are removed after their time, on both databases: never too early, in the right order, and for good."""

import errno
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom.uid import Comprehensive3DSRStorage
from sqlalchemy import Engine
from structlog.testing import capture_logs

from ai.exam import Exam
from config.mix import ResultKind
from config.policy import RetentionPolicy
from config.settings import Destination, Proof
from node.corrections import Corrections
from node.intake import Outcome
from node.results.answer import AnswerStatus
from node.retention import Retention
from node.views import ImageKind
from storage.conflicts import list_conflicts
from storage.database import reading
from storage.errors import CannotRetry
from storage.exams import find_exam
from storage.files import DiskUsage, InstanceReference
from storage.index import find_instance
from storage.removals import is_removed
from storage.results import results_of
from storage.states import DeliveryState, ExamState
from tests.builders import altered, key_objects
from tests.chain import QUIET, Chain, FakeReader, a_chain, text_of
from tests.doors import an_image, phantom_images
from tests.records import LEASE, resent

REPORTS = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104, objects=(ResultKind.SR,))
DAY = timedelta(days=1)
SOURCES, BOTH = RetentionPolicy(sources=30 * DAY), RetentionPolicy(sources=30 * DAY, results=60 * DAY)
UNPROVEN = RetentionPolicy(sources=30 * DAY, unproven=True)


@pytest.fixture
def chain(tmp_path: Path, engine: Engine) -> Chain:
    """An exam of four images that was answered with a report; the report waits to be sent."""
    made = a_chain(tmp_path, engine)
    made.close(phantom_images())
    assert made.worker(destinations=[REPORTS]).work_once()
    return made


IMAGES_WITH_PICTURES = 4 + 4
"""Files of the exam: its images, and a picture of each for the pages."""


def retention(chain: Chain, policy: RetentionPolicy, destinations: Sequence[Destination] = (REPORTS,)) -> Retention:
    return Retention(chain.room.engine, chain.room.store, policy, chain.clock, destinations=destinations)


def deliver(chain: Chain) -> None:
    for delivery in chain.outbox.due("pacs", chain.clock(), 99):
        chain.outbox.sent(delivery, 0, chain.clock())


def kept(chain: Chain, area: str = "instances") -> int:
    return sum(file.startswith(area) for file in chain.room.files())


def removed(chain: Chain) -> None:
    """Let the exam's sources be removed."""
    deliver(chain)
    chain.clock.forward(31 * DAY)
    assert retention(chain, SOURCES).tick() == IMAGES_WITH_PICTURES


def test_sources_and_results_go_after_their_time_and_their_records_stay(chain: Chain) -> None:
    deliver(chain)
    chain.clock.forward(29 * DAY)
    assert retention(chain, BOTH).tick() == 0
    chain.clock.forward(2 * DAY)
    assert retention(chain, BOTH).tick() == IMAGES_WITH_PICTURES
    assert (kept(chain), kept(chain, "previews"), kept(chain, "results") > 0) == (0, 0, True)
    chain.clock.forward(30 * DAY)
    assert retention(chain, BOTH).tick() > 0
    assert kept(chain, "results") == 0
    assert chain.room.rows() == (4, 1, 0)
    assert chain.issued()
    assert (chain.exam.state, chain.exam.status) == (ExamState.ANSWERED, AnswerStatus.FINDINGS)
    assert retention(chain, BOTH).tick() == 0


def cancelled_while_it_is_read(chain: Chain) -> int:
    """Let the exam be read once more by another model, be cancelled meanwhile and answered; return the files that no row names."""
    chain.queue.retry(chain.job.id, chain.clock())
    before = set(chain.room.files())
    model = replace(chain.reader.model, digest="cd" * 32)
    reader = FakeReader(model=model, meanwhile=lambda _: chain.queue.cancel(chain.job.id, chain.clock()))
    assert chain.worker(destinations=[REPORTS], reader=reader).work_once()
    left = {file for file in set(chain.room.files()) - before if file.startswith("results")}
    assert chain.worker(destinations=[REPORTS]).work_once()
    assert chain.exam.status == AnswerStatus.NOT_ANALYSED
    assert left.isdisjoint(result.record.path for result in chain.issued())
    return len(left)


def test_what_a_reading_that_was_cancelled_has_left_goes_with_the_results(chain: Chain) -> None:
    left = cancelled_while_it_is_read(chain)
    assert left > 0
    deliver(chain)
    chain.clock.forward(61 * DAY)
    with capture_logs() as logs:
        retention(chain, BOTH).tick()
    assert kept(chain, "results") == 0
    assert [line.get("unindexed") for line in logs if line["event"] == "files removed"] == [None, left]
    assert retention(chain, BOTH).tick() == 0


def test_what_a_worker_that_was_killed_has_left_goes_with_the_results_that_another_issued(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    chain.queue.retry(chain.job.id, chain.clock())
    monkeypatch.setattr(chain.queue, "finish", killed)
    other = replace(chain.reader.model, digest="cd" * 32)
    with pytest.raises(KeyboardInterrupt):
        chain.worker(reader=FakeReader(model=other)).work_once()
    monkeypatch.undo()
    chain.clock.forward(2 * LEASE)
    assert chain.worker(destinations=[REPORTS]).work_once()
    assert kept(chain, "results") > len(chain.issued())
    deliver(chain)
    chain.clock.forward(61 * DAY)
    by_hand = chain.room.store.root / f"{chain.issued()[0].record.path}.copy"
    by_hand.write_bytes(b"somebody else's")
    retention(chain, BOTH).tick()
    assert (kept(chain, "results"), by_hand.read_bytes()) == (1, b"somebody else's")


def test_what_a_worker_may_be_about_to_name_stays_while_another_exam_of_the_study_is_read(chain: Chain) -> None:
    deliver(chain)
    chain.clock.forward(61 * DAY)
    at_hand: list[set[str]] = []

    def retained(_: Exam) -> None:
        # Its objects lie there before their rows.
        path = chain.room.store.write_result(
            InstanceReference(str(phantom_images()[0].StudyInstanceUID), "1.2.8", "1.2.8.1"), b"x"
        )
        retention(chain, BOTH).tick()
        at_hand.append({path} & set(chain.room.files()))

    chain.receive(
        [altered(image, PatientID="ANOTHER", SOPInstanceUID=f"{image.SOPInstanceUID}.7") for image in phantom_images()]
    )
    chain.clock.forward(QUIET.incomplete_quiet)
    chain.exam_clock().tick()
    assert chain.worker(destinations=[REPORTS], reader=FakeReader(meanwhile=retained)).work_once()
    assert [len(paths) for paths in at_hand] == [1]


def test_what_another_exam_of_the_study_may_be_told_when_it_is_read_again_stays(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    deliver(chain)
    chain.clock.forward(61 * DAY)
    chain.receive(
        [altered(image, PatientID="ANOTHER", SOPInstanceUID=f"{image.SOPInstanceUID}.7") for image in phantom_images()]
    )
    chain.clock.forward(QUIET.incomplete_quiet)
    assert chain.exam_clock().tick() == 1
    assert chain.worker(destinations=[REPORTS]).work_once()
    chain.queue.retry(chain.job.id, chain.clock())
    other = FakeReader(model=replace(chain.reader.model, digest="cd" * 32))
    with monkeypatch.context() as patched:
        patched.setattr(chain.queue, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            chain.worker(destinations=[REPORTS], reader=other).work_once()
    chain.clock.forward(2 * LEASE)
    assert chain.worker(destinations=[REPORTS]).work_once()
    before = kept(chain, "results")
    assert retention(chain, BOTH).tick() > 0, "the first exam's"
    assert kept(chain, "results") < before
    chain.queue.retry(chain.job.id, chain.clock())
    assert chain.worker(destinations=[REPORTS], reader=other).work_once()
    with reading(chain.room.engine) as connection:
        told = results_of(connection, chain.job.exam_id)
        assert not any(is_removed(connection, each.record.path) for each in told)
    deliver(chain)
    chain.clock.forward(61 * DAY)
    retention(chain, BOTH).tick()
    assert kept(chain, "results") == 0


def test_nothing_goes_for_its_age_while_the_clock_is_doubtful_and_room_is_made_all_the_same(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(chain)
    chain.clock.forward(365 * DAY)
    policy = RetentionPolicy(sources=DAY, results=DAY, max_used_fraction=0.8)
    place = chain.room.engine, chain.room.store, policy, chain.clock
    removes = Retention(*place, destinations=[REPORTS], tests=DAY, is_doubtful=lambda: True)
    monkeypatch.setattr(chain.room.store, "usage", lambda: DiskUsage(total=100, free=21))
    assert removes.tick() == 0
    monkeypatch.setattr(chain.room.store, "usage", lambda: DiskUsage(total=100, free=19))
    assert removes.tick() == IMAGES_WITH_PICTURES


def test_nothing_goes_by_itself(chain: Chain) -> None:
    deliver(chain)
    chain.clock.forward(9999 * DAY)
    assert retention(chain, RetentionPolicy()).tick() == 0


@pytest.mark.parametrize("state", [DeliveryState.WAITING, DeliveryState.REFUSED])
def test_nothing_goes_before_its_results_are_delivered(chain: Chain, state: DeliveryState) -> None:
    if state is DeliveryState.REFUSED:
        for delivery in chain.outbox.due("pacs", chain.clock(), 99):
            chain.outbox.refused(delivery, "no", 0xA900, chain.clock())
    chain.clock.forward(365 * DAY)
    assert retention(chain, SOURCES).tick() == 0
    assert (retention(chain, UNPROVEN).tick() > 0) is (state is DeliveryState.REFUSED)


def test_nothing_goes_before_its_proof_while_the_destination_is_asked_for_one(chain: Chain) -> None:
    for delivery in chain.outbox.due("pacs", chain.clock(), 99):
        chain.outbox.sent(delivery, 0, chain.clock(), prove_at=chain.clock())
    chain.clock.forward(365 * DAY)
    asked = REPORTS.model_copy(update={"proof": Proof.COMMITMENT})
    assert retention(chain, UNPROVEN, destinations=[asked]).tick() == 0
    assert retention(chain, SOURCES, destinations=[REPORTS]).tick() == IMAGES_WITH_PICTURES


def test_without_a_destination_nothing_goes_unless_the_site_says_so(chain: Chain) -> None:
    deliver(chain)
    chain.clock.forward(365 * DAY)
    assert retention(chain, SOURCES, destinations=()).tick() == 0
    assert retention(chain, UNPROVEN, destinations=()).tick() == IMAGES_WITH_PICTURES


TRIAL = REPORTS.model_copy(update={"name": "trial", "test": True, "negatives": False})


@pytest.mark.parametrize("at_first", [[], [TRIAL]], ids=["none", "for tests alone"])
def test_an_answer_that_went_nowhere_is_not_proven_by_a_destination_that_came_later(
    tmp_path: Path, engine: Engine, at_first: list[Destination]
) -> None:
    chain = a_chain(tmp_path, engine)
    chain.reader.masses = False
    job = chain.close(phantom_images())
    assert chain.worker(destinations=at_first).work_once()
    chain.clock.forward(31 * DAY)
    for destinations in (at_first, [REPORTS]):
        assert retention(chain, SOURCES, destinations).tick() == 0
    chain.queue.retry(job.id, chain.clock())
    assert chain.worker(destinations=[REPORTS]).work_once()
    deliver(chain)
    assert retention(chain, SOURCES).tick() == IMAGES_WITH_PICTURES


@pytest.mark.parametrize("changes", [{"negatives": False}, {"objects": (ResultKind.SEG,)}])
def test_an_answer_that_a_site_sends_to_nobody_keeps_no_images(
    tmp_path: Path, engine: Engine, changes: dict[str, object]
) -> None:
    chain, quiet = a_chain(tmp_path, engine), REPORTS.model_copy(update=changes)
    chain.reader.masses = False
    chain.close(phantom_images())
    assert chain.worker(destinations=[quiet]).work_once()
    assert chain.outbox.of_exam(chain.exam.id) == []
    chain.clock.forward(31 * DAY)
    assert retention(chain, SOURCES, [quiet]).tick() == IMAGES_WITH_PICTURES


def test_nothing_goes_that_an_operator_has_to_decide_about(chain: Chain) -> None:
    deliver(chain)
    chain.room.receive(altered(phantom_images()[0], KVP="31"))
    chain.clock.forward(365 * DAY)
    assert retention(chain, SOURCES).tick() == 0


def test_a_crash_between_mark_and_unlink_is_made_good(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(chain)
    chain.clock.forward(31 * DAY)

    def crash(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(chain.room.store, "remove", crash)
    with pytest.raises(KeyboardInterrupt):
        retention(chain, SOURCES).tick()
    monkeypatch.undo()
    assert kept(chain) == 4
    assert chain.room.receive(phantom_images()[0]).outcome is Outcome.KNOWN
    assert retention(chain, RetentionPolicy()).tick() == IMAGES_WITH_PICTURES
    assert kept(chain) == 0


def test_a_file_that_stays_keeps_no_other(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(chain)
    chain.clock.forward(31 * DAY)
    remove, stays = chain.room.store.remove, next(file for file in chain.room.files() if file.startswith("instances"))

    def refusing(path: str) -> None:
        if path == stays:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        remove(path)

    monkeypatch.setattr(chain.room.store, "remove", refusing)
    with capture_logs() as logs:
        assert retention(chain, SOURCES).tick() == IMAGES_WITH_PICTURES - 1
    assert (kept(chain), kept(chain, "previews")) == (1, 0)
    told = [line for line in logs if line["event"] == "files cannot be removed"][-1]
    assert (told["number"], told["path"], told["cause"]) == (1, stays, "Permission denied")
    monkeypatch.undo()
    assert retention(chain, SOURCES).tick() == 1


def test_no_exam_is_marked_for_a_full_disk_whose_files_stay(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(chain)
    chain.close([altered(phantom_images()[0], PatientID="ANOTHER", StudyInstanceUID="1.2.9", SOPInstanceUID="1.2.9.1")])
    assert chain.worker(destinations=[REPORTS]).work_once()
    deliver(chain)

    def refusing(_path: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(chain.room.store, "remove", refusing)
    monkeypatch.setattr(chain.room.store, "usage", lambda: DiskUsage(total=100, free=1))
    chain.clock.forward(DAY)
    with capture_logs() as logs:
        assert retention(chain, RetentionPolicy(None, None, 0.9)).tick() == 0
    assert len([line for line in logs if line["event"] == "files removed"]) == 1


def test_an_image_that_comes_again_after_its_removal_is_known_and_a_different_one_a_conflict(chain: Chain) -> None:
    removed(chain)
    image = phantom_images()[0]
    assert chain.room.receive(image).outcome is Outcome.KNOWN
    held = []
    for change in ({"KVP": "31"}, {"PatientID": "ANOTHER"}):
        assert chain.room.receive(altered(image, **change)).outcome is Outcome.CONFLICT
        held.append(chain.exam.held)
    assert held == [False, True]
    assert kept(chain) == 0


def test_a_late_image_is_answered_without_those_that_were_removed(chain: Chain) -> None:
    removed(chain)
    image = phantom_images()[0]
    chain.close([altered(image, SOPInstanceUID=f"{image.SOPInstanceUID}.1")])
    assert chain.worker(destinations=[REPORTS]).work_once()
    assert (chain.exam.revision, chain.exam.status) == (2, AnswerStatus.PARTIAL_FINDINGS)
    assert "L CC not read: removed after its time" in text_of(chain.report)


def test_an_exam_whose_images_are_all_gone_ends_without_another_answer(chain: Chain) -> None:
    removed(chain)
    chain.room.receive(key_objects(phantom_images()[:1], "113001"))
    chain.clock.forward(QUIET.incomplete_quiet)
    assert chain.exam_clock().tick() == 1
    assert (chain.exam.state, chain.exam.revision) == (ExamState.FAILED, 2)
    assert not chain.worker().work_once()


def test_what_was_removed_is_neither_read_again_nor_sent_again(chain: Chain) -> None:
    removed(chain)
    with pytest.raises(CannotRetry, match="were removed"):
        chain.queue.retry(chain.job.id, chain.clock())
    assert resent(chain.room.engine, chain.exam.id, chain.clock(), {"pacs": ResultKind}) == 1
    deliver(chain)
    chain.clock.forward(60 * DAY)
    assert retention(chain, BOTH).tick() > 0
    assert resent(chain.room.engine, chain.exam.id, chain.clock(), {"pacs": ResultKind}) == 0


def test_a_full_disk_takes_the_oldest_exams_first_and_no_more_than_needed(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = chain.exam.uid
    chain.clock.forward(DAY)
    other = altered(phantom_images()[0], PatientID="ANOTHER", StudyInstanceUID="1.2.9", SOPInstanceUID="1.2.9.1")
    chain.receive([other])
    chain.clock.forward(QUIET.incomplete_quiet)
    chain.exam_clock().tick()
    assert chain.worker(destinations=[REPORTS]).work_once()
    deliver(chain)
    chain.clock.forward(DAY)
    monkeypatch.setattr(chain.room.store, "usage", lambda: DiskUsage(100, 100 - 18 * kept(chain)))
    assert retention(chain, RetentionPolicy(max_used_fraction=0.5)).tick() == IMAGES_WITH_PICTURES
    with reading(chain.room.engine) as connection:
        old, new = (find_instance(connection, uid) for uid in (str(phantom_images()[0].SOPInstanceUID), "1.2.9.1"))
        assert find_exam(connection, first).state is ExamState.ANSWERED
    assert old
    assert new
    assert [chain.room.store.resolve(record.path).exists() for record in (old, new)] == [False, True]


def test_what_belongs_to_no_exam_goes_with_the_sources(tmp_path: Path, engine: Engine) -> None:
    chain = a_chain(tmp_path, engine)
    document = an_image(SOPClassUID=Comprehensive3DSRStorage, SOPInstanceUID="1.2.99", Modality="SR", Rows=None)
    chain.room.receive(document)
    chain.clock.forward(31 * DAY)
    assert retention(chain, SOURCES).tick() == 1
    assert chain.room.rows() == (1, 0, 0)
    assert chain.room.receive(document).outcome is Outcome.KNOWN


def test_what_belongs_to_no_exam_stays_while_an_operator_has_to_decide_about_it(tmp_path: Path, engine: Engine) -> None:
    chain = a_chain(tmp_path, engine)
    document = an_image(SOPClassUID=Comprehensive3DSRStorage, SOPInstanceUID="1.2.99", Modality="SR", Rows=None)
    chain.receive([document, altered(document, SeriesDescription="another")])
    chain.clock.forward(31 * DAY)
    assert retention(chain, SOURCES).tick() == 0
    Corrections(chain.room.engine, chain.room.store, frozenset(), chain.clock).reject(1)
    assert retention(chain, SOURCES).tick() == 1


def test_what_comes_after_a_removed_copy_is_kept(chain: Chain) -> None:
    first = phantom_images()[0]
    removed_copy = altered(first, ImageComments="two")
    chain.receive([removed_copy])
    deciding = Corrections(chain.room.engine, chain.room.store, frozenset({ImageKind.FOR_PRESENTATION}), chain.clock)
    deciding.reject(1)
    deliver(chain)
    chain.clock.forward(31 * DAY)
    assert retention(chain, SOURCES).tick() == IMAGES_WITH_PICTURES + 1
    chain.receive([altered(first, ImageComments="three")])
    retention(chain, SOURCES).tick()
    with reading(chain.room.engine) as connection:
        [_, copy] = [each.copy for each in list_conflicts(connection)]
        assert not is_removed(connection, copy.path)
    assert chain.room.store.resolve(copy.path).is_file()
