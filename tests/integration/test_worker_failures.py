"""Images that cannot be decoded, files that are gone, a bucket or memory that fails: what it costs the exam and the others."""

from copy import deepcopy
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import DataElement, Dataset
from sqlalchemy import Engine
from structlog.testing import capture_logs

from ai.checks import Check
from ai.exam import STANDARD_VIEWS, View, ViewImage
from ai.pixels import view_image
from config.mix import ResultKind
from node.analysis import header_of
from storage.errors import BucketUnavailable
from storage.states import ExamState, JobState
from tests.bad import setting
from tests.builders import L_CC, R_CC, altered, for_processing, inverted
from tests.chain import Chain, a_chain, exhaust, four, of_view, repeated, summary_of, text_of, undecodable
from tests.doors import ORIGIN
from tests.records import POLICY


@pytest.fixture
def chain(tmp_path: Path, engine: Engine) -> Chain:
    return a_chain(tmp_path, engine)


def test_a_view_without_a_breast_costs_the_others_nothing(chain: Chain) -> None:
    chain.reader.no_breast = (L_CC,)
    chain.close(four())
    chain.worker().work_once()
    assert chain.exam.status == "partial, findings"
    assert summary_of(chain.report) == "111244"
    assert chain.report.CompletionFlag == "PARTIAL"
    assert len(chain.of_kind(ResultKind.SEG)) == 3
    assert f"NOT READ: L CC {of_view(L_CC).SOPInstanceUID}: No breast" in text_of(chain.report)


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


def test_an_exam_of_which_nothing_can_be_decoded_is_not_analysed(chain: Chain) -> None:
    chain.close(map(undecodable, four()))
    chain.worker().work_once()
    assert chain.reader.exams == []
    assert chain.exam.status == "not analysed"
    assert summary_of(chain.report) == "111245"
    assert "The pixel data end before the last row" in text_of(chain.report)


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


def test_a_job_whose_images_are_gone_ends_dead_rather_than_being_tried_for_ever(chain: Chain) -> None:
    chain.close(four())
    for path in chain.room.files():
        (chain.room.store.root / path).unlink()
    exhaust(chain)
    assert chain.job.state is JobState.DEAD
    assert chain.exam.state is ExamState.FAILED
    assert "FileNotFoundError" in (chain.job.error or "")


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


def test_a_worker_reads_no_long_private_value_into_memory(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [deepcopy(image) for image in four()]
    images[0].add_new(0x00091010, "OB", bytes(5 << 20))
    read = list[Dataset]()

    def noted(image: Dataset, view: View) -> ViewImage:
        read.append(image)
        return view_image(image, view)

    monkeypatch.setattr("node.analysis.view_image", noted)
    chain.close(images)
    chain.worker().work_once()
    assert chain.exam.status == "findings"
    [image] = [each for each in read if 0x00091010 in each]
    assert image.get_item(0x00091010, keep_deferred=True).value is None
    assert 0x00091010 not in header_of(Path(str(image.filename)))


@pytest.mark.parametrize("damage", [b'{"images": [', b"\xff\xfe", None])
def test_an_exam_whose_former_answer_cannot_be_read_is_answered_all_the_same(
    chain: Chain, damage: bytes | None
) -> None:
    chain.close(four()[:3])
    chain.worker().work_once()
    [facts] = [chain.room.store.root / path for path in chain.room.files() if path.endswith(".json")]
    if damage is None:  # what a disk does not give raises an OSError too
        facts.unlink()
        facts.mkdir()
    else:
        facts.write_bytes(damage)
    chain.close(four()[3:])
    with capture_logs() as lines:
        exhaust(chain)
    assert [line["path"] for line in lines if line["event"] == "kept answer cannot be read"][:1] == [
        str(facts.relative_to(chain.room.store.root))
    ]
    assert (chain.exam.revision, chain.exam.status, chain.job.attempts) == (2, "findings", 1)
    assert len(chain.report.PredecessorDocumentsSequence) == 1
