"""What every result object says of its maker, its time and its patient."""

import re
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any, Final

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as standard
from pydicom.uid import UID, ExplicitVRLittleEndian

from ai.findings import ModelIdentity
from node.identity import IMPLEMENTATION_CLASS_UID, MANUFACTURER, MODEL_NAME, RESEARCH_USE_ONLY, VERSION
from node.results import codes
from node.results.answer import Answer
from node.results.source import inherit_identity, plain
from node.results.uids import ObjectUIDs

IMPLEMENTATION_VERSION_NAME: Final = f"MAMMONODE_{VERSION}"[:16]
"""SH in File Meta Information: 16 characters."""

ZONE: Final = re.compile(r"([+-])(0\d|1[0-4])([0-5]\d)")
"""Timezone Offset From UTC, -1200 to +1400 (PS3.3 C.12.1.1.8)."""


def equipment(answer: Answer, uids: ObjectUIDs) -> dict[str, Any]:
    """Return the Enhanced General Equipment Module (PS3.3 C.7.5.2) as highdicom's arguments."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MODEL_NAME,
        "software_versions": [VERSION, plain(f"{answer.model.name} {answer.model.version}")[:64]],
        "device_serial_number": uids.installation,
    }


def observer(answer: Answer, uids: ObjectUIDs) -> hd.sr.ObserverContext:
    """Return the device that tells what a report says (PS3.16 TID 1002)."""
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=uids.device(),
        name=plain(answer.model.name),
        manufacturer_name=MANUFACTURER,
        model_name=MODEL_NAME,
        serial_number=uids.installation,
    )
    return hd.sr.ObserverContext(observer_type=standard.DCM.Device, observer_identifying_attributes=device)


def bare_object(header: Dataset, answer: Answer, uids: ObjectUIDs, **own: Any) -> Dataset:
    """Return what every object has, for IODs that highdicom has no class for.

    Parameters
    ----------
    header
        The source image, made fit (``node.results.source.source_header``).
    own
        The object's own arguments of ``highdicom.SOPClass``: SOP class, names, numbers, modality, description.
    """
    target: Dataset = hd.SOPClass(
        study_instance_uid=header.StudyInstanceUID,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        patient_id=header.PatientID,
        patient_birth_date=header.PatientBirthDate,
        patient_sex=header.PatientSex,
        accession_number=header.AccessionNumber,
        study_id=header.StudyID,
        study_date=header.StudyDate,
        study_time=header.StudyTime,
        referring_physician_name=header.ReferringPhysicianName,
        **own,
        **equipment(answer, uids),
    )
    target.copy_patient_and_study_information(header)
    target.ContributingEquipmentSequence = []
    with suppress(AttributeError, TypeError, ValueError):  # what highdicom meets in odd headers
        target.ContributingEquipmentSequence = [hd.ContributingEquipment.for_image_acquisition(header)]
    return target


def finish(target: Dataset, answer: Answer, uids: ObjectUIDs, header: Dataset) -> None:
    """Write what highdicom takes from the clock, from chance or from itself, so that equal answers give equal bytes.

    Parameters
    ----------
    target
        The object as highdicom made it; changed in place.
    answer, uids
        The answer and the names of its objects.
    header
        The source image that the object inherits from.
    """
    inherit_identity(target, header)
    created = _local(answer.created_at, header)
    target.InstanceCreationDate = target.ContentDate = f"{created:%Y%m%d}"
    target.InstanceCreationTime = target.ContentTime = f"{created:%H%M%S.%f}"
    if target.Modality != "SR":
        # A report's series may get later reports, and all instances of a series have one date.
        target.SeriesDate, target.SeriesTime = target.ContentDate, target.ContentTime
    target.DeviceUID = uids.device()
    acquisition = [
        item
        for item in target.ContributingEquipmentSequence
        if item.PurposeOfReferenceCodeSequence[0].CodeValue == codes.ACQUISITION_EQUIPMENT.value
    ]
    target.ContributingEquipmentSequence = [*acquisition, _algorithm_equipment(answer.model, uids, created)]
    target.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    target.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME


def _local(created_at: datetime, header: Dataset) -> datetime:
    """Return the time in the zone that the source states, since (0008,0201) holds for all dates of a data set."""
    offset = ZONE.fullmatch(str(header.get("TimezoneOffsetFromUTC") or ""))
    if offset is None:
        return created_at
    distance = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
    return created_at.astimezone(timezone(-distance if offset[1] == "-" else distance))


def _algorithm_equipment(model: ModelIdentity, uids: ObjectUIDs, created: datetime) -> Dataset:
    """Return the item in which IHE AIR (6.5.3.1) looks for the algorithm, with its own Device UID."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [hd.sr.CodedConcept.from_code(codes.PROCESSING_EQUIPMENT)]
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = plain(model.name)[:64]
    item.SoftwareVersions = [plain(model.version)[:64], VERSION]
    item.DeviceSerialNumber = uids.installation
    item.DeviceUID = uids.device()
    item.ContributionDateTime = f"{created:%Y%m%d%H%M%S.%f%z}"
    item.ContributionDescription = RESEARCH_USE_ONLY
    return item
