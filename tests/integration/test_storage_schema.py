"""The schema on both databases, and opening them."""

import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, bindparam, insert, text
from sqlalchemy.schema import SchemaItem

from storage.conflicts import list_conflicts
from storage.database import (
    installation_id,
    migrate,
    newest_revision,
    open_database,
    reading,
    schema_is_current,
    writing,
)
from storage.errors import DatabaseUnavailable, DatabaseURLUnknown, DriverMissing, SchemaUnknown
from storage.exams import hold
from storage.migrations.running import configuration
from storage.outbox import Outbox
from storage.results import results_of
from storage.states import DeliveryState
from storage.tables import conflicts, deliveries, metadata, results
from storage.tables.columns import DIALECT
from tests.databases import Databases
from tests.records import NOON, POLICY, a_closed_exam, an_exam


def test_migrations_make_exactly_the_tables_of_the_code(engine: Engine) -> None:
    def is_here(item: SchemaItem, *_: object) -> bool:
        return bool(item.info.get(DIALECT, engine.dialect.name) == engine.dialect.name)

    with reading(engine) as connection:
        context = MigrationContext.configure(connection, opts={"include_object": is_here})
        assert compare_metadata(context, metadata) == []


def test_a_database_without_tables_is_not_current_and_becomes_so(databases: Databases) -> None:
    engine = open_database(databases.empty())
    assert not schema_is_current(engine)
    migrate(engine)
    assert schema_is_current(engine)
    engine.dispose()


def test_a_database_of_the_first_release_keeps_its_results(databases: Databases) -> None:
    engine = open_database(databases.empty())
    migrate(engine, "0001")
    assert not schema_is_current(engine)
    exam, job = a_closed_exam(engine)
    row = {"uid": "2.25.1", "job_id": job, "kind": "SR", "sop_class_uid": "1.2", "series_uid": "2.25.2"}
    row |= {"study_uid": "1.2.3", "path": "results/1", "size": 1, "created_at": NOON}
    with writing(engine) as connection:
        connection.execute(insert(results).values(row))
    migrate(engine)
    assert schema_is_current(engine)
    with reading(engine) as connection:
        [kept] = results_of(connection, exam.id)
    assert (kept.record.uid, kept.record.fallback_uid) == ("2.25.1", None)
    engine.dispose()


def test_what_an_older_version_delivered_was_sent_when_it_ended_and_needs_no_proof(databases: Databases) -> None:
    engine = open_database(databases.empty())
    migrate(engine, "0001")
    _, job = a_closed_exam(engine)
    result = {"uid": "2.25.1", "job_id": job, "kind": "SR", "sop_class_uid": "1.2", "series_uid": "2.25.2"}
    result |= {"study_uid": "1.2.3", "path": "results/1", "size": 1, "created_at": NOON}
    delivery = {"result_uid": "2.25.1", "attempts": 1, "created_at": NOON, "not_before": NOON}
    ended = {"sent": NOON, "refused": NOON, "waiting": None}
    with writing(engine) as connection:
        connection.execute(insert(results).values(result))
        for state, at in ended.items():
            old = delivery | {"destination": state, "state": state, "finished_at": at}
            columns = ", ".join(old)
            values = ", ".join(f":{name}" for name in old)
            # As that version wrote it, without the columns of today.
            statement = text(f"INSERT INTO deliveries ({columns}) VALUES ({values})")  # noqa: S608 (our own names)
            connection.execute(statement.bindparams(*[bindparam(n, type_=deliveries.c[n].type) for n in old]), old)
    migrate(engine)
    kept = {delivery.destination: delivery for delivery in Outbox(engine, POLICY).of_exam(1)}
    assert {name: (d.state, d.sent_at, d.proven_at, d.proofs) for name, d in kept.items()} == {
        "sent": (DeliveryState.SENT, NOON, None, 0),
        "refused": (DeliveryState.REFUSED, None, None, 0),
        "waiting": (DeliveryState.WAITING, None, None, 0),
    }
    assert kept["sent"].finished_at == NOON
    engine.dispose()


