"""Names, times and patients: rule R1's equal bytes, and sources with odd headers."""

import hashlib
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from ai.findings import ExamFindings
from config.mix import ObjectMix
from node.identity import MANUFACTURER
from node.results.answer import Answer, AnswerStatus
from node.results.encode import ENCODERS, encode, to_bytes
from tests.answers import (
    FORMS,
    INSTALLATION,
    RIGHT,
    a_mass,
    an_answer,
    an_edition,
    an_unread_answer,
    encoded,
    phantom_headers,
    phantom_masks,
    report_of,
)

DIGESTS = """
import hashlib, json
from node.results.encode import to_bytes
from tests.answers import FORMS, encoded
print(json.dumps({form: [hashlib.sha256(to_bytes(made.dataset)).hexdigest() for made in encoded(make())] for form, make in FORMS.items()}))
"""


def instance_uids(answer: Answer, *, installation: str = INSTALLATION, settings: str = "settings") -> set[str]:
    return {
        made.instance_uid for made in encode(an_edition(answer, installation=installation, settings_digest=settings))
    }


def test_another_process_at_another_time_makes_the_same_bytes() -> None:
    digests = {
        form: [hashlib.sha256(to_bytes(made.dataset)).hexdigest() for made in encoded(make())]
        for form, make in FORMS.items()
    }
    other = subprocess.run([sys.executable, "-c", DIGESTS], capture_output=True, text=True, check=True)
    assert json.loads(other.stdout) == digests


def with_another_score(answer: Answer) -> Answer:
    assert answer.findings
    return replace(answer, findings=replace(answer.findings, score=answer.findings.score + 1))


def with_another_mask(answer: Answer) -> Answer:
    assert answer.findings
    index, image = next((n, image) for n, image in enumerate(answer.findings.images) if image.masses)
    mask = phantom_masks()[image.view][0].copy()
    mask[0, 0] = True
    other = replace(image, masses=(replace(a_mass(mask), suspicion=image.masses[0].suspicion), *image.masses[1:]))
    images = (*answer.findings.images[:index], other, *answer.findings.images[index + 1 :])
    return replace(answer, findings=ExamFindings(answer.model, images, answer.findings.breasts, answer.findings.score))


@pytest.mark.parametrize(
    "other",
    [
        lambda: instance_uids(an_answer(), installation="another"),
        lambda: instance_uids(an_answer(), settings="others"),
        lambda: instance_uids(an_answer(read=RIGHT)),
        lambda: instance_uids(replace(an_answer(), revision=2)),
        lambda: instance_uids(replace(an_answer(), model=replace(an_answer().model, digest="cd" * 32))),
        lambda: instance_uids(replace(an_answer(), created_at=an_answer().created_at + timedelta(seconds=1))),
        lambda: instance_uids(with_another_score(an_answer())),
        lambda: instance_uids(with_another_mask(an_answer())),
        lambda: instance_uids(FORMS["failed"]()),
    ],
    ids=["installation", "settings", "images", "revision", "model", "time", "score", "mask", "failure"],
)
def test_no_other_reading_has_any_of_these_uids(other: Callable[[], set[str]]) -> None:
    assert not instance_uids(an_answer()) & other()


def test_every_uid_of_ours_is_a_uuid_under_2_25() -> None:
    for made in encoded(an_answer()):
        for uid in (made.instance_uid, made.series_uid, str(made.dataset.DeviceUID)):
            number = int(uid.removeprefix("2.25."))
            assert uid.startswith("2.25.")
            assert (number >> 76) & 0xF == 8  # version 8 and variant 2 of RFC 9562
            assert (number >> 62) & 0x3 == 2


def test_every_time_is_the_answers_in_the_zone_that_the_source_states() -> None:
    def in_india(header: Dataset) -> None:
        header.TimezoneOffsetFromUTC = "+0530"

    for answer, time in ((an_answer(), "050607.890000"), (an_answer(change=in_india), "103607.890000")):
        for made in encoded(answer):
            assert made.dataset.ContentDate == made.dataset.InstanceCreationDate == "20260304"
            assert made.dataset.ContentTime == made.dataset.InstanceCreationTime == time


def test_the_sources_headers_stay_as_they_were() -> None:
    answer = an_answer()
    before = [image.header.to_json() for image in answer.images]
    encoded(answer)
    assert [image.header.to_json() for image in answer.images] == before


