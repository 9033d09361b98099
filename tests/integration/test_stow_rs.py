"""STOW-RS over both databases: what comes in over HTTP is as durable as over the DICOM door."""

import gzip
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from sqlalchemy import Engine
from structlog.testing import capture_logs

from node.intake import Receipt
from node.results.encode import to_bytes
from node.web import stow_json
from tests.builders import altered, compressed
from tests.doors import NO_ROOM, Room, a_room, an_image, phantom_images
from tests.web import SENT, Service, a_service, address, content_type, instances_of, parts_of, related, service, values

__all__ = ["service"]


def test_instances_are_stored_as_over_the_dicom_door(service: Service) -> None:
    answer = service.store(*phantom_images())
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    document = answer.json()
    assert {values(item, "00081155")[0] for item in values(document, "00081199")} == {
        str(image.SOPInstanceUID) for image in phantom_images()
    }
    assert values(document, "00081190") == [f"http://testserver/dicom-web/studies/{SENT}"]
    assert "00081198" not in document
    assert service.room.rows() == (4, 1, 0)
    assert not service.leftovers()
    image = phantom_images()[0]
    kept = service.room.store.root / "instances" / SENT / image.SeriesInstanceUID / f"{image.SOPInstanceUID}.dcm"
    assert kept.read_bytes() == to_bytes(image)


def test_the_response_is_xml_where_that_is_accepted(service: Service) -> None:
    answer = service.store(an_image(), headers={"Accept": "application/dicom+xml"})
    root = ET.fromstring(answer.content)  # noqa: S314 - our own
    assert answer.headers["content-type"] == "application/dicom+xml"
    found = {element.get("keyword") for element in root.iter() if element.tag.endswith("DicomAttribute")}
    assert {"ReferencedSOPSequence", "ReferencedSOPInstanceUID", "RetrieveURL"} <= found


def test_the_same_again_is_a_success_and_stores_nothing(service: Service) -> None:
    first, second = service.store(an_image()), service.store(an_image())
    assert (first.status_code, second.status_code) == (200, 200)
    assert service.room.rows() == (1, 1, 0)


def test_each_instance_is_stored_or_refused_by_itself(service: Service) -> None:
    good = an_image()
    foreign = altered(an_image(), SOPInstanceUID="1.2.3.4", StudyInstanceUID="1.2.3")
    other_class = altered(an_image(), SOPInstanceUID="1.2.3.5", SOPClassUID=EnhancedCTImageStorage)
    deflated = altered(an_image(), SOPInstanceUID="1.2.3.6")
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    body = related([*map(to_bytes, (good, foreign, other_class, deflated)), b"no DICOM at all"])
    answer = service.client.post(f"/dicom-web/studies/{SENT}", content=body, headers={"Content-Type": content_type()})
    assert answer.status_code == 202
    document = answer.json()
    assert [values(item, "00081155")[0] for item in values(document, "00081199")] == [good.SOPInstanceUID]
    failed = {values(item, "00081155")[0]: values(item, "00081197")[0] for item in values(document, "00081198")}
    assert failed == {"1.2.3.4": 0xA900, "1.2.3.5": 0x0122, "1.2.3.6": 0xC122}
    assert [values(item, "00081197")[0] for item in values(document, "0008119A")] == [0xC000]
    assert service.room.rows() == (1, 1, 0)
    assert not service.leftovers()


def test_when_nothing_could_be_stored_the_status_says_so(service: Service) -> None:
    answer = service.store(altered(an_image(), SOPClassUID=EnhancedCTImageStorage))
    assert answer.status_code == 409
    with capture_logs() as lines:
        service.store(altered(an_image(), SOPClassUID=EnhancedCTImageStorage))
    assert any(line["event"] == "instance not stored" and line["reason"] == "0122H" for line in lines)


