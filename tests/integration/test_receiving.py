"""The DICOM door with real associations: who may call, what a sender is told, and what a cut connection costs."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from threading import Barrier, Thread

import pytest
from pydicom import Dataset
from pydicom.uid import (
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
    RTPlanStorage,
)
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from sqlalchemy import Engine
from structlog.testing import capture_logs

from config.settings import Caller
from node.scp import StorageSCP
from node.sop_classes import LOSSLESS, TRANSFER_SYNTAXES
from tests.builders import compressed
from tests.doors import NO_ROOM, Room, a_room, an_image, an_open_door, open_files, phantom_images
from tests.peers import eventually

pytestmark = pytest.mark.sqlite_alone

MAMMOGRAMS = DigitalMammographyXRayImageStorageForPresentation


@contextmanager
def an_association(
    door: StorageSCP, *, calling: str = "MODALITY", called: str = "MAMMONODE", syntaxes: tuple[UID, ...] = ()
) -> Iterator[Association]:
    """Ask for an association as a modality; it may be rejected."""
    entity = AE(calling)
    entity.add_requested_context(Verification)
    entity.add_requested_context(phantom_images()[0].SOPClassUID, list(syntaxes or (ExplicitVRLittleEndian,)))
    association = entity.associate("127.0.0.1", door.port, ae_title=called)
    yield association
    if association.is_established:
        association.release()


def send(association: Association, image: Dataset) -> int:
    return int(association.send_c_store(image).Status)


def test_a_known_caller_is_answered_and_its_images_are_stored(room: Room, door: StorageSCP) -> None:
    with an_association(door) as association:
        assert association.send_c_echo().Status == 0x0000
        assert [send(association, image) for image in phantom_images()] == [0, 0, 0, 0]
        assert (association.acceptor.implementation_version_name or "").startswith("MAMMONODE_")
        assert association.acceptor.maximum_length == 131072
    assert room.rows() == (4, 1, 0)
    assert not [file for file in room.files() if file.startswith("incoming")]


def test_an_unknown_caller_is_refused_and_the_log_says_how_to_allow_it(door: StorageSCP) -> None:
    with capture_logs() as lines, an_association(door, calling="STRANGER") as association:
        assert association.is_rejected
        assert association.acceptor.primitive
        assert association.acceptor.primitive.diagnostic == 0x03
        assert eventually(lambda: len(lines) == 1)
    [line] = lines
    assert 'callers in [dicom]: { ae_title = "STRANGER", address = "127.0.0.1" }' in line["remedy"]


def test_a_known_caller_at_another_address_is_refused(room: Room) -> None:
    elsewhere = Caller(ae_title="MODALITY", address="192.0.2.1")
    with an_open_door(room, callers=(elsewhere,)) as door, an_association(door) as association:
        assert association.is_rejected
    here = Caller(ae_title="MODALITY", address="127.0.0.1")
    with an_open_door(room, callers=(elsewhere, here)) as door, an_association(door) as association:
        assert association.is_established


def test_a_caller_that_calls_somebody_else_is_refused_unless_that_is_allowed(room: Room) -> None:
    with an_open_door(room) as door, an_association(door, called="OTHER") as association:
        assert association.is_rejected
        assert association.acceptor.primitive
        assert association.acceptor.primitive.diagnostic == 0x07
    with an_open_door(room, require_called_ae=False) as door, an_association(door, called="OTHER") as association:
        assert association.is_established


def test_everybody_may_call_where_the_settings_say_so(room: Room) -> None:
    with (
        an_open_door(room, callers=(), allow_unknown_callers=True) as door,
        an_association(door, calling="ANYBODY") as association,
    ):
        assert send(association, an_image()) == 0


def test_more_associations_than_allowed_are_refused_for_now(room: Room) -> None:
    with an_open_door(room, maximum_associations=1) as door, an_association(door) as first:
        assert first.is_established
        with capture_logs() as lines, an_association(door) as second:
            assert second.is_rejected
            assert second.acceptor.primitive
            assert second.acceptor.primitive.result == 0x02  # transient
            assert eventually(lambda: any(line["log_level"] == "warning" for line in lines))
        refused = [line["event"] for line in lines if line["log_level"] == "warning"]
        assert refused == ["association refused: too many at once"]


def test_a_disk_that_is_too_full_is_told_as_out_of_resources(tmp_path: Path, engine: Engine) -> None:
    room = a_room(tmp_path, engine, NO_ROOM)
    with an_open_door(room) as door, an_association(door) as association:
        answer = association.send_c_store(an_image())
        assert answer.Status == 0xA700
        assert "disk" in answer.ErrorComment
    assert room.files() == set()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, 0xA900),
        ({"SOPInstanceUID": "1.2.3"}, 0x0117),
        ({"StudyInstanceUID": None}, 0xC000),
        ({"SeriesInstanceUID": None}, 0xC000),
        ({"SOPClassUID": None}, 0xC000),
    ],
)
def test_what_is_wrong_with_an_instance_has_its_status_and_nothing_is_kept(
    room: Room,
    door: StorageSCP,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str | None],
    status: int,
) -> None:
    # Sent from a file in chunks, the command's UIDs come from its File Meta Information, which stays as it was.
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)
    path = tmp_path / "odd.dcm"
    image = an_image(**change)
    image.preamble = bytes(128)
    image.save_as(path, enforce_file_format=False)
    with an_association(door) as association:
        assert association.send_c_store(path).Status == status
        assert send_whole(monkeypatch, association, an_image(SOPInstanceUID="1.2.9")) == 0
    assert room.rows() == (1, 1, 0)
    assert len(room.files()) == 1


def send_whole(monkeypatch: pytest.MonkeyPatch, association: Association, image: Dataset) -> int:
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", False)
    return send(association, image)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_malformed_instance_uid_is_told_so(room: Room, door: StorageSCP) -> None:
    with an_association(door) as association:
        assert send(association, an_image(SOPInstanceUID="1.2.abc")) == 0x0117
    assert room.files() == set()


def test_garbage_instead_of_a_data_set_is_not_understood(
    room: Room, door: StorageSCP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "garbage.dcm"
    an_image().save_as(path, enforce_file_format=True)
    content = path.read_bytes()
    start = content.index(b"\x08\x00\x05\x00")  # Specific Character Set, the first element of the data set
    path.write_bytes(content[:start] + b"\xff" * 5000)
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)
    with an_association(door) as association:
        assert association.send_c_store(path).Status == 0xC000
    assert room.files() == set()


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, RLELossless, ImplicitVRLittleEndian])
def test_a_sender_that_offers_only_one_encoding_is_accepted(room: Room, door: StorageSCP, syntax: UID) -> None:
    image = an_image()
    if syntax.is_compressed:
        image = compressed(image, syntax)
    with an_association(door, syntaxes=(syntax,)) as association:
        assert send(association, image) == 0
    [kept] = room.files()
    assert syntax.encode() in room.store.resolve(kept).read_bytes()[:1000]


def test_of_several_encodings_uncompressed_comes_first_and_lossy_last(door: StorageSCP) -> None:
    offered = (JPEGBaseline8Bit, *reversed(LOSSLESS), ImplicitVRLittleEndian, ExplicitVRLittleEndian)
    while len(offered) > 1:
        with an_association(door, syntaxes=offered) as association:
            [taken] = [cx for cx in association.accepted_contexts if cx.abstract_syntax != Verification]
        assert taken.transfer_syntax[0] == offered[-1]
        offered = offered[:-1] if len(offered) > 7 else (JPEGBaseline8Bit,)


def test_a_class_that_cannot_come_in_any_encoding_is_told_as_a_warning(door: StorageSCP) -> None:
    with capture_logs() as lines, an_association(door, syntaxes=(ExplicitVRBigEndian,)):
        assert eventually(lambda: "encodings rejected" in [line["event"] for line in lines])
    [line] = [line for line in lines if line["log_level"] != "debug"]
    assert (line["event"], line["log_level"]) == ("encodings rejected", "warning")
    [context] = line["contexts"]
    assert "Digital Mammography X-Ray" in context
    assert "Big Endian" in context


@pytest.mark.parametrize(
    ("contexts", "told"),
    [
        ([(MAMMOGRAMS, ExplicitVRBigEndian), (MAMMOGRAMS, ExplicitVRLittleEndian)], []),
        ([(MAMMOGRAMS, ExplicitVRLittleEndian), (RTPlanStorage, ExplicitVRLittleEndian)], ["info"]),
    ],
    ids=["another encoding is taken", "class not taken"],
)
def test_what_costs_no_mammogram_is_no_warning(
    door: StorageSCP, contexts: list[tuple[UID, UID]], told: list[str]
) -> None:
    proposed = [build_context(*each) for each in contexts]
    with capture_logs() as lines:
        association = AE("MODALITY").associate("127.0.0.1", door.port, contexts=proposed, ae_title="MAMMONODE")
        assert len(association.rejected_contexts) == 1
        association.release()
    assert [line["log_level"] for line in lines if line["log_level"] != "debug"] == told


def test_every_sop_class_proposes_no_more_than_it_can_decode() -> None:
    assert all(
        syntaxes[:2] == (ExplicitVRLittleEndian, ImplicitVRLittleEndian) for syntaxes in TRANSFER_SYNTAXES.values()
    )
    assert all(UID(uid).is_transfer_syntax for syntaxes in TRANSFER_SYNTAXES.values() for uid in syntaxes)


@pytest.mark.parametrize("abort", [True, False])
def test_a_cut_association_loses_only_the_instance_that_was_being_sent(
    room: Room,
    door: StorageSCP,
    abort: bool,  # noqa: FBT001
) -> None:
    first, second = phantom_images()[:2]
    with capture_logs() as lines, an_association(door) as association:
        assert send(association, first) == 0
        send_half(association, second)
        assert eventually(lambda: any(file.startswith("incoming") for file in room.files()))
        if abort:
            association.abort()
        else:
            association.dul.socket.socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        assert eventually(lambda: "association cut in the middle of an instance" in [line["event"] for line in lines])
        assert len(room.files()) == 1
        assert open_files(room.store.incoming) == []
    assert room.rows() == (1, 1, 0)
    assert [line["instance"] for line in lines if line["log_level"] == "warning"] == [second.SOPInstanceUID]
    with an_association(door) as association:
        assert send(association, second) == 0


def send_half(association: Association, image: Dataset) -> None:
    """Send the first half of the fragments of a C-STORE request."""
    request = C_STORE()
    request.MessageID = 7
    request.AffectedSOPClassUID = image.SOPClassUID
    request.AffectedSOPInstanceUID = image.SOPInstanceUID
    request.Priority = 0
    encoded = encode(deepcopy(image), is_implicit_vr=False, is_little_endian=True)
    assert encoded
    request.DataSet = BytesIO(encoded)
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    [context] = [cx for cx in association.accepted_contexts if cx.abstract_syntax == image.SOPClassUID]
    fragments = list(message.encode_msg(context.context_id or 0, 16384))
    for fragment in fragments[: len(fragments) // 2]:
        association.dul.send_pdu(fragment)


def test_the_same_instance_from_several_senders_at_once_is_kept_once(room: Room, door: StorageSCP) -> None:
    statuses: list[int] = []
    together = Barrier(4)

    def modality() -> None:
        with an_association(door) as association:
            together.wait()
            statuses.append(send(association, an_image()))

    senders = [Thread(target=modality) for _ in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert statuses == [0, 0, 0, 0]
    assert room.rows() == (1, 1, 0)
    assert len(room.files()) == 1


def test_a_door_that_closes_lets_the_association_end_and_takes_no_new_one(room: Room) -> None:
    with an_open_door(room) as door, an_association(door) as association:
        closing = Thread(target=door.stop, args=(20,))
        port = door.port
        closing.start()
        assert eventually(lambda: refuses(port))
        assert send(association, an_image()) == 0
        association.release()
        closing.join()
        door.start()  # for the fixture to stop


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_silent_association_is_given_up_after_the_network_timeout(room: Room) -> None:
    with an_open_door(room, network_timeout=0.5) as door, an_association(door) as association:
        assert association.accepted_contexts  # it may be over by now
        assert eventually(lambda: door.associations == 0)
