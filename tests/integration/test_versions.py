"""Several versions at one database: who brings the schema up to date, and what the others do then."""

import os
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from ai.models import open_model
from node.parts import bring_up_to_date
from node.shared_clock import SharedClock
from node.working import Presence
from storage import holding
from storage.database import (
    migrate,
    newest_revision,
    open_database,
    require_schema,
    schema_is_current,
    schema_is_older,
    writing,
)
from storage.errors import DatabaseServed, SchemaUnknown
from storage.holding import Seat, held, served_by
from storage.states import ExamState, JobState
from tests.chain import a_chain, four
from tests.databases import Databases, PostgreSQLDatabases
from tests.peers import eventually

FORMER = "0015"


def put(engine: Engine, revision: str) -> None:
    """Let another version be the one that the schema is of."""
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


def test_nobody_brings_a_database_up_to_date_under_a_serve_of_the_former_version(
    postgresql_databases: PostgreSQLDatabases,
) -> None:
    engine = open_database(postgresql_databases.empty())
    migrate(engine, FORMER)
    with closing(Seat(engine)) as seat:
        assert seat.holder() == ""
        with pytest.raises(DatabaseServed, match=f"process {os.getpid()}"):
            bring_up_to_date(engine)
        assert schema_is_older(engine)
    assert eventually(lambda: not served_by(engine))
    bring_up_to_date(engine)
    assert (schema_is_current(engine), schema_is_older(engine)) == (True, False)
    with closing(Seat(engine)) as seat:
        assert seat.holder() == ""
        bring_up_to_date(engine)  # of one version there may be as many processes as one likes
        put(engine, "9999")
        with pytest.raises(SchemaUnknown):  # and whoever is older says that, whoever serves
            bring_up_to_date(engine)
    engine.dispose()


def test_nobody_brings_a_sqlite_file_up_to_date_under_a_serve_of_the_former_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'node.sqlite'}"
    engine = open_database(url)
    migrate(engine, FORMER)
    with ExitStack() as former:
        with monkeypatch.context() as patched:
            patched.setattr(holding, "newest_revision", lambda: FORMER)
            former.enter_context(held(tmp_path, url))
        with pytest.raises(DatabaseServed, match=f"process {os.getpid()} of"):
            bring_up_to_date(engine)
        assert schema_is_older(engine)
    with held(tmp_path, url):  # as `serve` itself does first
        bring_up_to_date(engine)
    assert (schema_is_current(engine), served_by(engine)) == (True, "")
    engine.dispose()


def test_whoever_has_stopped_keeps_nobody_from_bringing_a_sqlite_file_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'node.sqlite'}"
    engine = open_database(url)
    migrate(engine, FORMER)
    with monkeypatch.context() as patched:
        patched.setattr(holding, "newest_revision", lambda: FORMER)
        with held(tmp_path, url):
            pass
    bring_up_to_date(engine)
    assert schema_is_current(engine)
    engine.dispose()


def test_an_empty_database_is_neither_older_nor_current(databases: Databases) -> None:
    engine = open_database(databases.empty())
    assert (schema_is_current(engine), schema_is_older(engine), served_by(engine)) == (False, False, "")
    engine.dispose()


@pytest.mark.parametrize("revision", [FORMER, "9999"])
def test_whoever_began_with_another_schema_is_told(engine: Engine, revision: str) -> None:
    require_schema(engine)
    put(engine, revision)
    with pytest.raises(SchemaUnknown, match=f"its schema is {revision}"):
        require_schema(engine)


def test_a_worker_reads_nothing_and_is_not_at_work_while_another_version_has_the_database(
    tmp_path: Path, engine: Engine
) -> None:
    chain = a_chain(tmp_path, engine)
    chain.close(four())
    presence = Presence(engine, open_model("mass-fpn-boxes"), "cpu", SharedClock(engine))
    put(engine, "9999")
    with pytest.raises(SchemaUnknown):
        chain.worker().work_once()
    with pytest.raises(SchemaUnknown):
        presence.tell()
    assert (chain.job.state, chain.job.attempts) == (JobState.QUEUED, 0)
    put(engine, newest_revision())
    presence.tell()
    assert chain.worker().work_once()
    assert chain.exam.state is ExamState.ANSWERED
