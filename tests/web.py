"""DICOMweb from the client's side: a service over a room, bodies, and what comes back."""

import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.parser import BytesParser
from functools import partial
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, cast

import pytest
import uvicorn
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.testclient import TestClient

from config.settings import Dicom, Http, WebService
from node.entries import entry_of
from node.intake import utc_now
from node.results.encode import to_bytes
from node.user_agent import UserAgent
from node.web.access import EVERYTHING, Authentication, Identity
from node.web.app import Counts, Routes, create_app
from node.web.certificates import CertifyingProtocol, CertifyingSocket
from node.web.connection import room
from node.web.decoding import Decoders
from node.web.dicomweb import dicomweb_routes
from node.web.retrieving import Retrieval
from node.web.ups import UnifiedProcedureSteps
from node.worklist import Worklist
from storage.database import writing
from storage.exams import close, list_exams
from storage.files import InstanceReference, InstanceStore
from storage.jobs import JobQueue
from storage.outbox import enqueue
from storage.results import ResultRecord, add_results
from storage.states import Plan
from tests.builders import own_result_header
from tests.doors import Room, phantom_images
from tests.peers import eventually
from tests.records import LEASE, NOON, POLICY, STUDY, a_closed_exam

if TYPE_CHECKING:
    import asyncio

BOUNDARY = "a-boundary"


class Anybody:
    """Everybody may do everything."""

    def identify(self, _connection: object) -> Identity | None:
        return Identity("tester", EVERYTHING)


class Facts(list[tuple[str, dict[str, Any]]]):
    """What the audit trail is told."""

    def note(self, kind: str, **data: Any) -> None:
        self.append((kind, data))


@dataclass(frozen=True)
class Service:
    """A DICOMweb service over a room, and a client of it."""

    room: Room
    client: TestClient
    app: Starlette
    worklist: Worklist
    facts: Facts

    def store(self, *images: Dataset, study: str = "", **options: Any) -> Any:
        """Send images by STOW-RS and return the answer."""
        return self.client.post(
            f"/dicom-web/studies{study and '/' + study}",
            content=related(map(to_bytes, images)),
            headers={"Content-Type": content_type(), **options.pop("headers", {})},
            **options,
        )

    def get(self, path: str, accept: str = "", **parameters: Any) -> Any:
        """Ask for a resource."""
        headers = {"Accept": accept} if accept else {}
        return self.client.get(f"/dicom-web{path}", headers=headers, params=parameters or None)

    def leftovers(self) -> list[str]:
        """Return the temporary files that are still there."""
        return [file for file in self.room.files() if file.startswith(("incoming", "outgoing"))]


@contextmanager
def a_service(
    room: Room,
    decoders: Decoders | None = None,
    sources: tuple[WebService, ...] = (),
    ways: Sequence[Authentication] = (Anybody(),),
    **limits: Any,
) -> Iterator[Service]:
    """Serve a room in the test's process."""
    decoders = decoders or Decoders(1)
    settings = Http(**({"requests_per_second": 100_000} | limits))
    retrieval = Retrieval(UserAgent(Dicom()), sources, room.intake, room.store.incoming)
    worklist = Worklist(room.engine, JobQueue(room.engine, POLICY, LEASE), retrieval, POLICY, utc_now)
    steps = UnifiedProcedureSteps(room.engine, worklist, sources)
    services = dicomweb_routes(settings, room.engine, room.store, room.intake, decoders)
    routes = Routes(dicom_web=[*services, *steps.routes()])
    facts = Facts()
    app = create_app(settings, ways, routes, Counts(), facts)
    try:
        with TestClient(app, raise_server_exceptions=False) as client:
            yield Service(room, client, app, worklist, facts)
    finally:
        decoders.close()


@contextmanager
def an_address(app: Starlette) -> Iterator[str]:
    """Serve an application on a free port, and yield the address of its DICOMweb service."""
    with served(app) as root:
        app.state.address = root  # dicomweb-client leaves the port out of Host
        yield f"{root}/dicom-web"


