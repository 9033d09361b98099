"""Backups on both databases: taken while images come in, restored into either; what came since is adopted."""

import os
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from sqlalchemy import Engine, insert, select, text, update
from structlog.testing import capture_logs

from config.mix import ResultKind
from config.policy import RetentionPolicy
from node.adoption import Adopted, adopt
from node.intake import utc_now
from node.retention import Retention
from node.views import ImageKind
from storage.backup import back_up, holds_exams, restore, same_schema
from storage.database import installation_id, migrate, open_database, reading, schema_is_current, writing
from storage.errors import (
    BackupExists,
    BackupUnusable,
    BackupUnwritable,
    DatabaseEmpty,
    DatabaseUnavailable,
    SchemaUnknown,
)
from storage.states import ConflictState, DeliveryState, ExamState
from storage.tables import conflicts, deliveries, instances, jobs, metadata, patients
from tests.builders import altered
from tests.chain import PACS, QUIET, Chain, a_chain
from tests.databases import Databases, PostgreSQLDatabases, SQLiteDatabases
from tests.doors import phantom_images
from tests.pacs import waiting_results

KINDS = frozenset({ImageKind.FOR_PRESENTATION})


@pytest.fixture
def chain(tmp_path: Path, engine: Engine) -> Chain:
    return a_chain(tmp_path, engine)


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    return tmp_path / "backup.sqlite"


@pytest.fixture
def another(databases: Databases) -> Iterator[Engine]:
    """Another migrated database of the same kind."""
    opened = open_database(databases.fresh())
    yield opened
    opened.dispose()


def rows(engine: Engine) -> dict[str, list[Any]]:
    with reading(engine) as connection:
        return {
            table.name: sorted(map(repr, connection.execute(select(table)).all())) for table in metadata.sorted_tables
        }


def answer(chain: Chain) -> None:
    chain.clock.forward(QUIET.incomplete_quiet)
    chain.exam_clock().tick()
    while chain.worker().work_once():
        pass


def test_a_restored_database_is_the_one_that_was_backed_up(chain: Chain, backup: Path, another: Engine) -> None:
    chain.receive(phantom_images())
    waiting_results(chain.room.store, chain.room.engine, ["pacs", "ris"])
    with writing(chain.room.engine) as connection:
        connection.execute(update(jobs).values(timings=None))
    before = rows(chain.room.engine)
    back_up(chain.room.engine, backup)
    assert backup.stat().st_mode & 0o777 == 0o600
    assert [path for path in backup.parent.iterdir() if path.is_file()] == [backup]
    restore(another, backup, backup.parent)
    after = rows(another)
    assert {table: found for table, found in after.items() if found != before[table]} == {}
    assert installation_id(another) == installation_id(chain.room.engine)


def test_what_came_after_the_backup_is_adopted_and_answered(chain: Chain, backup: Path) -> None:
    engine = chain.room.engine
    chain.clock.now = utc_now()  # adoption goes by the times of files
    back_up(engine, backup)
    chain.receive(phantom_images())
    files = chain.room.files()
    restore(engine, backup, backup.parent)
    assert chain.room.rows() == (0, 0, 0)
    assert adopt(engine, chain.room.store, KINDS) == Adopted(4, 0)
    answer(chain)
    assert chain.exam.state is ExamState.ANSWERED
    assert len(chain.of_kind(ResultKind.SR)) == 1
    assert files <= chain.room.files()
    assert adopt(engine, chain.room.store, KINDS) == Adopted(0, 0)


def test_what_was_issued_after_the_backup_stays_until_the_results_of_its_exam_go(chain: Chain, backup: Path) -> None:
    first, *others = phantom_images()
    chain.clock.now = utc_now()  # adoption goes by the times of files
    chain.receive([first])
    back_up(chain.room.engine, backup)
    chain.receive(others)
    answer(chain)
    issued = {each.record.path for each in chain.issued()}
    restore(chain.room.engine, backup, chain.room.store.incoming)
    adopt(chain.room.engine, chain.room.store, KINDS)
    answer(chain)
    assert issued.isdisjoint(each.record.path for each in chain.issued())
    assert issued <= chain.room.files()
    chain.clock.forward(timedelta(days=31))
    policy = RetentionPolicy(results=timedelta(days=30), unproven=True)
    with writing(chain.room.engine) as connection:
        connection.execute(update(deliveries).values(state=DeliveryState.SENT, finished_at=chain.clock()))
    with capture_logs() as logs:
        Retention(chain.room.engine, chain.room.store, policy, chain.clock, destinations=[PACS]).tick()
    assert [line["unindexed"] for line in logs if line["event"] == "files removed"] == [len(issued)]
    assert not any(file.startswith("results") for file in chain.room.files())


