"""Workitems as data sets in the DICOM JSON Model, both ways (PS3.4 CC.2.5, PS3.18 11)."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote

from node.errors import BadRequest
from node.instants import date_time, first_instant, instant
from node.web.dicom_json import GROUPS, Model, attribute, is_model
from node.worklist import Asked
from storage.errors import MalformedUID
from storage.files import InstanceReference
from storage.index import InstanceRecord
from storage.results import IssuedResult
from storage.states import StepState
from storage.workitems import Report, Workitem

PUSH_CLASS: Final = "1.2.840.10008.5.1.4.34.6.1"
"""Unified Procedure Step - Push SOP Class, which every workitem belongs to (PS3.4 CC.1)."""
EVENT_CLASS: Final = "1.2.840.10008.5.1.4.34.6.4"
"""Unified Procedure Step - Event SOP Class."""
N_EVENT_REPORT: Final = 0x0100

CODE: Final = ("110004", "DCM", "Computer Aided Detection")
"""Scheduled and performed workitem (PS3.16 CID 9231)."""
PRIORITIES: Final = ("HIGH", "MEDIUM", "LOW")
PROGRESS: Final = {StepState.SCHEDULED: 0, StepState.IN_PROGRESS: 50, StepState.COMPLETED: 100, StepState.CANCELED: 100}
NEVER: Final = ("00081195", "00020010")
"""The Transaction UID is the performer's key, and is given to nobody (PS3.4 CC.2.5.1.1)."""
_ADDRESS: Final = re.compile(r"[!-~]{1,2000}")
"""Characters of a URI (RFC 3986); of all others it has the escapes."""


def workitem_model(
    item: Workitem,
    patient: Mapping[str, str],
    images: Sequence[InstanceRecord],
    results: Sequence[IssuedResult],
    address: str,
) -> Model:
    """Return a workitem.

    Parameters
    ----------
    patient
        Keyword → value, of its exam's patient.
    images, results
        What is read, and what came of it.
    address
        Of the DICOMweb service, from where both can be retrieved.
    """
    model: Model = {name: value for name, value in (item.request or {}).items() if name not in NEVER}
    for keyword, value in patient.items():
        model |= attribute(keyword, value)
    model |= attribute("SpecificCharacterSet", "ISO_IR 192")
    model |= attribute("SOPClassUID", PUSH_CLASS) | attribute("SOPInstanceUID", item.uid)
    model |= attribute("ProcedureStepState", item.state.value)
    model |= attribute("InputReadinessState", item.ready)
    model |= attribute("ScheduledProcedureStepPriority", item.priority)
    model |= attribute("ProcedureStepLabel", item.label) | attribute("WorklistLabel", item.worklist)
    model |= attribute("ScheduledProcedureStepStartDateTime", date_time(item.scheduled_for))
    model |= attribute("ScheduledProcedureStepModificationDateTime", _moment(item.modified_at))
    if "00404018" not in model:
        model |= attribute("ScheduledWorkitemCodeSequence", _code())
    if images:
        model |= attribute("InputInformationSequence", *_inputs(images, address))
    model |= attribute("ProcedureStepProgressInformationSequence", _progress(item))
    if item.started_at:
        model |= attribute("UnifiedProcedureStepPerformedProcedureSequence", _performed(item, results, address))
    return dict(sorted(model.items()))


def _progress(item: Workitem) -> Model:
    model = attribute("ProcedureStepProgress", str(PROGRESS[item.state]))
    if item.reason:
        model |= attribute("ReasonForCancellation", item.reason[:1024])
        model |= attribute("ProcedureStepCancellationDateTime", _moment(item.finished_at or item.modified_at))
    return model


def _performed(item: Workitem, results: Sequence[IssuedResult], address: str) -> Model:
    begun, ended = item.started_at or item.modified_at, item.finished_at
    model = attribute("PerformedProcedureStepStartDateTime", _moment(begun))
    model |= attribute("PerformedProcedureStepEndDateTime", _moment(ended) if ended else "")
    model |= attribute("PerformedWorkitemCodeSequence", _code())
    series: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for issued in results:
        if issued.record.sop_class_uid:
            key = issued.record.study_uid, issued.record.series_uid
            series.setdefault(key, []).append((issued.record.sop_class_uid, issued.record.uid))
    return model | attribute("OutputInformationSequence", *_references(series, address))


def _inputs(images: Sequence[InstanceRecord], address: str) -> list[Model]:
    series: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for image in images:
        if image.opens_exam:
            key = image.study.uid, image.series.uid
            series.setdefault(key, []).append((image.sop_class_uid, image.uid))
    return _references(series, address)


