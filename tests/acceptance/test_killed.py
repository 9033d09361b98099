"""What is accepted is answered, once, whatever dies in between: workers and doors are killed, stopped and broken."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from safetensors.numpy import load_file, save_file

from ai.models import CARD
from node.demo.pacs import received_for
from storage.database import reading
from storage.index import instances_of_exam
from storage.states import ExamState, JobState
from tests.acceptance.nodes import (
    Process,
    Site,
    a_site,
    an_exam,
    half_sent,
    patiently,
    study_of,
    unreadable_for_now,
)
from tests.chain import summary_of, text_of
from tests.models import a_quick_model

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(900),
    # pynetdicom does not close the socket of a connection that was refused or cut.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A node without a worker, whose leases are short."""
    with a_site(tmp_path_factory.mktemp("doors"), jobs="lease = 4\nattempts = 2\nfirst_retry = 0.2") as site:
        site.serve()
        yield site


@pytest.fixture
def site(doors: Site) -> Iterator[Site]:
    """The same; the workers of a test end with it."""
    yield doors
    for process in doors.processes[1:]:
        process.kill()


def a_waiting_exam(site: Site, patient_id: str) -> list[Dataset]:
    """Send an exam and wait until it awaits a worker."""
    images = an_exam(patient_id)
    site.send(images)
    assert patiently(lambda: site.job(study_of(images)) is not None)
    return images


def file_of(site: Site, image: Dataset) -> Path:
    return site.folder / "store" / "instances" / study_of([image]) / str(image.SeriesInstanceUID) / file_name(image)


def file_name(image: Dataset) -> str:
    return f"{image.SOPInstanceUID}.dcm"


def is_running(site: Site, images: list[Dataset]) -> bool:
    job = site.job(study_of(images))
    return job is not None and job.state is JobState.RUNNING


def renewed_by(site: Site, images: list[Dataset]) -> bool:
    """Wait until the running job's lease was renewed, which shows that its worker lives."""
    assert patiently(lambda: is_running(site, images))
    job = site.job(study_of(images))
    assert job
    return patiently(lambda: (site.job(study_of(images)) or job).lease_until != job.lease_until)


def test_an_exam_whose_worker_is_killed_in_the_middle_is_answered_once_by_another(site: Site) -> None:
    images = a_waiting_exam(site, "KILLED-WORKER")
    with unreadable_for_now(file_of(site, images[0])):
        first = site.start("work")
        assert renewed_by(site, images)
        first.kill()
        assert is_running(site, images)
    site.start("work")
    assert site.answered(study_of(images)).state is ExamState.ANSWERED
    job = site.job(study_of(images))
    assert job
    assert (job.state, job.attempts) == (JobState.DONE, 2)
    assert received_for(study_of(images), site.archives["pacs"].files(study_of(images))).faults == []
    arrivals = site.archives["pacs"].arrivals
    assert len(set(arrivals)) == len(arrivals)


def test_a_worker_that_is_told_to_stop_finishes_its_exam(site: Site) -> None:
    images = a_waiting_exam(site, "STOPPED-WORKER")
    worker = site.start("work")
    assert patiently(lambda: (job := site.job(study_of(images))) is not None and job.state is not JobState.QUEUED)
    assert worker.terminate() == 0
    job = site.job(study_of(images))
    assert job
    assert (job.state, job.attempts, job.lease_owner) == (JobState.DONE, 1, None)
    site.answered(study_of(images))


def test_an_exam_on_which_the_reader_always_breaks_is_answered_with_failed(site: Site, tmp_path: Path) -> None:
    images = a_waiting_exam(site, "BROKEN-READER")
    worker = site.start("work", MAMMONODE_READER__MODEL=str(a_broken_model(tmp_path)))
    exam = site.answered(study_of(images))
    assert (exam.state, exam.status) == (ExamState.FAILED, "failed")
    got = received_for(study_of(images), site.archives["pacs"].files(study_of(images)))
    assert got.faults == []
    assert summary_of(got.reports[0]) == "111245"
    assert "The reading failed 2 times." in text_of(got.reports[0])
    assert sum(line["event"] == "job failed" for line in worker.lines()) == 2


def a_broken_model(folder: Path) -> Path:
    """Return a model whose answers are not finite."""
    broken = folder / "broken"
    model = a_quick_model(broken)
    [part] = model.card.weights
    tensors = load_file(broken / part.file)
    tensors["image.2.bias"][:] = np.nan
    save_file(tensors, broken / part.file)
    card = broken / CARD
    text = card.read_text(encoding="utf-8")
    card.write_text(text.replace(part.sha256, sha256((broken / part.file).read_bytes()).hexdigest()), "utf-8")
    return broken


def test_doors_that_are_killed_while_receiving_lose_nothing_that_they_accepted(tmp_path: Path) -> None:
    *first, last = images = an_exam("KILLED-DOORS")
    with a_site(tmp_path) as site:
        serve = site.serve()
        site.send(first)
        with half_sent(site.door, last):
            assert patiently(lambda: len(incoming(site)) == 1)
            serve.kill()
        assert len(incoming(site)) == 1
        assert kept(site, images) == {file_name(image) for image in first}
        again = site.serve()
        assert swept(again) == 1
        assert incoming(site) == []
        assert kept(site, images) == {file_name(image) for image in first}
        site.send(images)
        assert patiently(lambda: site.job(study_of(images)) is not None)
        exam, job = site.exam(study_of(images)), site.job(study_of(images))
        assert exam
        assert job
        assert (exam.revision, exam.arrivals, job.reasons) == (1, 4, ())
        assert kept(site, images) == {file_name(image) for image in images}
        assert again.terminate() == 0


def incoming(site: Site) -> list[str]:
    return [path.name for path in site.parts.store.incoming.iterdir()]


def swept(process: Process) -> int:
    [line] = [line for line in process.lines() if line["event"] == "starting"]
    return int(line["swept"])


def kept(site: Site, images: list[Dataset]) -> set[str]:
    """Return the files that the index knows and that are there."""
    exam = site.exam(study_of(images))
    assert exam
    with reading(site.parts.engine) as connection:
        paths = [site.parts.store.resolve(i.path) for i in instances_of_exam(connection, exam.id)]
    return {path.name for path in paths if path.is_file()}
