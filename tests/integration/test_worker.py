"""From a closed exam to the outbox, on both databases, with a fake reader: what is read, and every answer."""

from collections.abc import Callable
from pathlib import Path
from weakref import WeakSet

import pytest
from pydicom import Dataset
from sqlalchemy import Engine
from structlog.testing import capture_logs

from ai.checks import Check
from ai.errors import NoBreast
from ai.exam import STANDARD_VIEWS, Exam, Laterality, View, ViewImage
from ai.pixels import view_image
from config.mix import ResultKind
from node.demo.pacs import named_segmentations
from storage.states import DeliveryState, ExamState, JobState, Plan
from tests.builders import L_CC, R_CC, altered, for_processing, inverted
from tests.chain import (
    Chain,
    a_chain,
    four,
    of_view,
    repeated,
    summary_of,
    text_of,
    undecodable,
)


@pytest.fixture
def chain(tmp_path: Path, engine: Engine) -> Chain:
    return a_chain(tmp_path, engine)


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
