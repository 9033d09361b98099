"""WADO-RS over both databases: what was stored is given back."""

from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
)
from sqlalchemy import delete, update
from structlog.testing import capture_logs

from ai.errors import TooManyPixels
from ai.pixels import presentation_values
from node import records
from node.catalogue import Cataloguer
from node.records import LONGEST_VALUE, Places
from node.results.encode import to_bytes
from node.web import decoder, dicom_json
from node.web.dicom_json import open_dataset, to_model
from storage.database import writing
from storage.files import FolderStore
from storage.removals import remove_strays
from storage.tables import catalogue, catalogue_studies
from tests.builders import compressed
from tests.doors import an_image, phantom_images
from tests.records import NOON
from tests.web import SENT, Service, a_kept_result, address, instances_of, parts_of, service, uids, values

__all__ = ["service"]


def test_instances_are_given_back_as_they_were_sent(service: Service) -> None:
    service.store(*phantom_images())
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    given = parts_of(service.get(f"/studies/{SENT}", accept))
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
    documents = service.get(f"/studies/{SENT}/metadata").json()
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
        len(parts_of(service.get(f"/studies/{SENT}/metadata", 'multipart/related; type="application/dicom+xml"'))) == 4
    )


def test_a_sequence_that_is_long_is_given_with_its_items(service: Service) -> None:
    image, frame = an_image(), Dataset()
    frame.add_new(0x00081030, "LO", "of a frame")
    frame.add_new(0x00420011, "OB", b"\1" * 2000)
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = UID(f"{image.SOPInstanceUID}.1")
        image.file_meta.TransferSyntaxUID = syntax
        image.set_original_encoding(is_implicit_vr=syntax.is_implicit_VR, is_little_endian=True)
        image.PerFrameFunctionalGroupsSequence = [frame] * 50
        service.store(image)
        [document] = service.get(f"{address(image)}/metadata").json()
        assert document["52009230"]["vr"] == "SQ"
        items = document["52009230"]["Value"]
        assert (len(items), values(items[49], "00081030")) == (50, ["of a frame"])
        where = items[49]["00420011"]["BulkDataURI"]
        assert service.client.get(where).status_code == 200


