"""The intake on both databases: durable before success, nothing kept of a failure, and rule R6."""

import errno
import gc
import hashlib
import os
import re
import sys
import threading
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import Comprehensive3DSRStorage, ImplicitVRLittleEndian, RLELossless
from sqlalchemy import Engine, event
from sqlalchemy.exc import IntegrityError, OperationalError
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from node import errors, intake, records
from node.digests import digest, is_among
from node.intake import Announced, Outcome, Receipt
from node.records import Places, dataset_offset, read_header
from storage.database import reading
from storage.errors import DatabaseUnavailable, DiskLow
from storage.exams import ExamRecord, exam_of_study
from storage.index import conflicts_of_instance, find_instance
from tests.builders import compressed
from tests.doors import NO_ROOM, ORIGIN, PHANTOM_NAME, Room, a_room, an_image, phantom_images


def exam_of(room: Room, uid: str) -> ExamRecord | None:
    with reading(room.engine) as connection:
        record = find_instance(connection, uid)
        assert record
        return exam_of_study(connection, record.patient, record.study.uid)


def test_an_image_is_in_its_place_indexed_and_has_opened_its_exam(room: Room) -> None:
    image = an_image()
    temp = room.incoming(image)
    before = temp.read_bytes()
    receipt = room.intake.receive(temp, Announced(image.SOPClassUID, image.SOPInstanceUID), ORIGIN)
    path = f"instances/{image.StudyInstanceUID}/{image.SeriesInstanceUID}/{image.SOPInstanceUID}.dcm"
    assert room.files() == {path}
    assert room.store.resolve(path).read_bytes() == before
    with reading(room.engine) as connection:
        record = find_instance(connection, image.SOPInstanceUID)
    assert record
    assert (record.path, record.size, record.calling_ae, record.origin) == (path, len(before), "MODALITY", "192.0.2.7")
    assert (record.laterality, record.view_position, record.usable) == (image.ImageLaterality, image.ViewPosition, True)
    assert record.patient.name == "PHANTOM^FOUR VIEWS"
    exam = exam_of(room, image.SOPInstanceUID)
    assert exam
    assert receipt == Receipt(Outcome.STORED, image.SOPInstanceUID, exam.uid)


def test_four_images_of_a_study_are_one_exam(room: Room) -> None:
    receipts = [room.receive(image) for image in phantom_images()]
    assert len({receipt.exam_uid for receipt in receipts}) == 1
    assert room.rows() == (4, 1, 0)


def test_a_document_opens_no_exam_and_does_not_touch_one(room: Room) -> None:
    document = an_image(SOPClassUID=Comprehensive3DSRStorage, SOPInstanceUID="1.2.99", Modality="SR", Rows=None)
    assert room.receive(document).exam_uid is None
    assert room.rows() == (1, 0, 0)
    room.receive(an_image())
    before = exam_of(room, "1.2.99")
    document.SOPInstanceUID = "1.2.100"
    receipt = room.receive(document)
    assert before
    assert receipt.exam_uid == before.uid
    assert exam_of(room, "1.2.100") == before


def test_our_own_object_that_comes_back_is_kept_and_nothing_else(room: Room) -> None:
    report = an_image(
        SOPClassUID=Comprehensive3DSRStorage,
        Modality="SR",
        Manufacturer="Mammonode",
        ManufacturerModelName="Mammonode",
    )
    assert room.receive(report).outcome is Outcome.OWN
    assert room.rows() == (1, 0, 0)