def test_what_a_foreign_error_says_is_not_logged(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise LookupError("Secret^Anne")

    monkeypatch.setattr("node.intake.catalogued", fail)
    with capture_logs() as lines:
        assert service.store(an_image()).status_code == 409
    assert "LookupError in" in next(line["cause"] for line in lines if line["event"] == "instance not stored")
    assert "Secret" not in str(lines)


def test_a_full_disk_is_told_before_the_body_is_read(tmp_path: Path, engine: Engine) -> None:
    with a_service(a_room(tmp_path, engine, NO_ROOM)) as service:
        answer = service.store(an_image())
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"]
        assert service.room.rows() == (0, 0, 0)


def test_bodies_may_be_chunked_gzipped_or_a_single_file(service: Service) -> None:
    images = phantom_images()

    def pieces(body: bytes, size: int) -> Iterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    chunked = service.client.post(
        "/dicom-web/studies",
        content=pieces(related([to_bytes(images[0])]), 777),
        headers={"Content-Type": content_type()},
    )
    zipped = service.client.post(
        "/dicom-web/studies",
        content=gzip.compress(related([to_bytes(images[1])])),
        headers={"Content-Type": content_type(), "Content-Encoding": "gzip"},
    )
    single = service.client.post(
        "/dicom-web/studies", content=to_bytes(images[2]), headers={"Content-Type": "application/dicom"}
    )
    assert [each.status_code for each in (chunked, zipped, single)] == [200, 200, 200]
    assert service.room.rows() == (3, 1, 0)


def test_an_instance_alone_is_kept_by_a_thread_of_storing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may wait there, for a place for its header or for the database: `/readyz` has the threads of everything else."""
    threads: list[str] = []
    receive = service.room.intake.receive

    def noted(*arguments: Any) -> Receipt:
        threads.append(threading.current_thread().name)
        return receive(*arguments)

    monkeypatch.setattr(service.room.intake, "receive", noted)
    for body, kind in ((related([to_bytes(an_image())]), content_type()), (to_bytes(an_image()), "application/dicom")):
        answer = service.client.post("/dicom-web/studies", content=body, headers={"Content-Type": kind})
        assert answer.status_code == 200
    assert [name.split("_")[0] for name in threads] == ["stow", "stow"]


def test_a_body_that_inflates_beyond_the_bound_is_refused(room: Room) -> None:
    with a_service(room, maximum_body_mb=1) as service:
        bomb = gzip.compress(b"\0" * 50_000_000)
        assert len(bomb) < 1_000_000
        answer = service.client.post(
            "/dicom-web/studies",
            content=bomb,
            headers={"Content-Type": "application/dicom", "Content-Encoding": "gzip"},
        )
        assert answer.status_code == 413
        assert not service.leftovers()


def test_a_request_that_is_none_gets_a_problem_document(service: Service) -> None:
    for headers, body, status in (
        ({"Content-Type": "text/plain"}, b"x", 415),
        ({"Content-Type": ""}, b"x", 415),
        ({"Content-Type": "multipart/related; type=application/dicom"}, b"x", 400),
        ({"Content-Type": content_type()}, b"no part at all", 400),
        ({"Content-Type": content_type(), "Content-Encoding": "br"}, b"x", 415),
        ({"Content-Type": content_type(), "Content-Encoding": "gzip"}, b"not gzip", 400),
        ({"Content-Type": content_type("text/plain")}, related([b"x"], "text/plain"), 415),
        ({"Content-Type": content_type(), "Accept": "text/html"}, b"x", 406),
    ):
        answer = service.client.post("/dicom-web/studies", content=body, headers=headers)
        assert answer.status_code == answer.json()["status"] == status, headers
    assert not service.leftovers()
    # A part that could be read to its end has failed as an instance, although the body broke after it.
    cut = related([b"DICM"])[:-10]
    answer = service.client.post("/dicom-web/studies", content=cut, headers={"Content-Type": content_type()})
    assert answer.status_code == 400
    assert not service.leftovers()


def test_too_many_parts_are_refused(room: Room) -> None:
    with a_service(room, maximum_parts=2) as service:
        assert service.store(*phantom_images()).status_code == 413


def test_what_was_stored_before_the_body_broke_is_told(service: Service) -> None:
    body = related([to_bytes(an_image()), to_bytes(an_image())])[:-2000]
    answer = service.client.post("/dicom-web/studies", content=body, headers={"Content-Type": content_type()})
    assert answer.status_code == 202
    assert len(values(answer.json(), "00081199")) == len(values(answer.json(), "0008119A")) == 1
    assert not service.leftovers()


@pytest.mark.parametrize("syntax", [None, JPEG2000Lossless, RLELossless])
def test_data_sets_may_come_as_json_with_bulk_data(service: Service, syntax: Any) -> None:
    image = compressed(phantom_images()[0], syntax) if syntax else phantom_images()[0]
    model = json.loads(image.to_json(bulk_data_threshold=10**9))
    kinds = {None: "application/octet-stream", JPEG2000Lossless: "image/jp2", RLELossless: "image/dicom-rle"}
    if syntax:
        [pixels] = generate_frames(image.PixelData, number_of_frames=1)
        kind = f"{kinds[syntax]}; transfer-syntax={syntax}"
    else:
        pixels, kind = image.PixelData, kinds[None]
    model["7FE00010"] = {"vr": "OW", "BulkDataURI": "http://x/pixels"}
    model = {tag: value for tag, value in model.items() if not tag.startswith("0002")}
    body = related(
        [
            ({"Content-Type": "application/dicom+json"}, json.dumps([model]).encode()),
            ({"Content-Type": kind, "Content-Location": "http://x/pixels"}, pixels),
        ]
    )
    answer = service.client.post(
        "/dicom-web/studies", content=body, headers={"Content-Type": content_type("application/dicom+json")}
    )
    assert answer.status_code == 200, answer.text
    [stored] = instances_of(
        service.get(address(image), 'multipart/related; type="application/dicom"; transfer-syntax=*')
    )
    assert stored.file_meta.TransferSyntaxUID == (syntax or ExplicitVRLittleEndian)
    assert np.array_equal(stored.pixel_array, phantom_images()[0].pixel_array)
    assert stored.PatientName == image.PatientName
    assert not service.leftovers()


def test_a_json_document_that_is_no_data_set_fails_alone(service: Service) -> None:
    no_bulk = b'{"7FE00010":{"vr":"OW","BulkDataURI":"nowhere"}}'
    for document in (b"{", b"[1]", b'[{"00080018":{"vr":"UI","Value":["1.2"]}}]', b"[" * 100_000, no_bulk):
        body = related([({"Content-Type": "application/dicom+json"}, document)])
        answer = service.client.post(
            "/dicom-web/studies", content=body, headers={"Content-Type": content_type("application/dicom+json")}
        )
        assert answer.status_code == 409
        assert values(answer.json(), "0008119A")
    assert not service.leftovers()


def in_colour() -> Dataset:
    """Return a red image as JPEG, which has luminance and chrominance."""
    image = an_image()
    for keyword in ("WindowCenter", "WindowWidth", "PixelPaddingValue", "RescaleSlope", "RescaleIntercept"):
        image.pop(keyword, None)
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    image.Rows = image.Columns = 16
    image.SamplesPerPixel, image.PlanarConfiguration, image.PhotometricInterpretation = 3, 0, "YBR_FULL_422"
    image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
    image.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    _, jpeg = cv2.imencode(".jpg", np.full((16, 16, 3), (0, 0, 255), np.uint8))
    image.PixelData = encapsulate([jpeg.tobytes()])
    image["PixelData"].VR = "OB"
    return image


def test_a_name_is_found_by_each_of_its_component_groups(service: Service) -> None:
    image = an_image(SpecificCharacterSet=["", "ISO 2022 IR 87"])
    image.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    service.store(image)
    found = (
        "yamada^TAROU",
        "Yamada*",
        "山田^太郎",
        "山田*",
        "*太郎",
        "山?^太郎",
        "やまだ^たろう",
        "やまだ*",
        "*だ^たろう",
    )
    for name in (*found, "Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada^Tarou=*", "*=山田*"):
        assert len(service.get("/studies", PatientName=name).json()) == 1, name
        service.worklist.tick()
        assert len(service.get("/workitems", PatientName=name).json()) == 1, name
    for name in ("Yamada", "Tarou", "山田", "田*", "太郎", "やまだ", "山田^太郎=*"):
        assert service.get("/studies", PatientName=name).json() == [], name


def test_frames_are_not_decoded_into_other_colours_than_the_metadata_say(service: Service) -> None:
    image = in_colour()
    assert service.store(image).status_code == 200
    frame = f"{address(image)}/frames/1"
    for where in (frame, f"{address(image)}/bulkdata/7FE00010"):
        refused = service.get(where, 'multipart/related; type="application/octet-stream"')
        assert (refused.status_code, refused.headers["content-type"]) == (406, "application/problem+json")
    for form in ("image/jpeg", "application/octet-stream; transfer-syntax=*"):
        [(kind, data)] = parts_of(service.get(frame, f"multipart/related; type={form}"))
        assert kind == f"image/jpeg; transfer-syntax={JPEGBaseline8Bit}"
        assert data.rstrip(b"\0").endswith(b"\xff\xd9")
    [native] = instances_of(service.get(address(image), 'multipart/related; type="application/dicom"'))
    assert native.PhotometricInterpretation == "RGB"
    assert native.PixelData[:3] == native.pixel_array[0, 0].tobytes()


def as_json(service: Service, *documents: bytes) -> Any:
    body = related([({"Content-Type": "application/dicom+json"}, each) for each in documents])
    return service.client.post(
        "/dicom-web/studies", content=body, headers={"Content-Type": content_type("application/dicom+json")}
    )


def test_json_documents_share_what_a_request_may_have_of_them(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow_json, "LARGEST_DOCUMENTS", 100)
    document = b"[1" + b" " * 37 + b"]"
    assert as_json(service, document, document).status_code == 409
    answer = as_json(service, document, document, document)
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
    monkeypatch.setattr(stow_json, "LARGEST_DOCUMENT", 39)
    assert as_json(service, document).status_code == 413
    assert not service.leftovers()


def test_too_many_data_sets_in_json_documents_are_refused(room: Room) -> None:
    with a_service(room, maximum_parts=3) as service:
        assert as_json(service, b"[1,2]", b"[3]").status_code == 409
        assert as_json(service, b"[1,2]", b"[3,4]").status_code == 413
        assert not service.leftovers()