@pytest.mark.parametrize(("held", "state"), [(True, "open"), (False, "rejected")])
def test_a_conflict_of_an_older_version_is_open_while_its_exam_is_held(
    databases: Databases, *, held: bool, state: str
) -> None:
    engine = open_database(databases.empty())
    migrate(engine, "0001")
    exam = an_exam(engine)
    row = {"instance_uid": "1.2.3.1.1", "path": "conflicts/1", "received_at": NOON, "calling_ae": "M", "digest": "ab"}
    row |= {"identity_changed": True, "differences": ["PatientID"]}
    with writing(engine) as connection:
        connection.execute(insert(conflicts).values(row))
        hold(connection, exam.id, held=held)
    migrate(engine)
    with reading(engine) as connection:
        [kept] = list_conflicts(connection, exam_id=exam.id)
    assert (kept.state, kept.decided_at) == (state, None)
    engine.dispose()


def test_the_newest_revision_by_name_is_the_head_of_all() -> None:
    assert ScriptDirectory.from_config(configuration()).get_heads() == [newest_revision()]


def test_migrating_again_keeps_the_installation_id(engine: Engine) -> None:
    before = installation_id(engine)
    migrate(engine)
    assert installation_id(engine) == before
    assert len(before) == 32


def test_two_installations_have_different_ids(databases: Databases) -> None:
    engines = [open_database(databases.empty()) for _ in range(2)]
    for engine in engines:
        migrate(engine)
    assert installation_id(engines[0]) != installation_id(engines[1])
    for engine in engines:
        engine.dispose()


def migrate_in_process(url: str) -> str:
    engine = open_database(url)
    migrate(engine)
    uid = installation_id(engine)
    engine.dispose()
    return uid


def test_processes_that_start_at_once_migrate_once(databases: Databases) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert len(set(pool.map(migrate_in_process, [databases.empty()] * 8, chunksize=1))) == 1


def test_threads_that_start_at_once_migrate_once(databases: Databases) -> None:
    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(migrate_in_process, [databases.empty()] * 8))) == 1


def test_a_database_of_a_newer_version_is_refused_with_a_word_on_what_to_do(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert not schema_is_current(engine)
    with pytest.raises(SchemaUnknown, match="install that version or a newer one"):
        migrate(engine)


@pytest.mark.parametrize("url", ["nonsense", "sqlite://", "sqlite:///:memory:", "mysql://user:secret@host/db"])
def test_an_unknown_url_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(DatabaseURLUnknown) as error:
        open_database(url)
    assert "secret" not in str(error.value)


def test_postgresql_without_its_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(DriverMissing, match=r"mammonode\[postgres\]"):
        open_database("postgresql://host/db")


def test_a_server_that_does_not_answer_is_unavailable() -> None:
    engine = open_database("postgresql://user:secret@127.0.0.1:1/db")
    with pytest.raises(DatabaseUnavailable) as error, reading(engine):
        pass
    assert "secret" not in str(error.value)


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseUnavailable):
        open_database(f"sqlite:///{tmp_path}/file/node.db")


def test_a_sqlite_database_is_durable_and_private(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/var/node.db")
    migrate(engine)
    with reading(engine) as connection:
        pragmas = [
            connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    assert pragmas == ["wal", 2, 1, 30000]
    assert (tmp_path / "var").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "var").iterdir()} == {0o600}
    engine.dispose()


def test_reading_does_not_wait_for_a_writer(engine: Engine) -> None:
    with writing(engine) as writer:
        writer.execute(text("UPDATE installation SET uid = 'changed'"))
        assert installation_id(engine) != "changed"
    assert installation_id(engine) == "changed"


def test_what_fails_is_rolled_back_as_a_whole(engine: Engine) -> None:
    def change_and_fail() -> None:
        with writing(engine) as connection:
            connection.execute(text("UPDATE installation SET uid = 'changed'"))
            raise LookupError

    with pytest.raises(LookupError):
        change_and_fail()
    assert installation_id(engine) != "changed"


def test_an_error_message_holds_no_values(engine: Engine) -> None:
    # A missing function is an OperationalError on SQLite, a lost connection on PostgreSQL.
    call = "missing()" if engine.dialect.name == "sqlite" else "pg_terminate_backend(pg_backend_pid())"
    with pytest.raises(DatabaseUnavailable) as error, writing(engine) as connection:
        connection.execute(text(f"SELECT {call}, :name"), {"name": "Doe^Anne"})
    assert "Anne" not in str(error.value)
