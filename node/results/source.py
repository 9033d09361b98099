"""Headers of source images, made fit to be inherited by a result object."""

from copy import deepcopy
from typing import Final

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import DA, TM

TYPE_2: Final = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime"),
    *("AccessionNumber", "ReferringPhysicianName", "Modality"),
)
"""What highdicom reads from a source without asking whether it is there (all Type 2 but Modality)."""

WITHOUT_FRAME_OF_REFERENCE: Final = (
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "NumberOfFrames",
)
"""Left out, so that every object takes the one form that viewers accept: a mammogram without a Frame of Reference."""


def source_header(header: Dataset) -> Dataset:
    """Return a header that highdicom takes, whatever the sender left out or garbled.

    Missing Type 2 attributes are empty; a date, a time or a sex that PS3.5 6.2 or PS3.3 C.7.1.1 don't know is empty.
    The patient's name is left to :func:`inherit_identity`: highdicom would log an odd one (rule R14).
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
    source.PatientName = None
    return source


def inherit_identity(target: Dataset, header: Dataset) -> None:
    """Give a result object the source's patient name, character set and time zone, as the source wrote them."""
    for keyword in ("SpecificCharacterSet", "TimezoneOffsetFromUTC", "PatientName"):
        if keyword in header:
            element = header[keyword]
            target[keyword] = DataElement(element.tag, element.VR, element.value, already_converted=True)


def plain(text: str) -> str:
    """Return the text in ASCII, which every Specific Character Set contains (PS3.5 6.1.1)."""
    return (
        text.translate({0x2013: "-", 0x2014: "-", 0x2026: "...", 0xD7: "x"}).encode("ascii", "replace").decode("ascii")
    )
