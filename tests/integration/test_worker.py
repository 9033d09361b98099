"""From a closed exam to the outbox, on both databases, with a fake reader: every answer, and everything that goes wrong."""

from collections.abc import Callable
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from weakref import WeakSet

import pytest
from pydicom import DataElement, Dataset
from sqlalchemy import Engine
from structlog.testing import capture_logs

from ai.checks import Check
from ai.errors import NoBreast
from ai.exam import STANDARD_VIEWS, Exam, Laterality, View, ViewImage
from ai.pixels import view_image
from config.mix import ResultKind
from node.analysis import header_of
from node.demo.pacs import named_segmentations
from storage.errors import BucketUnavailable
from storage.states import DeliveryState, ExamState, JobState, Plan
from tests.bad import setting
from tests.builders import L_CC, R_CC, altered, for_processing, inverted
from tests.chain import Chain, a_chain, summary_of, text_of
from tests.doors import ORIGIN, phantom_images
from tests.peers import eventually
from tests.records import LEASE, POLICY


@pytest.fixture
def chain(tmp_path: Path, engine: Engine) -> Chain:
    return a_chain(tmp_path, engine)


def four() -> list[Dataset]:
    return list(phantom_images())


def of_view(view: View) -> Dataset:
    return phantom_images()[STANDARD_VIEWS.index(view)]


