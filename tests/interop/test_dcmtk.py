"""DCMTK as a modality that sends to the door, and as a PACS that results are delivered to."""

import subprocess
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from sqlalchemy import Engine

from config.settings import Destination, Dicom
from node.comparison import differences
from node.delivery import Lane
from node.scp import StorageSCP
from node.scu import Sender
from storage.outbox import Outbox
from storage.states import DeliveryState
from tests.builders import compressed
from tests.doors import Clock, Room, a_destination, an_image, phantom_images
from tests.pacs import a_free_port, a_store, phantom_objects, waiting_results
from tests.peers import eventually, require_dcmtk, running
from tests.records import POLICY

pytestmark = [
    pytest.mark.interop,
    # pynetdicom leaves the socket of a connection that failed to its destructor: the PACS may not listen yet.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.sqlite_alone,
]

SENDER = Sender(Dicom(acse_timeout=10, dimse_timeout=30))


def run(program: str, door: StorageSCP, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a DCMTK program as the modality that the door knows."""
    command = [require_dcmtk(program), "-aet", "MODALITY", "-aec", "MAMMONODE", *arguments]
    at = command.index("@")
    command[at : at + 1] = ["127.0.0.1", door.port]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("syntax", "option"),
    [
        (ExplicitVRLittleEndian, "-xe"),
        (ImplicitVRLittleEndian, "-xi"),
        (JPEGLosslessSV1, "-xs"),
        (JPEGLSLossless, "-xt"),
        (JPEG2000Lossless, "-xv"),
        (RLELossless, "-xr"),
    ],
)
def test_storescu_sends_in_its_encoding_and_that_is_what_is_kept(
    room: Room, door: StorageSCP, tmp_path: Path, syntax: UID, option: str
) -> None:
    image = an_image()
    if syntax.is_compressed:
        image = compressed(image, syntax)
    else:
        image.file_meta.TransferSyntaxUID = syntax
    path = tmp_path / "image.dcm"
    image.save_as(path, enforce_file_format=True)
    sent = run("storescu", door, "-R", option, "@", path)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    [kept] = room.files()
    stored = dcmread(room.store.resolve(kept))
    assert stored.file_meta.TransferSyntaxUID == syntax
    assert stored == dcmread(path)


def test_dcmsend_sends_a_whole_exam_of_mixed_encodings(room: Room, door: StorageSCP, tmp_path: Path) -> None:
    first, second, *others = phantom_images()
    for number, image in enumerate([compressed(first, RLELossless), compressed(second, JPEGLosslessSV1), *others]):
        image.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    sent = run("dcmsend", door, "@", *sorted(tmp_path.glob("*.dcm")))
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert room.rows() == (4, 1, 0)


def test_storescu_is_told_why_an_instance_is_refused(room: Room, door: StorageSCP, tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"
    an_image(StudyInstanceUID=None).save_as(path, enforce_file_format=True)
    sent = run("storescu", door, "-v", "@", path)
    assert "CannotUnderstand" in sent.stdout + sent.stderr
    assert room.files() == set()


def test_an_unknown_modality_does_not_get_in(door: StorageSCP) -> None:
    refused = run("echoscu", door, "-aet", "STRANGER", "@")
    assert refused.returncode != 0
    assert "Calling AE Title Not Recognized" in refused.stdout + refused.stderr
    assert run("echoscu", door, "@").returncode == 0


def deliver(folder: Path, engine: Engine, destination: Destination) -> Outbox:
    """Deliver a phantom's answer."""
    outbox = Outbox(engine, POLICY)
    store = a_store(folder)
    waiting_results(store, engine, [destination.name])
    Lane(destination, outbox, SENDER, store, clock=Clock()).deliver_due()
    assert {(d.state, d.status_code) for d in outbox.of_exam(1)} == {(DeliveryState.SENT, 0)}
    return outbox


def assert_same_objects(folder: Path) -> None:
    """Compare what a PACS has with what was issued, encoding apart."""
    stored = {str(dcmread(path).SOPInstanceUID): path for path in folder.iterdir() if path.name != "index.dat"}
    assert set(stored) == {made.instance_uid for made, _ in phantom_objects()}
    for made, data in phantom_objects():
        issued = folder.with_name("issued.dcm")
        issued.write_bytes(data)
        assert differences(issued, stored[made.instance_uid]) == ()


@pytest.mark.parametrize("options", [(), ("+xi",)])
def test_storescp_gets_the_answer(tmp_path: Path, engine: Engine, options: tuple[str, ...]) -> None:
    folder = tmp_path / "pacs"
    folder.mkdir()
    destination = a_destination(a_free_port())
    command = [require_dcmtk("storescp"), "-aet", "PACS", "-od", folder, *options, destination.port]
    with running(*command, log=tmp_path / "log", ready=lambda: SENDER.echo(destination).answered):
        deliver(tmp_path, engine, destination)
    assert_same_objects(folder)


def test_dcmqrscp_gets_the_answer_and_finds_it(tmp_path: Path, engine: Engine) -> None:
    folder = tmp_path / "pacs"
    folder.mkdir()
    destination = a_destination(a_free_port())
    configuration = tmp_path / "dcmqrscp.cfg"
    configuration.write_text(
        f"NetworkTCPPort = {destination.port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nPACS {folder} RW (10, 100mb) ANY\nAETable END\n"
    )
    command = [require_dcmtk("dcmqrscp"), "-c", configuration]
    with running(*command, log=tmp_path / "log", ready=lambda: SENDER.echo(destination).answered):
        deliver(tmp_path, engine, destination)
        query = [require_dcmtk("findscu"), "-S", "-aec", "PACS", "-k", "QueryRetrieveLevel=IMAGE"]
        for made, _ in phantom_objects():
            keys = [f"StudyInstanceUID={made.study_uid}", f"SeriesInstanceUID={made.series_uid}"]
            keys += [f"SOPInstanceUID={made.instance_uid}"]
            options = [part for key in keys for part in ("-k", key)]
            found = subprocess.run(
                [*query, *options, "127.0.0.1", str(destination.port)],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert (found.stdout + found.stderr).count("Find Response") == 1
    assert_same_objects(folder)


def test_a_pacs_that_starts_late_gets_the_answer_then(tmp_path: Path, engine: Engine) -> None:
    folder = tmp_path / "pacs"
    folder.mkdir()
    destination = a_destination(a_free_port())
    store, outbox, clock = a_store(tmp_path), Outbox(engine, POLICY), Clock()
    waiting_results(store, engine, ["pacs"])
    lane = Lane(destination, outbox, SENDER, store, clock=clock)
    lane.deliver_due()
    assert {delivery.state for delivery in outbox.of_exam(1)} == {DeliveryState.WAITING}
    command = [require_dcmtk("storescp"), "-aet", "PACS", "-od", folder, destination.port]
    with running(*command, log=tmp_path / "log", ready=lambda: SENDER.echo(destination).answered):
        clock.forward(POLICY.slow)
        lane.deliver_due()
        assert eventually(lambda: len(list(folder.iterdir())) == len(phantom_objects()))
    assert {delivery.state for delivery in outbox.of_exam(1)} == {DeliveryState.SENT}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (("--refuse",), "AE titles"),
        (("--abort-during",), "no answer"),
        (("--abort-after",), "no answer"),
        (("--sleep-during", "30"), "no answer"),
    ],
)
def test_a_storescp_that_fails_gets_everything_when_it_works_again(
    tmp_path: Path, engine: Engine, fault: tuple[str, ...], message: str
) -> None:
    folder = tmp_path / "pacs"
    folder.mkdir()
    destination = a_destination(a_free_port())
    store, outbox, clock = a_store(tmp_path), Outbox(engine, POLICY), Clock()
    waiting_results(store, engine, ["pacs"])
    impatient = Sender(Dicom(dimse_timeout=1, acse_timeout=5))
    lane = Lane(destination, outbox, impatient, store, clock=clock)
    storescp = [require_dcmtk("storescp"), "-aet", "PACS", "-od", folder]
    there = lambda: "no connection" not in SENDER.echo(destination).message  # noqa: E731
    with running(*storescp, *fault, destination.port, log=tmp_path / "log", ready=there):
        lane.deliver_due()
        tried = [d for d in outbox.of_exam(1) if d.attempts]
        assert tried
        assert all(d.state is DeliveryState.WAITING for d in outbox.of_exam(1))
        assert all(message in (d.message or "") or "abort" in (d.message or "") for d in tried)
    with running(*storescp, destination.port, log=tmp_path / "log", ready=lambda: SENDER.echo(destination).answered):
        clock.forward(POLICY.slow)
        Lane(destination, outbox, SENDER, store, clock=clock).deliver_due()
    assert {d.state for d in outbox.of_exam(1)} == {DeliveryState.SENT}
    assert_same_objects(folder)