def test_objects_name_their_maker() -> None:
    for made in encoded(an_answer()):
        assert made.dataset.Manufacturer == MANUFACTURER
        assert made.dataset.DeviceSerialNumber == INSTALLATION


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 192", "Ngô^Bảo Châu"),
        ("ISO_IR 101", "Dvořák^Łucja"),
        ("ISO_IR 100", "Müller^Zoë"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
    ],
)
def test_the_patients_name_survives_in_the_sources_character_set(charset: str | list[str], name: str) -> None:
    def rename(header: Dataset) -> None:
        header.SpecificCharacterSet = charset
        header.PatientName = name

    def as_received(header: Dataset) -> None:
        rename(header)
        buffer = BytesIO()
        header.save_as(buffer, enforce_file_format=True)
        received = dcmread(BytesIO(buffer.getvalue()))
        header.clear()
        header.update(received)

    for change in (rename, as_received):
        for made in encoded(an_answer(read=RIGHT, change=change)):
            stored = dcmread(BytesIO(to_bytes(made.dataset)))
            assert str(stored.PatientName) == name
            assert stored.SpecificCharacterSet == charset


def set_to(**values: Any) -> Callable[[Dataset], None]:
    def change(header: Dataset) -> None:
        for keyword, value in values.items():
            setattr(header, keyword, value)

    return change


@pytest.mark.parametrize(
    "values",
    [
        {"AccessionNumber": "LONGER-THAN-SIXTEEN-CHARACTERS"},
        {"PatientName": "a name without a caret"},
        {"PatientSex": "U"},
        {"PatientBirthDate": "1950"},
        {"StudyDate": "2020.13.99"},
        {"StudyTime": "99"},
        {"PatientOrientation": "A"},
        {"PatientOrientation": None},
        {"ImagerPixelSpacing": None},
        {"ImagerPixelSpacing": "0.1"},
        {"SpecificCharacterSet": None},
        {"TimezoneOffsetFromUTC": "+9999"},
        {"NumberOfFrames": "1"},
    ],
    ids=str,
)
def test_an_odd_header_is_answered_all_the_same(values: dict[str, Any]) -> None:
    for made in encoded(an_answer(read=RIGHT, change=set_to(**values))):
        assert dcmread(BytesIO(to_bytes(made.dataset))).SOPInstanceUID == made.instance_uid


def test_any_attribute_but_the_uids_and_the_size_may_be_missing() -> None:
    needed = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", "Rows", "Columns")
    header = phantom_headers()[RIGHT[0]]
    for keyword in {element.keyword for element in header} - set(needed):

        def drop(image: Dataset, keyword: str = keyword) -> None:
            del image[keyword]

        assert len(encoded(an_answer(read=RIGHT[:1], change=drop))) >= 1


def test_a_long_accession_number_is_kept_whole() -> None:
    report = report_of(an_answer(change=set_to(AccessionNumber="LONGER-THAN-SIXTEEN-CHARACTERS")))
    assert report.AccessionNumber == "LONGER-THAN-SIXTEEN-CHARACTERS"


@pytest.mark.parametrize("keyword", ["PatientName", "ReferringPhysicianName"])
def test_no_library_logs_or_warns_of_an_odd_name_and_every_object_has_it(
    caplog: pytest.LogCaptureFixture, keyword: str
) -> None:
    with caplog.at_level(logging.DEBUG):
        made = encoded(an_answer(change=set_to(**{keyword: "Sesame"})), ObjectMix(tuple(ENCODERS)))
    assert "Sesame" not in caplog.text
    assert {str(each.dataset[keyword].value) for each in made} == {"Sesame"}


@pytest.mark.parametrize(
    "sop_class",
    [
        "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography
        "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray
        "1.2.840.10008.5.1.4.1.1.1.2.1",  # Mammography, For Processing
        "1.2.840.10008.5.1.4.1.1.2",  # CT: tomosynthesis of old
        "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture
        "1.2.840.10008.5.1.4.1.1.7.2",  # Secondary Capture, multi-frame
        "1.2.840.10008.5.1.4.1.1.13.1.3",  # Breast Tomosynthesis
        "1.2.840.10008.5.1.4.1.1.13.1.4",  # Breast Projection
    ],
)
def test_an_image_of_any_accepted_class_can_be_named_as_not_read(sop_class: str) -> None:
    header = deepcopy(phantom_headers()[RIGHT[0]])
    header.SOPClassUID = sop_class
    header.NumberOfFrames = 40
    made = encoded(an_unread_answer(AnswerStatus.NOT_ANALYSED, header, reason="not a mammogram for presentation"))
    assert [result.kind for result in made] == ["SR"]
