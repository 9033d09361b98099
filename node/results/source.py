"""Headers of source images, made fit to be inherited by a result object."""

import re
from copy import deepcopy
from typing import Final

from pydicom.charset import convert_encodings, decode_bytes, encode_string
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import DA, TEXT_VR_DELIMS, TM, VR, PersonName

DIRECTION: Final = re.compile("[LRAPHF]{1,3}")
"""Direction of Patient Orientation: the nearest axis first, up to three."""

TYPE_2: Final = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime"),
    *("AccessionNumber", "ReferringPhysicianName", "Modality"),
)
"""What highdicom reads from a source without asking whether it is there (all Type 2 but Modality)."""

IDENTITY: Final = (
    *("PatientName", "PatientID", "IssuerOfPatientID"),
    *("StudyID", "AccessionNumber", "StudyDescription", "ReferringPhysicianName"),
)
"""Texts by which patient and study are known."""

NAMES: Final = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("SpecificCharacterSet", "TimezoneOffsetFromUTC", "IssuerOfPatientID", "StudyDescription"),
    *TYPE_2,
)
"""What names an image, its study and its patient."""

WITHOUT_FRAME_OF_REFERENCE: Final = (
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "NumberOfFrames",
)
"""Left out, so that every object takes the one form that viewers accept: a mammogram without a Frame of Reference."""


def names_alone(header: Dataset) -> Dataset:
    """Return a header with nothing but what names an image: no other oddity of it keeps an answer from being written."""
    named = Dataset()
    for keyword in NAMES:
        if keyword in header:
            named[keyword] = header[keyword]
    return named


def source_header(header: Dataset) -> Dataset:
    """Return a header that highdicom takes, whatever the sender left out or garbled.

    Missing Type 2 attributes are empty; a date, a time or a sex that PS3.5 6.2 or PS3.3 C.7.1.1 don't know is empty.
    Names of people are left to :func:`inherit_identity`: highdicom would log or warn of an odd one (rule R14).
    """
    source = deepcopy(header)
    for keyword in WITHOUT_FRAME_OF_REFERENCE:
        source.pop(keyword, None)
    for keyword in TYPE_2:
        if keyword not in source:
            setattr(source, keyword, None)
    for keyword, parse in (("PatientBirthDate", DA), ("StudyDate", DA), ("StudyTime", TM)):
        try:
            parse(source[keyword].value)
        except (ValueError, TypeError):
            setattr(source, keyword, None)
    if source.PatientSex not in ("M", "F", "O"):
        source.PatientSex = None
    source.PatientName = source.ReferringPhysicianName = None
    return source


def inherit_identity(target: Dataset, header: Dataset) -> None:
    """Give a result object the source's character set, time zone and identifying texts, as the source wrote them.

    A PACS finds patient and study by them, so they stay byte for byte what they were, also where they break the
    declared Specific Character Set or where nobody knows it.
    """
    for keyword in ("SpecificCharacterSet", "TimezoneOffsetFromUTC"):
        if keyword in header:
            element = header[keyword]
            target[keyword] = DataElement(element.tag, element.VR, element.value, already_converted=True)
    for keyword in IDENTITY:
        if keyword in header and (keyword in target or keyword == "PatientName"):
            target[keyword] = _as_received(header, keyword)


def _as_received(header: Dataset, keyword: str) -> DataElement:
    """Return a text element that is written with the bytes with which it came, while the header still has them."""
    received: object = header.get_item(keyword)  # header[keyword] would decode it for good
    if not isinstance(received, RawDataElement) or not received.value:
        element = header[keyword]
        return DataElement(element.tag, element.VR, element.value, already_converted=True)
    encodings, vr = convert_encodings(header.get("SpecificCharacterSet")), dictionary_VR(received.tag)
    sent = received.value.rstrip(b"\0 ")
    if vr == VR.PN:
        return DataElement(received.tag, vr, PersonName(sent, encodings), already_converted=True)
    text = decode_bytes(sent, encodings, TEXT_VR_DELIMS)
    whole = "\N{REPLACEMENT CHARACTER}" not in text and encode_string(text, encodings) == sent
    return DataElement(received.tag, vr, text if whole else sent, already_converted=True)


def orientation(header: Dataset) -> tuple[str, str] | None:
    """Return Patient Orientation, where rows and where columns run to (PS3.3 C.7.6.1.1.1); None when it is no such pair."""
    value = header.get("PatientOrientation")
    if not isinstance(value, MultiValue) or len(value) != 2:
        return None
    along_row, along_column = (str(direction) for direction in value)
    known = DIRECTION.fullmatch(along_row) and DIRECTION.fullmatch(along_column) and along_row != along_column
    return (along_row, along_column) if known else None


def plain(text: str) -> str:
    """Return the text in ASCII, which every Specific Character Set contains (PS3.5 6.1.1)."""
    return (
        text.translate({0x2013: "-", 0x2014: "-", 0x2026: "...", 0xD7: "x"}).encode("ascii", "replace").decode("ascii")
    )