def test_sequences_that_are_too_long_together_are_left_out_of_metadata(tmp_path: Path) -> None:
    image, item = an_image(), Dataset()
    item.add_new(0x00291010, "OB", b"\1" * 60_000)
    tags = [0x00291000 + number for number in range(LONGEST_VALUE // 60_000 + 2)]
    for tag in tags:
        image.add_new(tag, "SQ", [item])
    given = metadata_of(tmp_path, image)
    assert [f"{tag:08X}" in given for tag in tags] == [True] * (len(tags) - 2) + [False] * 2
    assert given["00540220"]["Value"]
    assert given["7FE00010"]["BulkDataURI"]


def test_a_value_that_is_too_long_in_a_sequence_without_a_length_is_left_out_of_metadata(tmp_path: Path) -> None:
    image, item = an_image(), Dataset()
    item.add_new(0x00291010, "OB", b"\1" * (LONGEST_VALUE + 2))
    item.add_new(0x00291011, "LO", "beside it")
    image.add_new(0x00291000, "SQ", [item])
    image[0x00291000].is_undefined_length = True
    [kept] = metadata_of(tmp_path, image)["00291000"]["Value"]
    assert kept == {"00291011": {"vr": "LO", "Value": ["beside it"]}}


def test_a_large_header_has_a_place_until_its_metadata_were_given(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.store(*phantom_images())
    image = address(phantom_images()[0])
    places = Places(1, patience=0.01)
    monkeypatch.setattr(records, "LARGE_HEADER", 1000)
    monkeypatch.setattr(dicom_json, "VIEWERS", places)
    for _ in range(2):  # four of them, one after the other
        assert len(service.get(f"/studies/{SENT}/metadata").json()) == 4
    places.take()
    for resource in ("/metadata", "/frames/1", "/bulkdata/7FE00010"):
        assert service.get(f"{image}{resource}").status_code == 503, resource
    places.leave()
    assert service.get(f"{image}/metadata").status_code == 200


def metadata_of(folder: Path, image: Dataset) -> dict[str, Any]:
    path = folder / "image.dcm"
    path.write_bytes(to_bytes(image))
    return to_model(open_dataset(path), lambda tag: tag)


@pytest.mark.parametrize("syntax", ["", "1.2.3.4"])
def test_what_is_in_no_known_transfer_syntax_is_told_as_a_problem(service: Service, syntax: str) -> None:
    service.store(an_image())
    with writing(service.room.engine) as connection:
        connection.execute(update(catalogue).values(transfer_syntax_uid=syntax))
    [path] = map(service.room.store.resolve, service.room.files())
    image = dcmread(path)
    image.file_meta.TransferSyntaxUID = UID(syntax)
    path.chmod(0o600)
    dcmwrite(path, image, implicit_vr=False, little_endian=True, enforce_file_format=False)
    where = address(image)
    assert service.get(f"{where}/metadata").json()[0]["00280010"]["Value"] == [image.Rows]
    for resource in ("/frames/1", "/bulkdata/7FE00010", "/rendered"):
        assert service.get(where + resource).status_code == 406, resource


def test_our_own_results_are_found_and_given_beside_the_images(service: Service) -> None:
    service.store(*phantom_images())
    result = a_kept_result(service.room, SENT)
    found = uids(service.get(f"/studies/{SENT}/instances"))
    assert sorted(found) == sorted([result.SOPInstanceUID, *(str(image.SOPInstanceUID) for image in phantom_images())])
    given = service.get(f"/studies/{SENT}", 'multipart/related; type="application/dicom"; transfer-syntax=*')
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
    thumbnail = service.get(f"/studies/{SENT}/thumbnail")
    assert thumbnail.headers["content-type"] == "image/jpeg"
    small = cv2.imdecode(np.frombuffer(thumbnail.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert small is not None
    assert max(small.shape[:2]) == 256
    dark = service.get(f"{address(image)}/rendered", "image/png", window="60000,10,linear", viewport="64,64")
    pixels = cv2.imdecode(np.frombuffer(dark.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    assert max(pixels.shape[:2]) == 64
    assert len(parts_of(service.get(f"/studies/{SENT}/rendered"))) == 4


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


@pytest.mark.parametrize("task", ["frame", "picture"])
def test_what_has_more_pixels_than_any_mammogram_is_not_decoded(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.dcm"
    path.write_bytes(to_bytes(an_image(Rows=65535, Columns=65535)))
    monkeypatch.setattr(decoder, "pixel_array", None)
    with pytest.raises(TooManyPixels):
        decoder.TASKS[task](path, {"number": 1, "format": ".png"})


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
    a_kept_result(service.room, SENT)
    before = sorted(uids(service.get("/instances", limit=100)))
    with writing(service.room.engine) as connection:
        connection.execute(delete(catalogue))
        connection.execute(delete(catalogue_studies))
    assert service.get("/instances").json() == []
    cataloguer = Cataloguer(service.room.engine, FolderStore(service.room.store.root), batch=2)
    while cataloguer.tick():
        pass
    assert sorted(uids(service.get("/instances", limit=100))) == before


def test_what_could_not_be_read_for_the_catalogue_is_tried_again_once_all_else_is_done(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.store(*phantom_images())
    before = sorted(uids(service.get("/instances")))
    with writing(service.room.engine) as connection:
        connection.execute(delete(catalogue))
        connection.execute(delete(catalogue_studies))
    store = FolderStore(service.room.store.root)
    cataloguer = Cataloguer(service.room.engine, store, batch=2)
    monkeypatch.setattr("node.catalogue.RESTS", 0.0)
    resolve, lacking = store.resolve, before[0]

    def giving_all_but_one(path: str) -> Path:
        return resolve("absent" if lacking in path else path)

    with monkeypatch.context() as outage, capture_logs() as lines:
        outage.setattr(store, "resolve", giving_all_but_one)
        for _ in range(2):
            while cataloguer.tick():
                pass
    assert sorted(uids(service.get("/instances"))) == before[1:]
    told = [line["instance"] for line in lines if line["event"].startswith("cannot be catalogued")]
    assert told == [lacking]
    while cataloguer.tick():
        pass
    assert sorted(uids(service.get("/instances"))) == before