@pytest.mark.parametrize(
    ("changes", "announced", "error"),
    [
        ({"StudyInstanceUID": None}, None, errors.UIDsMissing),
        ({"SeriesInstanceUID": ""}, None, errors.UIDsMissing),
        ({"SOPInstanceUID": None}, None, errors.UIDsMissing),
        ({"StudyInstanceUID": "../../etc"}, None, errors.UIDsMissing),
        ({"SOPInstanceUID": "1.2.abc"}, None, errors.InstanceUIDInvalid),
        ({"SOPInstanceUID": "../../../x"}, None, errors.InstanceUIDInvalid),
        ({"SOPInstanceUID": ["1.2", "1.3"]}, None, errors.InstanceUIDInvalid),
        ({}, Announced("1.2.840.10008.5.1.4.1.1.1.2", "1.2.3"), errors.InstanceUIDInvalid),
        ({}, Announced("1.2.840.10008.5.1.4.1.1.7", ""), errors.ClassMismatch),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_an_instance_that_is_not_what_it_should_be_is_refused_and_nothing_kept(
    room: Room, changes: dict[str, object], announced: Announced | None, error: type[Exception]
) -> None:
    image = an_image()
    if announced and not announced.instance_uid:
        announced = Announced(announced.sop_class_uid, image.SOPInstanceUID)
    for keyword, value in changes.items():
        setattr(image, keyword, value)
        if value is None:
            delattr(image, keyword)
    with capture_logs() as lines, pytest.raises(error):
        room.receive(image, announced)
    assert [line["event"] for line in lines] == ["instance refused"]
    assert room.files() == set()
    assert room.rows() == (0, 0, 0)


@pytest.mark.parametrize("content", [b"", b"not DICOM at all", bytes(128) + b"DICM" + b"\xff" * 99])
def test_a_file_that_is_not_dicom_is_refused_and_nothing_kept(room: Room, content: bytes) -> None:
    temp = room.store.incoming / "x"
    temp.write_bytes(content)
    with pytest.raises((errors.UnparsableDataset, errors.UIDsMissing)):
        room.intake.receive(temp, None, ORIGIN)
    assert room.files() == set()


def test_a_disk_that_is_too_full_takes_nothing(tmp_path: Path, engine: Engine) -> None:
    room = a_room(tmp_path, engine, NO_ROOM)
    with pytest.raises(DiskLow):
        room.receive(an_image())
    assert room.files() == set()


@pytest.fixture
def commits_fail(engine: Engine) -> Iterator[threading.Event]:
    """Commits fail while the event is set."""
    failing = threading.Event()

    def fail(_: object) -> None:
        if failing.is_set():
            raise OperationalError("COMMIT", {}, Exception("the server went away"))

    event.listen(engine, "commit", fail)
    failing.set()
    yield failing
    failing.clear()
    event.remove(engine, "commit", fail)


def test_a_commit_that_fails_is_no_success_and_the_next_attempt_is_one(
    room: Room, commits_fail: threading.Event
) -> None:
    image = an_image()
    with pytest.raises(DatabaseUnavailable):
        room.receive(image)
    assert not [file for file in room.files() if file.startswith("incoming")]
    commits_fail.clear()
    assert room.rows() == (0, 0, 0)
    assert room.receive(image).outcome is Outcome.STORED
    assert len(room.files()) == 1
    assert room.rows() == (1, 1, 0)


def test_what_a_foreign_error_says_is_not_logged(room: Room, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise IntegrityError("INSERT", {"name": "Secret^Anne"}, Exception("Key (name)=(Secret^Anne) is there"))

    monkeypatch.setattr("node.intake.catalogued", fail)
    with capture_logs() as lines, pytest.raises(IntegrityError):
        room.receive(an_image())
    [line] = lines
    assert line["event"] == "instance refused"
    assert re.fullmatch(r"IntegrityError in test_intake.py:\d+, from intake.py:\d+", line["cause"])


def test_the_same_instance_again_changes_nothing_however_it_is_encoded(room: Room) -> None:
    image = an_image()
    room.receive(image)
    files, rows, exam = room.files(), room.rows(), exam_of(room, image.SOPInstanceUID)
    implicit = deepcopy(image)
    implicit.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    for again in (image, implicit, compressed(image, RLELossless)):
        assert room.receive(again).outcome is Outcome.KNOWN
    assert (room.files(), room.rows(), exam_of(room, image.SOPInstanceUID)) == (files, rows, exam)


def test_digests_of_older_versions_are_known(tmp_path: Path) -> None:
    file = tmp_path / "image.dcm"
    an_image().save_as(file, enforce_file_format=True)
    offset = dataset_offset(read_header(file))
    own, old = digest(file, offset), hashlib.sha256(file.read_bytes()[offset:]).hexdigest()
    assert is_among({own}, file, own)
    assert is_among({old}, file, own)
    assert not is_among({"ef" * 32, digest(file, 0)}, file, own)


def test_a_different_instance_with_the_same_uid_is_set_aside_and_the_first_stays_in_force(room: Room) -> None:
    image = an_image()
    room.receive(image)
    before = {file: room.store.resolve(file).read_bytes() for file in room.files()}
    other = an_image(KVP="31")
    assert room.receive(other).outcome is Outcome.CONFLICT
    assert all(room.store.resolve(file).read_bytes() == content for file, content in before.items())
    with reading(room.engine) as connection:
        [conflict] = conflicts_of_instance(connection, image.SOPInstanceUID)
    assert conflict.differences == ("KVP",)
    assert not conflict.identity_changed
    assert dcmread(room.store.resolve(conflict.path)) == other
    exam = exam_of(room, image.SOPInstanceUID)
    assert exam
    assert not exam.held
    assert room.receive(other).outcome is Outcome.KNOWN
    assert room.rows() == (1, 1, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"PatientID": "SOMEBODY"},
        {"IssuerOfPatientID": "ELSEWHERE"},
        {"PatientName": "OTHER^NAME"},
        {"PatientBirthDate": "19700101"},
        {"StudyInstanceUID": "1.2.3"},
        {"SeriesInstanceUID": "1.2.4"},
    ],
)
def test_a_changed_identity_stops_the_deliveries_of_the_exam_loudly(room: Room, change: dict[str, str]) -> None:
    image = an_image()
    room.receive(image)
    with capture_logs() as lines:
        receipt = room.receive(an_image(**change))
    assert receipt.outcome is Outcome.CONFLICT
    exam = exam_of(room, image.SOPInstanceUID)
    assert exam
    assert exam.held
    assert [(line["log_level"], line["exam"]) for line in lines] == [("critical", exam.uid)]
    assert room.rows() == (1, 1, 1)


def test_two_associations_that_send_one_instance_at_once_keep_it_once(room: Room) -> None:
    temps = [room.incoming(an_image()) for _ in range(6)]
    outcomes: list[Outcome] = []
    together = threading.Barrier(len(temps))

    def receive(temp: Path) -> None:
        together.wait()
        outcomes.append(room.intake.receive(temp, None, ORIGIN).outcome)

    threads = [threading.Thread(target=receive, args=(temp,)) for temp in temps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [Outcome.KNOWN] * 5 + [Outcome.STORED]
    assert len(room.files()) == 1
    assert room.rows() == (1, 1, 0)


def test_values_before_the_pixels_that_nobody_asks_for_are_not_in_memory(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "LONGEST_VALUE", 1000)
    image = an_image()
    image.add_new(0x7E011010, "OB", b"\1" * 1002)  # where some tomosynthesis has its pixels
    image.add_new(0x7E011011, "OB", b"\1" * 1000)
    header = read_header(room.incoming(image))
    assert 0x7E011010 not in header
    assert 0x7E011011 in header
    assert room.receive(image).outcome is Outcome.STORED


def test_a_file_that_does_not_say_how_it_is_encoded_is_refused(room: Room) -> None:
    image, temp = an_image(), room.store.incoming / "without.dcm"
    image.preamble = bytes(128)
    del image.file_meta.TransferSyntaxUID
    dcmwrite(temp, image, implicit_vr=False, little_endian=True, enforce_file_format=False)
    assert read_header(temp).Rows == image.Rows
    with pytest.raises(errors.UnparsableDataset, match="no Transfer Syntax UID"):
        room.intake.receive(temp, None, ORIGIN)
    assert (room.rows(), room.files()) == ((0, 0, 0), set())


def test_values_that_are_too_long_in_a_sequence_without_a_length_are_passed_over(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "LONGEST_VALUE", 1000)
    monkeypatch.setattr(records, "LARGEST_HEADER", 200_000)
    monkeypatch.setattr(records, "OF_A_READ", 0)
    image, frame = an_image(), Dataset()
    frame.add_new(0x7E011012, "OB", b"\1" * 200_000)
    image.add_new(0x7E011010, "SQ", [frame])
    image[0x7E011010].is_undefined_length = True
    header = read_header(room.incoming(image))
    assert header[0x7E011010][0].get(0x7E011012).value == b""
    assert header.Rows == image.Rows


def test_sequences_have_one_bound_together_and_private_ones_are_left_out_first(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "LONGEST_VALUE", 1000)
    image = an_image()
    for tag in (0x00091010, 0x00091011):
        image.add_new(tag, "SQ", [Dataset()] * 100)
    header = read_header(room.incoming(image))
    assert 0x00091010 in header
    assert 0x00091011 not in header
    assert "ViewCodeSequence" in header


@pytest.mark.parametrize("budget", [{"LARGEST_HEADER": 1000, "OF_A_READ": 0}, {"OF_A_READ": 8 << 20}])
def test_a_header_beyond_all_bounds_is_refused_and_not_read_into_memory(
    room: Room, monkeypatch: pytest.MonkeyPatch, budget: dict[str, int]
) -> None:
    for name, value in budget.items():
        monkeypatch.setattr(records, name, value)
    image = an_image()
    with pytest.raises(errors.UnparsableDataset):
        room.receive(image)
    assert room.rows() == (0, 0, 0)
    assert room.files() == set()


def test_a_large_header_has_a_place_until_it_is_forgotten(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    path, places = room.incoming(an_image()), Places(1, patience=0.01)
    monkeypatch.setattr(records, "LARGE_HEADER", 1000)
    header = read_header(path, places)
    with pytest.raises(errors.TooManyLargeHeaders):
        read_header(path, places)
    del header
    monkeypatch.setattr(records, "LARGEST_HEADER", 1500)
    for _ in range(2):
        with pytest.raises(errors.UnparsableDataset):
            read_header(path, places)
    monkeypatch.undo()
    places.take()
    assert read_header(path, places)  # which is small


def test_a_place_may_be_left_at_any_point_of_taking_or_leaving_one() -> None:
    """As where the garbage collector forgets a header: it does so in whichever thread is at work, in the middle of anything."""
    places, forgets = Places(1, patience=5), list[bool]()

    def at_any_point(*_: Any) -> Any:
        if not forgets:
            forgets.append(True)
            places.leave()
            forgets.clear()
        return at_any_point

    def take_and_leave() -> None:
        sys.settrace(at_any_point)
        places.take()
        places.leave()

    thread = threading.Thread(target=take_and_leave, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


def test_a_disk_that_fails_keeps_no_place(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    places = Places(1, patience=0)
    monkeypatch.setattr(records, "LARGE_HEADER", 1000)
    monkeypatch.setattr(intake, "DOORS", places)
    monkeypatch.setattr(room.store, "flush", fail)
    gc.disable()
    try:
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            room.receive(an_image())
        places.take()
    finally:
        gc.enable()


def test_an_instance_whose_large_header_has_no_place_may_be_sent_again(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = an_image()
    with monkeypatch.context() as crowded:
        crowded.setattr(records, "LARGE_HEADER", 1000)
        crowded.setattr(intake, "DOORS", Places(0, patience=0))
        with pytest.raises(errors.TooManyLargeHeaders):
            room.receive(image)
    assert (room.rows(), room.files()) == ((0, 0, 0), set())
    assert room.receive(image).outcome is Outcome.STORED


def test_headers_that_no_database_would_take_are_kept_all_the_same(room: Room) -> None:
    image = an_image(SeriesNumber="999999999999", InstanceNumber="999999999999", StudyDescription="nul\0here")
    assert room.receive(image).outcome is Outcome.STORED


def test_each_line_has_association_instance_and_exam_and_no_line_a_name(room: Room) -> None:
    image = an_image()
    with capture_logs([merge_contextvars]) as lines:
        receipt = room.receive(image)
        room.receive(image)
        room.receive(an_image(KVP="31"))
        room.receive(an_image(PatientName="OTHER^NAME"))
        with pytest.raises(errors.UIDsMissing):
            room.receive(an_image(SeriesInstanceUID=None))
    assert [line["association"] for line in lines] == [ORIGIN.association] * 5
    assert {(line["instance"], line["exam"]) for line in lines[:4]} == {(image.SOPInstanceUID, receipt.exam_uid)}
    assert PHANTOM_NAME not in str(lines)
    assert "OTHER" not in str(lines)
    assert image.PatientID not in str(lines)