def test_results_of_a_study_without_an_exam_are_told(chain: Chain, backup: Path) -> None:
    other = altered(phantom_images()[0], PatientID="ANOTHER", StudyInstanceUID="1.2.9", SOPInstanceUID="1.2.9.1")
    chain.receive([other])
    back_up(chain.room.engine, backup)
    chain.receive(phantom_images())
    answer(chain)
    for path in chain.room.files():
        if path.startswith(f"instances/{phantom_images()[0].StudyInstanceUID}"):
            chain.room.store.remove(path)
    restore(chain.room.engine, backup, chain.room.store.incoming)
    with capture_logs() as logs:
        adopt(chain.room.engine, chain.room.store, KINDS)
    [told] = [line for line in logs if line["event"] == "results of no exam"]
    assert told["path"].startswith(f"results/{phantom_images()[0].StudyInstanceUID}/")
    assert told["number"] == sum(path.startswith("results") and "/1.2.9/" not in path for path in issued_objects(chain))


def issued_objects(chain: Chain) -> set[str]:
    """Return the DICOM objects in the store."""
    return {path for path in chain.room.files() if path.endswith(".dcm")}


def test_an_image_is_adopted_as_of_the_time_at_which_it_was_written(chain: Chain, backup: Path) -> None:
    back_up(chain.room.engine, backup)
    chain.receive(phantom_images()[:1])
    restore(chain.room.engine, backup, backup.parent)
    adopt(chain.room.engine, chain.room.store, KINDS)
    [file] = (path for path in chain.room.files() if path.startswith("instances/"))
    with reading(chain.room.engine) as connection:
        [at] = connection.execute(select(instances.c.received_at)).scalars()
    assert at.timestamp() == pytest.approx(chain.room.store.resolve(file).stat().st_mtime, abs=0.001)


def test_a_copy_with_another_content_waits_for_a_decision_again(chain: Chain, backup: Path) -> None:
    [image, *_] = phantom_images()
    back_up(chain.room.engine, backup)
    chain.receive([image, altered(image, PatientID="OTHER")])
    restore(chain.room.engine, backup, backup.parent)
    adopt(chain.room.engine, chain.room.store, KINDS)
    assert chain.room.rows() == (1, 1, 1)
    assert chain.exam.held
    with reading(chain.room.engine) as connection:
        [found] = connection.execute(select(conflicts)).all()
    assert found.state == ConflictState.OPEN
    assert dcmread(chain.room.store.resolve(found.path)).PatientID == "OTHER"
    assert [path for path in chain.room.files() if path.startswith("conflicts")] == [found.path]
    assert adopt(chain.room.engine, chain.room.store, KINDS) == Adopted(0, 0)
    assert chain.room.rows() == (1, 1, 1)


def test_a_file_that_cannot_be_read_keeps_no_other_from_being_adopted(chain: Chain, backup: Path) -> None:
    back_up(chain.room.engine, backup)
    chain.receive(phantom_images())
    restore(chain.room.engine, backup, backup.parent)
    broken = chain.room.store.root / "instances" / "1.2" / "1.2.3"
    broken.mkdir(parents=True)
    (broken / "1.2.3.4.dcm").write_bytes(b"not DICOM")
    assert adopt(chain.room.engine, chain.room.store, KINDS) == Adopted(4, 1)
    assert (broken / "1.2.3.4.dcm").read_bytes() == b"not DICOM"
    assert list(chain.room.store.incoming.iterdir()) == []


def test_a_backup_is_one_moment_while_images_come_in(chain: Chain, tmp_path: Path) -> None:
    images = [
        altered(image, StudyInstanceUID=f"1.2.{study}", SOPInstanceUID=f"1.2.{study}.{number}", PatientID=str(study))
        for study in range(4)
        for number, image in enumerate(phantom_images())
    ]
    with ThreadPoolExecutor(1) as sender:
        sending = sender.submit(chain.receive, images)
        backups: list[Path] = []
        while not sending.done() or not backups:
            backups.append(tmp_path / f"{len(backups)}.sqlite")
            back_up(chain.room.engine, backups[-1])
        sending.result()
    counts = []
    for each in backups:
        engine = open_database(f"sqlite:///{each}")
        with reading(engine) as connection:
            assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
            counts.append(len(connection.execute(select(instances.c.uid)).all()))
        engine.dispose()
    assert counts == sorted(counts)
    assert counts[-1] <= len(images)


@pytest.mark.parametrize("into_postgresql", [True, False])
def test_a_backup_of_one_kind_of_database_fits_the_other(
    tmp_path: Path,
    backup: Path,
    sqlite_databases: SQLiteDatabases,
    postgresql_databases: PostgreSQLDatabases,
    *,
    into_postgresql: bool,
) -> None:
    source, target = open_database(sqlite_databases.fresh()), open_database(postgresql_databases.fresh())
    if not into_postgresql:
        source, target = target, source
    chain = a_chain(tmp_path, source)
    chain.receive(phantom_images())
    waiting_results(chain.room.store, source, ["pacs"])
    back_up(source, backup)
    restore(target, backup, tmp_path)
    assert rows(target) == rows(source)
    moved = a_chain(tmp_path, target)
    moved.receive([altered(phantom_images()[0], StudyInstanceUID="1.2.99", SOPInstanceUID="1.2.99.1")])
    assert moved.room.rows() == (6, 3, 0)
    source.dispose()
    target.dispose()