@contextmanager
def served(app: Starlette, silence: float = 60, **options: Any) -> Iterator[str]:
    """Serve an application on a free port, and yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=cast("type[asyncio.Protocol]", partial(CertifyingProtocol, room(), silence)),
            ws=CertifyingSocket,
            lifespan="off",
            log_config=None,
            date_header=False,
            **options,
        )
        server = uvicorn.Server(config)
        thread = Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        assert eventually(lambda: server.started)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(60)


def content_type(kind: str = "application/dicom") -> str:
    """Return the Content-Type of `related`."""
    return f'multipart/related; type="{kind}"; boundary={BOUNDARY}'


def related(parts: Iterable[bytes | tuple[dict[str, str], bytes]], kind: str = "application/dicom") -> bytes:
    """Return a multipart body."""
    body = b""
    for part in parts:
        headers, data = part if isinstance(part, tuple) else ({}, part)
        lines = {"Content-Type": kind, **headers}
        body += f"--{BOUNDARY}\r\n".encode() + "".join(f"{n}: {v}\r\n" for n, v in lines.items()).encode()
        body += b"\r\n" + data + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def parts_of(answer: Any) -> list[tuple[str, bytes]]:
    """Return Content-Type and bytes of each part of an answer, as the standard library's mail parser sees them."""
    head = f"Content-Type: {answer.headers['content-type']}\r\nMIME-Version: 1.0\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + answer.content)
    assert message.is_multipart()
    boundary = b"--" + str(message.get_boundary()).encode()
    found = []
    for piece in answer.content.split(boundary)[1:-1]:
        lines, _, data = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in lines.decode().split("\r\n"))
        found.append((headers["Content-Type"], data.removesuffix(b"\r\n")))
    return found


def instances_of(answer: Any) -> list[Dataset]:
    """Return the instances of an answer."""
    return [dcmread(BytesIO(data)) for _, data in parts_of(answer)]


def values(document: dict[str, Any], tag: str) -> Any:
    """Return an attribute's values in a document of the DICOM JSON Model."""
    return document[tag].get("Value")


def folder_files(folder: Path) -> set[str]:
    """Return the names of the files in a folder."""
    return {path.name for path in folder.iterdir()}


def a_report(study: str, patient: Dataset) -> Dataset:
    """Return a small report of ours about a study."""
    report = own_result_header()
    report.StudyInstanceUID, report.SeriesInstanceUID, report.SOPInstanceUID = study, "2.25.8", "2.25.9"
    report.ensure_file_meta()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.PatientID, report.PatientName = patient.PatientID, patient.PatientName
    return report


def _written(store: InstanceStore, report: Dataset) -> ResultRecord:
    data = to_bytes(report)
    reference = InstanceReference(str(report.StudyInstanceUID), "2.25.8", "2.25.9")
    return ResultRecord(
        uid="2.25.9",
        kind="SR",
        sop_class_uid=str(report.SOPClassUID),
        series_uid="2.25.8",
        study_uid=reference.study_uid,
        image_uid=None,
        path=store.write_result(reference, data),
        size=len(data),
        entry=entry_of(report),
    )


def a_kept_result(room: Room, study: str) -> Dataset:
    """Let a room have issued a small report for the first exam, as a worker does, and return it."""
    report = a_report(study, phantom_images()[0])
    with writing(room.engine) as connection:
        exam = list_exams(connection, 1)[0]
        how: dict[str, Any] = {"plan": Plan.READ, "reasons": (), "model_digest": "ab" * 32, "now": NOON}
        job = close(connection, exam, chosen={}, rejected={}, **how)
        add_results(connection, job, [_written(room.store, report)], NOON)
    return report


def a_waiting_report(store: InstanceStore, engine: Engine, destination: str) -> InstanceReference:
    """Let a small report wait for a destination, and return its UIDs."""
    record = _written(store, a_report(STUDY, phantom_images()[0]))
    _, job = a_closed_exam(engine)
    with writing(engine) as connection:
        add_results(connection, job, [record], NOON)
        enqueue(connection, [(record.uid, destination)], NOON)
    return InstanceReference(record.study_uid, record.series_uid, record.uid)


SERIES, INSTANCE = "0020000E", "00080018"
SENT = str(phantom_images()[0].StudyInstanceUID)


@pytest.fixture
def service(room: Room) -> Iterator[Service]:
    with a_service(room) as opened:
        yield opened


def address(image: Dataset) -> str:
    return f"/studies/{image.StudyInstanceUID}/series/{image.SeriesInstanceUID}/instances/{image.SOPInstanceUID}"


def uids(answer: Any, tag: str = INSTANCE) -> list[str]:
    return [values(each, tag)[0] for each in answer.json()]
