"""A marked name goes through every path, and into no log line, metric, error or problem document (rule R14)."""

import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest
from pydicom import Dataset
from pynetdicom import evt

from config.settings import Caller, Delivery, Destination, Dicom, ExamClock, Http, Settings, Storage
from node.logs import configure
from node.scu import Item, Sender
from node.serving import Serving
from node.worker import Worker
from storage.states import DeliveryState
from tests.builders import altered
from tests.chain import FakeReader
from tests.doors import phantom_images
from tests.pacs import a_pacs
from tests.peers import eventually

MARK = "QZXMARKED"
NAME = f"{MARK}^ANNA"
MODALITY = "MODALITY"

# pynetdicom leaves the socket of a connection that failed to its destructor.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


def marked(image: Dataset, **changes: object) -> Dataset:
    return altered(image, **({"PatientName": NAME, "ReferringPhysicianName": f"DR^{MARK}"} | changes))


@dataclass
class Place:
    """A node, its log, and the PACS behind it."""

    serving: Serving
    log: io.StringIO
    folder: Path

    def send(self, *images: Dataset) -> list[int | None]:
        paths = []
        for number, image in enumerate(images):
            paths.append(self.folder / f"{len(list(self.folder.iterdir()))}-{number}.dcm")
            image.save_as(paths[-1], enforce_file_format=True)
        door = Destination(name="node", ae_title="MAMMONODE", host="127.0.0.1", port=self.serving.dicom_port)
        with closing(Sender(Dicom(ae_title=MODALITY)).send(door, [Item.of(path) for path in paths])) as responses:
            return [response.status for response in responses]

    def events(self) -> str:
        return self.log.getvalue()


def says_the_name(event: evt.Event) -> Dataset:
    answer = Dataset()
    answer.Status = 0xC001
    answer.ErrorComment = f"{event.dataset.PatientName} is not known here"
    return answer


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    sources = tmp_path / "sources"
    sources.mkdir()
    with a_pacs(says_the_name) as (_, port):  # type: ignore[arg-type]
        settings = Settings(
            dicom=Dicom(port=0, callers=(Caller(ae_title=MODALITY),)),
            storage=Storage(folder=tmp_path / "store", max_used_percent=100, min_free_gb=0),
            exam=ExamClock(complete_quiet=0.1, incomplete_quiet=0.1),
            delivery=Delivery(first_retry=0.1, slowest_retry=0.1, poll=0.05),
            http=Http(port=0),
            destinations=(Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port),),
        )
        log = io.StringIO()
        configure("json", "debug", log)
        serving = Serving(settings)
        serving.open()
        with closing(serving):
            yield Place(serving, log, sources)
        serving.parts.engine.dispose()


def worker_of(place: Place, reader: FakeReader, ahead: timedelta = timedelta(0)) -> Worker:
    from node.intake import utc_now

    parts = place.serving.parts
    return Worker(
        parts.engine,
        parts.store,
        parts.queue,
        reader,
        parts.settings.destinations,
        settings_digest="",
        owner="worker",
        heartbeat=60,
        time_limit=600,
        on_hang=lambda: pytest.fail("hangs"),
        clock=lambda: utc_now() + ahead,
    )


def test_a_marked_name_reaches_no_log_line_no_error_and_no_problem_document(place: Place) -> None:
    first, *others = phantom_images()
    whole = [marked(image) for image in (first, *others)]
    assert place.send(*whole) == [0, 0, 0, 0]

    # What is refused, what is known, what differs, and what changes whose it is.
    odd = marked(first, SOPInstanceUID="1.2.3.4", StudyInstanceUID=f"{MARK}")
    assert place.send(odd) == [0xC000]
    assert place.send(whole[0]) == [0]
    assert place.send(marked(first, PatientID=f"{MARK}-2"), marked(others[0], StudyDescription=MARK)) == [0, 0]
    serving = place.serving
    for _ in range(2):
        for chore in serving.chores():
            chore.do()

    # A reader that quotes it, and one that reads.
    def quotes(_: object) -> None:
        raise ValueError(f"no breast in the image of {NAME}")

    reader = FakeReader(meanwhile=quotes)
    assert worker_of(place, reader).work_once()
    assert "job failed" in place.events()
    reader.meanwhile = lambda _: None
    assert worker_of(place, reader, ahead=timedelta(hours=1)).work_once()
    assert "job finished" in place.events()

    # A destination that quotes it when it refuses.
    with serving.parts.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE exams SET held = 0")

    def refused_for_good() -> bool:
        for chore in serving.chores():  # lanes are told what is committed
            chore.do()
        return "result refused for good" in place.events()

    assert eventually(refused_for_good)
    exams = {each.exam_uid for each in serving.parts.queue.list_jobs(9)}
    assert exams
    refused = [each for each in serving.parts.outbox.of_exam(1) if each.state is DeliveryState.REFUSED]
    assert any(MARK in (each.message or "") for each in refused)  # kept for who may see it

    # Over HTTP: in paths, queries, headers and bodies, good and bad.
    paths = (
        f"/{MARK}",
        f"/dicom-web/studies/{MARK}",
        f"/dicom-web/studies?PatientName={MARK}&limit={MARK}",
        f"/dicom-web/studies?{MARK}=1",
        f"/livez?{MARK}",
    )
    said = {"X-Name": MARK, "Accept": f"text/{MARK}"}
    with httpx2.Client(base_url=f"http://127.0.0.1:{serving.web_port}", timeout=60) as client:
        answers = [client.get(path, headers=said) for path in paths]
        body = f"--b\r\nContent-Type: application/dicom\r\n\r\n{NAME}\r\n--b--\r\n"
        kind = 'multipart/related; type="application/dicom"; boundary=b'
        answers.append(client.post("/dicom-web/studies", content=body, headers={"Content-Type": kind}))
        answers.append(client.post("/dicom-web/studies", content=NAME, headers={"Content-Type": "text/plain"}))
    problems = [answer for answer in answers if answer.status_code >= 400]
    assert len(problems) >= 5
    for answer in problems:
        assert MARK.lower() not in answer.text.lower(), (answer.request.url, answer.text)

    log = place.events()
    for event in (
        "instance received",
        "instance refused",
        "instance known",
        "instance changed its identity",
        "request",
    ):
        assert event in log
    told = [line for line in log.splitlines() if MARK.lower() in line.lower()]
    assert told == []
