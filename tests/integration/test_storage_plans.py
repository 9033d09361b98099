"""What is asked often is found by an index, however much there is: the plans of the statements, on both databases."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from storage import waiving
from storage.catalogue import Entry, StudyEntry, catalogued, held
from storage.commitment_requests import CommitmentRequests
from storage.database import reading, writing
from storage.deliveries import not_got
from storage.errors import NoSuchExam
from storage.exams import collecting, find_exam, list_exams, touch
from storage.figures import unanswered, undelivered
from storage.index import add_instance, find_instance, instances_of_exam
from storage.jobs import JobQueue
from storage.outbox import Outbox
from storage.overview import (
    Wanted,
    bytes_kept,
    calling_aes,
    oldest_waiting_job,
    readings_since,
    received_since,
    search_exams,
    typical_seconds,
)
from storage.removals import removed_of_exam
from storage.search import AnyOf, Level, OneOf, Range, Wildcard, search
from storage.waiving import waivable
from storage.withdrawals import withdrawn_of_exam
from storage.workitems import (
    exams_without_workitem,
    next_retrieval,
    open_workitems,
    retrievals,
    search_workitems,
    unsettled_workitems,
)
from tests.records import LEASE, NOON, POLICY, an_instance

Does = Callable[[Engine], object]


def receive(engine: Engine) -> None:
    record = an_instance()
    with writing(engine) as connection:
        assert add_instance(connection, record)
        catalogued(connection, Entry(StudyEntry(record.study.uid), record.uid, record.series.uid, "1.2", "1.2"))
        touch(connection, record.patient, record.study.uid, NOON)
        find_instance(connection, record.uid)


def find(engine: Engine) -> None:
    with suppress(NoSuchExam), reading(engine) as connection:
        find_exam(connection, "ab12")


def read(function: Callable[..., object], *arguments: object) -> Does:
    def do(engine: Engine) -> None:
        with reading(engine) as connection:
            function(connection, *arguments)

    return do


STUDIES = {
    "by patient": {"PatientID": OneOf(("P1",))},
    "by name": {"PatientName": OneOf(("doe^anne",))},
    "by the first group of a name": {"PatientName": AnyOf((OneOf(("doe^anne",)), Wildcard("doe^anne=*")))},
    "by the beginning of a name": {"PatientName": Wildcard("doe*")},
    "by accession number": {"AccessionNumber": OneOf(("A1",))},
    "by day": {"StudyDate": Range("20260110", "20260110")},
    "by UID": {"StudyInstanceUID": OneOf(("1.2.3",))},
    "newest": {},
    "of a modality": {"ModalitiesInStudy": OneOf(("MG",))},
}
STATEMENTS: dict[str, Does] = {
    "receive": receive,
    "claim": lambda engine: JobQueue(engine, POLICY, LEASE).claim("worker", NOON),
    "next delivery": lambda engine: Outbox(engine, POLICY).due("pacs", NOON, 10),
    "when the next delivery is due": lambda engine: Outbox(engine, POLICY).next_at("pacs", proofs=True),
    "when the next report is due": lambda engine: CommitmentRequests(engine, POLICY).next_at(),
    "studies to be retrieved": read(retrievals, NOON, timedelta(hours=1)),
    "when the next study is to be retrieved": read(next_retrieval),
    "exams": read(list_exams, 50),
    "exam by its beginning": find,
    "exams that collect": read(collecting),
    "images of an exam": read(instances_of_exam, 1),
    "how long the last readings took": read(typical_seconds),
    "readings of some time": read(readings_since, NOON),
    "since when a job waits": read(oldest_waiting_job),
    "whose images there are": read(calling_aes),
    "images of some time": read(received_since, NOON),
    "withdrawn images": read(withdrawn_of_exam, 1),
    "removed images": read(removed_of_exam, 1),
    "what of an exam may be waived": read(waivable, waiving.Wanted(frozenset({"pacs"}), 1)),
    "what of the exams on a page was not got": read(not_got, [1, 2, 3]),
    "unanswered": read(unanswered),
    "undelivered": read(undelivered),
    "open workitems": read(open_workitems),
    "unsettled workitems": read(unsettled_workitems),
    "exams without workitem": read(exams_without_workitem, 100, "SELF-TEST"),
    "retrieve": read(held, "1.2.3", "1.2.3.1", "1.2.3.1.1"),
    **{f"studies {name}": read(search, Level.STUDY, keys, 50) for name, keys in STUDIES.items()},
    "series of a study": read(search, Level.SERIES, {"StudyInstanceUID": OneOf(("1.2.3",))}, 50),
    "instances of a series": read(search, Level.INSTANCE, {"SeriesInstanceUID": OneOf(("1.2.3.1",))}, 50),
}


Said = tuple[str, Any]


@contextmanager
def statements(engine: Engine) -> Iterator[list[Said]]:
    """Note what is said to the database."""
    said: list[Said] = []

    def note(_connection: Connection, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        said.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        event.remove(engine, "before_cursor_execute", note)


OF_WHAT_WAITS = re.compile("ix_jobs_claimable|ix_deliveries_waiting")
"""Indexes of the few rows that wait: to go through one of them is no scan."""
IN_ORDER = ("exams", "how long the last readings took", "studies newest", "studies of a modality")
"""Lists that end at their limit: they may go through a table in the order of an index."""
LISTS: dict[str, Does] = {
    **{name: STATEMENTS[name] for name in (*IN_ORDER, "studies by day")},
    "exams on a page": read(search_exams, Wanted(), 50),
    "workitems": read(search_workitems, {}, 50, 0),
}


def plan(engine: Engine, said: Said, without: str) -> list[str]:
    """Return the steps of a statement's plan; PostgreSQL's without one kind of step, if there is another way."""
    statement, parameters = said
    if statement.split()[0] not in {"SELECT", "UPDATE", "DELETE", "WITH"}:
        return []
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            return [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
        # The tables are empty: without this, to go through them and to sort them would cost the least.
        connection.execute(text(f"SET LOCAL {without} = off"))
        return [row[0].strip() for row in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)]


def scans(engine: Engine, said: Said, *, in_order: bool = False) -> list[str]:
    """Return the steps of a statement's plan that go through a whole table."""
    steps = plan(engine, said, "enable_seqscan")
    if engine.dialect.name == "sqlite":
        ordered = r"SCAN \w+ USING (COVERING )?INDEX" if in_order and "LIMIT" in said[0] else "$^"
        # "names" is what a recursion has found so far (storage.overview).
        found = [step for step in steps if step.startswith("SCAN") and not re.match(rf"{ordered}|SCAN names$", step)]
        return [step for step in found if not OF_WHAT_WAITS.search(step)]
    whole = [
        step
        for step, after in pairwise([*steps, ""])
        if re.search(r"Index (Only )?Scan", step) and "Index Cond" not in after and not OF_WHAT_WAITS.search(step)
    ]
    return [step for step in steps if "Seq Scan" in step] + ([] if in_order else whole)


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_that_is_asked_often_goes_through_a_whole_table(engine: Engine, name: str) -> None:
    with statements(engine) as said:
        STATEMENTS[name](engine)
    assert said
    assert {each[0]: found for each in said if (found := scans(engine, each, in_order=name in IN_ORDER))} == {}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_ends_at_its_limit_without_a_sort_however_many_share_a_time(engine: Engine, name: str) -> None:
    with statements(engine) as said:
        LISTS[name](engine)
    [ends] = [each for each in said if "LIMIT" in each[0]]
    # As a parameter it would be unknown to a plan that is kept.
    assert re.search(r"LIMIT \d", ends[0])
    assert [step for step in plan(engine, ends, "enable_sort") if re.search("Sort|ORDER BY", step)] == []


