"""STOW-RS, QIDO-RS and WADO-RS over both databases: what comes in over HTTP is as durable, and found, and given back."""

import gzip
import json
from collections.abc import Iterator
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from sqlalchemy import Engine, delete
from structlog.testing import capture_logs

from ai.pixels import presentation_values
from node.catalogue import Cataloguer
from node.results.encode import to_bytes
from node.web import stow_json
from storage.database import writing
from storage.files import FolderStore
from storage.removals import remove_strays
from storage.tables import catalogue, catalogue_studies
from tests.builders import altered, compressed
from tests.doors import NO_ROOM, Room, a_room, an_image, phantom_images
from tests.records import NOON
from tests.web import Service, a_kept_result, a_service, content_type, instances_of, parts_of, related, values

SERIES, INSTANCE = "0020000E", "00080018"
STUDY = str(phantom_images()[0].StudyInstanceUID)


@pytest.fixture
def service(room: Room) -> Iterator[Service]:
    with a_service(room) as opened:
        yield opened


def address(image: Dataset) -> str:
    return f"/studies/{image.StudyInstanceUID}/series/{image.SeriesInstanceUID}/instances/{image.SOPInstanceUID}"


def uids(answer: Any, tag: str = INSTANCE) -> list[str]:
    return [values(each, tag)[0] for each in answer.json()]


# --- storing ---


def test_instances_are_stored_as_over_the_dicom_door(service: Service) -> None:
    answer = service.store(*phantom_images())
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    document = answer.json()
    assert {values(item, "00081155")[0] for item in values(document, "00081199")} == {
        str(image.SOPInstanceUID) for image in phantom_images()
    }
    assert values(document, "00081190") == [f"http://testserver/dicom-web/studies/{STUDY}"]
    assert "00081198" not in document
    assert service.room.rows() == (4, 1, 0)
    assert not service.leftovers()
    image = phantom_images()[0]
    kept = service.room.store.root / "instances" / STUDY / image.SeriesInstanceUID / f"{image.SOPInstanceUID}.dcm"
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
    answer = service.client.post(f"/dicom-web/studies/{STUDY}", content=body, headers={"Content-Type": content_type()})
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


# --- searching ---


def test_studies_series_and_instances_are_found_with_what_the_standard_asks_for(service: Service) -> None:
    service.store(*phantom_images())
    [study] = service.get("/studies").json()
    image = phantom_images()[0]
    assert values(study, "0020000D") == [STUDY]
    assert values(study, "00100010") == [{"Alphabetic": str(image.PatientName)}]
    assert values(study, "00080061") == ["MG"]
    assert (values(study, "00201206"), values(study, "00201208")) == ([4], [4])
    assert values(study, "00081190") == [f"http://testserver/dicom-web/studies/{STUDY}"]
    series = service.get(f"/studies/{STUDY}/series")
    assert set(uids(series, SERIES)) == {str(each.SeriesInstanceUID) for each in phantom_images()}
    assert all(values(each, "00201209") == [1] for each in series.json())
    one = service.get(f"/studies/{STUDY}/series/{image.SeriesInstanceUID}/instances")
    assert uids(one) == [image.SOPInstanceUID]
    [found] = one.json()
    assert (values(found, "00280010"), values(found, "00280011")) == ([image.Rows], [image.Columns])
    assert sorted(uids(service.get("/instances"))) == sorted(str(each.SOPInstanceUID) for each in phantom_images())


def test_a_search_is_matched_as_the_standard_says(service: Service) -> None:
    name = str(phantom_images()[0].PatientName)
    service.store(
        an_image(StudyDate="20260110", StudyTime="1015", AccessionNumber="ACC[1]", StudyDescription="50% dense")
    )
    own = STUDY
    found = {
        **dict.fromkeys(["PatientName=" + name, "PatientName=" + name.lower(), "00100010=" + name[:3] + "*"], True),
        **dict.fromkeys(["PatientName=nobody", "PatientName=" + name[:3]], False),
        **dict.fromkeys(["StudyDate=20260110", "StudyDate=20260101-", "StudyDate=-20260110"], True),
        **dict.fromkeys(["StudyDate=20260101-20260131", "StudyTime=1000-1100", "StudyTime=10-10"], True),
        **dict.fromkeys(["StudyDate=20260111-", "StudyTime=101501-", "StudyDate=-20260109"], False),
        **dict.fromkeys(["AccessionNumber=ACC[1]", "AccessionNumber=ACC[?]", "AccessionNumber=*[1]*"], True),
        **dict.fromkeys(["AccessionNumber=acc[1]", "AccessionNumber=acc*", "AccessionNumber=ACC?"], False),
        **dict.fromkeys(["StudyDescription=50% *", "StudyDescription=*", "StudyDescription="], True),
        **dict.fromkeys(["StudyDescription=50_ dense", "StudyDescription=50 *"], False),
        **dict.fromkeys(
            [f"StudyInstanceUID={own}", f"StudyInstanceUID=1.2,{own}", f"StudyInstanceUID={own}\\1.2"], True
        ),
        **dict.fromkeys(["StudyInstanceUID=1.2", "ModalitiesInStudy=CT", "PatientID=P*X"], False),
        **dict.fromkeys(["ModalitiesInStudy=MG", "ModalitiesInStudy=M?"], True),
    }
    for query, expected in found.items():
        keyword, _, value = query.partition("=")
        answer = service.get("/studies", **{keyword: value})
        assert (answer.status_code, len(answer.json())) == (200, int(expected)), query
    assert len(service.get("/series", Modality="MG").json()) == 1
    assert len(service.get("/instances", SOPClassUID=str(CTImageStorage)).json()) == 0
    assert len(service.get("/instances", InstanceNumber="1", ModalitiesInStudy="MG").json()) == 1


