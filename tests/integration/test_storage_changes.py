"""Whether anything was committed, told by SQLite; and loops that rest until it is so."""

import threading
from collections.abc import Callable
from threading import Event

import pytest
from sqlalchemy import Engine, insert

from node.pace import LOOKS, Pace
from storage.changes import Changes
from storage.database import open_database, reading, writing
from storage.tables import patients
from tests.databases import SQLiteDatabases

pytestmark = pytest.mark.sqlite_alone


@pytest.fixture
def commit(engine: Engine) -> Callable[[str], None]:
    def add(number: str) -> None:
        with writing(engine) as connection:
            connection.execute(insert(patients).values(issuer="", patient_id=number, name="", birth_date="", sex="F"))

    return add


def test_a_commit_is_told_by_every_one_that_looks(engine: Engine, commit: Callable[[str], None]) -> None:
    one, other = Changes(engine), Changes(engine)
    before = one.version(), other.version()
    with reading(engine):
        pass
    assert (one.version(), other.version()) == before
    commit("1")
    first = one.version(), other.version()
    assert first[0] != before[0]
    assert first[1] != before[1]
    assert (one.version(), other.version()) == first
    one.close()
    other.close()


def test_what_is_not_committed_is_not_told_and_nobody_is_held_up(engine: Engine, commit: Callable[[str], None]) -> None:
    changes = Changes(engine)
    before = changes.version()
    with writing(engine) as connection:
        connection.execute(insert(patients).values(issuer="", patient_id="1", name="", birth_date="", sex="F"))
        assert changes.version() == before
    assert changes.version() != before
    commit("2")
    changes.close()


def test_a_commit_of_another_process_is_told(sqlite_databases: SQLiteDatabases) -> None:
    url = sqlite_databases.fresh()
    changes, theirs = Changes(open_database(url)), open_database(url)  # SQLite knows connections, not processes
    before = changes.version()
    with writing(theirs) as connection:
        connection.execute(insert(patients).values(issuer="", patient_id="1", name="", birth_date="", sex="F"))
    assert changes.version() != before
    changes.close()


def test_a_database_that_cannot_tell_is_looked_at_every_time(engine: Engine) -> None:
    changes = Changes(engine)
    changes.close()
    assert changes.version() is None
    for pace in (Pace(changes), Pace()):
        stopping = CountingEvent()
        for _ in range(3):
            pace.rest(stopping, 0)
        assert stopping.waits == 3


class CountingEvent(Event):
    """Counts how often it was waited for."""

    waits = 0

    def wait(self, timeout: float | None = None) -> bool:
        """Wait."""
        self.waits += 1
        return super().wait(timeout)


class Counting(Changes):
    """Gives numbers, and counts how often it was asked."""

    def __init__(self, versions: list[int]) -> None:
        self.versions, self.asked = versions, 0

    def version(self) -> int:
        """Return the next; the last for ever."""
        self.asked += 1
        return self.versions[min(self.asked, len(self.versions)) - 1]


@pytest.mark.parametrize(
    ("versions", "rests"),
    [([1], [1, LOOKS, LOOKS]), ([1, 2, 3], [1, 1, 1, LOOKS]), ([1, 1, 1, 2], [1, 3, LOOKS])],
)
def test_a_loop_rests_until_something_was_committed_but_not_for_ever(versions: list[int], rests: list[int]) -> None:
    changes = Counting(versions)
    pace, found = Pace(changes), []
    for _ in rests:
        before = changes.asked
        pace.rest(Event(), 0)
        found.append(changes.asked - before)
    assert found == rests


def test_a_loop_that_is_to_stop_does_not_rest() -> None:
    stopping = Event()
    threading.Timer(0.1, stopping.set).start()
    Pace(Counting([1])).rest(stopping, 60)
    assert stopping.is_set()
