"""Header values, read so that no odd header can stop the node."""

import re
from collections.abc import Iterable

from pydicom import Dataset
from pydicom.datadict import dictionary_description
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence


def values(header: Dataset, keyword: str) -> list[str]:
    """Return an attribute's values as upper case text without padding, empty ones included; [] when unreadable."""
    try:
        value = header.get(keyword)
        if value is None or isinstance(value, Sequence):
            return []
        several = value if isinstance(value, MultiValue | list | tuple) else [value]
        return [str(single).strip(" \0").upper() for single in several]
    except Exception:  # noqa: BLE001 - pydicom converts at access, and its converters raise whatever odd bytes make them
        return []


def first(header: Dataset, keyword: str) -> str:
    """Return an attribute's first value as in `values`, '' when there is none."""
    return next(iter(values(header, keyword)), "")


def number(header: Dataset, keyword: str) -> float:
    """Return an attribute's first value as a number, 0 when it is none."""
    try:
        return float(first(header, keyword))
    except ValueError:
        return 0.0


def items(header: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence, [] when it is absent or unreadable."""
    try:
        value = header.get(keyword)
        return list(value) if isinstance(value, Sequence) else []
    except Exception:  # noqa: BLE001 - as in `values`
        return []


def plain(text: str) -> str:
    """Return a header's text fit for a sentence: 16 letters and digits at most, as long as a code string."""
    return re.sub(r"[^A-Z0-9 _-]", "", text)[:16]


def differing_identity(headers: Iterable[Dataset]) -> tuple[str, ...]:
    """Return the names of the attributes in which images of one patient's exam state different persons.

    A value that is empty says nothing; case, padding and further scripts of a name do not count.
    """
    stated = {keyword: set[str]() for keyword in ("PatientName", "PatientBirthDate")}
    for header in headers:
        for keyword, found in stated.items():
            found.add(first(header, keyword).split("=")[0].rstrip("^ "))
    return tuple(dictionary_description(keyword) for keyword, found in stated.items() if len(found - {""}) > 1)


def different_patients(differing: Iterable[str]) -> str:
    """Return the sentence for an answer whose images differ in these attributes; names stand in none (rule R14)."""
    return f"The images state different patients ({', '.join(differing)}); check whose they are."


def acquired_at(header: Dataset) -> str:
    """Return when the image was taken, as YYYYMMDDHHMMSS.FFFFFF in the modality's own time, or '' when unknown.

    Acquisition before content; a time zone is left out, since the images of one exam share it.
    """
    # ACR-NEMA wrote 2026.01.10 and 10:15:00 (PS3.5 6.2, note to DA and TM).
    dates = [first(header, f"{of}Date").replace(".", "") for of in ("Acquisition", "Content")]
    times = [first(header, f"{of}Time").replace(":", "") for of in ("Acquisition", "Content")]
    for moment in (first(header, "AcquisitionDateTime"), dates[0] + times[0], dates[1] + times[1]):
        if match := re.match(r"([0-9]{8})([0-9]{2,6})(?:\.([0-9]{1,6}))?", moment):
            return f"{match[1]}{match[2]:0<6}.{match[3] or '':0<6}"
    return ""


def instance_number(header: Dataset) -> int | None:
    """Return Instance Number, None when absent, no number, or beyond 32 bits (PS3.5 6.2, IS)."""
    text = first(header, "InstanceNumber")
    if re.fullmatch(r"[+-]?[0-9]{1,11}", text) and -(2**31) <= int(text) < 2**31:
        return int(text)
    return None
