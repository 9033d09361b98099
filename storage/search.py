"""Searching the catalogue with the standard's matching (PS3.4 C.2.2.2), alike on both databases."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, RowMapping, Select, and_, func, or_, select

from storage.catalogue import files, kept, with_files
from storage.database import limited
from storage.tables import catalogue, catalogue_studies


class Level(IntEnum):
    """What is searched for."""

    STUDY = 1
    SERIES = 2
    INSTANCE = 3


@dataclass(frozen=True)
class OneOf:
    """Single value and list of UID matching: exactly one of these."""

    values: tuple[str | int, ...]


@dataclass(frozen=True)
class Wildcard:
    """Wild card matching: ``*`` is any sequence of characters, ``?`` any one; upper and lower case differ."""

    pattern: str


@dataclass(frozen=True)
class Range:
    """Range matching, both ends included; '' is open. What has no value does not match."""

    low: str
    high: str


@dataclass(frozen=True)
class AnyOf:
    """One of several conditions, as the component groups of a name are matched; the first takes most."""

    conditions: tuple[OneOf | Wildcard, ...]


Condition = OneOf | Wildcard | Range | AnyOf

_studies, _rows = catalogue_studies.c, catalogue.c

STUDY_KEYS: Mapping[str, Column[Any]] = MappingProxyType(
    {
        "StudyDate": _studies.date,
        "StudyTime": _studies.time,
        "AccessionNumber": _studies.accession_number,
        "ReferringPhysicianName": _studies.referring_physician_key,
        "PatientName": _studies.patient_name_key,
        "PatientID": _studies.patient_id,
        "IssuerOfPatientID": _studies.issuer,
        "PatientBirthDate": _studies.birth_date,
        "PatientSex": _studies.sex,
        "StudyInstanceUID": _studies.uid,
        "StudyID": _studies.study_id,
        "StudyDescription": _studies.description,
    }
)
"""Keyword → column, of what a study is searched by (PS3.18 table 10.6.1-5). Person names are given in folded case."""

SERIES_KEYS: Mapping[str, Column[Any]] = MappingProxyType(
    {
        "Modality": _rows.modality,
        "SeriesInstanceUID": _rows.series_uid,
        "SeriesNumber": _rows.series_number,
        "SeriesDescription": _rows.series_description,
        "Laterality": _rows.laterality,
        "BodyPartExamined": _rows.body_part,
        "PerformedProcedureStepStartDate": _rows.performed_date,
        "PerformedProcedureStepStartTime": _rows.performed_time,
        "RequestAttributesSequence.ScheduledProcedureStepID": _rows.scheduled_step_id,
        "RequestAttributesSequence.RequestedProcedureID": _rows.requested_procedure_id,
        # Of a study or a series: that one of its instances is so.
        "ModalitiesInStudy": _rows.modality,
        "SOPClassesInStudy": _rows.sop_class_uid,
    }
)

INSTANCE_KEYS: Mapping[str, Column[Any]] = MappingProxyType(
    {
        "SOPClassUID": _rows.sop_class_uid,
        "SOPInstanceUID": _rows.uid,
        "InstanceNumber": _rows.instance_number,
        "Rows": _rows.rows,
        "Columns": _rows.columns,
        "BitsAllocated": _rows.bits_allocated,
        "NumberOfFrames": _rows.frames,
    }
)

INDEXED = ("PatientName", "PatientID", "AccessionNumber")
MANY = 2_000
"""So many studies are found and sorted in 10 ms; among 250,000, newest first, a page of them as soon."""

OF_STUDY = ("ModalitiesInStudy", "SOPClassesInStudy")


@dataclass(frozen=True)
class Found:
    """A match.

    Attributes
    ----------
    row
        Columns of ``catalogue_studies``; at the level of series and instances those of ``catalogue`` too.
    modalities, sop_classes
        Of the study.
    series, instances
        How many the study has; ``instances`` of the series where one is meant.
    """

    row: Mapping[str, Any]
    modalities: tuple[str, ...] = ()
    sop_classes: tuple[str, ...] = ()
    series: int = 0
    instances: int = 0
    series_instances: int = 0


def search(
    connection: Connection, level: Level, conditions: Mapping[str, Condition], limit: int, offset: int = 0
) -> list[Found]:
    """Return what matches all conditions, newest studies first, then by number.

    Studies whose files were all removed do not match. Those are old, so the first page of studies is asked for as if there were
    none, and anew should one be on it: to plan that look takes PostgreSQL longer than to find the studies.

    Parameters
    ----------
    conditions
        Keyword of `STUDY_KEYS`, `SERIES_KEYS` or `INSTANCE_KEYS` → what its value must be.
    limit, offset
        How many at most, and how many to leave out.
    """
    where, rows = _wanted(connection, level, conditions)
    newest = (_studies.date.desc(), _studies.time.desc(), _studies.key.desc())
    match level:
        case Level.STUDY:
            query = select(catalogue_studies).where(*where).order_by(*newest)
            if not rows and not offset:
                found = _described(connection, level, list(connection.execute(limited(query, limit, 0)).mappings()))
                if all(each.instances for each in found):
                    return found
            query = query.where(_in_study(*rows))
        case Level.SERIES:
            query = _series(rows, where).order_by(*newest, func.min(_rows.series_number), _rows.series_uid)
        case Level.INSTANCE:
            columns = [column for column in _rows if column.name != "study_key"]
            own = [column.label(f"instance__{column.name}") for column in columns]
            query = select(catalogue_studies, *own).select_from(with_files()).where(kept(), *where, *rows)
            query = query.order_by(*newest, _rows.series_number, _rows.series_uid, _rows.instance_number, _rows.uid)
    matches = list(connection.execute(limited(query, limit, offset)).mappings())
    return _described(connection, level, matches)


def _wanted(
    connection: Connection, level: Level, conditions: Mapping[str, Condition]
) -> tuple[list[ColumnElement[bool]], list[ColumnElement[bool]]]:
    """Return what must be so of a study, and of an instance of it."""
    dialect = connection.dialect.name
    where: list[ColumnElement[bool]] = []
    rows: list[ColumnElement[bool]] = []
    for name, condition in conditions.items():
        if name in STUDY_KEYS:
            column: ColumnElement[Any] = STUDY_KEYS[name]
            if level is Level.STUDY and dialect == "sqlite" and _is_common(connection, name, condition):
                column = column.concat("")  # an expression, which no index is of
            where.append(matching(dialect, column, condition))
        elif name in OF_STUDY:
            where.append(_in_study(matching(dialect, SERIES_KEYS[name], condition)))
        else:
            rows.append(matching(dialect, {**SERIES_KEYS, **INSTANCE_KEYS}[name], condition))
    return where, rows


def _series(rows: list[ColumnElement[bool]], where: list[ColumnElement[bool]]) -> Select[Any]:
    least = [
        func.min(column).label(f"instance__{column.name}")
        for column in _rows
        if column.name not in {"study_key", "series_uid"}
    ]
    return (
        select(catalogue_studies, _rows.series_uid.label("instance__series_uid"), *least)
        .select_from(with_files())
        .where(kept(), *where, *rows)
        .group_by(*catalogue_studies.c, _rows.series_uid)
    )


def _is_common(connection: Connection, name: str, condition: Condition) -> bool:
    """Tell whether so many studies' values begin so that some are soon found among the newest.

    SQLite does not know how many do: it would find all of them by the index of the values, and sort them.
    """
    if isinstance(condition, AnyOf):
        return _is_common(connection, name, condition.conditions[0])
    if name not in INDEXED or not isinstance(condition, Wildcard) or condition.pattern.startswith(("*", "?")):
        return False
    begun = select(_studies.key).where(matching("sqlite", STUDY_KEYS[name], condition))
    return connection.execute(limited(begun, 1, MANY - 1)).first() is not None


def _in_study(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """Tell of a study whether one of its instances is so."""
    # Only ever put into a query of studies alone, so that the catalogue here is its own.
    query = select(_rows.uid).select_from(files()).where(_rows.study_key == _studies.key, kept(), *conditions)
    return query.correlate(catalogue_studies).exists()


def _described(connection: Connection, level: Level, matches: list[RowMapping]) -> list[Found]:
    keys = list({row["key"] for row in matches})
    if not keys:
        return []
    query = (
        select(_rows.study_key, _rows.series_uid, _rows.modality, _rows.sop_class_uid, func.count().label("number"))
        .select_from(with_files())
        .where(kept(), _rows.study_key.in_(keys))
        .group_by(_rows.study_key, _rows.series_uid, _rows.modality, _rows.sop_class_uid)
    )
    counts: dict[str, list[Any]] = {}
    for counted in connection.execute(query):
        counts.setdefault(counted.study_key, []).append(counted)
    found = []
    for row in matches:
        whole = counts.get(row["key"], [])
        here = row.get("instance__series_uid") if level is not Level.STUDY else None
        found.append(
            Found(
                dict(row),
                modalities=tuple(sorted({each.modality for each in whole if each.modality})),
                sop_classes=tuple(sorted({each.sop_class_uid for each in whole})),
                series=len({each.series_uid for each in whole}),
                instances=sum(each.number for each in whole),
                series_instances=sum(each.number for each in whole if each.series_uid == here),
            )
        )
    return found


def matching(dialect: str, column: ColumnElement[Any], condition: Condition) -> ColumnElement[bool]:
    """Tell whether a column is as a condition says."""
    if isinstance(condition, OneOf):
        return column.in_(condition.values)
    if isinstance(condition, Wildcard):
        return _like(dialect, column, condition.pattern)
    if isinstance(condition, AnyOf):
        return or_(*(matching(dialect, column, each) for each in condition.conditions))
    ends = [column != ""]
    ends += [column >= condition.low] if condition.low else []
    ends += [column <= condition.high] if condition.high else []
    return and_(*ends)


def _like(dialect: str, column: ColumnElement[str], pattern: str) -> ColumnElement[bool]:
    if dialect == "sqlite":  # whose LIKE does not tell upper from lower case
        return column.op("GLOB", is_comparison=True)(pattern.replace("[", "[[]"))
    escaped = "".join(f"\\{each}" if each in "\\%_" else each for each in pattern)
    return column.like(escaped.replace("*", "%").replace("?", "_"), escape="\\")