def undecodable(image: Dataset) -> Dataset:
    return altered(image, PixelData=image.PixelData[: len(image.PixelData) // 2])


def breaks(_exam: Exam) -> None:
    raise RuntimeError("something about FOUR VIEWS")


def test_an_exam_with_masses_gets_a_segmentation_for_each_image_and_a_report_that_names_them(chain: Chain) -> None:
    chain.close(four())
    assert chain.worker().work_once()
    assert chain.exam.state is ExamState.ANSWERED
    assert chain.exam.status == "findings"
    assert chain.job.state is JobState.DONE
    assert summary_of(chain.report) == "111242"
    segmentations = {str(seg.SOPInstanceUID) for seg in chain.of_kind(ResultKind.SEG)}
    assert len(segmentations) == 4
    assert set(named_segmentations(chain.report)) == segmentations
    assert set(chain.job.timings or {}) == {"decode", "gate", "read", "encode", "write", "total"}


def test_each_destination_waits_for_the_objects_it_wants_and_no_others(chain: Chain) -> None:
    chain.close(four())
    chain.worker().work_once()
    waiting = [(d.destination, d.kind, d.state) for d in chain.outbox.of_exam(chain.exam.id)]
    assert sorted(waiting) == sorted(
        [*[("pacs", "SEG", DeliveryState.WAITING)] * 4, *[(d, "SR", DeliveryState.WAITING) for d in ("pacs", "ris")]]
    )


def test_an_exam_without_masses_gets_a_report_alone(chain: Chain) -> None:
    chain.reader.masses = False
    chain.close(four())
    chain.worker().work_once()
    assert chain.exam.status == "no findings"
    assert [record.kind for record in chain.sent_to("pacs")] == [ResultKind.SR]
    assert summary_of(chain.report) == "111241"


def test_without_a_job_there_is_nothing_to_do(chain: Chain) -> None:
    assert not chain.worker().work_once()


def test_a_view_without_a_breast_costs_the_others_nothing(chain: Chain) -> None:
    chain.reader.no_breast = (L_CC,)
    chain.close(four())
    chain.worker().work_once()
    assert chain.exam.status == "partial, findings"
    assert summary_of(chain.report) == "111244"
    assert chain.report.CompletionFlag == "PARTIAL"
    assert len(chain.of_kind(ResultKind.SEG)) == 3
    assert f"NOT READ: L CC {of_view(L_CC).SOPInstanceUID}: No breast" in text_of(chain.report)


def test_images_of_one_exam_that_state_different_patients_are_read_and_told(chain: Chain) -> None:
    other = {"PatientName": "OTHER^WOMAN", "PatientBirthDate": "19550505"}
    chain.close(altered(image, **other) if image is of_view(R_CC) else image for image in four())
    with capture_logs() as lines:
        chain.worker().work_once()
    assert chain.exam.status == "findings"
    told = "The images state different patients (Patient's Name, Patient's Birth Date); check whose they are."
    assert told in text_of(chain.report)
    assert chain.facts()[-1]["reason_codes"] == ["identity"]
    [line] = [line for line in lines if line["log_level"] == "warning"]
    assert line["event"] == "images state different patients"
    assert not any("OTHER" in str(line) for line in lines)


@pytest.mark.parametrize("name", ["", "phantom^four views^^", "PHANTOM^FOUR VIEWS=名^前"])
def test_one_name_written_otherwise_is_no_other_patient(chain: Chain, name: str) -> None:
    chain.close(altered(image, PatientName=name) if image is of_view(R_CC) else image for image in four())
    chain.worker().work_once()
    assert "different patients" not in text_of(chain.report)


def test_an_image_that_cannot_be_decoded_costs_the_others_nothing(chain: Chain) -> None:
    images = [undecodable(image) if image is of_view(R_CC) else image for image in four()]
    chain.close(images)
    chain.worker().work_once()
    assert {image.view for image in chain.reader.exams[-1].images} == set(STANDARD_VIEWS) - {R_CC}
    assert chain.exam.status == "partial, findings"
    told = text_of(chain.report)
    assert f"NOT READ: R CC {of_view(R_CC).SOPInstanceUID}: The pixel data end before the last row" in told


def test_an_image_that_the_gate_refuses_is_not_shown_to_the_reader_and_costs_the_others_nothing(chain: Chain) -> None:
    chain.close(altered(image, PixelData=inverted(image)) if image is of_view(R_CC) else image for image in four())
    chain.worker().work_once()
    assert {image.view for image in chain.reader.exams[-1].images} == set(STANDARD_VIEWS) - {R_CC}
    assert chain.exam.status == "partial, findings"
    assert f"NOT READ: R CC {of_view(R_CC).SOPInstanceUID}: {Check.INVERTED.words}" in text_of(chain.report)


def test_what_the_gate_warns_of_is_read_with_the_warning(chain: Chain) -> None:
    chain.close(altered(image, PatientOrientation=["P", "L"]) if image is of_view(L_CC) else image for image in four())
    chain.worker().work_once()
    warned = [image.view for image in chain.reader.exams[-1].images if Check.SIDE.words in image.warnings]
    assert warned == [L_CC]


def test_one_picture_that_was_sent_as_two_views_is_told(chain: Chain) -> None:
    same = of_view(L_CC).PixelData
    chain.close(altered(image, PixelData=same) if image is of_view(R_CC) else image for image in four())
    chain.worker().work_once()
    told = {image.view for image in chain.reader.exams[-1].images if Check.TWIN.words in image.warnings}
    assert told == {L_CC, R_CC}


def test_an_exam_of_which_nothing_can_be_decoded_is_not_analysed(chain: Chain) -> None:
    chain.close(map(undecodable, four()))
    chain.worker().work_once()
    assert chain.reader.exams == []
    assert chain.exam.status == "not analysed"
    assert summary_of(chain.report) == "111245"
    assert "The pixel data end before the last row" in text_of(chain.report)


def test_an_exam_without_a_readable_image_is_answered_with_the_reason_and_the_reader_is_not_asked(chain: Chain) -> None:
    job = chain.close(map(for_processing, four()))
    assert job.plan is Plan.NOT_ANALYSED
    chain.worker().work_once()
    assert chain.reader.exams == []
    assert chain.exam.status == "not analysed"
    assert "For Processing, which the reader does not read" in text_of(chain.report)


def test_an_image_that_was_not_chosen_is_named_with_the_reason(chain: Chain) -> None:
    chain.close([*four(), for_processing(of_view(R_CC))])
    chain.worker().work_once()
    assert chain.exam.status == "findings"
    assert f"NOT READ: image {of_view(R_CC).SOPInstanceUID}.1: For Processing" in text_of(chain.report)


def repeated(image: Dataset, number: int, **changes: object) -> Dataset:
    """Return an image of the same view that was taken later."""
    uid = f"{image.SOPInstanceUID}.{number}"
    return altered(image, SOPInstanceUID=uid, AcquisitionTime=f"23595{number}", **changes)


def no_breast(image: Dataset) -> bytes:
    return bytes(len(image.PixelData))


@pytest.mark.parametrize(
    ("pixels", "why"),
    [
        (lambda image: undecodable(image).PixelData, "The pixel data end before the last row"),
        (no_breast, "No breast can be told"),
        (inverted, Check.INVERTED.words),
    ],
)
def test_a_repeated_image_that_cannot_be_read_leaves_its_view_to_the_one_before(
    chain: Chain, pixels: Callable[[Dataset], bytes], why: str
) -> None:
    good = of_view(R_CC)
    bad = repeated(good, 2, PixelData=pixels(good))
    chain.close([*four(), bad, altered(good, SOPInstanceUID=f"{good.SOPInstanceUID}.1", AcquisitionTime="000001")])
    chain.worker().work_once()
    assert {image.uid: image.view for image in chain.reader.exams[-1].images}[good.SOPInstanceUID] == R_CC
    assert len(chain.reader.exams[-1].images) == 4
    assert chain.exam.status == "findings"
    assert chain.report.CompletionFlag == "COMPLETE"
    told = text_of(chain.report)
    assert f"R CC: image {good.SOPInstanceUID} was read in place of {bad.SOPInstanceUID}" in told
    assert f"NOT READ: image {bad.SOPInstanceUID}: {why}" in told
    assert f"NOT READ: image {good.SOPInstanceUID}.1: R CC repeated: {good.SOPInstanceUID} was taken later" in told
    segmented = {
        str(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID)
        for seg in chain.of_kind(ResultKind.SEG)
    }
    assert segmented == {image.SOPInstanceUID for image in four()}


def test_an_image_in_which_the_reader_sees_no_breast_leaves_its_view_to_the_one_before(chain: Chain) -> None:
    later = repeated(of_view(R_CC), 2)

    def sees_none(exam: Exam) -> None:
        if later.SOPInstanceUID in {image.uid for image in exam.images}:
            raise NoBreast(later.SOPInstanceUID)

    chain.reader.meanwhile = sees_none
    chain.close([*four(), later])
    chain.worker().work_once()
    assert [len(exam.images) for exam in chain.reader.exams] == [4, 4]
    assert of_view(R_CC).SOPInstanceUID in {image.uid for image in chain.reader.exams[-1].images}
    assert chain.exam.status == "findings"


def test_a_view_none_of_whose_images_can_be_read_is_partial_and_each_is_named(chain: Chain) -> None:
    first = undecodable(of_view(R_CC))
    later = repeated(first, 2, PixelData=first.PixelData)
    chain.close([first if image is of_view(R_CC) else image for image in four()] + [later])
    chain.worker().work_once()
    assert chain.exam.status == "partial, findings"
    told = text_of(chain.report)
    assert f"NOT READ: R CC {later.SOPInstanceUID}: The pixel data end before the last row" in told
    assert f"NOT READ: image {first.SOPInstanceUID}: The pixel data end before the last row" in told
    assert "in place of" not in told


def test_an_earlier_image_is_not_looked_at_when_the_later_one_can_be_read(chain: Chain) -> None:
    chain.close([*map(undecodable, four()), *(repeated(image, 2) for image in four())])
    chain.worker().work_once()
    assert chain.exam.status == "findings"
    later = {f"{image.SOPInstanceUID}.2" for image in four()}
    assert {image.uid for image in chain.reader.exams[-1].images} == later
    assert "decoded" not in text_of(chain.report)


def test_of_images_that_are_refused_no_more_than_two_are_held_at_once(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: WeakSet[ViewImage] = WeakSet()
    counts = []

    def noting(instance: Dataset, view: View) -> ViewImage:
        image = view_image(instance, view)
        alive.add(image)
        counts.append(len(alive))
        return image

    monkeypatch.setattr("node.analysis.view_image", noting)
    empty = altered(of_view(R_CC), PixelData=no_breast(of_view(R_CC)))
    chain.close([empty, *(repeated(empty, number) for number in range(1, 6))])
    chain.worker().work_once()
    assert chain.exam.status == "not analysed"
    assert (len(counts), max(counts)) == (6, 2)


def test_one_breast_that_was_meant_is_complete(chain: Chain) -> None:
    right = [image for view, image in zip(STANDARD_VIEWS, four(), strict=True) if view.laterality is Laterality.RIGHT]
    chain.close(altered(image, StudyDescription="Mammogram unilateral right") for image in right)
    chain.worker().work_once()
    assert chain.exam.status == "findings"
    assert chain.report.CompletionFlag == "COMPLETE"
    assert "unilateral: R breast only" in text_of(chain.report)


def test_three_views_are_partial_and_the_missing_one_is_named(chain: Chain) -> None:
    chain.close(image for image in four() if image is not of_view(L_CC))
    chain.worker().work_once()
    assert chain.exam.status == "partial, findings"
    assert "L CC not read: no image received" in text_of(chain.report)


def test_reading_an_unchanged_exam_again_gives_the_same_bytes_and_sends_nothing_twice(chain: Chain) -> None:
    job = chain.close(four())
    chain.worker("first").work_once()
    issued, deliveries = chain.issued(), chain.outbox.of_exam(chain.exam.id)
    files = {path: (chain.room.store.root / path).read_bytes() for path in chain.room.files()}
    chain.clock.forward(timedelta(days=3))
    chain.queue.retry(job.id, chain.clock())
    assert chain.worker("second").work_once()
    assert chain.exam.state is ExamState.ANSWERED
    assert len(chain.reader.exams) == 2
    assert chain.issued() == issued
    assert chain.outbox.of_exam(chain.exam.id) == deliveries
    assert {path: (chain.room.store.root / path).read_bytes() for path in chain.room.files()} == files


def predecessors_of(report: Dataset) -> set[str]:
    """Return the reports that a report supersedes."""
    return {
        str(reference.ReferencedSOPInstanceUID)
        for study in report.PredecessorDocumentsSequence
        for series in study.ReferencedSeriesSequence
        for reference in series.ReferencedSOPSequence
    }


def test_a_late_image_is_answered_anew_and_the_report_names_its_predecessor(chain: Chain) -> None:
    chain.close(four())
    chain.worker().work_once()
    former, segmentations = chain.report, chain.of_kind(ResultKind.SEG)
    repeat = altered(of_view(R_CC), SOPInstanceUID=f"{of_view(R_CC).SOPInstanceUID}.2", AcquisitionTime="235959")
    assert chain.close([repeat]).revision == 2
    chain.worker().work_once()
    report = chain.report
    assert former.SOPInstanceUID in predecessors_of(report)
    assert report.SOPInstanceUID not in predecessors_of(report)
    assert report.SeriesInstanceUID == former.SeriesInstanceUID
    renewed = {str(seg.SeriesInstanceUID) for seg in chain.of_kind(ResultKind.SEG)[:4]}
    assert renewed.isdisjoint(str(seg.SeriesInstanceUID) for seg in segmentations)
    assert repeat.SOPInstanceUID in {image.uid for image in chain.reader.exams[-1].images}
    assert f"NOT READ: image {of_view(R_CC).SOPInstanceUID}: R CC repeated" in text_of(report)


def test_a_reading_that_failed_is_tried_again_later(chain: Chain) -> None:
    chain.reader.meanwhile = breaks
    chain.close(four())
    assert chain.worker().work_once()
    assert chain.job.state is JobState.QUEUED
    assert not chain.worker().work_once()
    chain.clock.forward(timedelta(seconds=1))
    chain.reader.meanwhile = lambda _: None
    assert chain.worker().work_once()
    assert chain.exam.status == "findings"
    assert chain.job.attempts == 2


def exhaust(chain: Chain) -> None:
    """Let a job fail until it is given up."""
    while chain.job.state is JobState.QUEUED:
        chain.worker().work_once()
        chain.clock.forward(timedelta(minutes=1))


def test_an_exam_whose_reading_always_fails_is_answered_with_failed(chain: Chain) -> None:
    chain.reader.meanwhile = breaks
    chain.close(four())
    exhaust(chain)
    assert len(chain.reader.exams) == 3
    assert chain.exam.state is ExamState.FAILED
    assert chain.exam.status == "failed"
    assert chain.job.state is JobState.DEAD
    assert [record.kind for record in chain.sent_to("pacs")] == [ResultKind.SR]
    assert summary_of(chain.report) == "111245"
    assert "The reading failed 3 times." in text_of(chain.report)
    assert {delivery.kind for delivery in chain.outbox.of_exam(chain.exam.id)} == {"SR"}


def test_an_oddity_of_a_header_that_no_encoder_bears_keeps_no_exam_from_being_answered(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd_header(path: Path) -> Dataset:
        header = header_of(path)
        header["PixelSpacing"] = DataElement("PixelSpacing", "DS", ["?", "?"], already_converted=True)
        return header

    monkeypatch.setattr("node.worker.header_of", odd_header)
    chain.close(four())
    exhaust(chain)
    assert (chain.exam.status, chain.job.attempts) == ("failed", 4)
    assert "The reading failed 3 times." in text_of(chain.report)
    [image, *_] = four()
    assert (chain.report.PatientID, chain.report.StudyInstanceUID) == (image.PatientID, image.StudyInstanceUID)


def test_a_spacing_that_is_no_pair_of_numbers_costs_no_exam_its_answer(chain: Chain) -> None:
    images = [deepcopy(image) for image in four()]
    setting(PixelSpacing="0.1")(images[0])
    setting(ImagerPixelSpacing=["1e400", "1e400"])(images[1])
    setting(ImagerPixelSpacing=["", ""])(images[2])
    chain.close(images)
    chain.worker().work_once()
    assert (chain.exam.status, chain.job.error) == ("findings", None)


def test_an_error_is_noted_with_its_place_and_without_what_it_quotes(chain: Chain) -> None:
    chain.reader.meanwhile = breaks
    chain.close(four())
    chain.worker().work_once()
    assert (chain.job.error or "").startswith("RuntimeError in test_worker.py:")
    assert "FOUR VIEWS" not in (chain.job.error or "")


def test_a_reading_that_succeeds_after_failed_was_answered_names_that_report_as_its_predecessor(chain: Chain) -> None:
    chain.reader.meanwhile = breaks
    job = chain.close(four())
    exhaust(chain)
    failed = chain.report.SOPInstanceUID
    chain.reader.meanwhile = lambda _: None
    for _ in range(2):
        chain.queue.retry(job.id, chain.clock())
        chain.worker().work_once()
        assert chain.exam.state is ExamState.ANSWERED
        reports = {str(report.SOPInstanceUID): report for report in chain.of_kind(ResultKind.SR)}
        assert len(reports) == 2
        [renewed] = [report for uid, report in reports.items() if uid != failed]
        assert failed in predecessors_of(renewed)


def test_a_job_whose_images_are_gone_ends_dead_rather_than_being_tried_for_ever(chain: Chain) -> None:
    chain.close(four())
    for path in chain.room.files():
        (chain.room.store.root / path).unlink()
    exhaust(chain)
    assert chain.job.state is JobState.DEAD
    assert chain.exam.state is ExamState.FAILED
    assert "FileNotFoundError" in (chain.job.error or "")


def a_late_worker(chain: Chain) -> Callable[[Exam], None]:
    """Let the lease end during the reading, and another worker take the job over."""

    def meanwhile(_exam: Exam) -> None:
        chain.clock.forward(2 * LEASE)
        assert chain.queue.claim("another", chain.clock())

    return meanwhile


def test_a_worker_that_lost_its_lease_hands_nothing_over(chain: Chain) -> None:
    chain.reader.meanwhile = a_late_worker(chain)
    chain.close(four())
    assert chain.worker().work_once()
    assert chain.issued() == []
    assert chain.job.state is JobState.RUNNING
    assert chain.job.lease_owner == "another"


def test_a_worker_that_lost_its_lease_and_then_fails_leaves_the_job_to_the_other(chain: Chain) -> None:
    lose = a_late_worker(chain)

    def meanwhile(exam: Exam) -> None:
        lose(exam)
        breaks(exam)

    chain.reader.meanwhile = meanwhile
    chain.close(four())
    assert chain.worker().work_once()
    assert chain.job.lease_owner == "another"
    assert chain.job.error is None


def test_the_lease_is_renewed_while_the_exam_is_read(chain: Chain) -> None:
    def meanwhile(_exam: Exam) -> None:
        for _ in range(3):
            chain.clock.forward(LEASE * 0.9)
            until = chain.clock() + LEASE
            assert eventually(lambda: chain.job.lease_until == until)  # noqa: B023
            assert chain.queue.claim("another", chain.clock()) is None

    chain.reader.meanwhile = meanwhile
    chain.close(four())
    chain.worker(heartbeat=0.01).work_once()
    assert chain.exam.status == "findings"
    assert chain.job.attempts == 1


@pytest.mark.parametrize(
    "tail",
    [
        # A sequence and an unknown value of undefined length that never end.
        b"\xe1\x7f\x11\x10SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff\x10\x00",
        b"\xe1\x7f\x11\x10UN\0\0\xff\xff\xff\xffabcdefgh",
    ],
)
def test_an_image_with_damaged_attributes_after_its_pixels_costs_the_others_nothing(chain: Chain, tail: bytes) -> None:
    chain.receive(image for image in four() if image is not of_view(R_CC))
    path = chain.room.incoming(of_view(R_CC))
    with path.open("ab") as file:
        file.write(tail)
    chain.room.intake.receive(path, None, ORIGIN)
    chain.close([])
    chain.worker().work_once()
    assert chain.exam.status == "partial, findings"
    told = text_of(chain.report)
    assert f"NOT READ: R CC {of_view(R_CC).SOPInstanceUID}: The pixel data cannot be decoded" in told


def lose(chain: Chain, *views: View) -> None:
    """Remove the files of some views, as a disk may."""
    for view in views:
        path = next(path for path in chain.room.files() if of_view(view).SOPInstanceUID in path)
        (chain.room.store.root / path).unlink()


def test_an_exam_one_of_whose_files_is_gone_is_read_from_the_others_once_nobody_will_try_again(chain: Chain) -> None:
    chain.close(four())
    lose(chain, R_CC)
    with capture_logs() as lines:
        exhaust(chain)
    gone = [line["instance"] for line in lines if line["event"] == "file cannot be read"]
    assert gone == [of_view(R_CC).SOPInstanceUID]
    assert chain.job.attempts == POLICY.attempts
    assert (chain.exam.status, chain.job.state) == ("partial, findings", JobState.DONE)
    told = text_of(chain.report)
    assert f"{of_view(R_CC).SOPInstanceUID}: its file cannot be read (FileNotFoundError" in told
    assert "not read: R CC." in told
    assert [f"NOT READ: {view}" in told for view in (L_CC, R_CC)] == [False, False]


def test_a_file_that_is_gone_and_was_not_to_be_read_costs_the_exam_no_reading(chain: Chain) -> None:
    shown = of_view(R_CC)
    raw = altered(for_processing(shown), SOPInstanceUID=f"{shown.SOPInstanceUID}.1")
    chain.close([*(repeated(image, 2) for image in four()), shown, raw])
    for uid in (f"{shown.SOPInstanceUID}.1", shown.SOPInstanceUID):
        path = next(path for path in chain.room.files() if path.endswith(f"/{uid}.dcm"))
        (chain.room.store.root / path).unlink()
    exhaust(chain)
    assert (chain.exam.status, chain.job.state) == ("findings", JobState.DONE)
    assert f"{shown.SOPInstanceUID}: its file cannot be read (FileNotFoundError" in text_of(chain.report)


def test_a_file_that_comes_back_is_read_as_if_it_had_never_been_gone(chain: Chain) -> None:
    chain.close(four())
    path = chain.room.store.root / next(path for path in chain.room.files() if of_view(R_CC).SOPInstanceUID in path)
    path.rename(path.with_suffix(".away"))
    chain.worker().work_once()
    path.with_suffix(".away").rename(path)
    chain.clock.forward(timedelta(minutes=1))
    chain.worker().work_once()
    assert chain.exam.status == "findings"


def test_an_exam_all_of_whose_files_but_a_refused_ones_are_gone_is_answered_with_failed(chain: Chain) -> None:
    refused = undecodable(of_view(R_CC))
    chain.close([refused, *(image for image in four() if image is not of_view(R_CC))])
    lose(chain, *(view for view in STANDARD_VIEWS if view != R_CC))
    exhaust(chain)
    assert (chain.exam.status, chain.job.state) == ("failed", JobState.DEAD)
    assert summary_of(chain.report) == "111245"
    told = text_of(chain.report)
    assert f"{of_view(L_CC).SOPInstanceUID}: its file cannot be read (FileNotFoundError" in told
    assert [f"NOT READ: {view} {of_view(view).SOPInstanceUID}" in told for view in (L_CC, R_CC)] == [False, True]


def test_an_exam_of_which_a_bucket_does_not_give_one_object_is_read_from_the_others(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.close(four())
    lose(chain, R_CC)  # a bucket's folder has none
    resolve, lacking = chain.room.store.resolve, str(of_view(R_CC).SOPInstanceUID)

    def giving_all_but_one(path: str) -> Path:
        if lacking in path:
            raise BucketUnavailable("read: 500")
        return resolve(path)

    monkeypatch.setattr(chain.room.store, "resolve", giving_all_but_one)
    with capture_logs() as lines:
        exhaust(chain)
    causes = {line["cause"] for line in lines if line["event"] == "object not given"}
    assert causes == {str(BucketUnavailable("read: 500"))}
    assert (chain.exam.status, chain.job.state) == ("partial, findings", JobState.DONE)
    assert f"{lacking}: its file cannot be read (FileNotFoundError" in text_of(chain.report)


def test_an_exam_of_which_a_bucket_gives_or_takes_nothing_ends_and_one_whose_bucket_is_gone_waits(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: object) -> None:
        raise BucketUnavailable("500")

    chain.close(four())
    monkeypatch.setattr(chain.room.store, "write_result", refusing)
    with monkeypatch.context() as outage:
        outage.setattr(chain.room.store, "reach", refusing)
        for _ in range(5):
            with pytest.raises(BucketUnavailable):
                chain.worker().work_once()
        assert (chain.job.state, chain.job.attempts) == (JobState.QUEUED, 0)
    exhaust(chain)
    assert (chain.exam.state, chain.job.state) == (ExamState.FAILED, JobState.DEAD)


def test_too_little_memory_is_no_fault_of_the_image(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_little(*_: object) -> Dataset:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr("pydicom.Dataset.pixel_array", property(too_little))
        chain.close(four())
        chain.worker().work_once()
    assert chain.job.state is JobState.QUEUED
    chain.clock.forward(timedelta(minutes=1))
    chain.worker().work_once()
    assert chain.exam.status == "findings"


@pytest.mark.parametrize("cancelled", [False, True])
def test_what_was_said_before_the_last_answer_is_said_anew(chain: Chain, *, cancelled: bool) -> None:
    job = chain.close(four())
    chain.worker().work_once()
    first = {str(report.SOPInstanceUID) for report in chain.of_kind(ResultKind.SR)}
    chain.clock.forward(timedelta(hours=1))
    chain.queue.retry(job.id, chain.clock())
    if cancelled:
        chain.queue.cancel(job.id, chain.clock())
        chain.worker().work_once()
    else:
        chain.reader.meanwhile = breaks
        exhaust(chain)
        chain.reader.meanwhile = lambda _: None
    [second] = {str(report.SOPInstanceUID) for report in chain.of_kind(ResultKind.SR)} - first
    for _ in range(2):  # the second reading says the same
        chain.clock.forward(timedelta(hours=1))
        chain.queue.retry(job.id, chain.clock())
        chain.worker().work_once()
        assert chain.exam.status == "findings"
        reports = {str(report.SOPInstanceUID): report for report in chain.of_kind(ResultKind.SR)}
        [third] = reports.keys() - first - {second}
        assert second in predecessors_of(reports[third])
        assert first.isdisjoint(predecessors_of(reports[third]))
        assert summary_of(reports[third]) == "111242"
