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
from config.settings import Caller, Destination, Dicom, Proof
from node.commitment import Prover, Reports
from node.delivery import Lane
from node.scu import Sender
from node.turns import Turns
from storage.commitments import Commitments
from storage.outbox import Outbox
from storage.states import DeliveryState
from tests.doors import Clock, a_destination, a_room, an_image, an_open_door, safekeeping
from tests.pacs import a_free_port, a_store, phantom_objects, waiting_results
from tests.peers import eventually, require_program, running
from tests.records import POLICY, resent

pytestmark = [
    pytest.mark.interop,
    # pynetdicom leaves the socket of a connection that failed to its destructor: Orthanc may not listen yet.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.sqlite_alone,
]

SENDER = Sender(Dicom(acse_timeout=10, dimse_timeout=30))


class Orthanc:
    """A running Orthanc: a destination, and its REST interface; it expects us at a port."""

    def __init__(self, destination: Destination, http_port: int, our_port: int) -> None:
        self.destination = destination
        self.our_port = our_port
        self._url = f"http://127.0.0.1:{http_port}"

    def get(self, path: str) -> Any:
        """Return what Orthanc answers."""
        with urllib.request.urlopen(f"{self._url}{path}", timeout=30) as answer:  # noqa: S310 - a fixed scheme
            return json.load(answer)

    def post(self, path: str, body: Any) -> Any:
        """Return what Orthanc answers."""
        request = urllib.request.Request(f"{self._url}{path}", json.dumps(body).encode())  # noqa: S310 - as above
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
            return json.load(answer)

    def delete(self, path: str) -> None:
        """Let Orthanc delete something."""
        request = urllib.request.Request(f"{self._url}{path}", method="DELETE")  # noqa: S310 - as above
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 - as above

    def tags(self) -> list[dict[str, Any]]:
        """Return the attributes of all instances."""
        return [self.get(f"/instances/{instance}/simplified-tags") for instance in self.get("/instances")]


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    program = require_program("Orthanc", folder=Path("/usr/sbin"))
    destination, http_port, our_port = a_destination(a_free_port()), a_free_port(), a_free_port()
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
                "DicomModalities": {"node": ["MAMMONODE", "127.0.0.1", our_port]},
                "DicomAlwaysAllowStore": False,
                "DicomAlwaysAllowEcho": False,
                "UnknownSopClassAccepted": False,
                "OverwriteInstances": False,
            }
        )
    )
    log = tmp_path / "orthanc.log"
    with running(program, configuration, log=log, ready=lambda: SENDER.echo(destination).answered):
        yield Orthanc(destination, http_port, our_port)


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
    resent(engine, outbox.of_exam(1)[0].exam_id, clock(), {"pacs": ResultKind})
    assert lane.deliver_due() == len(results)
    assert {delivery.state for delivery in outbox.of_exam(1)} == {DeliveryState.SENT}
    assert len(orthanc.get("/instances")) == len(results)


def test_a_node_that_orthanc_does_not_know_is_told_what_to_check(orthanc: Orthanc) -> None:
    echo = Sender(Dicom(ae_title="STRANGER")).echo(orthanc.destination)
    assert not echo.answered
    assert echo.message


class Lanes:
    """A lane to Orthanc that asks for proof, and the door that takes its reports."""

    def __init__(self, orthanc: Orthanc, folder: Path, engine: Engine, proof: Proof) -> None:
        self.room = a_room(folder, engine)
        self.destination = orthanc.destination.model_copy(update={"proof": proof})
        self.clock, self.outbox = Clock(), Outbox(engine, POLICY)
        commitments = Commitments(engine, self.outbox)
        self.reports = Reports(commitments, [self.destination], self.clock)
        prover = Prover(
            *(self.destination, engine, self.outbox, commitments, SENDER, self.reports), wait=0, clock=self.clock
        )
        self.lane = Lane(self.destination, self.outbox, SENDER, self.room.store, clock=self.clock, prover=prover)

    def states(self) -> set[DeliveryState]:
        return {delivery.state for delivery in self.outbox.of_exam(1)}


def test_orthanc_commits_to_what_it_has_and_gets_again_what_it_has_lost(
    orthanc: Orthanc, tmp_path: Path, engine: Engine
) -> None:
    lanes = Lanes(orthanc, tmp_path, engine, Proof.COMMITMENT)
    results = waiting_results(lanes.room.store, engine, ["pacs"])
    with an_open_door(lanes.room, lanes.reports, port=orthanc.our_port, callers=(Caller(ae_title="PACS"),)):
        lanes.lane.deliver_due()
        lost = orthanc.get("/instances")[0]
        lost_uid = orthanc.get(f"/instances/{lost}/simplified-tags")["SOPInstanceUID"]
        orthanc.delete(f"/instances/{lost}")
        assert lanes.lane.prove_due() == len(results)
        assert eventually(lambda: DeliveryState.SENT not in lanes.states())
        found = {d.result_uid: (d.state, d.status_code) for d in lanes.outbox.of_exam(1)}
        assert found.pop(lost_uid) == (DeliveryState.WAITING, 0x0112)
        assert {state for state, _ in found.values()} == {DeliveryState.COMMITTED}
        lanes.clock.forward(POLICY.slow)
        assert lanes.lane.deliver_due() == lanes.lane.prove_due() == 1
        assert eventually(lambda: lanes.states() == {DeliveryState.COMMITTED})
    assert len(orthanc.get("/instances")) == len(results)


def test_what_orthanc_has_is_found_by_query(orthanc: Orthanc, tmp_path: Path, engine: Engine) -> None:
    lanes = Lanes(orthanc, tmp_path, engine, Proof.FIND)
    results = waiting_results(lanes.room.store, engine, ["pacs"])
    lanes.lane.deliver_due()
    lanes.clock.forward(POLICY.slow)
    assert lanes.lane.prove_due() == len(results)
    assert lanes.states() == {DeliveryState.VERIFIED}


def test_orthanc_may_ask_whether_we_keep_what_it_sent(orthanc: Orthanc, tmp_path: Path, engine: Engine) -> None:
    room, image = a_room(tmp_path, engine), an_image()
    room.receive(image)
    caller = Caller(ae_title="PACS", port=orthanc.destination.port)
    keeping = safekeeping(room, (caller,))
    service = Turns("commitment reports", lambda _: keeping.turn(), 0.05)
    held = {"SOPClassUID": str(image.SOPClassUID), "SOPInstanceUID": str(image.SOPInstanceUID)}
    unknown = held | {"SOPInstanceUID": "1.2.3.4"}
    with an_open_door(room, port=orthanc.our_port, callers=(caller,)):
        service.start()
        asked = orthanc.post("/modalities/node/storage-commitment", {"DicomInstances": [held, unknown]})
        assert eventually(lambda: orthanc.get(f"/storage-commitment/{asked['ID']}")["Status"] != "Pending")
        service.stop()
    told = orthanc.get(f"/storage-commitment/{asked['ID']}")
    assert told["Status"] == "Failure"
    assert [each["SOPInstanceUID"] for each in told["Success"]] == [held["SOPInstanceUID"]]
    assert [(each["SOPInstanceUID"], each["FailureReason"]) for each in told["Failures"]] == [("1.2.3.4", 0x0112)]