def test_matches_come_in_pages_and_a_warning_tells_of_more(service: Service) -> None:
    service.store(*phantom_images())
    whole = uids(service.get("/instances"))
    first, last = service.get("/instances", limit=3), service.get("/instances", limit=3, offset=3)
    assert uids(first) + uids(last) == whole
    assert "additional results" in first.headers["warning"]
    assert "warning" not in last.headers
    assert "fuzzymatching" in service.get("/studies", fuzzymatching="true").headers["warning"]


def test_further_fields_come_from_the_files(service: Service) -> None:
    service.store(*phantom_images())
    [study] = service.get("/studies", includefield="00080070,StudyDescription").json()
    assert values(study, "00080070") == [phantom_images()[0].Manufacturer]
    [found] = service.get("/instances", includefield="all", limit=1).json()
    assert values(found, "00181164")
    assert "7FE00010" not in found


def test_a_query_that_cannot_be_answered_is_refused(service: Service) -> None:
    for query in (
        *("limit=-1", "limit=x", "StudyDate=yesterday", "StudyTime=99", "Nonsense=1", "Rows=abc", "SOPInstanceUID=x"),
        *(
            "includefield=Nonsense",
            "StudyInstanceUID=1*",
            "PixelData=1",
            "PatientID=a&PatientID=b",
            "PatientName=a%00b",
        ),
    ):
        answer = service.client.get(f"/dicom-web/instances?{query}")
        assert answer.status_code == 400, query
        assert answer.headers["content-type"] == "application/problem+json"


def test_searches_are_given_as_xml_too(service: Service) -> None:
    service.store(*phantom_images())
    answer = service.get("/instances", 'multipart/related; type="application/dicom+xml"')
    parts = parts_of(answer)
    assert len(parts) == 4
    for kind, data in parts:
        assert kind == "application/dicom+xml"
        ET.fromstring(data)  # noqa: S314 - our own


# --- retrieving ---


def test_instances_are_given_back_as_they_were_sent(service: Service) -> None:
    service.store(*phantom_images())
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    given = parts_of(service.get(f"/studies/{STUDY}", accept))
    assert {data for _, data in given} == {to_bytes(image) for image in phantom_images()}
    image = phantom_images()[0]
    single = service.get(address(image), "application/dicom")
    assert single.content == to_bytes(image)
    assert int(single.headers["content-length"]) == len(single.content)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, RLELossless])
def test_the_transfer_syntax_is_negotiated(service: Service, syntax: Any) -> None:
    plain = phantom_images()[0]
    image = deepcopy(plain)
    if syntax == ImplicitVRLittleEndian:
        image.file_meta.TransferSyntaxUID = syntax
        image.set_original_encoding(is_implicit_vr=True, is_little_endian=True)
    else:
        image = compressed(plain, syntax)
    service.store(image)
    dicom = 'multipart/related; type="application/dicom"'
    [native] = instances_of(service.get(address(image), dicom))
    assert native.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert np.array_equal(native.pixel_array, plain.pixel_array)
    [stored] = instances_of(service.get(address(image), f"{dicom}; transfer-syntax={syntax}"))
    assert stored.file_meta.TransferSyntaxUID == syntax
    refused = service.get(address(image), f"{dicom}; transfer-syntax=1.2.840.10008.1.2.4.100")
    assert refused.status_code == 406
    [(kind, frame)] = parts_of(
        service.get(f"{address(image)}/frames/1", 'multipart/related; type="application/octet-stream"')
    )
    assert kind == f"application/octet-stream; transfer-syntax={ExplicitVRLittleEndian}"
    assert frame == plain.PixelData
    [(kind, frame)] = parts_of(
        service.get(f"{address(image)}/frames/1", "multipart/related; type=application/octet-stream; transfer-syntax=*")
    )
    assert kind.endswith(str(syntax if syntax.is_encapsulated else ExplicitVRLittleEndian))
    assert (len(frame) < len(plain.PixelData)) is syntax.is_encapsulated
    assert not service.leftovers()


