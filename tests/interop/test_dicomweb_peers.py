"""DICOMweb with programs of others: dicomweb-client, curl with DCMTK's files, Orthanc as client and server."""

import gzip
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset, dcmread
from pydicom.uid import JPEGLosslessSV1, RLELossless
from sqlalchemy import Engine

from config.settings import Destination, Dicom, WebService
from node.commitment import Prover
from node.delivery import Lane
from node.results.encode import to_bytes
from node.user_agent import UserAgent
from storage.commitments import Commitments
from storage.outbox import Outbox
from storage.states import DeliveryState
from tests.doors import Clock, a_room, no_reports, phantom_images
from tests.ohif import DICOMWEB_PLUGIN
from tests.pacs import a_free_port, a_store
from tests.peers import eventually, require_dcmtk, require_path, require_program, running
from tests.records import POLICY
from tests.web import Service, a_service, a_waiting_report, an_address, content_type, related

pytestmark = [
    pytest.mark.interop,
    # requests and Orthanc close their connections when they like.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.sqlite_alone,
]

STUDY = str(phantom_images()[0].StudyInstanceUID)


@dataclass(frozen=True)
class Node:
    """The service, and where it is."""

    service: Service
    url: str


@pytest.fixture
def node(tmp_path: Path, engine: Engine) -> Iterator[Node]:
    with a_service(a_room(tmp_path, engine)) as service, an_address(service.app) as url:
        yield Node(service, url)


def uids_of(instances: list[Dataset] | list[dict[str, Any]]) -> set[str]:
    return {str(each["00080018"]["Value"][0] if isinstance(each, dict) else each.SOPInstanceUID) for each in instances}


ALL = uids_of(list(phantom_images()))


def test_dicomweb_client_stores_finds_and_gets_back_everything(node: Node) -> None:
    client = DICOMwebClient(node.url)
    answer = client.store_instances(list(phantom_images()))
    assert uids_of([{"00080018": item["00081155"]} for item in answer.to_json_dict()["00081199"]["Value"]]) == ALL
    image = phantom_images()[0]
    named = STUDY, str(image.SeriesInstanceUID), str(image.SOPInstanceUID)
    [study] = client.search_for_studies(search_filters={"PatientID": str(image.PatientID)}, fields=["StudyDescription"])
    assert study["0020000D"]["Value"] == [STUDY]
    assert client.search_for_studies(search_filters={"PatientID": "nobody"}) == []
    assert len(client.search_for_series(STUDY)) == 4
    assert uids_of(client.search_for_instances(STUDY)) == ALL
    assert len(client.search_for_instances(limit=1, offset=1)) == 1
    assert uids_of(client.retrieve_study(STUDY)) == ALL
    assert uids_of(client.retrieve_study_metadata(STUDY)) == ALL
    assert client.retrieve_series(*named[:2])[0].PixelData == image.PixelData
    assert client.retrieve_instance(*named).PixelData == image.PixelData
    metadata = client.retrieve_instance_metadata(*named)
    assert metadata["00280010"]["Value"] == [image.Rows]
    [frame] = client.retrieve_instance_frames(*named, frame_numbers=[1])
    assert frame == image.PixelData
    assert client.retrieve_bulkdata(metadata["7FE00010"]["BulkDataURI"])[0] == image.PixelData
    assert client.retrieve_instance_rendered(*named, media_types=("image/jpeg",))[:2] == b"\xff\xd8"
    assert (
        client.retrieve_instance_frames_rendered(*named, frame_numbers=[1], media_types=("image/png",))[1:4] == b"PNG"
    )


def curl(*arguments: str) -> Any:
    """Run curl and return status and body."""
    program = require_program("curl")
    told = subprocess.run(
        [program, "--silent", "--show-error", "--max-time", "60", "--write-out", "\n%{http_code}", *arguments],
        capture_output=True,
        check=True,
    )
    body, _, status = told.stdout.rpartition(b"\n")
    return int(status), body


@pytest.mark.parametrize(
    ("program", "option", "syntax"), [("dcmcrle", "+X", RLELossless), ("dcmcjpeg", "+e1", JPEGLosslessSV1)]
)
def test_files_that_dcmtk_has_compressed_come_by_curl_and_go_back(
    node: Node, tmp_path: Path, program: str, option: str, syntax: str
) -> None:
    plain, packed = tmp_path / "plain.dcm", tmp_path / "packed.dcm"
    image = phantom_images()[0]
    image.save_as(plain, enforce_file_format=True)
    options = [option] if program == "dcmcjpeg" else []
    subprocess.run(
        [require_dcmtk(program), *options, "+un" if program == "dcmcrle" else "-v", plain, packed], check=True
    )
    body = tmp_path / "body"
    body.write_bytes(gzip.compress(related([packed.read_bytes()])))
    headers = [
        f"Content-Type: {content_type()}",
        "Transfer-Encoding: chunked",
        "Expect: 100-continue",
        "Content-Encoding: gzip",
    ]
    status, answer = curl(
        *(part for header in headers for part in ("--header", header)),
        "--data-binary",
        f"@{body}",
        f"{node.url}/studies",
    )
    assert status == 200, answer
    uid = str(dcmread(packed, stop_before_pixels=True).SOPInstanceUID)
    where = f"{node.url}/studies/{STUDY}/series/{image.SeriesInstanceUID}/instances/{uid}"
    status, stored = curl("--header", "Accept: application/dicom; transfer-syntax=*", where)
    assert (status, stored) == (200, packed.read_bytes())
    given = tmp_path / "given.dcm"
    status, native = curl("--header", "Accept: application/dicom", where)
    assert status == 200
    given.write_bytes(native)
    assert np.array_equal(dcmread(given).pixel_array, image.pixel_array)
    assert dcmread(packed, stop_before_pixels=True).file_meta.TransferSyntaxUID == syntax


