"""A modality sends, a PACS receives, and nobody does anything in between: the node as processes, seen from outside."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import Comprehensive3DSRStorage

from config.settings import DEFAULT_MODEL
from node.demo.pacs import Received, errors_in, received_for
from storage.states import DeliveryState, ExamState
from tests.acceptance.nodes import Archive, Site, a_site, an_exam, patiently, study_of
from tests.builders import altered, for_processing
from tests.chain import summary_of, text_of
from tests.databases import PostgreSQLDatabases
from tests.pacs import a_free_port, a_pacs
from tests.peers import require_program

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(900),
    # pynetdicom does not close the socket of a connection that was refused or cut.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

COMPLETE, THREE_VIEWS, FOR_PROCESSING, LOSSY = (
    an_exam(name) for name in ("COMPLETE", "THREE-VIEWS", "FOR-PROCESSING", "LOSSY")
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A node that was sent four exams at once, and whose second destination is not there."""
    quiet = "incomplete_quiet = 5"
    with a_site(
        tmp_path_factory.mktemp("site"),
        exam=quiet,
        reader=f'model = "{DEFAULT_MODEL}"',
        ports={"archive": a_free_port()},
    ) as site:
        site.serve_and_work()
        site.send(COMPLETE)
        site.send(THREE_VIEWS[:3])
        site.send([for_processing(image) for image in FOR_PROCESSING])
        site.send([altered(image, **lossy()) for image in LOSSY])
        yield site


def lossy() -> dict[str, str]:
    return {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": "10",
        "LossyImageCompressionMethod": "ISO_10918_1",
    }


def received(site: Site, images: list[Dataset]) -> Received:
    study = study_of(images)
    return received_for(study, site.archives["pacs"].files(study))


def test_four_views_get_one_report_and_exactly_the_segmentations_that_it_names(site: Site) -> None:
    exam = site.answered(study_of(COMPLETE))
    assert exam.state is ExamState.ANSWERED
    assert exam.status in {"findings", "no findings"}
    got = received(site, COMPLETE)
    assert got.faults == []
    assert got.reports[0].CompletionFlag == "COMPLETE"
    assert bool(got.segmentations) == (exam.status == "findings")
    sources = {str(image.SOPInstanceUID) for image in COMPLETE}
    for segmentation in got.segmentations:
        [reference] = segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        assert reference.ReferencedSOPInstanceUID in sources


def test_everything_that_the_pacs_gets_is_valid(site: Site) -> None:
    require_program("dciodvfy")
    for images in (COMPLETE, THREE_VIEWS, FOR_PROCESSING, LOSSY):
        site.answered(study_of(images))
        files = site.archives["pacs"].files(study_of(images))
        assert files
        assert [error for file in files for error in errors_in(file)] == []


def test_three_views_are_answered_as_partial_and_the_missing_one_is_named(site: Site) -> None:
    exam = site.answered(study_of(THREE_VIEWS))
    assert (exam.status or "").startswith("partial")
    got = received(site, THREE_VIEWS)
    assert got.faults == []
    assert got.reports[0].CompletionFlag == "PARTIAL"
    assert summary_of(got.reports[0]) in {"111243", "111244"}
    assert "L MLO not read: no image received" in text_of(got.reports[0])


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        pytest.param(FOR_PROCESSING, "For Processing, which the reader does not read", id="For Processing"),
        pytest.param(LOSSY, "lossy compressed", id="lossy"),
    ],
)
def test_an_exam_that_cannot_be_read_is_answered_with_the_reason(
    site: Site, images: list[Dataset], reason: str
) -> None:
    assert site.answered(study_of(images)).status == "not analysed"
    got = received(site, images)
    assert got.faults == []
    assert got.segmentations == []
    assert summary_of(got.reports[0]) == "111245"
    assert reason in text_of(got.reports[0])


def test_a_late_image_is_answered_by_a_second_report_that_names_the_first(site: Site) -> None:
    images = an_exam("LATE")
    site.send(images)
    site.answered(study_of(images))
    [first] = received(site, images).reports
    repeat = altered(images[0], SOPInstanceUID=f"{images[0].SOPInstanceUID}.2", AcquisitionTime="235959")
    site.send([repeat])
    site.answered(study_of(images), revision=2)
    files = site.archives["pacs"].files(study_of(images))
    [second] = [d for d in map(dcmread, files) if d.get("PredecessorDocumentsSequence")]
    assert second.SOPClassUID == Comprehensive3DSRStorage
    reference = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert reference.SeriesInstanceUID == first.SeriesInstanceUID == second.SeriesInstanceUID
    assert reference.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID


def test_a_destination_that_was_down_gets_everything_once_it_is_up_and_holds_up_no_other(site: Site) -> None:
    exam = site.answered(study_of(COMPLETE))  # the other destination has it all

    def states() -> set[DeliveryState]:
        return {d.state for d in site.parts.outbox.of_exam(exam.id) if d.destination == "archive"}

    def tried() -> int:
        return min(d.attempts for d in site.parts.outbox.of_exam(exam.id) if d.destination == "archive")

    assert patiently(lambda: tried() > 1)
    assert states() == {DeliveryState.WAITING}
    archive = site.archives["archive"]
    [port] = [d.port for d in site.settings.destinations if d.name == "archive"]
    with a_pacs(archive.keep, port=port):
        assert patiently(lambda: states() == {DeliveryState.SENT})
    pacs = site.archives["pacs"]
    assert content(archive, study_of(COMPLETE)) == content(pacs, study_of(COMPLETE))


def content(archive: Archive, study: str) -> dict[str, Dataset]:
    return {path.name: dcmread(path) for path in archive.files(study)}


def test_one_exam_id_runs_through_the_log_and_no_name_does(site: Site) -> None:
    exam = site.answered(study_of(COMPLETE))
    [process] = site.processes
    events = [line["event"] for line in process.lines() if line.get("exam") == exam.uid]
    course = ["instance received", "exam closed", "job started", "job finished", "result delivered"]
    places = [events.index(event) for event in course]
    assert places == sorted(places)
    text = process.log.read_text(encoding="utf-8")
    assert "PHANTOM^" not in text
    assert "FOUR VIEWS" not in text


def test_the_same_on_postgresql_and_a_part_that_dies_is_started_again(
    tmp_path: Path, postgresql_databases: PostgreSQLDatabases
) -> None:
    images = an_exam("POSTGRESQL")
    with a_site(tmp_path, database=postgresql_databases.empty()) as site:
        process = site.serve_and_work()
        site.send(images)
        site.answered(study_of(images))
        assert received(site, images).faults == []
        [serve] = [line["pid"] for line in process.lines() if line["event"] == "child started" and is_serve(line)]
        os.kill(serve, signal.SIGKILL)
        assert patiently(lambda: sum(line["event"] == "ready" for line in process.lines()) == 2)
        assert site.answers_echo()
        assert process.terminate() == 0
        assert not site.answers_echo()


def is_serve(line: dict[str, object]) -> bool:
    return line.get("child") == "serve"