def test_of_a_beginning_that_many_share_the_newest_are_found_without_sorting_all(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(engine) as connection:
        for day in ("05", "02", "04", "01", "03"):
            record = an_instance(f"1.2.{day}.1.1", study=f"1.2.{day}")
            entry = StudyEntry(record.study.uid, date=f"202601{day}", patient_name="Doe^Anne" if day < "05" else "Roe")
            add_instance(connection, record)
            catalogued(connection, Entry(entry, record.uid, record.series.uid, "1.2", "1.2"))

    def newest() -> list[str]:
        with statements(engine) as said, reading(engine) as connection:
            found = search(connection, Level.STUDY, {"PatientName": Wildcard("doe*")}, 2, 1)
        plans.append([step for each in said if "LIMIT 2" in each[0] for step in plan(engine, each, "enable_sort")])
        return [each.row["uid"] for each in found]

    plans: list[list[str]] = []
    assert newest() == ["1.2.03", "1.2.02"]
    monkeypatch.setattr("storage.search.MANY", 4)
    assert newest() == ["1.2.03", "1.2.02"]
    if engine.dialect.name == "sqlite":  # PostgreSQL knows by its statistics how many there are
        assert [any("ORDER BY" in step for step in steps) for steps in plans] == [True, False]
        assert any("ix_catalogue_studies_newest" in step for step in plans[1])


def test_the_sizes_of_all_images_are_added_up_without_opening_a_row(engine: Engine) -> None:
    with statements(engine) as said, reading(engine) as connection:
        bytes_kept(connection)
    [of_images] = [each for each in said if "instances" in each[0]]
    assert "ix_instances_received_at_size" in "".join(plan(engine, of_images, "enable_seqscan"))


def test_a_table_that_is_gone_through_is_told(engine: Engine) -> None:
    with statements(engine) as said, reading(engine) as connection:
        connection.execute(text("SELECT uid FROM instances WHERE kind = 'x'"))
    assert [scans(engine, each) for each in said] != [[]]
