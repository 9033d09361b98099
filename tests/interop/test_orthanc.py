"""Orthanc as the PACS that results are delivered to."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import SegmentationStorage
from sqlalchemy import Engine

from config.mix import ObjectMix, ResultKind, SegmentationType
from config.settings import Destination, Dicom
from node.delivery import Lane
from node.scu import Sender
from storage.database import open_database
from storage.outbox import Outbox
from storage.states import DeliveryState
from tests.databases import SQLiteDatabases
from tests.doors import Clock, a_destination
from tests.pacs import a_free_port, a_store, phantom_objects, waiting_results
from tests.peers import require_program, running
from tests.records import POLICY

pytestmark = [
    pytest.mark.interop,
    # pynetdicom leaves the socket of a connection that failed to its destructor: Orthanc may not listen yet.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

SENDER = Sender(Dicom(acse_timeout=10, dimse_timeout=30))


@pytest.fixture
def engine(sqlite_databases: SQLiteDatabases) -> Iterator[Engine]:
    opened = open_database(sqlite_databases.fresh())
    yield opened
    opened.dispose()


class Orthanc:
    """A running Orthanc: a destination, and its REST interface."""

    def __init__(self, destination: Destination, http_port: int) -> None:
        self.destination = destination
        self._url = f"http://127.0.0.1:{http_port}"

    def get(self, path: str) -> Any:
        """Return what Orthanc answers."""
        with urllib.request.urlopen(f"{self._url}{path}", timeout=30) as answer:  # noqa: S310 - a fixed scheme
            return json.load(answer)

    def tags(self) -> list[dict[str, Any]]:
        """Return the attributes of all instances."""
        return [self.get(f"/instances/{instance}/simplified-tags") for instance in self.get("/instances")]


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    program = require_program("Orthanc", folder=Path("/usr/sbin"))
    destination, http_port = a_destination(a_free_port()), a_free_port()
    configuration = tmp_path / "orthanc.json"
    configuration.write_text(
        json.dumps(
            {
                "Name": "TEST",
                "StorageDirectory": str(tmp_path / "orthanc"),
                "IndexDirectory": str(tmp_path / "orthanc"),
                "Plugins": [],
                "HttpPort": http_port,
                "DicomPort": destination.port,
                "DicomAet": destination.ae_title,
                "DicomCheckCalledAet": True,
                "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False,
                "DicomModalities": {"node": ["MAMMONODE", "127.0.0.1", 104]},
                "DicomAlwaysAllowStore": False,
                "DicomAlwaysAllowEcho": False,
                "UnknownSopClassAccepted": False,
                "OverwriteInstances": False,
            }
        )
    )
    log = tmp_path / "orthanc.log"
    with running(program, configuration, log=log, ready=lambda: SENDER.echo(destination).answered):
        yield Orthanc(destination, http_port)


def test_orthanc_accepts_the_segmentations_and_the_report_under_the_study_of_the_images(
    orthanc: Orthanc, tmp_path: Path, engine: Engine
) -> None:
    store, outbox = a_store(tmp_path), Outbox(engine, POLICY)
    results = waiting_results(store, engine, ["pacs"])
    Lane(orthanc.destination, outbox, SENDER, store, clock=Clock()).deliver_due()
    assert {(d.state, d.status_code) for d in outbox.of_exam(1)} == {(DeliveryState.SENT, 0)}
    tags = orthanc.tags()
    assert {tag["SOPInstanceUID"] for tag in tags} == {record.uid for record in results}
    assert {tag["Modality"] for tag in tags} == {"SEG", "SR"}
    assert {tag["StudyInstanceUID"] for tag in tags} == {made.study_uid for made, _ in phantom_objects()}
    assert len(orthanc.get("/studies")) == len(orthanc.get("/patients")) == 1
    assert len(orthanc.get("/series")) == len({made.series_uid for made, _ in phantom_objects()})


def test_orthanc_gets_binary_segmentations_when_it_does_not_know_label_maps(
    orthanc: Orthanc, tmp_path: Path, engine: Engine
) -> None:
    store, outbox = a_store(tmp_path), Outbox(engine, POLICY)
    mix = ObjectMix(segmentation=SegmentationType.LABELMAP)
    waiting = waiting_results(store, engine, ["pacs"], mix=mix)
    lane = Lane(orthanc.destination, outbox, SENDER, store, clock=Clock())
    while lane.deliver_due():
        pass
    states = {d.result_uid: d.state for d in outbox.of_exam(1)}
    refused = [r for r in waiting if r.kind == ResultKind.SEG and r.sop_class_uid != SegmentationStorage]
    assert len(refused) == 4
    for record in refused:
        assert states[record.uid] is DeliveryState.REPLACED
        assert states[record.fallback_uid or ""] is DeliveryState.SENT
    tags = orthanc.tags()
    assert {tag["SOPInstanceUID"] for tag in tags if tag["Modality"] == "SEG"} == {r.fallback_uid for r in refused}
    assert {tag["SegmentationType"] for tag in tags if tag["Modality"] == "SEG"} == {"BINARY"}


def test_sending_again_makes_no_second_copy(orthanc: Orthanc, tmp_path: Path, engine: Engine) -> None:
    clock, store, outbox = Clock(), a_store(tmp_path), Outbox(engine, POLICY)
    results = waiting_results(store, engine, ["pacs"])
    lane = Lane(orthanc.destination, outbox, SENDER, store, clock=clock)
    lane.deliver_due()
    outbox.resend(outbox.of_exam(1)[0].exam_id, clock())
    assert lane.deliver_due() == len(results)
    assert {delivery.state for delivery in outbox.of_exam(1)} == {DeliveryState.SENT}
    assert len(orthanc.get("/instances")) == len(results)


def test_a_node_that_orthanc_does_not_know_is_told_what_to_check(orthanc: Orthanc) -> None:
    echo = Sender(Dicom(ae_title="STRANGER")).echo(orthanc.destination)
    assert not echo.answered
    assert echo.message
