"""What all tests share: Hypothesis profiles, and a fresh database of each kind."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine

from storage.database import open_database
from tests.databases import BACKENDS, Databases, PostgreSQLDatabases, SQLiteDatabases, embedded_postgresql
from tests.logs import logging_as_it_was

__all__ = ["logging_as_it_was"]

if TYPE_CHECKING:
    from node.scp import StorageSCP
    from tests.doors import Room

settings.register_profile(
    "short",
    max_examples=20,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile(
    "long",
    settings.get_profile("short"),
    max_examples=300,
    stateful_step_count=50,
    derandomize=True,
)
settings.load_profile(os.environ.get("MAMMONODE_TEST_PROFILE", "short"))


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors, four at most: many tests wait for a process, a browser or a clock."""
    return min((os.cpu_count() or 1) + 1, 4)


@pytest.fixture(scope="session")
def sqlite_databases(tmp_path_factory: pytest.TempPathFactory) -> SQLiteDatabases:
    return SQLiteDatabases(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(scope="session")
def postgresql_databases() -> Iterator[PostgreSQLDatabases]:
    with embedded_postgresql() as url:
        yield PostgreSQLDatabases(url)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Two threads wait for each other on a busy machine, and the networks of tests are small."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Ask both databases, or SQLite alone where that is what a test or its module is marked with."""
    if "databases" in metafunc.fixturenames:
        alone = metafunc.definition.get_closest_marker("sqlite_alone")
        metafunc.parametrize("databases", ["sqlite"] if alone else BACKENDS, indirect=True)


@pytest.fixture
def databases(request: pytest.FixtureRequest) -> Databases:
    """Those that a test is asked on."""
    found: Databases = request.getfixturevalue(f"{request.param}_databases")
    return found


@pytest.fixture
def engine(databases: Databases) -> Iterator[Engine]:
    """A fresh, migrated database."""
    opened = open_database(databases.fresh())
    yield opened
    opened.dispose()


@pytest.fixture
def room(tmp_path: Path, engine: Engine) -> "Room":
    """An empty store with its database."""
    from tests.doors import a_room

    return a_room(tmp_path, engine)


@pytest.fixture
def door(room: "Room") -> Iterator["StorageSCP"]:
    """The DICOM door of the room, which MODALITY may knock at."""
    from tests.doors import an_open_door

    with an_open_door(room) as opened:
        yield opened