def _references(series: Mapping[tuple[str, str], Sequence[tuple[str, str]]], address: str) -> list[Model]:
    found = []
    for (study_uid, series_uid), instances in sorted(series.items()):
        where = attribute("RetrieveURL", f"{address}/studies/{study_uid}/series/{series_uid}")
        named = [
            attribute("ReferencedSOPClassUID", sop_class) | attribute("ReferencedSOPInstanceUID", uid)
            for sop_class, uid in sorted(set(instances))
        ]
        found.append(
            attribute("TypeOfInstances", "DICOM")
            | attribute("StudyInstanceUID", study_uid)
            | attribute("SeriesInstanceUID", series_uid)
            | attribute("ReferencedSOPSequence", *named)
            | attribute("WADORSRetrievalSequence", where)
        )
    return found


def _code() -> Model:
    value, scheme, meaning = CODE
    return (
        attribute("CodeValue", value) | attribute("CodingSchemeDesignator", scheme) | attribute("CodeMeaning", meaning)
    )


def event_model(told: Report, number: int) -> Model:
    """Return an event report (PS3.18 11.11.1, PS3.4 CC.2.4.1)."""
    model: Model = {
        "00000002": {"vr": "UI", "Value": [EVENT_CLASS]},
        "00000100": {"vr": "US", "Value": [N_EVENT_REPORT]},
        "00000110": {"vr": "US", "Value": [number % 0x10000]},
        "00001000": {"vr": "UI", "Value": [told.workitem_uid]},
        "00001002": {"vr": "US", "Value": [told.type]},
    }
    model |= attribute("ProcedureStepState", told.content["state"])
    model |= attribute("InputReadinessState", told.content["ready"])
    if told.content.get("reason"):
        model |= attribute("ReasonForCancellation", told.content["reason"])
    return model


def asked(document: Any, uid: str) -> Asked:
    """Return what a data set asks for.

    Parameters
    ----------
    document
        The body: a data set, or an array of one.
    uid
        Of the workitem.

    Raises
    ------
    BadRequest
        When it is not what PS3.4 table CC.2.5-3 wants, or names no study.
    """
    model = document[0] if isinstance(document, list) and len(document) == 1 else document
    if not is_model(model):
        raise BadRequest("not one data set in the DICOM JSON Model")
    if first(model, "00741000") != StepState.SCHEDULED.value:
        raise BadRequest("Procedure Step State (0074,1000) must be SCHEDULED")
    if first(model, "00081195"):
        raise BadRequest("Transaction UID (0008,1195) must be empty")
    priority = first(model, "00741200") or "MEDIUM"
    if priority not in PRIORITIES:
        raise BadRequest("Scheduled Procedure Step Priority (0074,1200) is HIGH, MEDIUM or LOW")
    inputs = [each for each in _items(model, "00404021") if isinstance(each, dict)]
    study_uid = _study(model, inputs)
    try:
        InstanceReference(uid, uid, study_uid)
    except MalformedUID as error:
        raise BadRequest("a UID is malformed") from error
    places = [place for each in inputs for place in _items(each, "0040E025") if isinstance(place, dict)]
    kept = {name: value for name, value in model.items() if name not in NEVER}
    return Asked(
        uid=uid,
        study_uid=study_uid,
        patient_id=first(model, "00100020")[:64],
        patient_name=_name(model),
        priority=priority,
        label=first(model, "00741204")[:64],
        worklist=first(model, "00741202")[:64],
        scheduled_for=_scheduled_for(model),
        retrieve_url=_study_address(first(places[0], "00081190"), study_uid) if places else None,
        model=kept,
    )


def _study(model: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]]) -> str:
    """Return the UID of the study that the input is of, or where there is none of the data set's own."""
    studies = {study for each in inputs if (study := first(each, "0020000D"))} or {first(model, "0020000D")}
    if len(studies) != 1 or "" in studies:
        raise BadRequest("Input Information Sequence (0040,4021) must name one study")
    return studies.pop()


def _scheduled_for(model: Mapping[str, Any]) -> str:
    """Return when it is to be done, '' where that is not said."""
    text = first(model, "00404005")
    at = first_instant(text, first(model, "00080201").strip())
    if text and not at:
        raise BadRequest("Scheduled Procedure Step Start DateTime (0040,4005) is no date and time with an offset")
    return at


def _study_address(url: str, study_uid: str) -> str:
    """Return the address of the study that an address of it, or of a part of it, lies in."""
    before, found, _ = url.partition(f"/studies/{study_uid}")
    climbs = not {".", ".."}.isdisjoint(unquote(before).split("/"))
    if not found or climbs or not _ADDRESS.fullmatch(before):
        raise BadRequest("the Retrieve URL (0008,1190) is not that of the study")
    return before + found


def first(model: Mapping[str, Any], tag: str) -> str:
    """Return the first value of an attribute as text, '' when there is none."""
    values = _items(model, tag)
    return str(values[0]) if values and isinstance(values[0], str | int | float) else ""


def _items(model: Mapping[str, Any], tag: str) -> list[Any]:
    element = model.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _name(model: Mapping[str, Any]) -> str:
    values = _items(model, "00100010")
    groups = values[0] if values and isinstance(values[0], dict) else {}
    return "=".join(str(groups.get(each, ""))[:64] for each in GROUPS).rstrip("=")


def _moment(at: datetime) -> str:
    return date_time(instant(at))
