"""The index on both databases, and how file and row come to stand together."""

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlalchemy.exc import StatementError

from storage.archive import keep
from storage.database import open_database, reading, writing
from storage.files import FolderStore, InstanceStore
from storage.index import (
    ConflictRecord,
    InstanceRecord,
    SeriesRecord,
    add_conflict,
    add_instance,
    conflicts_of_instance,
    find_instance,
    instances_of_exam,
)
from storage.patients import PatientRecord
from tests.databases import wipe
from tests.records import ANNE, NOON, SECOND, a_file, an_exam, an_instance


@pytest.fixture
def store(tmp_path: Path) -> InstanceStore:
    store = FolderStore(tmp_path / "store")
    store.prepare()
    return store


def found(engine: Engine, uid: str = "1.2.3.1.1") -> InstanceRecord | None:
    with reading(engine) as connection:
        return find_instance(connection, uid)


def add(engine: Engine, record: InstanceRecord) -> bool:
    with writing(engine) as connection:
        return add_instance(connection, record)


def test_what_is_indexed_is_found_unchanged(engine: Engine) -> None:
    assert found(engine) is None
    assert add(engine, an_instance())
    assert found(engine) == an_instance()


def test_the_same_uid_is_indexed_once_and_the_first_record_stays(engine: Engine) -> None:
    add(engine, an_instance())
    assert not add(engine, an_instance(digest="ef" * 32))
    assert found(engine) == an_instance()


def test_the_text_of_the_first_arrival_stays(engine: Engine) -> None:
    add(engine, an_instance())
    add(engine, an_instance("1.2.3.1.2", patient=replace(ANNE, name="Roe^Anne"), series=SeriesRecord("1.2.3.1", "XX")))
    second = found(engine, "1.2.3.1.2")
    assert second is not None
    assert (second.patient, second.series) == (ANNE, an_instance().series)


def test_one_study_uid_under_two_patients_gives_two_exams(engine: Engine) -> None:
    other = PatientRecord("HOSPITAL", "4712")
    exam = an_exam(engine)
    assert add(engine, an_instance("1.2.3.1.2", patient=other))
    with reading(engine) as connection:
        assert [record.uid for record in instances_of_exam(connection, exam.id)] == ["1.2.3.1.1"]
    second = found(engine, "1.2.3.1.2")
    assert second is not None
    assert second.patient == other


def test_one_series_uid_in_two_studies_keeps_both_instances(engine: Engine) -> None:
    add(engine, an_instance())
    add(engine, an_instance("1.2.4.1.1", study="1.2.4", series=SeriesRecord("1.2.3.1")))
    second = found(engine, "1.2.4.1.1")
    assert second is not None
    assert second.study.uid == "1.2.4"


def test_times_come_back_in_utc_from_any_zone(engine: Engine) -> None:
    tokyo = NOON.astimezone(timezone(timedelta(hours=9)))
    add(engine, an_instance(received_at=tokyo))
    record = found(engine)
    assert record is not None
    assert (record.received_at, record.received_at.utcoffset()) == (NOON, timedelta(0))


def test_a_naive_time_is_a_mistake_of_ours(engine: Engine) -> None:
    with pytest.raises(StatementError, match="naive"):
        add(engine, an_instance(received_at=datetime(2026, 3, 4)))  # noqa: DTZ001


@given(name=st.text(), patient_id=st.text(max_size=64))
def test_any_text_of_a_header_can_be_indexed(engine: Engine, name: str, patient_id: str) -> None:
    wipe(engine)
    add(engine, an_instance(patient=PatientRecord("", patient_id, name)))
    record = found(engine)
    assert record is not None
    kept = name.replace("\0", "").encode("utf-8", "replace").decode()
    assert record.patient.name == kept


def test_conflicts_are_listed_in_order_of_arrival(engine: Engine) -> None:
    add(engine, an_instance())
    records = [
        ConflictRecord(
            "1.2.3.1.1", f"conflicts/{n}.dcm", NOON + n * SECOND, "MODALITY", f"{n}" * 64, n == 2, ("PatientID",)
        )
        for n in (1, 2)
    ]
    with writing(engine) as connection:
        for record in records:
            add_conflict(connection, record)
    with reading(engine) as connection:
        assert conflicts_of_instance(connection, "1.2.3.1.1") == records


def test_a_kept_instance_has_its_file_and_its_row(engine: Engine, store: InstanceStore) -> None:
    with writing(engine) as connection:
        assert keep(connection, store, a_file(store.incoming), an_instance())
    record = found(engine)
    assert record is not None
    assert store.resolve(record.path).read_bytes() == b"DICM"


def test_an_indexed_file_is_never_replaced(engine: Engine, store: InstanceStore) -> None:
    with writing(engine) as connection:
        keep(connection, store, a_file(store.incoming, b"first"), an_instance())
    second = a_file(store.incoming, b"second")
    with writing(engine) as connection:
        assert not keep(connection, store, second, an_instance())
    assert store.resolve(an_instance().path).read_bytes() == b"first"
    assert second.exists()


def keep_and_lose_power(url: str, root: Path) -> None:
    store = FolderStore(root)
    with writing(open_database(url)) as connection:
        keep(connection, store, a_file(store.incoming, b"half"), an_instance())
        os._exit(9)


def test_a_crash_between_link_and_commit_is_mended_by_the_next_send(engine: Engine, store: InstanceStore) -> None:
    url = engine.url.render_as_string(hide_password=False)
    process = multiprocessing.get_context("spawn").Process(target=keep_and_lose_power, args=(url, store.root))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert store.resolve(an_instance().path).read_bytes() == b"half"
    assert found(engine) is None
    with writing(engine) as connection:
        assert keep(connection, store, a_file(store.incoming, b"whole"), an_instance())
    assert found(engine) is not None
    assert store.resolve(an_instance().path).read_bytes() == b"whole"


def test_of_senders_of_one_uid_at_once_exactly_one_is_kept(engine: Engine, store: InstanceStore) -> None:
    def send(number: int) -> bool:
        temp = a_file(store.incoming, f"sender {number}".encode(), f"received{number}")
        record = an_instance(digest=f"{number}" * 64)
        store.flush(temp)
        with writing(engine) as connection:
            return keep(connection, store, temp, record)

    with ThreadPoolExecutor(8) as senders:
        kept = list(senders.map(send, range(8)))
    assert kept.count(True) == 1
    record = found(engine)
    assert record is not None
    # File and row are of the same sender.
    assert record.digest == f"{kept.index(True)}" * 64
    assert store.resolve(record.path).read_bytes() == f"sender {kept.index(True)}".encode()
