"""What PostgreSQL lets happen at once: decisions about copies (rule R6), what arrives, what is sent, what is removed."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DBAPIError

from config.mix import ResultKind
from storage.conflicts import accept, list_conflicts, reject
from storage.database import _BOUNDS, open_database, reading, upgrade, writing
from storage.errors import DatabaseUnavailable
from storage.exams import get_exam, hold, list_exams, lock, recall, touch
from storage.index import ConflictRecord, add_conflict, add_instance, instances_of_exam
from storage.lanes import Pause, pause
from storage.outbox import Outbox, enqueue
from storage.removals import Due, remove_files
from storage.states import ConflictState, DeliveryState, ExamState
from storage.waiving import Waivable, Wanted, waive
from tests.databases import Databases, PostgreSQLDatabases
from tests.records import ANNE, NOON, SECOND, a_result, an_answer_waits, an_instance, resent

BETTY = replace(ANNE, patient_id="4712", name="Right^Betty")


@contextmanager
def meanwhile(engine: Engine, decide: Callable[[Connection], object]) -> Iterator[Connection]:
    """Yield a transaction of the door's, in whose middle an operator decides in one of his own."""

    def act() -> None:
        with writing(engine) as connection:
            decide(connection)

    with beside(engine, act) as connection:
        yield connection


@contextmanager
def beside(engine: Engine, act: Callable[[], object]) -> Iterator[Connection]:
    """Yield a transaction in whose middle an operator acts."""
    operator = threading.Thread(target=act)
    with writing(engine) as connection:
        yield connection
        operator.start()
        operator.join(0.3)  # long enough to come to where it waits
    operator.join()


@pytest.fixture
def outbox(engine: Engine) -> Outbox:
    """A report with another form for who refuses it, which waits."""
    forms = [a_result("2.25.3"), a_result("2.25.2", fallback_uid="2.25.3", path="results/other")]
    return an_answer_waits(engine, forms, {"2.25.2": ["pacs"]})


def a_copy(connection: Connection, number: int) -> int:
    copy = ConflictRecord(
        "1.2.3.1.1", f"conflicts/{number}", NOON, "M", f"d{number}", identity_changed=True, differences=("PatientID",)
    )
    return add_conflict(connection, copy)


def arrives(connection: Connection, uid: str = "1.2.3.1.1") -> int:
    image = an_instance(uid)
    add_instance(connection, image)
    return touch(connection, image.patient, image.study.uid, NOON).id


def test_what_another_has_locked_is_not_waited_for_without_end(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.database._BUSY_SECONDS", 0.1)
    monkeypatch.setitem(_BOUNDS, "lock_timeout", "100ms")
    engine = open_database(databases.fresh())
    with writing(engine) as connection:
        arrives(connection)
        with pytest.raises(DatabaseUnavailable), writing(engine) as another:
            arrives(another, "1.2.3.1.2")
    with writing(engine) as another:
        arrives(another, "1.2.3.1.2")
    engine.dispose()


def test_what_a_host_that_is_gone_has_locked_is_let_go(
    postgresql_databases: PostgreSQLDatabases, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgresql_databases.fresh()
    engine = open_database(url)
    with monkeypatch.context() as patch:
        # Long enough for a slow machine to come from one statement of `arrives` to the next.
        patch.setitem(_BOUNDS, "idle_in_transaction_session_timeout", "2s")
        hosts = open_database(url)
        gone = hosts.connect()
    arrives(gone)
    with writing(engine) as connection:
        arrives(connection)
    with pytest.raises(DBAPIError, match="idle-in-transaction"):
        gone.execute(select(1))
    gone.close()
    for each in (engine, hosts):
        each.dispose()


def test_a_migration_takes_its_time(postgresql_databases: PostgreSQLDatabases) -> None:
    engine = open_database(postgresql_databases.fresh())
    settings = select(*(func.current_setting(name) for name in _BOUNDS))
    with writing(engine) as connection:
        upgrade(connection)
        assert tuple(connection.execute(settings).one()) == ("0", "0")
    with writing(engine) as connection:
        assert tuple(connection.execute(settings).one()) == ("30s", "1min")
    engine.dispose()


def test_an_image_that_arrives_while_the_last_other_one_is_moved_is_read(engine: Engine) -> None:
    with writing(engine) as connection:
        arrives(connection)
        conflict = a_copy(connection, 1)
    copy = an_instance(patient=BETTY, path="conflicts/1")
    with meanwhile(engine, lambda connection: accept(connection, conflict, copy, NOON)) as connection:
        arrives(connection, "1.2.3.1.2")
    with reading(engine) as connection:
        exams = {exam.patient.patient_id: exam for exam in list_exams(connection, 9)}
        assert [image.uid for image in instances_of_exam(connection, exams[ANNE.patient_id].id)] == ["1.2.3.1.2"]
    assert {exam.state for exam in exams.values()} == {ExamState.COLLECTING}


def test_the_other_form_of_what_is_refused_while_it_is_recalled_does_not_go_out(
    engine: Engine, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act() -> None:
        with writing(engine) as connection:
            lock(connection, get_exam(connection, 1))
            recall(connection, 1, NOON)

    def slowly(*arguments: Any) -> None:
        operator.start()
        operator.join(0.3)
        enqueue(*arguments)

    operator = threading.Thread(target=act)
    monkeypatch.setattr("storage.outbox.enqueue", slowly)
    outbox.replaced(outbox.due("pacs", NOON, 9)[0], "not supported", 0x0122, NOON)
    operator.join()
    assert outbox.due("pacs", NOON, 9) == []


def test_what_is_removed_is_not_sent_again_at_the_same_time(engine: Engine, outbox: Outbox) -> None:
    outbox.sent(outbox.due("pacs", NOON, 9)[0], 0, NOON)
    which = Due(NOON + SECOND, results_too=True, destinations=True, unproven=False)
    with beside(engine, lambda: resent(engine, 1, NOON, {"pacs": ResultKind})) as connection:
        assert len(remove_files(connection, 1, which, NOON)) == 2
    assert outbox.due("pacs", NOON, 9) == []


def test_what_a_lane_notes_while_it_is_waived_counts(engine: Engine, outbox: Outbox) -> None:
    def act() -> None:
        wanted = Wanted(frozenset({"pacs"}), state=DeliveryState.WAITING)
        with writing(engine) as connection:
            found.extend(waive(connection, 1, wanted, "waived by eve", NOON))

    [in_hand] = outbox.due("pacs", NOON, 9)
    with writing(engine) as connection:
        pause(connection, Pause("pacs", NOON, "eve", ""))
    found: list[Waivable] = []
    with beside(engine, act) as connection:
        outbox._note(connection, in_hand, NOON, DeliveryState.SENT, status_code=0, message=None)  # noqa: SLF001
    assert found == []
    assert [each.state for each in outbox.of_exam(1)] == [DeliveryState.SENT]


def test_an_exam_stays_held_for_a_copy_that_comes_while_another_is_rejected(engine: Engine) -> None:
    with writing(engine) as connection:
        exam = arrives(connection)
        conflict = a_copy(connection, 1)
        hold(connection, exam, held=True)
    with meanwhile(engine, lambda connection: reject(connection, conflict, NOON)) as connection:
        a_copy(connection, 2)
        hold(connection, exam, held=True)
    with reading(engine) as connection:
        assert [each.state for each in list_conflicts(connection)] == [ConflictState.REJECTED, ConflictState.OPEN]
        [held] = list_exams(connection, 9)
    assert held.held