def test_metadata_point_to_what_is_long(service: Service) -> None:
    service.store(*phantom_images())
    documents = service.get(f"/studies/{STUDY}/metadata").json()
    assert len(documents) == 4
    image = phantom_images()[0]
    [document] = service.get(f"{address(image)}/metadata").json()
    assert document in documents
    assert values(document, "00080016") == [image.SOPClassUID]
    where = document["7FE00010"]["BulkDataURI"]
    assert where.startswith("http://testserver/dicom-web/studies/")
    given = service.client.get(where, headers={"Accept": "application/octet-stream"})
    assert given.content == image.PixelData
    assert (
        len(parts_of(service.get(f"/studies/{STUDY}/metadata", 'multipart/related; type="application/dicom+xml"'))) == 4
    )


def test_our_own_results_are_found_and_given_beside_the_images(service: Service) -> None:
    service.store(*phantom_images())
    result = a_kept_result(service.room, STUDY)
    found = uids(service.get(f"/studies/{STUDY}/instances"))
    assert sorted(found) == sorted([result.SOPInstanceUID, *(str(image.SOPInstanceUID) for image in phantom_images())])
    given = service.get(f"/studies/{STUDY}", 'multipart/related; type="application/dicom"; transfer-syntax=*')
    assert to_bytes(result) in {data for _, data in parts_of(given)}
    [entry] = service.get("/studies", ModalitiesInStudy="SR").json()
    assert values(entry, "00080061") == ["MG", "SR"]
    assert values(entry, "00201208") == [5]


def test_pictures_show_the_image_as_it_is_meant_to_be_seen(service: Service) -> None:
    service.store(*phantom_images())
    image = phantom_images()[0]
    answer = service.get(f"{address(image)}/rendered", "image/png")
    shown = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert shown is not None
    assert np.abs(shown.astype(float) - presentation_values(image) * 255).max() <= 0.5
    thumbnail = service.get(f"/studies/{STUDY}/thumbnail")
    assert thumbnail.headers["content-type"] == "image/jpeg"
    small = cv2.imdecode(np.frombuffer(thumbnail.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert small is not None
    assert max(small.shape[:2]) == 256
    dark = service.get(f"{address(image)}/rendered", "image/png", window="60000,10,linear", viewport="64,64")
    pixels = cv2.imdecode(np.frombuffer(dark.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    assert max(pixels.shape[:2]) == 64
    assert len(parts_of(service.get(f"/studies/{STUDY}/rendered"))) == 4


def test_what_cannot_be_given_is_told_as_a_problem(service: Service) -> None:
    service.store(an_image())
    image = address(an_image())
    for path, accept, status in (
        ("/studies/1.2.3", "", 404),
        ("/studies/not-a-uid", "", 400),
        (f"{image}/frames/2", "", 404),
        (f"{image}/frames/0", "", 404),
        (f"{image}/frames/x", "", 400),
        (f"{image}/frames/2/rendered", "", 404),
        (f"{image}/bulkdata/00080018/1", "", 404),
        (f"{image}/bulkdata/zzz", "", 404),
        (f"{image}/metadata", "text/html", 406),
        (f"{image}/rendered", "image/gif", 406),
        (f"{image}/rendered?viewport=0,0", "", 400),
        (f"{image}/rendered?window=1", "", 400),
        (f"{image}/rendered?quality=0", "", 400),
        (image, "application/dicom; transfer-syntax=1.2", 406),
        (image, "x" * 9000, 400),
        (image, '"a/b"', 400),
        (image, "*/*; q=0", 406),
    ):
        answer = service.get(path, accept)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), path


def test_pixels_that_cannot_be_decoded_cost_only_their_request(service: Service) -> None:
    image = compressed(phantom_images()[0], JPEG2000Lossless)
    image.PixelData = encapsulate([b"\0" * 5000])
    service.store(image)
    assert service.get(f"{address(image)}/rendered").status_code == 406
    assert service.get(address(image)).status_code == 406
    assert service.get(f"{address(image)}/frames/1").status_code == 406
    service.store(phantom_images()[1])
    assert service.get(f"{address(phantom_images()[1])}/rendered").status_code == 200
    assert not service.leftovers()


def test_what_was_removed_after_its_time_is_gone_and_not_found(service: Service) -> None:
    header = an_image(SOPClassUID=CTImageStorage, Modality="CT")
    header.file_meta.MediaStorageSOPClassUID = CTImageStorage
    service.store(header)
    with writing(service.room.engine) as connection:
        assert remove_strays(connection, NOON + timedelta(days=40000), NOON)
    assert service.get(address(header)).status_code == 410
    assert service.get("/instances").json() == []
    assert service.get("/studies").json() == []


def test_what_an_older_version_has_kept_is_catalogued(service: Service) -> None:
    service.store(*phantom_images())
    a_kept_result(service.room, STUDY)
    before = sorted(uids(service.get("/instances", limit=100)))
    with writing(service.room.engine) as connection:
        connection.execute(delete(catalogue))
        connection.execute(delete(catalogue_studies))
    assert service.get("/instances").json() == []
    cataloguer = Cataloguer(service.room.engine, FolderStore(service.room.store.root), batch=2)
    while cataloguer.tick():
        pass
    assert sorted(uids(service.get("/instances", limit=100))) == before
