"""Headers → what the catalogue keeps of an instance: its searchable attributes, without what no search could mean."""

import re

from pydicom import Dataset

from node.headers import items
from node.records import text
from storage.catalogue import Entry, StudyEntry


def entry_of(header: Dataset) -> Entry:
    """Return the catalogue's entry of an instance whose UIDs are there.

    Parameters
    ----------
    header
        With its File Meta Information; no pixel is looked at.
    """
    request = next(iter(items(header, "RequestAttributesSequence")), Dataset())
    return Entry(
        study=StudyEntry(
            uid=text(header, "StudyInstanceUID"),
            issuer=text(header, "IssuerOfPatientID"),
            patient_id=text(header, "PatientID"),
            patient_name=text(header, "PatientName").rstrip("^="),
            birth_date=date(header, "PatientBirthDate"),
            sex=text(header, "PatientSex"),
            date=date(header, "StudyDate"),
            time=time(header, "StudyTime"),
            accession_number=text(header, "AccessionNumber"),
            study_id=text(header, "StudyID"),
            referring_physician=text(header, "ReferringPhysicianName").rstrip("^="),
            description=text(header, "StudyDescription"),
            timezone=text(header, "TimezoneOffsetFromUTC")[:16],
        ),
        uid=text(header, "SOPInstanceUID"),
        series_uid=text(header, "SeriesInstanceUID"),
        sop_class_uid=text(header, "SOPClassUID"),
        transfer_syntax_uid=text(header.file_meta, "TransferSyntaxUID")[:64],
        modality=text(header, "Modality"),
        series_number=whole(header, "SeriesNumber"),
        series_description=text(header, "SeriesDescription"),
        laterality=text(header, "Laterality"),
        body_part=text(header, "BodyPartExamined"),
        performed_date=date(header, "PerformedProcedureStepStartDate"),
        performed_time=time(header, "PerformedProcedureStepStartTime"),
        requested_procedure_id=text(request, "RequestedProcedureID"),
        scheduled_step_id=text(request, "ScheduledProcedureStepID"),
        instance_number=whole(header, "InstanceNumber"),
        rows=whole(header, "Rows"),
        columns=whole(header, "Columns"),
        bits_allocated=whole(header, "BitsAllocated"),
        frames=whole(header, "NumberOfFrames"),
    )


def name_key(name: str) -> str:
    """Return what a person's name is found by; delimiters at its end mean nothing (PS3.5 6.2.1)."""
    return name.rstrip("^=").casefold()


def date(header: Dataset, keyword: str) -> str:
    """Return a date as YYYYMMDD, '' when there is none; ACR-NEMA wrote 2026.01.10 (PS3.5 6.2)."""
    written = text(header, keyword).replace(".", "")
    return written if re.fullmatch(r"[0-9]{8}", written) else ""


def time(header: Dataset, keyword: str) -> str:
    """Return a time as HHMMSS.FFFFFF, '' when there is none; ACR-NEMA wrote 10:15:00 (PS3.5 6.2)."""
    return full_time(text(header, keyword))


def full_time(written: str, filled: str = "000000.000000") -> str:
    """Return what is written of a time, its missing digits filled up; '' when it is none."""
    digits = written.replace(":", "")
    if not re.fullmatch(r"([01][0-9]|2[0-3])(?:[0-5][0-9](?:([0-5][0-9]|60)(?:\.[0-9]{1,6})?)?)?", digits):
        return ""
    return digits + filled[len(digits) :]


def whole(header: Dataset, keyword: str) -> int | None:
    """Return a whole number of 32 bits, None when there is none."""
    written = text(header, keyword)
    value = int(written) if re.fullmatch(r"[+-]?[0-9]{1,11}", written) else None
    return value if value is not None and -(2**31) <= value < 2**31 else None
