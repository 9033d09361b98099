"""QIDO-RS: searching for studies, series and instances (PS3.18 10.6)."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydicom.datadict import tag_for_keyword
from sqlalchemy import Engine
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from node.errors import UnparsableDataset
from node.web.access import Guarded, Scope
from node.web.addresses import base, uids
from node.web.dicom_json import Model, attribute, json_bytes, open_dataset, to_model, xml_bytes
from node.web.matching import Query, parse_query
from node.web.media import DICOM_JSON, DICOM_XML, chosen
from node.web.multipart import Piece, Related
from storage.catalogue import held
from storage.database import reading
from storage.files import InstanceStore
from storage.search import Found, Level, search

JSON_TYPES: Final = (DICOM_JSON, "application/json", DICOM_XML)

RESOURCES: Final = (
    ("/studies", Level.STUDY),
    ("/studies/{study}/series", Level.SERIES),
    ("/series", Level.SERIES),
    ("/studies/{study}/instances", Level.INSTANCE),
    ("/studies/{study}/series/{series}/instances", Level.INSTANCE),
    ("/instances", Level.INSTANCE),
)
"""What can be searched (PS3.18 table 10.6.1-1)."""


class Search:
    """Answers searches.

    Parameters
    ----------
    engine
        The catalogue.
    store
        Where the files are: what the catalogue does not know is read there when it is asked for.
    """

    def __init__(self, engine: Engine, store: InstanceStore) -> None:
        self._engine = engine
        self._store = store

    def routes(self) -> list[BaseRoute]:
        """Return the resources."""
        return [Guarded(path, self._answering(level), needs=Scope.READ) for path, level in RESOURCES]

    def _answering(self, level: Level) -> Any:
        def answer(request: Request) -> Response:
            return self.search(request, level)

        return answer

    def search(self, request: Request, level: Level) -> Response:
        """Return what matches."""
        fixed = {f"{name.capitalize()}InstanceUID": uid for name, uid in uids(request).items()}
        query = parse_query(request.query_params.multi_items(), level, fixed)
        form = chosen(request, JSON_TYPES)
        with reading(self._engine) as connection:
            found = search(connection, level, query.conditions, query.limit + 1, query.offset)
        documents = [self._document(request, each, level, query, fixed) for each in found[: query.limit]]
        warnings = query.warning(request.url.hostname, more=len(found) > query.limit)
        if form.name == DICOM_XML:
            body = Related(DICOM_XML, (Piece(DICOM_XML, (xml_bytes(each),)) for each in documents))
            return Response(b"".join(body), 200, warnings, body.content_type)
        return Response(json_bytes(documents), 200, warnings, form.name)

    def _document(self, request: Request, found: Found, level: Level, query: Query, fixed: Mapping[str, str]) -> Model:
        document: Model = attribute("SpecificCharacterSet", "ISO_IR 192")
        if level is Level.STUDY or "StudyInstanceUID" not in fixed:
            for each in study_attributes(found):
                document |= each
        address = f"{base(request)}/studies/{found.row['uid']}"
        document |= attribute("StudyInstanceUID", found.row["uid"])
        if level > Level.STUDY:
            for each in series_attributes(found):
                document |= each
            address += f"/series/{found.row['instance__series_uid']}"
        if level is Level.INSTANCE:
            for each in instance_attributes(found):
                document |= each
            address += f"/instances/{found.row['instance__uid']}"
        document |= attribute("RetrieveURL", address) | attribute("InstanceAvailability", "ONLINE")
        missing = [tag for field in query.fields if (tag := _tag(field)) not in document]
        if missing or (query.all_fields and level is Level.INSTANCE):
            document = self._from_file(found, missing, whole=query.all_fields and level is Level.INSTANCE) | document
        return dict(sorted(document.items()))

    def _from_file(self, found: Found, tags: list[str], *, whole: bool) -> Model:
        """Return attributes from a file: of the instance, or of the first one of the series or study."""
        row = found.row
        with reading(self._engine) as connection:
            files = held(connection, row["uid"], row.get("instance__series_uid"), row.get("instance__uid"))
        try:
            [first, *_] = [each for each in files if not each.removed]
            model = to_model(open_dataset(self._store.resolve(first.path)), lambda _: "")
        except (ValueError, OSError, UnparsableDataset):
            return {}
        return {tag: value for tag, value in model.items() if (whole or tag in tags) and "BulkDataURI" not in value}


def _tag(keyword: str) -> str:
    return f"{tag_for_keyword(keyword.partition('.')[0]) or 0:08X}"


def study_attributes(found: Found) -> Iterator[Model]:
    """Yield what a study is described by (PS3.18 table 10.6.3-3)."""
    row = found.row
    yield attribute("StudyDate", row["date"])
    yield attribute("StudyTime", _time(row["time"]))
    yield attribute("AccessionNumber", row["accession_number"])
    yield attribute("ModalitiesInStudy", *found.modalities)
    yield attribute("SOPClassesInStudy", *found.sop_classes)
    yield attribute("ReferringPhysicianName", row["referring_physician"])
    yield attribute("StudyDescription", row["description"])
    yield attribute("PatientName", row["patient_name"])
    yield attribute("PatientID", row["patient_id"])
    if row["issuer"]:
        yield attribute("IssuerOfPatientID", row["issuer"])
    yield attribute("PatientBirthDate", row["birth_date"])
    yield attribute("PatientSex", row["sex"])
    if row["timezone"]:
        yield attribute("TimezoneOffsetFromUTC", row["timezone"])
    yield attribute("StudyID", row["study_id"])
    yield attribute("NumberOfStudyRelatedSeries", found.series)
    yield attribute("NumberOfStudyRelatedInstances", found.instances)


def series_attributes(found: Found) -> Iterator[Model]:
    """Yield what a series is described by (PS3.18 table 10.6.3-4)."""
    row = found.row
    yield attribute("Modality", row["instance__modality"])
    yield attribute("SeriesInstanceUID", row["instance__series_uid"])
    yield attribute("SeriesNumber", row["instance__series_number"])
    yield attribute("SeriesDescription", row["instance__series_description"])
    yield attribute("NumberOfSeriesRelatedInstances", found.series_instances)
    if row["instance__performed_date"]:
        yield attribute("PerformedProcedureStepStartDate", row["instance__performed_date"])
        yield attribute("PerformedProcedureStepStartTime", _time(row["instance__performed_time"]))
    ids = {
        "ScheduledProcedureStepID": row["instance__scheduled_step_id"],
        "RequestedProcedureID": row["instance__requested_procedure_id"],
    }
    if any(ids.values()):
        item: Model = {}
        for keyword, value in ids.items():
            item |= attribute(keyword, value)
        yield attribute("RequestAttributesSequence", item)


def instance_attributes(found: Found) -> Iterator[Model]:
    """Yield what an instance is described by (PS3.18 table 10.6.3-5)."""
    row = found.row
    yield attribute("SOPClassUID", row["instance__sop_class_uid"])
    yield attribute("SOPInstanceUID", row["instance__uid"])
    yield attribute("InstanceNumber", row["instance__instance_number"])
    yield attribute("AvailableTransferSyntaxUID", row["instance__transfer_syntax_uid"])
    names = {"Rows": "rows", "Columns": "columns", "BitsAllocated": "bits_allocated", "NumberOfFrames": "frames"}
    for keyword, column in names.items():
        if row[f"instance__{column}"] is not None:
            yield attribute(keyword, row[f"instance__{column}"])


def _time(full: str) -> str:
    return full.removesuffix(".000000")
