"""A database that is damaged, or refuses this node: told so in words without values, found by a look, restored over."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, text
from sqlalchemy.exc import IntegrityError

from storage.backup import back_up, restore
from storage.changes import changes_of
from storage.database import installation_id, open_database, reading, schema_is_current, takes_writes, writing
from storage.errors import DatabaseDamaged, DatabaseRefuses, DatabaseUnavailable
from storage.soundness import is_whole, try_writing
from storage.tables import patients
from tests.databases import PostgreSQLDatabases, SQLiteDatabases

NAME = "Secret^Anne"


@pytest.fixture
def file(sqlite_databases: SQLiteDatabases) -> Path:
    """A database's file."""
    return Path(sqlite_databases.fresh().removeprefix("sqlite:///"))


def overwritten(data: bytes) -> bytes:
    return b"no database" + data[11:]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def holed(data: bytes) -> bytes:
    return data[:-4096] + b"\xff" * 4096


@pytest.mark.parametrize("damage", [overwritten, cut])
def test_a_damaged_database_is_told_as_such_and_a_backup_is_restored_over_it(
    damage: Callable[[bytes], bytes], file: Path, tmp_path: Path
) -> None:
    engine = open_database(f"sqlite:///{file}")
    backup = tmp_path / "backup.sqlite"
    back_up(engine, backup)
    uid = installation_id(engine)
    engine.dispose()
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DatabaseDamaged, match="mammonode restore"):
        schema_is_current(engine)
    with pytest.raises(DatabaseDamaged), writing(engine):
        pass
    with pytest.raises(DatabaseDamaged):
        is_whole(engine)
    with pytest.raises(DatabaseDamaged):
        back_up(engine, tmp_path / "another.sqlite")
    damaged = file.read_bytes()
    restore(engine, backup, tmp_path)
    assert installation_id(engine) == uid
    assert file.stat().st_mode & 0o777 == 0o600
    [aside] = file.parent.glob(f"{file.name}.damaged-*Z")
    assert aside.read_bytes() == damaged
    engine.dispose()


def test_damage_that_opening_does_not_meet_is_found_by_a_look_at_all(file: Path, tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{file}")
    assert is_whole(engine)
    engine.dispose()
    file.write_bytes(holed(file.read_bytes()))
    assert schema_is_current(engine)
    with pytest.raises(DatabaseDamaged):
        is_whole(engine)
    with pytest.raises(DatabaseDamaged):
        back_up(engine, tmp_path / "backup.sqlite")
    engine.dispose()


def test_a_look_that_takes_too_long_ends(file: Path) -> None:
    engine = open_database(f"sqlite:///{file}")
    with writing(engine) as connection:
        # A look through each row takes some 0.1 s, and keeping it none.
        connection.execute(text("PRAGMA ignore_check_constraints=1"))
        connection.execute(
            text("CREATE TABLE slow (size INT CHECK (length(replace(hex(zeroblob(size)), '0', 'ab')) > 0))")
        )
        connection.execute(text("INSERT INTO slow VALUES (:size)"), [{"size": 5_000_000}] * 100)
    assert not is_whole(engine, 0.2)
    engine.dispose()


def test_a_damaged_file_is_told_by_whoever_waits_for_changes(file: Path) -> None:
    engine = open_database(f"sqlite:///{file}")
    engine.dispose()
    file.write_bytes(overwritten(file.read_bytes()))
    with pytest.raises(DatabaseDamaged):
        changes_of(engine)


def test_a_database_that_lets_this_node_not_write_says_so(engine: Engine) -> None:
    try_writing(engine)
    forbid = "PRAGMA query_only = 1" if engine.dialect.name == "sqlite" else "SET TRANSACTION READ ONLY"

    def write() -> None:
        with writing(engine) as connection:
            connection.execute(text(forbid))
            connection.execute(insert(patients), {"patient_id": NAME, "issuer": ""})

    with pytest.raises(DatabaseRefuses):
        write()


def test_a_standby_refuses_what_is_written_on_whatever_connection(
    postgresql_databases: PostgreSQLDatabases,
) -> None:
    url = postgresql_databases.fresh()
    standby = open_database(f"{url}&options=-cdefault_transaction_read_only%3Don")
    try:
        # To be read leaves the connection as it was: "BEGIN READ WRITE" is an error of another kind on a standby.
        installation_id(standby)
        assert not takes_writes(standby)
        with pytest.raises(DatabaseRefuses), writing(standby) as connection:
            connection.execute(insert(patients), {"patient_id": NAME, "issuer": ""})
    finally:
        standby.dispose()


def test_a_database_that_is_no_standby_takes_writes(engine: Engine) -> None:
    assert takes_writes(engine)
    installation_id(engine)
    assert takes_writes(engine)


def test_a_user_without_rights_is_told_so(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("has no users")

    def look() -> None:
        with reading(engine) as connection:
            connection.execute(text("SET LOCAL ROLE pg_monitor"))
            connection.execute(text("SELECT * FROM exams"))

    with pytest.raises(DatabaseRefuses, match="permission denied"):
        look()


def test_a_missing_table_is_no_fault_of_the_program_on_either_database(engine: Engine) -> None:
    with pytest.raises(DatabaseUnavailable), reading(engine) as connection:
        connection.execute(text("SELECT * FROM nowhere"))


def test_a_row_that_breaks_a_rule_is_told_without_its_values(engine: Engine) -> None:
    row = {"patient_id": NAME, "issuer": ""}
    with pytest.raises(IntegrityError) as error, writing(engine) as connection:
        connection.execute(insert(patients), [{"id": 1} | row, {"id": 1} | row])
    words = str(error.value).replace(str(error.value.orig), "")
    assert "INSERT" in words
    assert NAME not in words