def test_a_backup_of_an_older_version_is_brought_up_to_date(
    sqlite_databases: SQLiteDatabases, engine: Engine, backup: Path
) -> None:
    old = open_database(sqlite_databases.empty())
    migrate(old, "0001")
    patient = {"issuer": "", "patient_id": "4711", "name": "Doe^Anne", "birth_date": "", "sex": "F"}
    with writing(old) as connection:
        connection.execute(insert(patients).values(patient))
    back_up(old, backup)
    assert not same_schema(engine, backup, backup.parent)
    restore(engine, backup, backup.parent)
    assert schema_is_current(engine)
    with reading(engine) as connection:
        assert connection.execute(select(patients.c.patient_id)).scalars().all() == ["4711"]
    assert installation_id(engine) == installation_id(old)
    old.dispose()


def test_going_back_takes_a_newer_schema_away(chain: Chain, backup: Path) -> None:
    engine = chain.room.engine
    chain.receive(phantom_images())
    back_up(engine, backup)
    assert same_schema(engine, backup, backup.parent)
    before = rows(engine)
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE of_tomorrow (exam_id INTEGER REFERENCES exams (id))"))
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert holds_exams(engine)
    assert not same_schema(engine, backup, backup.parent)
    restore(engine, backup, backup.parent)
    assert schema_is_current(engine)
    assert rows(engine) == before
    with reading(engine) as connection, pytest.raises(Exception, match="of_tomorrow"):
        connection.execute(text("SELECT * FROM of_tomorrow"))


def test_a_backup_of_a_newer_version_or_a_broken_one_changes_nothing(chain: Chain, backup: Path) -> None:
    engine = chain.room.engine
    chain.receive(phantom_images())
    before = rows(engine)
    back_up(engine, backup)
    newer = open_database(f"sqlite:///{backup}")
    with writing(newer) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    newer.dispose()
    with pytest.raises(SchemaUnknown):
        restore(engine, backup, backup.parent)
    whole = backup.read_bytes()
    backup.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BackupUnusable):
        restore(engine, backup, backup.parent)
    backup.write_bytes(b"no database")
    with pytest.raises(BackupUnusable):
        restore(engine, backup, backup.parent)
    assert rows(engine) == before


def test_a_full_disk_is_neither_a_database_that_does_not_answer_nor_a_damaged_backup(
    chain: Chain, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def on_a_full_disk(place: Any, *arguments: Any, **named: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(place, *arguments, **named)
        if full in str(place):
            connection.execute("PRAGMA max_page_count=10")
        return connection

    engine, full = chain.room.engine, "/.mammonode-backup-"
    with monkeypatch.context() as patch:
        for module in (sqlite3, sqlite3.dbapi2):
            patch.setattr(module, "connect", on_a_full_disk)
        with pytest.raises(BackupUnwritable, match=rf"{backup}: database or disk is full"):
            back_up(engine, backup)
        assert not list(backup.parent.glob(".mammonode-backup-*"))
    back_up(engine, backup)
    full = "/backup.sqlite"  # of the copy
    other = backup.rename(backup.with_name("other"))
    monkeypatch.setattr(sqlite3, "connect", on_a_full_disk)
    with pytest.raises(DatabaseUnavailable, match="disk is full"):
        restore(engine, other, backup.parent)


def test_what_a_killed_backup_has_left_goes_with_the_next_and_what_is_being_made_stays(
    chain: Chain, backup: Path
) -> None:
    begun = time.time() - timedelta(hours=13).total_seconds()
    for name in ("killed", "at work"):
        folder = backup.with_name(f".mammonode-backup-{name}")
        folder.mkdir()
        for part in ("part", "part-wal"):
            (folder / part).write_bytes(b"SQLite")
            os.utime(folder / part, (begun, begun))
        os.utime(folder, (begun, begun))
    os.utime(folder / "part-wal")
    back_up(chain.room.engine, backup)
    assert {path.name for path in backup.parent.glob(".mammonode-backup-*")} == {folder.name}
    assert backup.stat().st_mode & 0o777 == 0o600


def test_a_backup_overwrites_nothing_and_is_never_of_nothing(
    databases: Databases, engine: Engine, backup: Path
) -> None:
    backup.write_bytes(b"other")
    with pytest.raises(BackupExists):
        back_up(engine, backup)
    assert backup.read_bytes() == b"other"
    with pytest.raises(BackupUnwritable, match=r"nowhere.*No such file"):
        back_up(engine, backup.parent / "nowhere" / backup.name)
    empty = open_database(databases.empty())
    with pytest.raises(DatabaseEmpty):
        back_up(empty, backup.with_name("new"))
    assert not holds_exams(empty)
    empty.dispose()