class Orthanc:
    """A running Orthanc with DICOMweb."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, body: Any = None) -> Any:
        """Return what its REST interface answers."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data)  # noqa: S310 - a fixed scheme
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
            return json.load(answer)

    def forget(self, study: str) -> None:
        """Let it delete a study."""
        request = urllib.request.Request(f"{self.url}/studies/{study}", method="DELETE")  # noqa: S310 - as above
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 - as above

    def listens(self) -> bool:
        """Tell whether it answers."""
        try:
            return bool(self.ask("/system"))
        except OSError:
            return False


@pytest.fixture
def orthanc(tmp_path: Path, node: Node) -> Iterator[Orthanc]:
    program, plugin = require_program("Orthanc", folder=Path("/usr/sbin")), require_path(DICOMWEB_PLUGIN)
    opened = Orthanc(port := a_free_port())
    configuration = tmp_path / "orthanc.json"
    configuration.write_text(
        json.dumps(
            {
                "StorageDirectory": str(tmp_path / "orthanc"),
                "IndexDirectory": str(tmp_path / "orthanc"),
                "Plugins": [str(plugin)],
                "HttpPort": port,
                "DicomPort": a_free_port(),
                "AuthenticationEnabled": False,
                "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Servers": {"node": [f"{node.url}/"]}},
            }
        )
    )
    with running(program, configuration, log=tmp_path / "orthanc.log", ready=opened.listens):
        yield opened


def test_orthanc_sends_to_the_node_finds_and_retrieves_from_it(node: Node, orthanc: Orthanc) -> None:
    for image in phantom_images():
        orthanc.ask("/instances", to_bytes(image))
    [study] = orthanc.ask("/studies")
    sent = orthanc.ask("/dicom-web/servers/node/stow", {"Resources": [study], "Synchronous": True})
    assert sent["InstancesCount"] == "4" or int(sent["InstancesCount"]) == 4
    assert node.service.room.rows() == (4, 1, 0)
    # Everything that Orthanc has sent is the same instance that its modality had: nothing is set aside.
    node.service.store(*phantom_images())
    assert node.service.room.rows() == (4, 1, 0)
    found = orthanc.ask("/dicom-web/servers/node/qido", {"Uri": "/studies", "Arguments": {"StudyInstanceUID": STUDY}})
    assert len(found) == 1
    orthanc.forget(study)
    assert orthanc.ask("/instances") == []
    orthanc.ask("/dicom-web/servers/node/retrieve", {"Resources": [{"Study": STUDY}], "Synchronous": True})
    assert eventually(lambda: len(orthanc.ask("/instances")) == 4)


def test_results_are_sent_to_orthanc_by_stow_and_found_there_by_qido(
    tmp_path: Path, engine: Engine, orthanc: Orthanc
) -> None:
    store, outbox, clock = a_store(tmp_path / "sender"), Outbox(engine, POLICY), Clock()
    record = a_waiting_report(store, engine, "archive")
    destination = Destination(name="archive", web=WebService(url=f"{orthanc.url}/dicom-web"), proof="find")
    agent = UserAgent(Dicom(network_timeout=60, acse_timeout=10))
    assert agent.echo(destination).answered
    assert agent.find(destination, [record]) == set()
    commitments = Commitments(engine, outbox)
    prover = Prover(destination, engine, outbox, commitments, agent, no_reports(engine), clock=clock)
    lane = Lane(destination, outbox, agent, store, clock=clock, prover=prover)
    assert lane.deliver_due() == 1
    [sent] = outbox.of_exam(1)
    assert (sent.state, sent.status_code) == (DeliveryState.SENT, 0)
    [instance] = orthanc.ask("/instances?expand")
    assert instance["MainDicomTags"]["SOPInstanceUID"] == record.instance_uid
    clock.forward(timedelta(minutes=1))
    assert lane.prove_due() == 1
    [proven] = outbox.of_exam(1)
    assert proven.state is DeliveryState.VERIFIED
